"""What a write carries on its way from the wire to the head: label sets as byte ranges, samples as columns.

A known series costs no Python object on this way: its label bytes stay where they were received, with their hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tsdb.kernel.append import NOTHING_KNOWN, KnownLabels
from tsdb.kernel.hash import hash_bytes
from tsdb.model.histogram import Histograms
from tsdb.model.labels import Labels

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HistogramSamples:
    """h histogram samples: row i32[h] of the batch's series, t_ms i64[h], start_ms i64[h] (0 = unknown), and the values."""

    row: I32
    t_ms: I64
    start_ms: I64
    histograms: Histograms


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One traced observation of the series in `row` of its batch."""

    row: int
    labels: Labels
    value: float
    t_ms: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a metric family is: `kind` is Prometheus's word ("counter", "gauge", "histogram", … "unknown")."""

    metric: str
    kind: str
    help: str
    unit: str


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """Series that a head has taken before, to be read without its lock; `owner` tells its numbering of them from any other."""

    labels: KnownLabels
    owner: object


NO_SERIES = KnownSeries(NOTHING_KNOWN, None)


@dataclass(frozen=True, slots=True)
class KnownRefs:
    """Which series those of a batch are in the numbering of an owner: refs i32[n], -1 = not known."""

    refs: I32
    owner: object


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """n series and their m float samples, in the order of arrival.

    Series i has the canonical label bytes (see `tsdb.model.labels`) label_bytes[start[i]:end[i]] and their hash[i]
    (`tsdb.kernel.hash.hash_bytes`). Sample j is of series row[j], i32[m]; t_ms i64[m]; values f64[m];
    start_ms i64[m] start timestamps or None where none was sent.
    """

    label_bytes: U8
    start: I64
    end: I64
    hash: U64
    row: I32
    t_ms: I64
    values: F64
    start_ms: I64 | None = None
    histograms: HistogramSamples | None = None
    exemplars: tuple[Exemplar, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    known: KnownRefs | None = None

    @classmethod
    def of(cls, series: Sequence[Labels], *, row: I32, t_ms: I64, values: F64) -> "WriteBatch":
        """A batch of label sets and samples made in the process itself (own metrics, DataFrames, tests)."""
        keys = [labels.encode() for labels in series]
        label_bytes = np.frombuffer(b"".join(keys), np.uint8)
        end = np.cumsum([len(key) for key in keys], dtype=np.int64)
        start = end - np.array([len(key) for key in keys], np.int64)
        hashes = np.fromiter((hash_bytes(label_bytes, a, b) for a, b in zip(start, end, strict=True)), np.uint64, len(keys))
        return cls(label_bytes, start, end, hashes, row, t_ms, values)

    def __len__(self) -> int:
        return len(self.start)

    def take(self, series: npt.NDArray[np.integer]) -> "WriteBatch":
        """The samples of the chosen series only; label bytes are shared. Metadata stays whole."""
        to = np.full(len(self), -1, np.int32)
        to[series] = np.arange(len(series), dtype=np.int32)
        keep = to[self.row] >= 0
        return replace(
            self,
            start=self.start[series],
            end=self.end[series],
            hash=self.hash[series],
            row=to[self.row[keep]],
            t_ms=self.t_ms[keep],
            values=self.values[keep],
            start_ms=None if self.start_ms is None else self.start_ms[keep],
            histograms=None if self.histograms is None else _take_histograms(self.histograms, to),
            exemplars=tuple(replace(e, row=int(to[e.row])) for e in self.exemplars if to[e.row] >= 0),
            known=None if self.known is None else replace(self.known, refs=self.known.refs[series]),
        )


@dataclass(slots=True)
class PushResult:
    """What became of a write: counts of what is stored (equal duplicates count as stored), and why the rest is not.

    `rejected` maps a reason ("out-of-order", "duplicate-timestamp", "too-old", "too-far-in-future", "series-limit", …) to a count;
    `message` is the first rejection in words, with the series, the value and the limit.
    """

    samples: int = 0
    histograms: int = 0
    exemplars: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    message: str = ""

    def reject(self, reason: str, count: int, message: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + count
        self.message = self.message or message


def concat_writes(batches: Sequence[WriteBatch]) -> WriteBatch:
    """The series and float samples of all batches, one after another; they carry nothing else. Copies the label bytes."""
    if len(batches) == 1:
        return batches[0]
    bytes_before = np.cumsum([0, *(len(batch.label_bytes) for batch in batches)])
    series_before = np.cumsum([0, *(len(batch) for batch in batches)])
    return WriteBatch(
        np.concatenate([batch.label_bytes for batch in batches]),
        np.concatenate([batch.start + shift for batch, shift in zip(batches, bytes_before, strict=False)]),
        np.concatenate([batch.end + shift for batch, shift in zip(batches, bytes_before, strict=False)]),
        np.concatenate([batch.hash for batch in batches]),
        np.concatenate([batch.row + np.int32(shift) for batch, shift in zip(batches, series_before, strict=False)]),
        np.concatenate([batch.t_ms for batch in batches]),
        np.concatenate([batch.values for batch in batches]),
        known=_concat_known([batch.known for batch in batches]),
    )


def _concat_known(parts: Sequence[KnownRefs | None]) -> KnownRefs | None:
    """The refs of all parts if they are of one owner."""
    owner = parts[0].owner if parts[0] is not None else None
    refs = [part.refs for part in parts if part is not None and part.owner is owner]
    return KnownRefs(np.concatenate(refs), owner) if len(refs) == len(parts) else None


def _take_histograms(samples: HistogramSamples, to: I32) -> HistogramSamples | None:
    keep = np.flatnonzero(to[samples.row] >= 0)
    if len(keep) == 0:
        return None
    return HistogramSamples(to[samples.row[keep]], samples.t_ms[keep], samples.start_ms[keep], samples.histograms.take(keep))

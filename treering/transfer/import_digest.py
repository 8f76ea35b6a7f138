"""Counts and checksums of samples, series by series: whether what is read back is what was written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesBatch, SeriesTable

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Digest:
    """What was read: how many samples, and of each series, by a hash of its labels, their number and the sum of their hashes.

    A series may come in many batches; the order does not matter. 24 bytes a series of each batch.
    """

    samples: int = 0
    parts: list[tuple[U64, I64, U64]] = field(default_factory=list)

    def add(self, batch: SeriesBatch) -> None:
        """Count the samples of a batch."""
        self.samples += batch.samples
        self.parts.append((_label_hashes(batch.series), np.diff(batch.offsets), _sums(batch)))

    @property
    def series(self) -> int:
        """How many series there are."""
        return len(self._table()[0])

    def compare(self, found: "Digest") -> str:
        """Where another differs, in words; "" if it does not."""
        if self.samples != found.samples:
            return f"{found.samples} samples, {self.samples} were written"
        mine, other = self._table(), found._table()
        if not np.array_equal(mine[0], other[0]):
            return f"{len(other[0])} series that are not the {len(mine[0])} that were written"
        wrong = int(np.count_nonzero((mine[1] != other[1]) | (mine[2] != other[2])))
        return f"{wrong} of {len(mine[0])} series have other samples than were written" if wrong else ""

    def _table(self) -> tuple[U64, I64, U64]:
        """(label hash, samples, sum of hashes) of each series, by rising hash."""
        if not self.parts:
            return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint64)
        key, counts, sums = (np.concatenate(columns) for columns in zip(*self.parts, strict=True))
        order = np.argsort(key, kind="stable")
        fresh = np.flatnonzero(np.concatenate([[True], np.diff(key[order]) != 0])) if len(key) else np.empty(0, np.int64)
        if len(fresh) == 0:
            return key, counts, sums
        return key[order][fresh], np.add.reduceat(counts[order], fresh), np.add.reduceat(sums[order], fresh)


def digest_of(batches: Iterator[SeriesBatch]) -> Digest:
    """The digest of all batches."""
    digest = Digest()
    for batch in batches:
        digest.add(batch)
    return digest


def _label_hashes(series: SeriesTable) -> U64:
    """u64[n]: equal for equal labels, whatever the table's symbols are. Costs one hash of each symbol that the rows use."""
    used = np.unique(series.ids[series.ids >= 0])
    texts = np.zeros(len(series.symbols) + 1, np.uint64)
    texts[used] = _text_hashes(series.symbols[used].tolist())
    total = np.zeros(len(series), np.uint64)
    for name, ids in zip(_text_hashes(series.names), series.ids, strict=True):
        total += np.where(ids >= 0, _mix(texts[ids] ^ name), np.uint64(0))
    return total


def _text_hashes(texts: Sequence[str]) -> U64:
    digests = (int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) for text in texts)
    return np.fromiter(digests, np.uint64, len(texts))


def _sums(batch: SeriesBatch) -> U64:
    """u64[n] the sums of the samples' hashes."""
    words = _mix(batch.t_ms.view(np.uint64)) + np.ascontiguousarray(batch.values).view(np.uint64)
    if batch.histograms is not None and batch.histogram_at is not None:
        native = batch.histogram_at >= 0
        content = np.append(_histogram_hash(batch.histograms), np.uint64(0))
        words = np.where(native, _mix(batch.t_ms.view(np.uint64)) + content[batch.histogram_at], words)
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mix(words), dtype=np.uint64)])
    return np.asarray(totals[batch.offsets[1:]] - totals[batch.offsets[:-1]])


def _histogram_hash(h: Histograms) -> U64:
    """u64[h] of all that a histogram says."""
    total = h.schema.astype(np.int64).view(np.uint64) * np.uint64(31) + h.hint.astype(np.uint64)
    for column in (h.count, h.sum, h.zero_threshold, h.zero_count):
        total = _mix(total + np.ascontiguousarray(column).view(np.uint64))
    for side in (h.positive, h.negative):
        cells = _mix(side.index.astype(np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + side.counts.view(np.uint64))
        total = _mix(total + _ragged_sums(cells, side.offsets))
    return _mix(total + _ragged_sums(_mix(h.bounds.view(np.uint64)), h.bounds_offsets))


def _ragged_sums(words: U64, offsets: npt.NDArray[np.int64]) -> U64:
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
    return np.asarray(totals[offsets[1:]] - totals[offsets[:-1]])


def _mix(words: U64) -> U64:
    x = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))

"""Native histograms as a struct of arrays: one more value column, never a second family of methods.

Bucket i of schema s in 0..8 (or -4..-1) spans (base^(i-1), base^i] with base = 2^(2^-s), mirrored for the negative side;
schema -53 has custom bounds: bucket i spans (bounds[i-1], bounds[i]], the first from -Inf and one more after the last
bound up to +Inf. Counts are absolute (neither deltas nor cumulative) and floats: exact for integers below 2^53.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CUSTOM_BUCKETS_SCHEMA = -53
MIN_SCHEMA, MAX_SCHEMA = -4, 8

UNKNOWN_RESET, COUNTER_RESET, NOT_COUNTER_RESET, GAUGE = 0, 1, 2, 3
"""Counter reset hints, numbered as on the wire."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of one side of n histograms, ragged: those of histogram i are rows offsets[i]:offsets[i+1].

    offsets i64[n+1]; index i32[b] strictly rising inside a histogram; counts f64[b]. A bucket that is not listed is 0.
    """

    offsets: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    counts: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, size: int) -> "Buckets":
        return cls(np.zeros(size + 1, np.int64), np.empty(0, np.int32), np.empty(0))

    def take(self, rows: npt.NDArray[np.integer]) -> "Buckets":
        offsets, at = ragged(self.offsets, rows)
        return Buckets(offsets, self.index[at], self.counts[at])

    def where(self, keep: npt.NDArray[np.bool_]) -> "Buckets":
        """The same histograms with only the buckets that bool[b] says."""
        if keep.all():
            return self
        before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        return Buckets(before[self.offsets], self.index[keep], self.counts[keep])


@dataclass(frozen=True, slots=True)
class Histograms:
    """n native histograms.

    schema i8[n]; hint u8[n] (counter reset hint); integer bool[n] (came as an integer histogram);
    count, sum, zero_threshold, zero_count f64[n]; positive and negative buckets;
    custom bounds ragged: those of histogram i are bounds[bounds_offsets[i]:bounds_offsets[i+1]].
    """

    schema: npt.NDArray[np.int8]
    hint: npt.NDArray[np.uint8]
    integer: npt.NDArray[np.bool_]
    count: npt.NDArray[np.float64]
    sum: npt.NDArray[np.float64]
    zero_threshold: npt.NDArray[np.float64]
    zero_count: npt.NDArray[np.float64]
    positive: Buckets
    negative: Buckets
    bounds_offsets: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.float64]

    @classmethod
    def empty(cls) -> "Histograms":
        none = np.empty(0)
        return cls(
            np.empty(0, np.int8), np.empty(0, np.uint8), np.empty(0, bool), none, none, none, none,
            Buckets.empty(0), Buckets.empty(0), np.zeros(1, np.int64), none,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.schema)

    @property
    def size_bytes(self) -> int:
        """About what they take in memory."""
        return 80 * len(self) + 12 * (len(self.positive.index) + len(self.negative.index)) + 8 * len(self.bounds)

    def take(self, rows: npt.NDArray[np.integer]) -> "Histograms":
        """The chosen histograms, in the order given."""
        rows = np.asarray(rows, np.int64)
        bounds_offsets, at = ragged(self.bounds_offsets, rows)
        return Histograms(
            self.schema[rows], self.hint[rows], self.integer[rows], self.count[rows], self.sum[rows],
            self.zero_threshold[rows], self.zero_count[rows], self.positive.take(rows), self.negative.take(rows),
            bounds_offsets, self.bounds[at],
        )  # fmt: skip


def concat_histograms(parts: Sequence[Histograms]) -> Histograms:
    """All histograms of all parts, one after another."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Histograms.empty()
    return Histograms(
        schema=np.concatenate([part.schema for part in parts]),
        hint=np.concatenate([part.hint for part in parts]),
        integer=np.concatenate([part.integer for part in parts]),
        count=np.concatenate([part.count for part in parts]),
        sum=np.concatenate([part.sum for part in parts]),
        zero_threshold=np.concatenate([part.zero_threshold for part in parts]),
        zero_count=np.concatenate([part.zero_count for part in parts]),
        positive=_concat_buckets([part.positive for part in parts]),
        negative=_concat_buckets([part.negative for part in parts]),
        bounds_offsets=_concat_offsets([part.bounds_offsets for part in parts]),
        bounds=np.concatenate([part.bounds for part in parts]),
    )


def ragged(offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(new offsets i64[r+1], positions i64[...]) that pick ragged rows out of a flat column."""
    lengths = np.diff(offsets)[rows]
    out = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return out, np.repeat(offsets[:-1][rows] - out[:-1], lengths) + np.arange(out[-1])


def _concat_buckets(parts: Sequence[Buckets]) -> Buckets:
    return Buckets(
        _concat_offsets([part.offsets for part in parts]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def _concat_offsets(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    sizes = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

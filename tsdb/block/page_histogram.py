"""Native histograms of a page as columns of integers and floats, and back.

A run is a stretch of histograms of one series with the same buckets and bounds. Its buckets become columns of their own, so that
each counts on from histogram to histogram and codes as well as a float counter does.

Integer columns: for each series which of its samples are histograms (0 or 1), then schema, hint and integer of all. Float columns:
zero threshold of all, the bounds of all runs, then count, sum and zero count of each series, then the positive buckets of each run,
then the negative ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.block.packed import I32, Unpacker, shuffle
from tsdb.kernel.histogram import spread_runs
from tsdb.model.errors import Corrupt
from tsdb.model.histogram import Buckets, Histograms, ragged
from tsdb.model.series import F64, I64, Bool

Index = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class HistogramLayout:
    """Where a page's histograms are: of n series and r runs.

    samples i64[n] of each series, per_series i64[n] histograms of each; run_size i64[r] histograms of each run, positive, negative
    and bounds i64[r] its buckets and bounds, positive_index and negative_index i32[...] those buckets.
    """

    samples: I64
    per_series: I64
    run_size: I64
    positive: I64
    negative: I64
    bounds: I64
    positive_index: Index
    negative_index: Index

    @property
    def count(self) -> int:
        return int(self.per_series.sum())

    @property
    def int_lengths(self) -> I64:
        """i64[n + 3] samples of each integer column."""
        return np.concatenate([self.samples, np.full(3, self.count, np.int64)])

    @property
    def float_lengths(self) -> I64:
        """Samples of each float column."""
        flat = np.array([self.count, self.bounds.sum()], np.int64)
        buckets = [np.repeat(self.run_size, self.positive), np.repeat(self.run_size, self.negative)]
        return np.concatenate([flat, *[self.per_series] * 3, *buckets])

    def encode(self) -> bytes:
        """The count of runs, then every array but `samples` as i32."""
        sizes = [self.per_series, self.run_size, self.positive, self.negative, self.bounds]
        indexes = shuffle(self.positive_index, I32) + shuffle(self.negative_index, I32)
        return shuffle(np.array([len(self.run_size)]), I32) + b"".join(shuffle(array, I32) for array in sizes) + indexes

    @classmethod
    def decode(cls, data: bytes, samples: I64) -> "HistogramLayout":
        """What `encode` made, for series with so many samples. Corrupt if it does not fit them."""
        unpacker = Unpacker(data, what="page: its layout of histograms")
        runs = int(unpacker.array(1, I32)[0])
        per_series = unpacker.array(len(samples), I32)
        run_size, positive, negative, bounds = (unpacker.array(runs, I32) for _ in range(4))
        sizes = np.concatenate([per_series, run_size, positive, negative, bounds])
        if (sizes < 0).any() or run_size.sum() != per_series.sum() or (per_series > samples).any():
            raise Corrupt(f"page: {runs} runs of {run_size.sum()} histograms do not fit {samples.sum()} samples")
        if not np.isin(np.cumsum(per_series), np.append(np.cumsum(run_size), 0)).all():
            raise Corrupt(f"page: a run of its {runs} holds histograms of two series")
        positive_index, negative_index = (unpacker.array(int(n.sum()), I32).astype(np.int32) for n in (positive, negative))
        return cls(samples, per_series, run_size, positive, negative, bounds, positive_index, negative_index)


@dataclass(frozen=True, slots=True)
class HistogramChoice:
    """Some series of a page: their layout, and which integer and float columns bool[...] they need.

    Of the columns of all histograms they need rows i64[h], of the bounds of all runs bounds i64[...].
    """

    layout: HistogramLayout
    ints: Bool
    floats: Bool
    rows: I64
    bounds: I64


@dataclass(frozen=True, slots=True)
class HistogramColumns:
    """The columns one after another, integers and floats."""

    layout: HistogramLayout
    ints: I64
    floats: F64


def choose_series(layout: HistogramLayout, local: I64) -> HistogramChoice:
    """What the series `local` i64[r], ascending, need of a page."""
    first, first_run = _before(layout.per_series), _before(layout.run_size)
    runs = ragged(np.searchsorted(first_run, first), local)[1]
    series, in_runs = np.zeros(len(layout.samples), bool), np.zeros(len(layout.run_size), bool)
    series[local], in_runs[runs] = True, True
    buckets = [np.repeat(in_runs, layout.positive), np.repeat(in_runs, layout.negative)]
    chosen = HistogramLayout(
        layout.samples[local], layout.per_series[local], layout.run_size[runs], layout.positive[runs], layout.negative[runs],
        layout.bounds[runs], layout.positive_index[buckets[0]], layout.negative_index[buckets[1]],
    )  # fmt: skip
    ints, floats = np.append(series, [True] * 3), np.concatenate([[True] * 2, *[series] * 3, *buckets])
    return HistogramChoice(chosen, ints, floats, ragged(first, local)[1], ragged(_before(layout.bounds), runs)[1])


def split_histograms(histograms: Histograms, histogram_at: I64, offsets: I64) -> HistogramColumns:
    """The columns of the histograms that histogram_at i64[m] places among samples with offsets i64[n+1]."""
    where = np.flatnonzero(histogram_at >= 0)
    h = histograms.take(histogram_at[where])
    cuts = np.searchsorted(where, offsets)
    fresh = _starts_run(h, cuts)
    first = np.flatnonzero(fresh)
    run_size = np.diff(np.append(first, len(h)))
    bounds_at = ragged(h.bounds_offsets, first)[1]
    layout = HistogramLayout(
        np.diff(offsets), np.diff(cuts), run_size, _sizes(h.positive.offsets, first), _sizes(h.negative.offsets, first),
        _sizes(h.bounds_offsets, first), h.positive.index[ragged(h.positive.offsets, first)[1]],
        h.negative.index[ragged(h.negative.offsets, first)[1]],
    )  # fmt: skip
    ints = np.concatenate([histogram_at >= 0, h.schema, h.hint, h.integer]).astype(np.int64)
    floats = [
        h.zero_threshold, h.bounds[bounds_at], h.count, h.sum, h.zero_count,
        h.positive.counts[_by_bucket(run_size, layout.positive)], h.negative.counts[_by_bucket(run_size, layout.negative)],
    ]  # fmt: skip
    return HistogramColumns(layout, ints, np.concatenate(floats))


def join_histograms(layout: HistogramLayout, ints: I64, floats: F64) -> tuple[Histograms, I64]:
    """(the histograms, histogram_at i64[m]) of columns that `split_histograms` made."""
    count, bounds = layout.count, int(layout.bounds.sum())
    is_histogram, schema, hint, integer = np.split(ints, np.cumsum([layout.samples.sum(), count, count]))
    if int(is_histogram.sum()) != count:
        raise Corrupt(f"page: {is_histogram.sum()} samples are histograms, {count} are stored")
    zero_threshold, bound, total, sum_, zero_count, positive, negative = np.split(
        floats, np.cumsum([count, bounds, count, count, count, int((layout.run_size * layout.positive).sum())])
    )
    histogram_at = np.where(is_histogram == 1, np.cumsum(is_histogram) - 1, -1)
    row_run = np.repeat(np.arange(len(layout.run_size)), layout.run_size)
    run_bounds = np.concatenate([[0], np.cumsum(layout.bounds)]).astype(np.int64)
    bounds_offsets, bounds_at = ragged(run_bounds, row_run)
    histograms = Histograms(
        schema.astype(np.int8), hint.astype(np.uint8), integer.astype(bool), total, sum_, zero_threshold, zero_count,
        _buckets(layout.run_size, layout.positive, layout.positive_index, positive),
        _buckets(layout.run_size, layout.negative, layout.negative_index, negative),
        bounds_offsets, bound[bounds_at],
    )  # fmt: skip
    return histograms, histogram_at


def _before(sizes: I64) -> I64:
    """i64[n + 1]: the sum of all sizes before each."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _starts_run(h: Histograms, cuts: I64) -> Bool:
    """bool[h] where a histogram cannot continue the run of the one before it."""
    fresh = np.zeros(len(h), bool)
    fresh[cuts[:-1][np.diff(cuts) > 0]] = True
    for offsets, column in (
        (h.positive.offsets, h.positive.index),
        (h.negative.offsets, h.negative.index),
        (h.bounds_offsets, h.bounds.view(np.int64)),
    ):
        fresh[1:] |= ~_like_before(offsets, column)
    return fresh


def _like_before(offsets: I64, column: npt.NDArray[np.integer]) -> Bool:
    """bool[h-1] whether the ragged row i+1 equals row i."""
    sizes = np.diff(offsets)
    before = np.arange(len(column)) - np.repeat(sizes, sizes)
    differs = np.concatenate([[0], np.cumsum(column != column[np.maximum(before, 0)])])
    return np.asarray((sizes[1:] == sizes[:-1]) & (np.diff(differs[offsets])[1:] == 0))


def _sizes(offsets: I64, rows: I64) -> I64:
    return np.asarray(np.diff(offsets)[rows])


def _by_bucket(run_size: I64, buckets: I64) -> I64:
    """Positions of the counts of runs, bucket by bucket, in counts that lie histogram by histogram."""
    sizes = run_size * buckets
    start = np.cumsum(sizes) - sizes
    at = np.arange(int(sizes.sum())) - np.repeat(start, sizes)
    bucket, row = np.divmod(at, np.repeat(run_size, sizes))
    return np.asarray(np.repeat(start, sizes) + row * np.repeat(buckets, sizes) + bucket)


def _buckets(run_size: I64, sizes: I64, index: Index, by_bucket: F64) -> Buckets:
    counts, buckets = np.empty(len(by_bucket)), np.empty(len(by_bucket), np.int32)
    spread_runs(run_size, sizes, index, by_bucket, counts, buckets)
    return Buckets(np.concatenate([[0], np.cumsum(np.repeat(sizes, run_size))]).astype(np.int64), buckets, counts)

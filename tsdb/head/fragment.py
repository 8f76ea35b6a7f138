"""What one part of the head holds of some series (`Fragment`), and how the fragments of all parts become columns (`settle`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsdb.block.page import Page, PageColumns, PageValues, Series
from tsdb.kernel.ranges import copy_ranges
from tsdb.merge import merge_batches
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.series import I64, Bool, SeriesBatch, SeriesTable, strings


@dataclass(frozen=True, slots=True)
class Fragment:
    """Samples of some of the series asked for, grouped by series.

    rows i64[r] are places among the series asked for, each once, lengths i64[r] their numbers of samples; bits i64[m] are the
    bits of the values, of no meaning where histogram_at is not -1. Times may be equal and may fall, unlike in `SeriesBatch`.
    """

    rows: I64
    lengths: I64
    t_ms: I64
    bits: I64
    histograms: Histograms | None = None
    histogram_at: I64 | None = None
    start_ms: I64 | None = None


@dataclass(frozen=True, slots=True)
class PageFragment:
    """Samples of some series of a page of floats, which are decoded, or copied, straight to where they are wanted.

    rows and lengths as in `Fragment`; series `local` i64[r] of the page, their samples from `low` i64[r] on; its values, if known.
    """

    rows: I64
    lengths: I64
    page: Page
    local: I64
    low: I64
    values: PageValues | None


def settle(fragments: Sequence[Fragment | PageFragment], size: int) -> PageColumns:
    """The columns of `size` series: what all fragments hold of each, by rising time, one sample at a time.

    Fragments come in the order of arrival. Where their samples rise in time as they stand, as in-order samples do, this
    is one scattered copy; else the merge rule chooses among those of equal time.
    """
    counts = np.zeros(size, np.int64)
    for fragment in fragments:
        counts[fragment.rows] += fragment.lengths
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    columns = _place(fragments, offsets)
    falls = np.zeros(len(columns.t_ms), bool)
    falls[1:] = columns.t_ms[1:] <= columns.t_ms[:-1]
    falls[offsets[:-1][counts > 0]] = False
    return _sorted(columns, falls) if falls.any() else columns


def _place(fragments: Sequence[Fragment | PageFragment], offsets: I64) -> PageColumns:
    """All samples grouped by series, in the order of arrival."""
    total = int(offsets[-1])
    t_ms, bits = np.empty(total, np.int64), np.empty(total, np.int64)
    with_start = any(f.page.with_start if isinstance(f, PageFragment) else f.start_ms is not None for f in fragments)
    start_ms = np.zeros(total, np.int64) if with_start else None
    with_histograms = any(isinstance(f, Fragment) and f.histogram_at is not None for f in fragments)
    histogram_at = np.full(total, -1, np.int64) if with_histograms else None
    histograms: list[Histograms] = []
    cursor = offsets[:-1].copy()
    for fragment in fragments:
        to = cursor[fragment.rows]
        cursor[fragment.rows] += fragment.lengths
        if isinstance(fragment, PageFragment):
            series = Series(fragment.local, fragment.low, fragment.lengths, to)
            fragment.page.copy_series(series, fragment.values, t_ms, bits.view(np.float64)[None], start_ms)
            continue
        start = np.cumsum(fragment.lengths) - fragment.lengths
        for source, out in ((fragment.t_ms, t_ms), (fragment.bits, bits), (fragment.start_ms, start_ms)):
            if source is not None and out is not None:
                copy_ranges(source, start, fragment.lengths, out, to)
        if histogram_at is not None and fragment.histogram_at is not None and fragment.histograms is not None:
            placed = sum(map(len, histograms))
            source = np.where(fragment.histogram_at >= 0, fragment.histogram_at + placed, -1)
            copy_ranges(source, start, fragment.lengths, histogram_at, to)
            histograms.append(fragment.histograms)
    values = bits.view(np.float64)
    if histogram_at is None:
        return PageColumns(offsets, t_ms, values, start_ms=start_ms)
    values[histogram_at >= 0] = np.nan
    return PageColumns(offsets, t_ms, values, concat_histograms(histograms), histogram_at, start_ms)


def _sorted(columns: PageColumns, falls: Bool) -> PageColumns:
    """The columns with each series sorted by time, samples of equal time made one."""
    series = np.repeat(np.arange(len(columns.offsets) - 1), np.diff(columns.offsets))
    order = np.lexsort((columns.t_ms, series))
    t_ms, series = columns.t_ms[order], series[order]
    equal = np.zeros(len(t_ms), bool)
    equal[1:] = (t_ms[1:] == t_ms[:-1]) & (series[1:] == series[:-1])
    batch = _picked(columns, columns.offsets, order)
    if not equal.any():
        return _as_columns(batch)
    first = np.flatnonzero(~equal)
    turn = np.arange(len(t_ms)) - np.repeat(first, np.diff(np.append(first, len(t_ms))))
    rounds = [batch.where(turn == k) for k in range(int(turn.max()) + 1)]
    return _spread(merge_batches(rounds), len(columns.offsets) - 1)


def _picked(columns: PageColumns, offsets: I64, at: I64) -> SeriesBatch:
    """The samples `at` as a batch whose only label tells the series' place."""
    size = len(offsets) - 1
    table = SeriesTable(strings([f"{i:09d}" for i in range(size)]), ("row",), np.arange(size, dtype=np.int32)[None], True)
    whole = SeriesBatch(
        table, columns.offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at, columns.start_ms
    )
    return replace(
        whole,
        t_ms=whole.t_ms[at],
        values=whole.values[at],
        histogram_at=None if whole.histogram_at is None else whole.histogram_at[at],
        start_ms=None if whole.start_ms is None else whole.start_ms[at],
    )


def _spread(batch: SeriesBatch, size: int) -> PageColumns:
    """The columns of a merged batch with every series that lost its place to having no sample put back."""
    rows = np.array([int(text) for text in batch.series.values("row")], np.int64)
    counts = np.zeros(size, np.int64)
    counts[rows] = np.diff(batch.offsets)
    return replace(_as_columns(batch), offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _as_columns(batch: SeriesBatch) -> PageColumns:
    return PageColumns(batch.offsets, batch.t_ms, batch.values, batch.histograms, batch.histogram_at, batch.start_ms)

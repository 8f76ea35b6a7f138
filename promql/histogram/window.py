"""Range functions over native histograms: from the samples in each window to one histogram or number for each.

Only windows with a histogram are looked at; those of floats alone are left to the float kernels.
"""

from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram import arithmetic as histogram
from promql.histogram.arithmetic import Terms
from promql.histogram.rate import EXTRAPOLATED, LAST_TWO, begun_anew, delta, extrapolated
from promql.histogram.samples import MIXED, MIXED_SCHEMAS, HistogramWindows, WindowResult, count_natives, follows_histogram, prefix
from promql.matrix import F64, I64, Bool
from promql.syntax.ast import Span
from promql.window.windows import without_stale
from tsdb.kernel.downsample import COUNT
from tsdb.model.histogram import COUNTER_RESET, NOT_COUNTER_RESET, UNKNOWN_RESET, Buckets
from tsdb.model.series import SeriesBatch

SUMS = ("sum_over_time", "avg_over_time")
PICKS = ("last_over_time", "first_over_time")
COUNTS = ("count_over_time", "present_over_time", "changes", "resets")
FUNCTIONS = frozenset((*EXTRAPOLATED, *LAST_TWO, *SUMS, *PICKS, *COUNTS))
"""Functions for which histograms count; all others see floats only."""


def over_time(
    func: str, batch: SeriesBatch, lo: I64, hi: I64, *, end_ms: I64, range_ms: int, notes: Annotations, span: Span
) -> WindowResult:  # fmt: skip
    """`func` of FUNCTIONS over windows of a batch without stale markers.

    Window j of series i is rows lo[i, j]:hi[i, j] of the batch (i64[n, k], lo >= hi: empty) and covers
    (end_ms[j] - range_ms, end_ms[j]]. `span` is that of the range selector, for the notes.
    """
    natives = count_natives(batch, lo, hi)
    handled = natives > 0
    series, step = np.nonzero(handled)
    out = WindowResult.nothing(handled)
    if len(series) == 0:
        return out
    windows = HistogramWindows(batch, lo[handled], hi[handled], series, end_ms[step], range_ms, natives[handled], notes, span)
    _evaluate(func, windows, out, (series, step))
    return out


def with_reset_hints(batch: SeriesBatch, reset: int = COUNTER_RESET) -> SeriesBatch:
    """The batch with a hint wherever a histogram without one follows another: `reset` or not-reset, found by comparing them.

    To tell resets, histograms are compared past stale markers between them: nobody may do so later, without their buckets.
    """
    if batch.histogram_at is None or batch.histograms is None:
        return batch
    kept = without_stale(batch) if reset == COUNTER_RESET else batch
    at, hint = kept.histogram_at, batch.histograms.hint.copy()
    assert at is not None, "a batch without stale markers has the same histograms"
    after = np.flatnonzero(follows_histogram(kept))
    after = after[hint[at[after]] == UNKNOWN_RESET]
    fell = histogram.resets(batch.histograms, at[after - 1], at[after])
    hint[at[after]] = np.where(fell, reset, NOT_COUNTER_RESET)
    return replace(batch, histograms=replace(batch.histograms, hint=hint))


def without_buckets(batch: SeriesBatch) -> SeriesBatch:
    """The batch with histograms of schema, count, sum and reset hint alone, for queries that ask no more of them.

    Prometheus keeps as much: its `HistogramStatsIterator` tells exponential from custom buckets, but neither bounds nor zeros.
    """
    if batch.histograms is None:
        return batch
    size = len(batch.histograms)
    none, zeros = Buckets.empty(size), np.zeros(size)
    bare = replace(
        batch.histograms, zero_threshold=zeros, zero_count=zeros, positive=none, negative=none,
        bounds_offsets=np.zeros(size + 1, np.int64), bounds=np.empty(0),
    )  # fmt: skip
    return replace(batch, histograms=bare)


def _evaluate(func: str, windows: HistogramWindows, out: WindowResult, at: tuple[I64, I64]) -> None:
    match func:
        case "count_over_time":
            out.put_floats(at, windows.counts)
        case "present_over_time":
            out.put_floats(at, np.ones(len(windows.lo)))
        case "changes" | "resets":
            out.put_floats(at, _count_pairs(func, windows))
        case "last_over_time":
            _pick(windows, windows.hi - 1, out, at)
        case "first_over_time":
            _pick(windows, windows.lo, out, at)
        case "sum_over_time" | "avg_over_time":
            _reduce(func, windows, out, at)
        case "irate" | "idelta":
            delta(func, windows, out, at)
        case _:
            extrapolated(func, windows, out, at)


def _pick(windows: HistogramWindows, rows: I64, out: WindowResult, at: tuple[I64, I64]) -> None:
    """The histogram in one row of each window; where that row is a float, the window is the float kernels' after all."""
    chosen = windows.at[rows]
    native = chosen >= 0
    out.leave((at[0][~native], at[1][~native]))
    used, number = np.unique(chosen[native], return_inverse=True)
    out.put_histograms((at[0][native], at[1][native]), windows.histograms.take(used), number)


def _reduce(func: str, windows: HistogramWindows, out: WindowResult, at: tuple[I64, I64]) -> None:
    """Sum or mean of all samples; windows that also hold floats or both kinds of buckets give only a warning."""
    mixed = windows.mixed
    windows.warn(MIXED, mixed)
    pure = windows.take(~mixed)
    offsets = np.concatenate([[0], np.cumsum(pure.hi - pure.lo)]).astype(np.int64)
    rows = np.repeat(pure.lo - offsets[:-1], pure.hi - pure.lo) + np.arange(offsets[-1])
    weights = np.ones(len(rows)) if windows.batch.windows is None else windows.batch.windows[COUNT, rows]
    terms = Terms(offsets, windows.at[rows], weights)
    result = histogram.mean(windows.histograms, terms) if func == "avg_over_time" else histogram.combine(windows.histograms, terms)
    pure.warn(MIXED_SCHEMAS, result.incompatible)
    pure.note_reconciled(result.reconciled, "aggregation")
    if result.collision.any():
        windows.notes.warn("conflicting counter resets during histogram aggregation", windows.span)
    fit = np.flatnonzero(~result.incompatible)
    at = at[0][~mixed][fit], at[1][~mixed][fit]
    out.put_histograms(at, result.histograms.take(fit))


def _count_pairs(func: str, windows: HistogramWindows) -> F64:
    """How many neighbouring samples of each window differ (changes) or show a counter reset (resets), f64[w]."""
    counted = prefix(_pair_flags(func, windows))
    return (counted[windows.hi] - counted[windows.lo + 1]).astype(np.float64)


def _pair_flags(func: str, windows: HistogramWindows) -> Bool:
    """bool[m]: whether sample i of the batch counts against the one before it; a change between float and histogram does."""
    batch, at = windows.batch, windows.at
    flags = np.zeros(batch.samples, bool)
    inner = np.ones(batch.samples, bool)
    inner[batch.offsets[:-1][np.diff(batch.offsets) > 0]] = False
    after = np.flatnonzero(inner)
    native, native_before = at[after] >= 0, at[after - 1] >= 0
    flags[after] = native != native_before
    floats = after[~native & ~native_before]
    now, then = batch.values[floats], batch.values[floats - 1]
    flags[floats] = now < then if func == "resets" else (now != then) & ~(np.isnan(now) & np.isnan(then))
    both = after[native & native_before]
    if func == "resets":
        flags[both] = histogram.resets(windows.histograms, at[both - 1], at[both]) | begun_anew(batch, both)
    else:
        flags[both] = ~histogram.equal(windows.histograms.take(at[both - 1]), windows.histograms.take(at[both]))
    return flags

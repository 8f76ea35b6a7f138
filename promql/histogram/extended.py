"""Histograms under the `anchored` and `smoothed` modifiers: from edge to edge of the window, nothing extrapolated.

Anchored windows begin at the newest sample at or before their start. Smoothed ones interpolate bucket by bucket at both edges;
across a counter reset the interpolation starts from zero.
"""

from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram import arithmetic as histogram
from promql.histogram.arithmetic import Combined, Terms
from promql.histogram.layout import bounds_layouts
from promql.histogram.rate import (
    NOT_COUNTER,
    NOT_GAUGE,
    custom_samples,
    gauge_samples,
    note_rise,
    resets_inside,
    warn_quoted,
    with_resets,
)
from promql.histogram.samples import MIXED, MIXED_SCHEMAS, HistogramWindows, WindowResult, count_natives, prefix
from promql.matrix import F64, I64, Bool
from promql.syntax.ast import Span
from promql.window.windows import Windows, bounds, edge_rows
from tsdb.model.histogram import UNKNOWN_RESET, concat_histograms
from tsdb.model.series import SeriesBatch


def extended(func: str, batch: SeriesBatch, windows: Windows, *, notes: Annotations, span: Span) -> WindowResult:
    """rate, increase or delta of an anchored or smoothed selector over the windows of a batch without stale markers.

    Floats beside histograms as far as the lookback reaches past the window leave no result but a warning.
    """
    first, last = edge_rows(batch, windows)
    beyond_ms = windows.lookback_ms if windows.smoothed else 0
    reach_ms = windows.range_ms + windows.lookback_ms + beyond_ms
    near = bounds(batch, replace(windows, ends_ms=windows.ends_ms + beyond_ms, range_ms=reach_ms))
    natives = count_natives(batch, near.lo, near.hi)
    handled = natives > 0
    series, step = np.nonzero(handled)
    out = WindowResult.nothing(handled)
    found = HistogramWindows(
        batch, near.lo[handled], near.hi[handled], series, windows.ends_ms[step], windows.range_ms, natives[handled], notes, span
    )
    mixed = found.mixed
    found.warn(MIXED, mixed)
    found = replace(found, lo=first[handled], hi=last[handled] + 1)
    pure = ~mixed & (found.hi > found.lo)
    if pure.any():
        _rises(func, found.take(pure), windows, out, (series[pure], step[pure]))
    return out


def smoothed_between(
    batch: SeriesBatch, rows: tuple[I64, I64], at_ms: I64, series: I64, *, notes: Annotations, span: Span
) -> WindowResult:  # fmt: skip
    """Interpolated histograms at at_ms i64[w] between the samples rows (before, after), i64[w] each, equal where it is exact.

    The arrays of the result are flat, [w]; handled are those between histograms; those between a float and one are not to be here.
    """
    before, after = rows
    windows = HistogramWindows(batch, before, after + 1, series, at_ms, 0, after - before + 1, notes, span)
    native = windows.at[before] >= 0
    out = WindowResult.nothing(native)
    found = np.flatnonzero(native)
    pure = windows.take(native)
    if len(found) == 0:
        return out
    custom = custom_samples(pure)
    odd = custom[pure.lo] != custom[pure.hi - 1]
    pure.warn(MIXED_SCHEMAS, odd)
    pure, found = pure.take(~odd), found[~odd]
    gauge = gauge_samples(pure)
    fell = np.zeros(len(found), bool)
    inner = np.flatnonzero((pure.hi - pure.lo > 1) & ~(gauge[pure.lo] & gauge[pure.hi - 1]))
    fell[inner] = histogram.resets(pure.histograms, pure.at[pure.lo[inner]], pure.at[pure.hi[inner] - 1])
    pair, factors = _interpolated(pure, pure.lo, pure.hi - 1, pure.end_ms, fell)
    terms = Terms(np.arange(0, 2 * len(found) + 1, 2), pure.at[pair].ravel(), factors.ravel())
    result = histogram.combine(pure.histograms, terms)
    _note_interpolated(pure, result, pure.at[pair[:, 0]])
    alone = (pure.hi - pure.lo == 1) & (batch.t_ms[pure.lo] < pure.end_ms)
    hint = np.where(alone, np.uint8(UNKNOWN_RESET), result.histograms.hint)  # what follows the last sample need not be its kind
    out.put_histograms((found,), replace(result.histograms, hint=hint))
    return out


def _rises(func: str, windows: HistogramWindows, of: Windows, out: WindowResult, at: tuple[I64, I64]) -> None:
    counter = func != "delta"
    until = _fitting(windows)
    fit = until == windows.hi
    windows.warn(MIXED_SCHEMAS, ~fit)
    if counter:
        seen = prefix(gauge_samples(windows))
        warn_quoted(NOT_COUNTER, windows, seen[until] > seen[windows.lo])
    windows, at = windows.take(fit), (at[0][fit], at[1][fit])
    if len(windows.lo) == 0:
        return
    edges = _edges(windows, of)
    if not counter:
        _warn_not_gauges(windows, edges)
    fallen = resets_inside(windows) if counter else np.zeros(windows.batch.samples, bool)
    terms = _terms(windows, edges, fallen)
    rise = histogram.combine(windows.histograms, terms)
    _note_reconciled(windows, terms, rise.reconciled)
    result = rise.histograms
    if func == "rate":
        result = histogram.divide(result, np.full(len(result), of.range_s))
    out.put_histograms(at, histogram.as_gauges(result))


def _fitting(windows: HistogramWindows) -> I64:
    """i64[w]: the first row of each window with other buckets, exponential or custom, than its first one's; its end if none is."""
    custom = custom_samples(windows)
    other = np.flatnonzero(custom[1:] != custom[:-1]) + 1
    following = np.append(other, len(custom))[np.searchsorted(other, windows.lo, side="right")]
    return np.asarray(np.minimum(following, windows.hi))


def _edges(windows: HistogramWindows, of: Windows) -> tuple[I64, I64]:
    """(second, before_last) i64[w]: with what rows the first and the last are interpolated; those themselves where not at all."""
    t_ms, first, last = windows.batch.t_ms, windows.lo, windows.hi - 1
    inner = (last > first) & of.smoothed
    from_left, past_end = inner & (t_ms[first] < windows.end_ms - windows.range_ms), inner & (t_ms[last] > windows.end_ms)
    return np.where(from_left, first + 1, first), np.where(past_end, last - 1, last)


def _warn_not_gauges(windows: HistogramWindows, edges: tuple[I64, I64]) -> None:
    """The warning of windows with an edge that is no gauge; what is between a gauge and another sample is one."""
    gauge = gauge_samples(windows)
    second, before_last = edges
    warn_quoted(NOT_GAUGE, windows, ~((gauge[windows.lo] | gauge[second]) & (gauge[before_last] | gauge[windows.hi - 1])))


def _terms(windows: HistogramWindows, edges: tuple[I64, I64], fallen: Bool) -> Terms:
    """+ the value at the end, - the value at the start, + each histogram before a reset that neither of them crosses."""
    first, last = windows.lo, windows.hi - 1
    second, before_last = edges
    from_left = second > first
    left_ms = windows.end_ms - windows.range_ms
    begin_rows, begin = _interpolated(windows, first, second, left_ms, fallen[second] & from_left)
    end_rows, end = _interpolated(windows, before_last, last, windows.end_ms, fallen[last] & (before_last < last))
    rows, factors = np.concatenate([end_rows, begin_rows], axis=1), np.concatenate([end, -begin], axis=1)
    return with_resets(windows, fallen, rows, factors, np.where(from_left, first + 2, first + 1))


def _interpolated(windows: HistogramWindows, a: I64, b: I64, at_ms: I64, fell: Bool) -> tuple[I64, F64]:
    """(rows i64[w, 2], factors f64[w, 2]) of the value at at_ms between rows a and b, or of row b where they are one.

    Where the counter `fell` between them, row a takes no part.
    """
    t_ms = windows.batch.t_ms
    share = np.where(a == b, 1.0, (at_ms - t_ms[a]) / np.maximum(t_ms[b] - t_ms[a], 1))
    return np.stack([np.where(fell, b, a), b], axis=1), np.stack([np.where(fell, 0.0, 1 - share), share], axis=1)


def _note_reconciled(windows: HistogramWindows, terms: Terms, reconciled: Bool) -> None:
    """The infos of windows whose custom bounds differed: in interpolating an edge, between the edges, or before a reset."""
    jobs = np.flatnonzero(reconciled)
    if len(jobs) == 0:
        return
    offsets, starts = np.arange(0, 2 * len(jobs) + 1, 2), terms.offsets[:-1]
    edges = []
    for column in (0, 2):
        pair = terms.rows[np.add.outer(starts[jobs], [column, column + 1])]
        edges.append(histogram.combine(windows.histograms, Terms(offsets, pair.ravel(), np.ones(pair.size))))
        _note_interpolated(windows, edges[-1], pair[:, 0])
    added = np.ones(len(terms.rows), bool)
    added[np.add.outer(starts, np.arange(4))] = False
    note_rise(windows, histogram.subtract(edges[0].histograms, edges[1].histograms), terms, jobs, added)


def _note_interpolated(windows: HistogramWindows, result: Combined, before: I64) -> None:
    """Infos where bounds differed in interpolating: the histogram `before` i64[w] is subtracted from the one after, then added."""
    if result.reconciled.any():
        layout, _ = bounds_layouts(concat_histograms([result.histograms, windows.histograms]))
        windows.note_reconciled(result.reconciled, "subtraction")
        windows.note_reconciled(layout[: len(before)] != layout[len(before) + before], "addition")

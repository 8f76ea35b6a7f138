"""Histograms under the `anchored` and `smoothed` modifiers: from edge to edge of the window, nothing extrapolated.

Anchored windows begin at the newest sample at or before their start. Smoothed ones interpolate bucket by bucket at both edges;
across a counter reset the interpolation starts from zero.
"""

import numpy as np

from promql.annotations import Annotations
from promql.histogram import arithmetic as histogram
from promql.histogram.arithmetic import Terms
from promql.histogram.rate import custom_samples, resets_inside, warn_kind, with_resets
from promql.histogram.samples import MIXED, MIXED_SCHEMAS, HistogramWindows, WindowResult, prefix
from promql.matrix import F64, I64, Bool
from promql.syntax.ast import Span
from promql.window.windows import Windows, edge_rows
from tsdb.model.histogram import GAUGE
from tsdb.model.series import SeriesBatch


def extended(func: str, batch: SeriesBatch, windows: Windows, *, notes: Annotations, span: Span) -> WindowResult:
    """rate, increase or delta of an anchored or smoothed selector over the windows of a batch without stale markers."""
    first, last = edge_rows(batch, windows)
    native = prefix(np.zeros(batch.samples, bool) if batch.histogram_at is None else batch.histogram_at >= 0)
    size = np.maximum(last + 1 - first, 0)
    natives = np.where(size > 0, native[first + size] - native[first], 0)
    handled = natives > 0
    series, step = np.nonzero(handled)
    out = WindowResult.nothing(handled)
    found = HistogramWindows(
        batch, first[handled], last[handled] + 1, series, windows.ends_ms[step], windows.range_ms, natives[handled], notes, span
    )
    found.warn(MIXED, found.mixed)
    pure = found.take(~found.mixed)
    at = series[~found.mixed], step[~found.mixed]
    if len(pure.lo):
        _rises(func, pure, windows, out, at)
    return out


def smoothed_between(
    batch: SeriesBatch, rows: tuple[I64, I64], at_ms: I64, series: I64, *, notes: Annotations, span: Span
) -> WindowResult:  # fmt: skip
    """Interpolated histograms at at_ms i64[w] between the samples rows (before, after), i64[w] each, equal where it is exact.

    The arrays of the result are flat, [w]; handled are those between histograms. Samples of different kinds give but a warning.
    """
    before, after = rows
    windows = HistogramWindows(batch, before, after + 1, series, at_ms, 0, after - before + 1, notes, span)
    native = (windows.at[before] >= 0) | (windows.at[after] >= 0)
    out = WindowResult.nothing(native)
    mixed = (windows.at[before] >= 0) != (windows.at[after] >= 0)
    windows.warn(MIXED, mixed)
    found = np.flatnonzero(native & ~mixed)
    pure = windows.take(native & ~mixed)
    if len(found) == 0:
        return out
    odd = custom_samples(pure)[pure.lo] != custom_samples(pure)[pure.hi - 1]
    pure.warn(MIXED_SCHEMAS, odd)
    pure, found = pure.take(~odd), found[~odd]
    gauge = pure.histograms.hint[pure.at[pure.hi - 1]] == GAUGE
    fell = np.zeros(len(found), bool)
    inner = pure.hi - pure.lo > 1
    fell[inner] = histogram.resets(pure.histograms, pure.at[pure.lo[inner]], pure.at[pure.hi[inner] - 1]) & ~gauge[inner]
    pair, factors = _interpolated(pure, pure.lo, pure.hi - 1, pure.end_ms, fell)
    terms = Terms(np.arange(0, 2 * len(found) + 1, 2), pure.at[pair].ravel(), factors.ravel())
    result = histogram.combine(pure.histograms, terms)
    pure.note_reconciled(result.reconciled, "addition")
    out.put_histograms((found,), result.histograms)
    return out


def _rises(func: str, windows: HistogramWindows, of: Windows, out: WindowResult, at: tuple[I64, I64]) -> None:
    counter = func != "delta"
    warn_kind(windows, counter=counter)
    custom = prefix(custom_samples(windows))
    found = custom[windows.hi] - custom[windows.lo]
    fit = (found == 0) | (found == windows.hi - windows.lo)
    windows.warn(MIXED_SCHEMAS, ~fit)
    windows, at = windows.take(fit), (at[0][fit], at[1][fit])
    if len(windows.lo) == 0:
        return
    fallen = resets_inside(windows) if counter else np.zeros(windows.batch.samples, bool)
    rise = histogram.combine(windows.histograms, _terms(windows, of, fallen))
    windows.note_reconciled(rise.reconciled, "subtraction")
    result = rise.histograms
    if func == "rate":
        result = histogram.divide(result, np.full(len(result), of.range_s))
    out.put_histograms(at, histogram.as_gauges(result))


def _terms(windows: HistogramWindows, of: Windows, fallen: Bool) -> Terms:
    """+ the value at the end, - the value at the start, + each histogram before a reset that neither of them crosses."""
    t_ms, first, last = windows.batch.t_ms, windows.lo, windows.hi - 1
    left_ms = windows.end_ms - windows.range_ms
    from_left = (t_ms[first] < left_ms) & (last > first) & of.smoothed
    past_end = (t_ms[last] > windows.end_ms) & (last > first) & of.smoothed
    second, before_last = np.where(from_left, first + 1, first), np.where(past_end, last - 1, last)
    begin_rows, begin = _interpolated(windows, first, second, left_ms, fallen[second] & from_left)
    end_rows, end = _interpolated(windows, before_last, last, windows.end_ms, fallen[last] & past_end)
    rows, factors = np.concatenate([end_rows, begin_rows], axis=1), np.concatenate([end, -begin], axis=1)
    return with_resets(windows, fallen, rows, factors, np.where(from_left, first + 2, first + 1))


def _interpolated(windows: HistogramWindows, a: I64, b: I64, at_ms: I64, fell: Bool) -> tuple[I64, F64]:
    """(rows i64[w, 2], factors f64[w, 2]) of the value at at_ms between rows a and b, or of row b where they are one."""
    t_ms = windows.batch.t_ms
    share = np.where(a == b, 1.0, (at_ms - t_ms[a]) / np.maximum(t_ms[b] - t_ms[a], 1))
    return np.stack([a, b], axis=1), np.stack([np.where(fell, 0.0, 1 - share), share], axis=1)

"""rate, increase, delta, irate and idelta of native histograms.

A window's increase is its last histogram less its first, plus the one before each counter reset. Whether a sample is a reset
is found once for each pair of neighbours, so that overlapping windows share that work.
"""

from dataclasses import replace

import numpy as np

from promql.histogram import arithmetic as histogram
from promql.histogram.arithmetic import Combined, Terms
from promql.histogram.layout import bounds_layouts
from promql.histogram.samples import MIXED, MIXED_SCHEMAS, HistogramWindows, WindowResult, follows_histogram, prefix
from promql.matrix import F64, I64, Bool
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, Histograms, concat_histograms
from tsdb.model.labels import METRIC_NAME, quote
from tsdb.model.series import SeriesBatch

EXTRAPOLATED = ("rate", "increase", "delta")
LAST_TWO = ("irate", "idelta")
NOT_COUNTER = "this native histogram metric is not a counter: "
NOT_GAUGE = "this native histogram metric is not a gauge: "


def extrapolated(func: str, windows: HistogramWindows, out: WindowResult, at: tuple[I64, I64]) -> None:
    """rate, increase or delta, extrapolated to the edges of the windows as for floats."""
    windows.warn(MIXED, windows.mixed)
    counter = func != "delta"
    begins = _begins(windows) if counter else np.zeros(len(windows.lo), bool)
    usable = ~windows.mixed & ((windows.hi - windows.lo > 1) | begins)
    windows, begins, at = windows.take(usable), begins[usable], (at[0][usable], at[1][usable])
    if len(windows.lo) == 0:
        return
    fallen = resets_inside(windows) if counter else np.zeros(windows.batch.samples, bool)
    early = fallen[np.minimum(windows.lo + 1, windows.hi - 1)] & (windows.hi - windows.lo > 1)
    fit = ~_mixed_schemas(windows, early, counter=counter)
    windows, begins, early, at = windows.take(fit), begins[fit], early[fit], (at[0][fit], at[1][fit])
    if len(windows.lo) == 0:
        return
    several = windows.hi - windows.lo > 1
    _warn_kind(windows.take(several), counter=counter)
    terms = _terms(windows, fallen, early=early, begins=begins)
    change = histogram.combine(windows.histograms, terms)
    _note_reconciled(windows, terms, change.reconciled, begins)
    factor = _factor(windows, change.histograms, begins, counter=counter)
    if func == "rate":
        factor = factor / (windows.range_ms / 1000)
    hint = np.where(several, np.uint8(GAUGE), change.histograms.hint)  # a histogram on its own stays what it is
    out.put_histograms(at, replace(histogram.scale(change.histograms, factor), hint=hint))


def delta(func: str, windows: HistogramWindows, out: WindowResult, at: tuple[I64, I64]) -> None:
    """irate or idelta: from the last two samples; where both are floats, the window is the float kernels' after all."""
    usable = windows.hi - windows.lo > 1
    windows, at = windows.take(usable), (at[0][usable], at[1][usable])
    last, before = windows.at[windows.hi - 1], windows.at[windows.hi - 2]
    floats = (last < 0) & (before < 0)
    out.leave((at[0][floats], at[1][floats]))
    windows.warn(MIXED, (last < 0) != (before < 0))
    both = (last >= 0) & (before >= 0)
    windows, at, last, before = windows.take(both), (at[0][both], at[1][both]), last[both], before[both]
    if len(last) == 0:
        return
    result = _difference(func, windows, last, before)
    windows.warn(MIXED_SCHEMAS, result.incompatible)
    windows.note_reconciled(result.reconciled, "subtraction")
    histograms = result.histograms
    if func == "irate":
        t_ms = windows.batch.t_ms
        histograms = histogram.divide(histograms, (t_ms[windows.hi - 1] - t_ms[windows.hi - 2]) / 1000)
    fit = np.flatnonzero(~result.incompatible)
    out.put_histograms((at[0][fit], at[1][fit]), histogram.as_gauges(histograms.take(fit)))


def _difference(func: str, windows: HistogramWindows, last: I64, before: I64) -> Combined:
    """The last histogram of each window less the one before it, or of a counter that was reset the last alone."""
    hint = windows.histograms.hint
    factor = np.full(len(last), -1.0)
    if func == "irate":
        warn_quoted(NOT_COUNTER, windows, (hint[last] == GAUGE) | (hint[before] == GAUGE))
        fell = histogram.resets(windows.histograms, before, last) | begun_anew(windows.batch, windows.hi - 1)
        factor[fell] = 0.0
        before = np.where(fell, last, before)
    else:
        warn_quoted(NOT_GAUGE, windows, (hint[last] != GAUGE) | (hint[before] != GAUGE))
    size = len(last)
    rows, factors = np.stack([last, before], axis=1).ravel(), np.stack([np.ones(size), factor], axis=1).ravel()
    return histogram.combine(windows.histograms, Terms(np.arange(0, 2 * size + 1, 2), rows, factors))


def _warn_kind(windows: HistogramWindows, *, counter: bool) -> None:
    """Warnings of gauges in windows of a counter, and of anything else at the ends of those of a gauge."""
    gauge = gauge_samples(windows)
    if counter:
        seen = prefix(gauge)
        warn_quoted(NOT_COUNTER, windows, seen[windows.hi] > seen[windows.lo])
    else:
        warn_quoted(NOT_GAUGE, windows, ~(gauge[windows.lo] & gauge[windows.hi - 1]))


def gauge_samples(windows: HistogramWindows) -> Bool:
    """bool[m]: samples of the batch that are histograms with the hint of gauges."""
    return _samples_of(windows, windows.histograms.hint == GAUGE)


def warn_quoted(text: str, windows: HistogramWindows, which: Bool) -> None:
    if which.any():
        for name in windows.names(which):
            windows.notes.warn(f"{text}{quote(name)}", windows.span)


def resets_inside(windows: HistogramWindows) -> Bool:
    """bool[m]: samples of the batch, inside any window and not its first, that show a reset of the counter.

    Warns of start timestamps that lie before the sample ahead of theirs.
    """
    inside = np.zeros(windows.batch.samples + 1, np.int64)
    np.add.at(inside, windows.lo + 1, 1)
    np.add.at(inside, np.maximum(windows.hi, windows.lo + 1), -1)
    after = np.flatnonzero(follows_histogram(windows.batch) & (np.cumsum(inside)[:-1] > 0))
    out = np.zeros(windows.batch.samples, bool)
    out[after] = histogram.resets(windows.histograms, windows.at[after - 1], windows.at[after])
    out[after] |= begun_anew(windows.batch, after)
    _warn_overlap(windows, after)
    return out


def begun_anew(batch: SeriesBatch, rows: I64) -> Bool:
    """bool[r]: whether the start timestamp of a sample tells of a reset since the one before it in the batch."""
    if batch.start_ms is None:
        return np.zeros(len(rows), bool)
    start, t_ms = batch.start_ms[rows], batch.t_ms[rows]
    start_before, t_before = batch.start_ms[rows - 1], batch.t_ms[rows - 1]
    known: Bool = (start != 0) & (start < t_ms)
    # The start is the sample before itself: a delta series, unless that one's own start was unknown or absurd.
    return np.asarray(known & ((start > t_before) | ((start == t_before) & (start_before != 0) & (start_before < t_before))))


def _begins(windows: HistogramWindows) -> Bool:
    """bool[w]: windows in which the counter began, at zero, before their first sample."""
    if windows.batch.start_ms is None:
        return np.zeros(len(windows.lo), bool)
    start = windows.batch.start_ms[windows.lo]
    inside = (start > windows.end_ms - windows.range_ms) & (start < windows.batch.t_ms[windows.lo])
    return np.asarray((start != 0) & inside)


def _warn_overlap(windows: HistogramWindows, rows: I64) -> None:
    batch = windows.batch
    if batch.start_ms is None:
        return
    start = batch.start_ms[rows]
    wrong = rows[(start != 0) & (start < batch.t_ms[rows - 1]) & (start != batch.start_ms[rows - 1])]
    series = np.unique(np.searchsorted(batch.offsets, wrong, side="right") - 1)
    for name in dict.fromkeys(batch.series.values(METRIC_NAME)[series].tolist()):
        about = f" for metric {quote(name)}" if name else ""
        windows.notes.warn(f"sample has start time that overlaps with previous sample timestamp{about}", windows.span)


def _mixed_schemas(windows: HistogramWindows, early: Bool, *, counter: bool) -> Bool:
    """bool[w]: windows with both exponential and custom buckets; a first sample right before a reset does not count.

    Warns of them, and of gauges at the ends of a counter's where it is the ends that differ: Prometheus has not looked further.
    """
    custom = custom_samples(windows)
    ends = custom[np.where(early, windows.lo + 1, windows.lo)] != custom[windows.hi - 1]
    out = ends.copy()
    if counter:
        gauge = gauge_samples(windows)
        warn_quoted(NOT_COUNTER, windows, ends & (gauge[windows.lo] | gauge[windows.hi - 1]))
        seen = prefix(custom)
        size, found = windows.hi - windows.lo - 1, seen[windows.hi] - seen[windows.lo + 1]
        out |= (found != 0) & (found != size)
    windows.warn(MIXED_SCHEMAS, out)
    return np.asarray(out)


def _note_reconciled(windows: HistogramWindows, terms: Terms, reconciled: Bool, begins: Bool) -> None:
    """Infos of windows whose custom bounds differed. Where the counter begins inside, its first histogram is added at the end."""
    jobs = np.flatnonzero(reconciled)
    if len(jobs) == 0:
        return
    starts = terms.offsets[:-1]
    ends = Terms(np.arange(0, 2 * len(jobs) + 1, 2), terms.rows[np.add.outer(starts[jobs], [0, 1])].ravel(), np.ones(2 * len(jobs)))
    added = np.ones(len(terms.rows), bool)
    added[starts], added[starts + 1] = False, begins
    note_rise(windows, histogram.combine(windows.histograms, ends), terms, jobs, added)


def note_rise(windows: HistogramWindows, rise: Combined, terms: Terms, jobs: I64, added: Bool) -> None:
    """Infos where bounds differ: between the ends of a window, `rise` being their difference for each of jobs i64[j], and between
    that and one of the terms that are `added` bool[t] to it.
    """
    layout, _ = bounds_layouts(concat_histograms([rise.histograms, windows.histograms]))
    shared = np.full(len(terms.offsets) - 1, -1)
    shared[jobs] = layout[: len(jobs)]
    shared = shared[terms.job]
    windows.note_reconciled(rise.reconciled, "subtraction")
    windows.note_reconciled(added & (shared >= 0) & (layout[len(jobs) + terms.rows] != shared), "addition")


def custom_samples(windows: HistogramWindows) -> Bool:
    """bool[m]: samples of the batch that are histograms with custom buckets."""
    return _samples_of(windows, windows.histograms.schema == CUSTOM_BUCKETS_SCHEMA)


def _samples_of(windows: HistogramWindows, chosen: Bool) -> Bool:
    """bool[m]: samples of the batch that are one of the histograms that bool[h] says."""
    out = np.zeros(windows.batch.samples, bool)
    native = windows.at >= 0
    out[native] = chosen[windows.at[native]]
    return out


def _terms(windows: HistogramWindows, fallen: Bool, *, early: Bool, begins: Bool) -> Terms:
    """For each window: + last, - first, + each histogram before a reset.

    Is the second sample a reset, then the first takes no part; the second stands in with factor 0, for its bounds count.
    Where the counter began inside the window, nothing is taken off for the first.
    """
    rows = np.stack([windows.hi - 1, np.where(early & ~begins, windows.lo + 1, windows.lo)], axis=1)
    first = np.where(begins, early.astype(np.float64), np.where(early, 0.0, -1.0))
    return with_resets(windows, fallen, rows, np.stack([np.ones(len(first)), first], axis=1), windows.lo + 2)


def with_resets(windows: HistogramWindows, fallen: Bool, rows: I64, factors: F64, start: I64) -> Terms:
    """Terms rows i64[w, c] times factors f64[w, c] and, for each reset in the rows start:hi of a window, the one before it."""
    at = np.flatnonzero(fallen)
    first = np.searchsorted(at, start)
    more = np.maximum(np.searchsorted(at, windows.hi) - first, 0)
    width = rows.shape[1]
    offsets = np.concatenate([[0], np.cumsum(more + width)]).astype(np.int64)
    all_rows, all_factors = np.empty(offsets[-1], np.int64), np.ones(offsets[-1])
    fixed = offsets[:-1, None] + np.arange(width)
    all_rows[fixed], all_factors[fixed] = rows, factors
    within = np.arange(more.sum()) - np.repeat(np.cumsum(more) - more, more)
    all_rows[np.repeat(offsets[:-1] + width, more) + within] = at[np.repeat(first, more) + within] - 1
    return Terms(offsets, windows.at[all_rows], all_factors)


def _factor(windows: HistogramWindows, change: Histograms, begins: Bool, *, counter: bool) -> F64:
    """How much longer than the samples' own interval the window counts, f64[w]: Prometheus's extrapolation."""
    t_ms = windows.batch.t_ms
    first_ms, last_ms = t_ms[windows.lo], t_ms[windows.hi - 1]
    to_start = (first_ms - (windows.end_ms - windows.range_ms)) / 1000
    to_end = (windows.end_ms - last_ms) / 1000
    sampled = (last_ms - first_ms) / 1000
    average = sampled / np.maximum(windows.counts - 1, 1)
    to_start = np.where(to_start >= average * 1.1, average / 2, to_start)
    to_end = np.where(to_end >= average * 1.1, average / 2, to_end)
    if counter:
        first = windows.histograms.count[windows.at[windows.lo]]
        with np.errstate(all="ignore"):
            to_zero = np.where((change.count > 0) & (first >= 0), sampled * (first / change.count), to_start)
        to_start = np.where(begins, 0.0, np.fmin(to_start, to_zero))
        if windows.batch.start_ms is not None:
            sampled = np.where(begins, (last_ms - windows.batch.start_ms[windows.lo]) / 1000, sampled)
    return (sampled + to_start + to_end) / sampled

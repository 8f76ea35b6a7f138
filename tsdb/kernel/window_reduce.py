"""Reductions of sliding windows to one number, in PromQL's summation order, bit for bit. For the arguments see `window`.

Here is what chooses among them, and what follows from running totals or the last samples; the rest is in `window_moment` and
`window_order`.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel import window_moment as moment
from tsdb.kernel import window_order as order
from tsdb.kernel.window import first_row, resets_by_start, same_times, sweep
from tsdb.kernel.window_order import MAD, MAX, MIN, QUANTILE, TS_OF_MAX, TS_OF_MIN

SUM, AVG, STDVAR, STDDEV, CHANGES, RESETS, IRATE, IDELTA, DERIV, PREDICT_LINEAR, SMOOTHING = range(11)
"""Codes of the kernels here, with those of `window_order`."""

__all__ = [
    "AVG", "CHANGES", "DERIV", "FITTED", "IDELTA", "IRATE", "MAD", "MAX", "MIN", "PREDICT_LINEAR", "QUANTILE", "RESETS",
    "SMOOTHING", "STDDEV", "STDVAR", "SUM", "TS_OF_MAX", "TS_OF_MIN", "fit_windows", "reduce_windows",
]  # fmt: skip

FITTED = (STDVAR, STDDEV, DERIV, PREDICT_LINEAR)
"""Codes of `fit_windows`."""

EXACT_LIMIT = 9007199254740992.0
"""2^53: whole numbers whose absolute values sum to less than this add up without rounding in any order."""


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_windows(code, offsets, t_ms, values, started_ms, ends_ms, range_ms, anchor_ms, first, second, smallest, out, present):
    """One of the codes above over every window that holds at least `smallest` samples; those of `fit_windows` apart.

    first, second f64[k]: parameters of QUANTILE (q) and SMOOTHING (smoothing and trend factor). anchor_ms: see `first_row`; CHANGES
    and RESETS only.
    """
    k, room = len(ends_ms), 0
    for s in range(len(offsets) - 1):
        room = max(room, offsets[s + 1] - offsets[s])
    places, totals = np.empty(room + 1, np.int64), np.empty(room + 1, np.int64)
    table = np.empty(room)
    scratch = np.empty((3, k))
    lows, highs, begins = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k, np.int64)
    left, right = np.empty(k, np.uint64), np.empty(k, np.uint64)
    known, size, longest, levels = np.int64(0), np.int64(-1), 0, 0
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        own, own_ms, row = values[start:stop], t_ms[start:stop], out[s]
        if stop - start != size or not same_times(t_ms, start, known, size):
            longest = _bounds(t_ms, start, stop, ends_ms, range_ms, anchor_ms, lows, highs, begins)
            if code in (MIN, MAX):
                levels = order.stretch_places(lows, highs, room, left, right)
                if len(table) < levels * room:
                    table = np.empty(levels * room)
        known, size = start, stop - start
        for j in range(k):
            present[s, j] = highs[j] - lows[j] >= smallest
        if size == 0:
            continue
        if code in (MIN, MAX) and not order.has_nan(own):
            order.extremes(code, own, left, right, levels, room, table, row)
        elif code >= QUANTILE:
            order.ranks(code, own, lows, highs, first, table, row)
        elif code >= MIN:
            order.extremes_by_queue(code, own, own_ms, lows, highs, places, row)
        elif code in (CHANGES, RESETS):
            _count_events(code, own, own_ms, started_ms[start:stop], totals)
            _events(totals, begins, highs, row)
        elif code <= AVG and _whole_totals(own, totals):
            _whole_sums(code == AVG, totals, lows, highs, row)
        elif code <= AVG:
            moment.sums(code == AVG, own, lows, highs, longest, scratch, row)
        elif code in (IRATE, IDELTA):
            _last_windows(code, own, own_ms, started_ms[start:stop], highs, present[s], row)
        else:
            for j in range(k):
                if present[s, j]:
                    row[j] = _smooth(own, lows[j], highs[j], first[j], second[j])


@njit(nogil=True, cache=True, error_model="numpy")
def fit_windows(code, offsets, t_ms, values, ends_ms, range_ms, at_ms, seconds, smallest, out, present):
    """STDVAR, STDDEV, DERIV or PREDICT_LINEAR, so many `seconds` f64[k] after at_ms i64[k], over windows of `smallest` samples.

    A kernel of their own, for they are rarely asked for and take seconds to compile.
    """
    k, room = len(ends_ms), 0
    for s in range(len(offsets) - 1):
        room = max(room, offsets[s + 1] - offsets[s])
    changes, scratch = np.empty(room + 1, np.int64), np.empty((7, k))
    lows, highs, begins, origins_ms = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k, np.int64)
    x_sums, xx_sums = np.empty(k), np.empty(k)
    known, size, longest = np.int64(0), np.int64(-1), 0
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        own, own_ms, row = values[start:stop], t_ms[start:stop], out[s]
        if stop - start != size or not same_times(t_ms, start, known, size):
            longest = _bounds(t_ms, start, stop, ends_ms, range_ms, 0, lows, highs, begins)
            if code >= DERIV:
                moment.time_sums(code == PREDICT_LINEAR, own_ms, lows, highs, at_ms, origins_ms, x_sums, xx_sums)
        known, size = start, stop - start
        for j in range(k):
            present[s, j] = highs[j] - lows[j] >= smallest
        if size == 0:
            continue
        if code < DERIV:
            moment.variances(code == STDDEV, own, lows, highs, longest, scratch, row)
        else:
            moment.regressions(
                code == PREDICT_LINEAR, own, own_ms, lows, highs, longest, origins_ms, seconds, x_sums, xx_sums, scratch,
                changes, row,
            )  # fmt: skip


@register_jitable(error_model="numpy", _nrt=False)
def _bounds(t_ms, start, stop, ends_ms, range_ms, anchor_ms, lows, highs, begins):
    """The most samples that a window of one series has; lows, highs and begins i64[k] are set, the last to the anchored lows."""
    sweep(t_ms, start, stop, ends_ms, range_ms, lows, highs)
    longest = 0
    for j in range(len(lows)):
        begins[j] = first_row(t_ms, start, start + lows[j], ends_ms[j] - range_ms, anchor_ms) - start
        longest = max(longest, highs[j] - lows[j])
    return longest


@register_jitable(error_model="numpy", _nrt=False)
def _whole_totals(own, totals):
    """Whether totals[:m + 1] i64 are now running totals: only of whole numbers that add up without rounding in any order."""
    bound, odd = EXACT_LIMIT / len(own), 0
    for i in range(len(own)):
        odd += (own[i] != np.floor(own[i])) | (not (abs(own[i]) < bound))
    if odd:
        return False
    added = totals[1:]
    for i in range(len(own)):
        added[i] = np.int64(own[i])
    total = np.int64(0)
    totals[0] = 0
    for i in range(len(own)):
        total += added[i]
        added[i] = total
    return True


@register_jitable(error_model="numpy", _nrt=False)
def _whole_sums(mean, totals, lows, highs, out):
    """Sums or means of the windows of one series from its running totals."""
    for j in range(len(lows)):
        total = np.float64(totals[np.uint64(highs[j])] - totals[np.uint64(lows[j])])
        out[j] = total / np.float64(highs[j] - lows[j]) if mean else total


@register_jitable(error_model="numpy", _nrt=False)
def _count_events(code, own, own_ms, started_ms, totals):
    """totals[i] is how often the series has changed, or was reset, up to sample i."""
    hits = totals[1:]
    before, after = own[:-1], own[1:]
    for i in range(len(before)):
        if code == CHANGES:
            hits[i] = (before[i] != after[i]) & ((before[i] == before[i]) | (after[i] == after[i]))
        else:
            hits[i] = after[i] < before[i]
    if code == RESETS and len(started_ms) > 0:
        for i in range(len(before)):
            hits[i] |= np.int64(resets_by_start(started_ms[i], own_ms[i], started_ms[i + 1], own_ms[i + 1]))
    total = np.int64(0)
    totals[0] = 0
    for i in range(len(before)):
        total += hits[i]
        hits[i] = total


@register_jitable(error_model="numpy", _nrt=False)
def _events(totals, begins, highs, out):
    for j in range(len(begins)):
        if highs[j] > begins[j]:
            out[j] = float(totals[highs[j] - 1] - totals[begins[j]])


@register_jitable(error_model="numpy", _nrt=False)
def _last_windows(code, own, own_ms, started_ms, highs, present, out):
    """IRATE and IDELTA: what the last two samples of each window tell."""
    for j in range(len(highs)):
        if not present[j]:
            continue
        a, b = highs[j] - 2, highs[j] - 1
        if code == IDELTA:
            out[j] = own[b] - own[a]
            continue
        reset = own[b] < own[a]
        if len(started_ms) > 0:
            reset = reset or resets_by_start(started_ms[a], own_ms[a], started_ms[b], own_ms[b])
        rise = own[b] if reset else own[b] - own[a]
        out[j] = rise / ((own_ms[b] - own_ms[a]) / 1000.0)


@register_jitable(error_model="numpy", _nrt=False)
def _smooth(own, low, high, smoothing, trend):
    level, before, slope = own[low], 0.0, own[low + 1] - own[low]
    for i in range(low + 1, high):
        if i > low + 1:
            slope = trend * (level - before) + (1.0 - trend) * slope
        before, level = level, smoothing * own[i] + (1.0 - smoothing) * (level + slope)
    return level

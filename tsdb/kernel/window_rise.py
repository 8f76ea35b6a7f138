"""How much counters and gauges rose in sliding windows: `rate`, `increase` and `delta`. For the arguments see `window`."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.aggregate import ABSENT
from tsdb.kernel.window import first_row, interpolate, resets_by_start, same_times, slide, sweep
from tsdb.kernel.window_moment import FEWEST, pick

RARE = 16
"""Less than one reset in so many samples: of most windows nothing is looked at but their ends."""


@njit(nogil=True, cache=True, error_model="numpy")
def counter_windows(counter, per_second, range_s, offsets, t_ms, values, started_ms, ends_ms, range_ms, out, present, overlap):
    """`rate` (counter, per_second), `increase` (counter) or `delta` with Prometheus's extrapolation.

    started_ms: i64[m] start timestamps, 0 = unknown, or empty. overlap bool[n] is set where a sample's start timestamp lies
    before the sample ahead of it. Without start timestamps one pass: O(m + n k) but for windows that hold a counter reset.
    """
    if len(started_ms) > 0:
        _started_windows(
            counter, per_second, range_s, offsets, t_ms, values, started_ms, ends_ms, range_ms, out, present, overlap
        )  # fmt: skip
        return
    k = len(ends_ms)
    lows, highs, firsts, lasts = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k, np.uint64), np.empty(k, np.uint64)
    terms, scratch = np.empty((4, k)), np.empty((2, k))
    lost = np.empty(0)
    known, size = np.int64(0), np.int64(-1)
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        if stop - start != size or not same_times(t_ms, start, known, size):
            sweep(t_ms, start, stop, ends_ms, range_ms, lows, highs)
            _terms(per_second, range_s, t_ms, start, lows, highs, ends_ms, range_ms, firsts, lasts, terms)
        known, size = start, stop - start
        own, row, here = values[start:stop], out[s], present[s]
        for j in range(k):
            here[j] = highs[j] - lows[j] > 1
        if size == 0:
            continue
        if not counter:
            for j in range(k):
                row[j] = (own[lasts[j]] - own[firsts[j]]) * terms[3, j]
        elif _falls(own):
            if len(lost) < size:
                lost = np.empty(size)
            _rises_with_resets(per_second, range_s, own, lows, highs, terms, lost[:size], scratch, row)
        else:
            _rises(per_second, range_s, own, firsts, lasts, terms[0], terms[1], terms[2], terms[3], row)


@register_jitable(error_model="numpy")
def _terms(per_second, range_s, t_ms, start, lows, highs, ends_ms, range_ms, firsts, lasts, terms):
    """What the windows of one series take from its times. Windows of less than two samples get those of none.

    firsts, lasts u64[k]: the rows of a window's first and last sample, counted from `start`; unsigned, for only so do loops over
    them vectorise. terms f64[4, k]: the sampled seconds, those to the window's start and to its end, and the factor that follows,
    unless the counter has its zero point nearer than the start.
    """
    for j in range(len(ends_ms)):
        count = highs[j] - lows[j]
        if count < 2:
            firsts[j] = lasts[j] = 0
            terms[:, j] = 0.0
            continue
        firsts[j], lasts[j] = lows[j], highs[j] - 1
        first_ms, last_ms = t_ms[start + lows[j]], t_ms[start + highs[j] - 1]
        to_start = (first_ms - (ends_ms[j] - range_ms)) / 1000.0
        to_end = (ends_ms[j] - last_ms) / 1000.0
        sampled = (last_ms - first_ms) / 1000.0
        mean = sampled / (count - 1)
        threshold = mean * 1.1
        terms[0, j] = sampled
        terms[1, j] = mean / 2.0 if to_start >= threshold else to_start
        terms[2, j] = mean / 2.0 if to_end >= threshold else to_end
        terms[3, j] = _factor(per_second, range_s, sampled, terms[1, j], terms[2, j])


@register_jitable(error_model="numpy", inline="always")
def _factor(per_second, range_s, sampled, to_start, to_end):
    factor = (sampled + to_start + to_end) / sampled if sampled != 0.0 else 1.0
    return factor / range_s if per_second else factor


@register_jitable(error_model="numpy")
def _falls(own):
    """Whether any sample is below the one before it."""
    before, found = own[:-1], 0
    after = own[1:]
    for i in range(len(before)):
        found += after[i] < before[i]
    return found > 0


@register_jitable(error_model="numpy")
def _rises(per_second, range_s, own, firsts, lasts, sampled, to_start, to_end, factors, out):
    """The windows of a counter that is never reset."""
    near_zero = 0
    for j in range(len(firsts)):
        first = own[firsts[j]]
        delta = own[lasts[j]] - first
        out[j] = delta * factors[j]
        near_zero += (delta > 0.0) & (first >= 0.0) & (sampled[j] * (first / delta) < to_start[j])
    for j in range(len(firsts) if near_zero else 0):
        first = own[firsts[j]]
        out[j] = _rise(per_second, range_s, own[lasts[j]] - first, first, sampled[j], to_start[j], to_end[j], factors[j])


@register_jitable(error_model="numpy")
def _rises_with_resets(per_second, range_s, own, lows, highs, terms, lost, scratch, out):
    """The windows of one series; lost f64[m] and scratch f64[2, k] are scratch."""
    before, after, behind = own[:-1], own[1:], lost[1:]
    resets = 0
    for i in range(len(before)):
        behind[i] = before[i] if after[i] < before[i] else ABSENT
        resets += after[i] < before[i]
    x, delta = scratch[0], scratch[1]
    longest = 0
    for j in range(len(lows)):
        longest = max(longest, highs[j] - lows[j])
        delta[j] = own[highs[j] - 1] - own[lows[j]] if highs[j] > lows[j] else 0.0
    if resets * RARE > len(own) and len(lows) >= FEWEST:  # no counter: what lies between its resets is not worth looking for
        for i in range(1, longest):
            pick(lost, lows, highs, i, x)
            for j in range(len(x)):
                delta[j] += x[j]
    else:
        scan = 0
        for j in range(len(lows)):
            # scan is the first reset behind low, or high: while it is high, nothing needs adding
            scan = max(scan, lows[j] + 1)
            while scan < highs[j] and not own[scan] < own[scan - 1]:
                scan += 1
            for i in range(scan, highs[j]):
                delta[j] += lost[i]
    for j in range(len(lows)):
        out[j] = _rise(
            per_second, range_s, delta[j], own[min(lows[j], len(own) - 1)], terms[0, j], terms[1, j], terms[2, j], terms[3, j]
        )


@register_jitable(error_model="numpy")
def _rise(per_second, range_s, delta, first, sampled, to_start, to_end, factor):
    """delta extrapolated, but not beyond the counter's zero point."""
    if delta > 0.0 and first >= 0.0:
        zero = sampled * (first / delta)
        if zero < to_start:
            factor = _factor(per_second, range_s, sampled, zero, to_end)
    return delta * factor


@register_jitable(error_model="numpy")
def _started_windows(counter, per_second, range_s, offsets, t_ms, values, started_ms, ends_ms, range_ms, out, present, overlap):
    for s in range(len(offsets) - 1):
        low = high = offsets[s]
        for j in range(len(ends_ms)):
            low, high = slide(t_ms, low, high, offsets[s + 1], ends_ms[j], range_ms)
            present[s, j] = False
            count = high - low
            if count == 0:
                continue
            delta = values[high - 1] - values[low]
            if counter:
                delta, overlaps = _add_resets_by_start(t_ms, values, started_ms, low, high, delta)
                overlap[s] |= overlaps
            start = started_ms[low] if counter else 0
            begins = start != 0 and start > ends_ms[j] - range_ms and start < t_ms[low]
            if count == 1 and not begins:
                continue
            factor_start = start if begins else -1
            out[s, j] = extrapolate(
                counter, per_second, range_s, values[low], t_ms[low], t_ms[high - 1], count, begins, factor_start, ends_ms[j],
                range_ms, delta,
            )  # fmt: skip
            present[s, j] = True


@njit(nogil=True, cache=True, error_model="numpy")
def extended_windows(smoothed, counter, divisor_s, offsets, t_ms, values, ends_ms, range_ms, lookback_ms, out, present):
    """`rate`, `increase` or `delta` of an `anchored` or `smoothed` selector, without extrapolation.

    Anchored windows begin at the newest sample at or before their start; smoothed ones interpolate at both edges. Samples up to
    lookback_ms outside the window may serve. The result is divided by divisor_s (1 unless `rate`).
    """
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        low = high = start
        for j in range(len(ends_ms)):
            left, end = ends_ms[j] - range_ms, ends_ms[j]
            low, high = slide(t_ms, low, high, stop, end, range_ms)
            first = first_row(t_ms, start, low, left, lookback_ms)
            last = high - 1
            if smoothed and high < stop and t_ms[high] <= end + lookback_ms and (last < first or t_ms[last] < end):
                last = high
            present[s, j] = last >= first and t_ms[last] > left and not (smoothed and t_ms[first] > end)
            if present[s, j]:
                out[s, j] = _between(smoothed, counter, t_ms, values, first, last, left, end) / divisor_s


@register_jitable(error_model="numpy")
def _add_resets_by_start(t_ms, values, started_ms, low, high, delta):
    overlaps = False
    for i in range(low + 1, high):
        before, start = started_ms[i - 1], started_ms[i]
        overlaps |= start != 0 and start < t_ms[i - 1] and start != before
        if values[i] < values[i - 1] or resets_by_start(before, t_ms[i - 1], start, t_ms[i]):
            delta += values[i - 1]
    return delta, overlaps


@register_jitable(error_model="numpy")
def extrapolate(counter, per_second, range_s, first, first_ms, last_ms, count, begins, start, end, range_ms, delta):
    """delta scaled from the sampled interval to the whole window, as far as the series seems to reach."""
    to_start = (first_ms - (end - range_ms)) / 1000.0
    to_end = (end - last_ms) / 1000.0
    sampled = (last_ms - first_ms) / 1000.0
    mean = sampled / (count - 1) if count > 1 else 0.0
    threshold = mean * 1.1
    if begins:
        # the counter began inside the window, at zero
        to_start = 0.0
        sampled = (last_ms - start) / 1000.0
        delta += first
    else:
        if to_start >= threshold:
            to_start = mean / 2.0
        if counter and delta > 0.0 and first >= 0.0:
            to_start = min(to_start, sampled * (first / delta))  # not beyond its zero point
    if to_end >= threshold:
        to_end = mean / 2.0
    factor = (sampled + to_start + to_end) / sampled if sampled != 0.0 else 1.0
    if per_second:
        factor /= range_s
    return delta * factor


@register_jitable(error_model="numpy")
def _between(smoothed, counter, t_ms, values, first, last, left, end):
    """What the series rose from `left` to `end`, resets added when a counter."""
    from_left = smoothed and t_ms[first] < left
    past_end = smoothed and last > first and t_ms[last] > end
    begin = interpolate(t_ms, values, first, first + 1, left, counter) if from_left else values[first]
    finish = interpolate(t_ms, values, last - 1, last, end, counter) if past_end else values[last]
    rise = finish - begin
    if not counter:
        return rise
    correction, previous = 0.0, begin
    for i in range(first + 1 if t_ms[first] <= left else first, last if t_ms[last] >= end else last + 1):
        if values[i] < previous:
            correction += previous
        previous = values[i]
    if finish < previous:
        correction += previous
    return rise + correction

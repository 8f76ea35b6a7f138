"""Reductions of sliding windows to one number, in PromQL's summation order, bit for bit. For the arguments see `window`."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.window import first_row, resets_by_start, same_times, sweep

(
    SUM, AVG, STDVAR, STDDEV, CHANGES, RESETS, IRATE, IDELTA, DERIV, PREDICT_LINEAR, SMOOTHING,
    MIN, MAX, TS_OF_MIN, TS_OF_MAX, QUANTILE, MAD,
) = range(17)  # fmt: skip
"""Codes of `reduce_windows`."""

EXACT_LIMIT = 9007199254740992.0
"""2^53: whole numbers whose absolute values sum to less than this add up without rounding in any order."""


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_windows(
    code, offsets, t_ms, values, started_ms, ends_ms, range_ms, anchor_ms, at_ms, first, second, smallest, out, present
):
    """One of the codes above over every window that holds at least `smallest` samples.

    at_ms i64[k]: the time that PREDICT_LINEAR counts from. first, second f64[k]: parameters of QUANTILE (q), PREDICT_LINEAR
    (seconds) and SMOOTHING (smoothing and trend factor). anchor_ms: see `first_row`; CHANGES and RESETS only.
    """
    longest = 0
    for s in range(len(offsets) - 1):
        longest = max(longest, offsets[s + 1] - offsets[s])
    scratch = np.empty(longest + 1)
    queue = np.empty(longest + 1, np.int64)
    lows, highs, begins = np.empty(len(ends_ms), np.int64), np.empty(len(ends_ms), np.int64), np.empty(len(ends_ms), np.int64)
    x_sums, xx_sums = np.empty(len(ends_ms)), np.empty(len(ends_ms))
    known, size = np.int64(0), np.int64(-1)
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        if stop - start != size or not same_times(t_ms, start, known, size):
            sweep(t_ms, start, stop, ends_ms, range_ms, lows, highs)
            if code in (DERIV, PREDICT_LINEAR):
                _time_sums(code, t_ms, start, lows, highs, at_ms, x_sums, xx_sums)
        known, size = start, stop - start
        if code >= MIN:
            _ordered_windows(code, t_ms, values, start, lows, highs, first, scratch, queue, out[s])
        elif _prepare(code, t_ms, values, started_ms, start, stop, scratch):
            if anchor_ms > 0:
                _anchor(t_ms, start, ends_ms, range_ms, anchor_ms, lows, begins)
                _summed_windows(code, scratch, begins, highs, out[s])
            else:
                _summed_windows(code, scratch, lows, highs, out[s])
        elif code in (IRATE, IDELTA):
            _last_windows(code, t_ms, values, started_ms, start, lows, highs, out[s])
        elif code in (DERIV, PREDICT_LINEAR):
            _regressions(code, t_ms, values, start, lows, highs, at_ms, first, x_sums, xx_sums, out[s])
        else:
            for j in range(len(lows)):
                if highs[j] - lows[j] >= smallest:
                    out[s, j] = _reduce(code, values, start + lows[j], start + highs[j], first[j], second[j])
        for j in range(len(lows)):
            present[s, j] = highs[j] - lows[j] >= smallest


@register_jitable(error_model="numpy")
def _anchor(t_ms, start, ends_ms, range_ms, anchor_ms, lows, begins):
    for j in range(len(lows)):
        begins[j] = first_row(t_ms, start, start + lows[j], ends_ms[j] - range_ms, anchor_ms) - start


@register_jitable(error_model="numpy")
def _ordered_windows(code, t_ms, values, start, lows, highs, first, scratch, queue, out):
    """The windows of one series whose result follows from the order of their values."""
    low = high = start
    head = tail = 0  # the queue of MIN, MAX and their times is queue[head:tail]; scratch[:tail] are QUANTILE's sorted values
    for j in range(len(lows)):
        was_low, was_high = low, high
        low, high = start + lows[j], start + highs[j]
        if code >= QUANTILE:
            tail = _slide_sorted(values, was_low, was_high, low, high, scratch, tail)
            if high > low:
                out[j] = _quantile(first[j], scratch, tail) if code == QUANTILE else _deviation(scratch, tail)
        else:
            head, tail = _slide_queue(code, values, was_high, low, high, queue, head, tail)
            if high > low:
                row = queue[head] if head < tail else high - 1  # only NaN: the last one
                out[j] = values[row] if code <= MAX else t_ms[row] / 1000.0


@register_jitable(error_model="numpy")
def _prepare(code, t_ms, values, started_ms, start, stop, sums):
    """Whether sums f64 was filled with running totals of the series, from which windows follow by one subtraction.

    SUM and AVG: only of whole numbers below 2^53 in all, where no order of summation rounds. CHANGES and RESETS: always.
    """
    if code in (CHANGES, RESETS):
        sums[0] = 0.0
        for i in range(start + 1, stop):
            a, b = values[i - 1], values[i]
            if code == CHANGES:
                hit = a != b and not (np.isnan(a) and np.isnan(b))
            else:
                hit = b < a or (len(started_ms) > 0 and resets_by_start(started_ms[i - 1], t_ms[i - 1], started_ms[i], t_ms[i]))
            sums[i - start] = sums[i - start - 1] + (1.0 if hit else 0.0)
        return stop > start
    if code > AVG:
        return False
    sums[0] = size = 0.0
    for i in range(start, stop):
        size += abs(values[i])
        if values[i] != np.floor(values[i]) or not size < EXACT_LIMIT:
            return False
        sums[i - start + 1] = sums[i - start] + values[i]
    return True


@register_jitable(error_model="numpy")
def _summed_windows(code, sums, lows, highs, out):
    """The windows of one series from its running totals. (A call for each window would cost more than what it does.)"""
    for j in range(len(lows)):
        if highs[j] > lows[j]:
            if code >= CHANGES:
                out[j] = sums[highs[j] - 1] - sums[lows[j]]
            else:
                total = sums[highs[j]] - sums[lows[j]]
                out[j] = total if code == SUM else total / (highs[j] - lows[j])


@register_jitable(error_model="numpy")
def _last_windows(code, t_ms, values, started_ms, start, lows, highs, out):
    """IRATE and IDELTA: what the last two samples of each window tell."""
    for j in range(len(lows)):
        if highs[j] - lows[j] < 2:
            continue
        a, b = start + highs[j] - 2, start + highs[j] - 1
        if code == IDELTA:
            out[j] = values[b] - values[a]
            continue
        reset = values[b] < values[a]
        if len(started_ms) > 0:
            reset = reset or resets_by_start(started_ms[a], t_ms[a], started_ms[b], t_ms[b])
        rise = values[b] if reset else values[b] - values[a]
        out[j] = rise / ((t_ms[b] - t_ms[a]) / 1000.0)


@register_jitable(error_model="numpy")
def _reduce(code, values, low, high, first, second):
    if code == SUM:
        return _sum(values, low, high)
    if code == AVG:
        return _mean(values, low, high)
    if code == STDVAR:
        return _variance(values, low, high)
    if code == STDDEV:
        return np.sqrt(_variance(values, low, high))
    return _smooth(values, low, high, first, second)


@register_jitable(error_model="numpy")
def _add(value, total, rest):
    """One step of Kahan's summation with Neumaier's improvement."""
    added = total + value
    if np.isinf(added):
        return added, 0.0
    if abs(total) >= abs(value):
        return added, rest + ((total - added) + value)
    return added, rest + ((value - added) + total)


@register_jitable(error_model="numpy")
def _sum(values, low, high):
    total = rest = 0.0
    for i in range(low, high):
        total, rest = _add(values[i], total, rest)
    return total if np.isinf(total) else total + rest


@register_jitable(error_model="numpy")
def _mean(values, low, high):
    """Sum by count; from where the sum would overflow, the incremental mean."""
    total, rest, mean, count = values[low], 0.0, 0.0, 1.0
    incremental = False
    for i in range(low + 1, high):
        count = float(i - low + 1)
        if not incremental:
            new_total, new_rest = _add(values[i], total, rest)
            if not np.isinf(new_total):
                total, rest = new_total, new_rest
                continue
            incremental = True
            mean = total / (count - 1.0)
            rest /= count - 1.0
        share = (count - 1.0) / count
        mean, rest = _add(values[i] / count, share * mean, share * rest)
    return mean + rest if incremental else total / count + rest / count


@register_jitable(error_model="numpy")
def _variance(values, low, high):
    """Welford's, with compensated sums."""
    count = mean = mean_rest = squares = squares_rest = 0.0
    for i in range(low, high):
        count += 1.0
        delta = values[i] - (mean + mean_rest)
        mean, mean_rest = _add(delta / count, mean, mean_rest)
        squares, squares_rest = _add(delta * (values[i] - (mean + mean_rest)), squares, squares_rest)
    return (squares + squares_rest) / count


@register_jitable(error_model="numpy")
def _smooth(values, low, high, smoothing, trend):
    level, before, slope = values[low], 0.0, values[low + 1] - values[low]
    for i in range(low + 1, high):
        if i > low + 1:
            slope = trend * (level - before) + (1.0 - trend) * slope
        before, level = level, smoothing * values[i] + (1.0 - smoothing) * (level + slope)
    return level


@register_jitable(error_model="numpy")
def _time_sums(code, t_ms, start, lows, highs, at_ms, x_sums, xx_sums):
    """The sums over each window of the seconds from its origin and of their squares: of series with the same times the same."""
    for j in range(len(lows)):
        if highs[j] - lows[j] < 2:
            continue
        x_sum = x_rest = xx_sum = xx_rest = 0.0
        origin = t_ms[start + lows[j]] if code == DERIV else at_ms[j]
        for i in range(start + lows[j], start + highs[j]):
            x = (t_ms[i] - origin) / 1000.0
            x_sum, x_rest = _add(x, x_sum, x_rest)
            xx_sum, xx_rest = _add(x * x, xx_sum, xx_rest)
        x_sums[j], xx_sums[j] = x_sum + x_rest, xx_sum + xx_rest


@register_jitable(error_model="numpy")
def _regressions(code, t_ms, values, start, lows, highs, at_ms, seconds, x_sums, xx_sums, out):
    """DERIV, the slope a second, and PREDICT_LINEAR, the value so many `seconds` after at_ms, by least squares."""
    for j in range(len(lows)):
        low, high = start + lows[j], start + highs[j]
        if high - low < 2:
            continue
        origin, oldest = t_ms[low] if code == DERIV else at_ms[j], values[low]
        y_sum = y_rest = xy_sum = xy_rest = 0.0
        constant = True
        for i in range(low, high):
            y = values[i]
            constant = constant and (i == low or y == oldest)
            y_sum, y_rest = _add(y, y_sum, y_rest)
            xy_sum, xy_rest = _add((t_ms[i] - origin) / 1000.0 * y, xy_sum, xy_rest)
        if constant:
            slope, intercept = (np.nan, np.nan) if np.isinf(oldest) else (0.0, oldest)
        else:
            n, x_sum, y_sum = np.float64(high - low), x_sums[j], y_sum + y_rest
            slope = ((xy_sum + xy_rest) - x_sum * y_sum / n) / (xx_sums[j] - x_sum * x_sum / n)
            intercept = y_sum / n - slope * x_sum / n
        out[j] = slope if code == DERIV else slope * seconds[j] + intercept


@register_jitable(error_model="numpy")
def _slide_queue(code, values, was_high, low, high, queue, head, tail):
    """The queue of rows that may still become the extreme, best first; NaN never is one while a number is there.

    The first of equals wins for MIN and MAX, the last for their times.
    """
    while head < tail and queue[head] < low:
        head += 1
    if head == tail:
        head = tail = 0
    for i in range(max(was_high, low), high):
        v = values[i]
        if np.isnan(v):
            continue
        while head < tail:
            back = values[queue[tail - 1]]
            if (
                (code == MAX and back < v)
                or (code == MIN and back > v)
                or (code == TS_OF_MAX and back <= v)
                or (code == TS_OF_MIN and back >= v)
            ):
                tail -= 1
            else:
                break
        queue[tail] = i
        tail += 1
    return head, tail


@register_jitable(error_model="numpy")
def _slide_sorted(values, was_low, was_high, low, high, window, size):
    """window[:size], sorted with NaN first, moved from rows was_low:was_high to low:high; the new size."""
    if low >= was_high:
        size, was_low, was_high = 0, low, low
    for i in range(was_low, low):
        at = _place(values[i], window, size)
        for p in range(at, size - 1):
            window[p] = window[p + 1]
        size -= 1
    for i in range(was_high, high):
        at = _place(values[i], window, size)
        for p in range(size, at, -1):
            window[p] = window[p - 1]
        window[at] = values[i]
        size += 1
    return size


@register_jitable(error_model="numpy")
def _place(value, window, size):
    """The first place in window[:size] that is not less than value."""
    if np.isnan(value):
        return 0
    a, b = 0, size
    while a < b:
        middle = (a + b) // 2
        if np.isnan(window[middle]) or window[middle] < value:
            a = middle + 1
        else:
            b = middle
    return a


@register_jitable(error_model="numpy")
def _quantile(q, window, size):
    """Linear interpolation between the two nearest ranks of sorted window[:size]."""
    if np.isnan(q):
        return np.nan
    if q < 0.0:
        return -np.inf
    if q > 1.0:
        return np.inf
    rank = q * (size - 1.0)
    below = int(np.floor(rank))
    above = min(size - 1, below + 1)
    weight = rank - np.floor(rank)
    return window[below] * (1.0 - weight) + window[above] * weight


@register_jitable(error_model="numpy")
def _deviation(window, size):
    """The median absolute deviation of sorted window[:size]; NaN if one of them is, or the median is no finite number."""
    median = _quantile(0.5, window, size)
    if np.isnan(window[0]) or not np.isfinite(median):
        return np.nan
    right = _place(median, window, size)
    left = right - 1
    below = (size - 1) // 2
    lower = away = 0.0
    for rank in range(min(size - 1, below + 1) + 1):  # the nearest value to the median is on one of two sides
        if right >= size or (left >= 0 and median - window[left] <= window[right] - median):
            away = abs(window[left] - median)
            left -= 1
        else:
            away = abs(window[right] - median)
            right += 1
        if rank == below:
            lower = away
    weight = 0.5 * (size - 1.0) - below
    return lower * (1.0 - weight) + away * weight

"""Functions over sliding windows of downsampled samples: whole windows put together. For the arguments see `window`.

columns f64[12, m] are the window columns (`downsample`), values f64[m] the newest value of each that is no stale marker; every
count is above 0. t_ms are the ends of the windows, so that range windows cut along them hold whole ones.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel import downsample as at
from tsdb.kernel.downsample import add, shifted_squares
from tsdb.kernel.window import slide
from tsdb.kernel.window_rise import extrapolate

(
    COUNT, SUM, AVG, STDVAR, STDDEV, MIN, MAX, CHANGES, RESETS, FIRST, LAST, TS_OF_FIRST, TS_OF_LAST, PRESENT,
    RATE, INCREASE, DELTA,
) = range(17)  # fmt: skip
"""Codes of `merge_windows`."""


@njit(nogil=True, cache=True, error_model="numpy")
def merge_windows(code, range_s, offsets, t_ms, values, columns, ends_ms, range_ms, out, present):
    """One of the codes above over every window. O(m + n k range / resolution)."""
    for s in range(len(offsets) - 1):
        low = high = offsets[s]
        for j in range(len(ends_ms)):
            low, high = slide(t_ms, low, high, offsets[s + 1], ends_ms[j], range_ms)
            present[s, j] = high > low
            if high == low:
                continue
            if code >= RATE:
                count = 0.0
                for i in range(low, high):
                    count += columns[at.COUNT, i]
                present[s, j] = count > 1.0
                if count > 1.0:
                    out[s, j] = _rise(code, range_s, t_ms, values, columns, low, high, count, ends_ms[j], range_ms)
            elif code >= FIRST:
                out[s, j] = _edge(code, t_ms, values, columns, low, high)
            elif code >= CHANGES:
                out[s, j] = _pairs(code, values, columns, low, high)
            elif code >= MIN:
                out[s, j] = _extreme(code, columns, low, high)
            else:
                out[s, j] = _moment(code, columns, low, high)


@register_jitable(error_model="numpy")
def _rise(code, range_s, t_ms, values, columns, low, high, count, end, range_ms):
    first, last = columns[at.FIRST, low], values[high - 1]
    rise = last - first
    if code != DELTA:
        for i in range(low, high):
            rise += columns[at.CORRECTION, i]
            if i > low and columns[at.FIRST, i] < values[i - 1]:
                rise += values[i - 1]
    first_ms, last_ms = t_ms[low] - columns[at.FIRST_MS, low], t_ms[high - 1] - columns[at.LAST_MS, high - 1]
    return extrapolate(
        code != DELTA, code == RATE, range_s, first, np.int64(first_ms), np.int64(last_ms), np.int64(count), False, -1, end,
        range_ms, rise,
    )  # fmt: skip


@register_jitable(error_model="numpy")
def _edge(code, t_ms, values, columns, low, high):
    if code == FIRST:
        return columns[at.FIRST, low]
    if code == LAST:
        return values[high - 1]
    if code == TS_OF_FIRST:
        return (t_ms[low] - columns[at.FIRST_MS, low]) / 1000.0
    if code == TS_OF_LAST:
        return (t_ms[high - 1] - columns[at.LAST_MS, high - 1]) / 1000.0
    return 1.0


@register_jitable(error_model="numpy")
def _pairs(code, values, columns, low, high):
    found = 0.0
    for i in range(low, high):
        found += columns[at.CHANGES if code == CHANGES else at.RESETS, i]
        if i > low:
            a, b = values[i - 1], columns[at.FIRST, i]
            if code == CHANGES:
                found += 1.0 if a != b and not (a != a and b != b) else 0.0
            else:
                found += 1.0 if b < a else 0.0
    return found


@register_jitable(error_model="numpy")
def _extreme(code, columns, low, high):
    """NaN only where all are."""
    best = np.nan
    for i in range(low, high):
        v = columns[at.MIN, i] if code == MIN else columns[at.MAX, i]
        if best != best or (v < best if code == MIN else v > best):
            best = v
    return best


@register_jitable(error_model="numpy")
def _moment(code, columns, low, high):
    count = total = rest = squares = 0.0
    origin = columns[at.FIRST, low]
    for i in range(low, high):
        n = columns[at.COUNT, i]
        count += n
        if code == COUNT:
            continue
        total, rest = add(columns[at.SUM, i], total, rest)
        if code >= STDVAR:
            squares += shifted_squares(columns[at.SQUARES, i], columns[at.SUM, i], n, columns[at.FIRST, i], origin)
    total = total if np.isinf(total) else total + rest
    if code <= SUM:
        return count if code == COUNT else total
    if code == AVG:
        return total / count if np.isfinite(total) else _large_mean(columns, low, high)
    mean = total / count
    variance = squares / count - (mean - origin) * (mean - origin)
    variance = 0.0 if variance < 0.0 else variance
    return variance if code == STDVAR else np.sqrt(variance)


@register_jitable(error_model="numpy")
def _large_mean(columns, low, high):
    """The mean where the sum overflows; infinite or NaN where a value is."""
    count = mean = 0.0
    for i in range(low, high):
        n = columns[at.COUNT, i]
        count += n
        mean = mean * ((count - n) / count) + columns[at.SUM, i] / n * (n / count)
    return mean

"""Downsampling: samples to windows, and windows to longer ones.

Window columns are rows of one f64[12, m], numbered below; what each says is told in `tsdb.model.windows`. Series i is rows
offsets[i]:offsets[i+1] of t_ms i64[m] and values f64[m], whose bits are `bits` u64[m]. A window is (end - resolution_ms, end] with
its end a multiple of resolution_ms; t_ms of a window is its end.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

COUNT, SUM, SQUARES, MIN, MAX, FIRST, CORRECTION, RESETS, CHANGES, FIRST_MS, LAST_MS, BEFORE_STALE = range(12)
"""The rows of window columns."""
COLUMNS = 12
SUM_DIGITS, SQUARES_DIGITS = 15, 11
"""Significant digits of sums of fractions and of their squares, by which they become the decimals that they are but for rounding: a
third smaller. Deviations are then 1e-10 of the spread from what they would be."""

_POWERS = 10.0 ** np.arange(23)
STALE_BITS = np.uint64(0x7FF0000000000002)


@njit(nogil=True, cache=True)
def count_windows(offsets, t_ms, resolution_ms, ends):
    """i64[n+1] offsets of the windows that hold a sample. The first row behind each window is put into ends i64[m]."""
    out = np.zeros(len(offsets), np.int64)
    used = 0
    for s in range(len(offsets) - 1):
        i, stop = offsets[s], offsets[s + 1]
        while i < stop:
            end = -((-t_ms[i]) // resolution_ms) * resolution_ms
            while i < stop and t_ms[i] <= end:
                i += 1
            ends[used] = i
            used += 1
        out[s + 1] = used
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_samples(first_row, t_ms, values, bits, resolution_ms, ends, out_t, out_values, out):
    """The windows that end before the rows `ends` i64[w] (see `count_windows`): out_t i64[w], out_values f64[w], out f64[12, w]."""
    low = first_row
    for w in range(len(ends)):
        high = ends[w]
        end = -((-t_ms[low]) // resolution_ms) * resolution_ms
        out_t[w], out_values[w] = end, values[high - 1]
        out[LAST_MS, w] = end - t_ms[high - 1]
        first = low
        while first < high and bits[first] == STALE_BITS:
            first += 1
        if first == high:
            _empty_window(out, w)
        else:
            _reduce_samples(t_ms, values, bits, first, high, end, out, w)
        low = high


@njit(nogil=True, cache=True)
def single_windows(values, bits, wanted, at, size, out):
    """The samples in rows at[i]:at[i]+size[i] of values f64[m] as windows of one each: of out f64[12, m] the columns that bool[12]
    `wanted` says, at the same rows."""
    for c in range(COLUMNS):
        if not wanted[c]:
            continue
        for i in range(len(size)):
            own, own_bits = values[at[i] : at[i] + size[i]], bits[at[i] : at[i] + size[i]]
            column = out[c, at[i] : at[i] + size[i]]
            for j in range(size[i]):
                stale = own_bits[j] == STALE_BITS
                if c == COUNT:
                    column[j] = 0.0 if stale else 1.0
                elif c in (SUM, MIN, MAX, FIRST):
                    column[j] = 0.0 if stale else own[j]
                elif c == SQUARES:
                    column[j] = 0.0 if stale or np.isfinite(own[j]) else np.nan
                else:
                    column[j] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_windows(first_row, t_ms, values, bits, columns, resolution_ms, ends, out_t, out_values, out):
    """As `reduce_samples`, of shorter windows with the columns f64[12, m]."""
    low = first_row
    for w in range(len(ends)):
        high = ends[w]
        end = -((-t_ms[low]) // resolution_ms) * resolution_ms
        out_t[w], out_values[w] = end, values[high - 1]
        out[LAST_MS, w] = end - t_ms[high - 1] + columns[LAST_MS, high - 1]
        first = low
        while first < high and columns[COUNT, first] == 0.0:
            first += 1
        if first == high:
            _empty_window(out, w)
        else:
            _reduce_windows(t_ms, values, bits, columns, first, high, end, out, w)
        low = high


@register_jitable(error_model="numpy")
def _empty_window(out, w):
    """Of a window of stale markers only."""
    for c in range(12):
        if c != LAST_MS:
            out[c, w] = 0.0


@register_jitable(error_model="numpy")
def _reduce_samples(t_ms, values, bits, first, high, end, out, w):
    """Rows first:high, the first of which is no stale marker, into column w."""
    begin = values[first]
    low = top = last = begin
    total, rest, squares, correction = begin, 0.0, 0.0, 0.0
    count, resets, changes, last_row = 1, 0, 0, first
    for i in range(first + 1, high):
        v = values[i]
        if v != v and bits[i] == STALE_BITS:
            continue
        count += 1
        last_row = i
        if v != last:
            changes += 1 if v == v or last == last else 0
            if v < last:
                resets += 1
                correction += last
            low = v if v < low or low != low else low
            top = v if v > top or top != top else top
        total, rest = add(v, total, rest)
        squares += (v - begin) * (v - begin)
        last = v
    total = total if np.isinf(total) else total + rest
    out[COUNT, w], out[SUM, w] = count, rounded(total, SUM_DIGITS)
    out[SQUARES, w] = rounded(squares, SQUARES_DIGITS) if np.isfinite(total) else np.nan
    out[MIN, w], out[MAX, w], out[FIRST, w] = low, top, begin
    out[CORRECTION, w], out[RESETS, w], out[CHANGES, w] = rounded(correction, SUM_DIGITS), resets, changes
    out[FIRST_MS, w] = end - t_ms[first]
    stale = bits[high - 1] == STALE_BITS
    out[BEFORE_STALE, w] = last if stale else 0.0
    if stale:
        out[LAST_MS, w] = end - t_ms[last_row]


@register_jitable(error_model="numpy")
def _reduce_windows(t_ms, values, bits, columns, first, high, end, out, w):
    """Rows first:high, the first of which holds a number, into column w."""
    begin = columns[FIRST, first]
    total, rest, squares, correction = 0.0, 0.0, 0.0, 0.0
    count, resets, changes = 0.0, 0.0, 0.0
    low, top, last, last_ms = np.nan, np.nan, begin, 0.0
    for i in range(first, high):
        n = columns[COUNT, i]
        if n == 0.0:
            continue
        v = columns[FIRST, i]
        resets += columns[RESETS, i] + (1.0 if v < last else 0.0)
        correction += columns[CORRECTION, i] + (last if v < last else 0.0)
        changes += columns[CHANGES, i] + (1.0 if v != last and not (v != v and last != last) else 0.0)
        total, rest = add(columns[SUM, i], total, rest)
        squares += shifted_squares(columns[SQUARES, i], columns[SUM, i], n, v, begin)
        low = columns[MIN, i] if columns[MIN, i] < low or low != low else low
        top = columns[MAX, i] if columns[MAX, i] > top or top != top else top
        count += n
        last = columns[BEFORE_STALE, i] if bits[i] == STALE_BITS else values[i]
        last_ms = t_ms[i] - columns[LAST_MS, i]
    total = total if np.isinf(total) else total + rest
    out[COUNT, w], out[SUM, w] = count, rounded(total, SUM_DIGITS)
    out[SQUARES, w] = rounded(squares, SQUARES_DIGITS) if np.isfinite(total) else np.nan
    out[MIN, w], out[MAX, w], out[FIRST, w] = low, top, begin
    out[CORRECTION, w], out[RESETS, w], out[CHANGES, w] = rounded(correction, SUM_DIGITS), resets, changes
    out[FIRST_MS, w], out[LAST_MS, w] = end - (t_ms[first] - columns[FIRST_MS, first]), end - last_ms
    out[BEFORE_STALE, w] = last if bits[high - 1] == STALE_BITS else 0.0


@register_jitable(error_model="numpy")
def rounded(value, digits):
    """The value to so many significant digits, if it is no whole number and that takes at most 22 decimals."""
    if value == np.rint(value) or not np.isfinite(value):
        return value
    decimals = digits - 1 - int(np.floor(np.log10(abs(value))))
    if decimals <= 0 or decimals > 22:
        return value
    return np.rint(value * _POWERS[decimals]) / _POWERS[decimals]


@register_jitable(error_model="numpy", inline="always")
def shifted_squares(squares, total, count, first, origin):
    """The sum of squared distances from `origin` of a window's samples, given that from their first."""
    step = first - origin
    if step == 0.0:
        return squares
    return squares + 2.0 * step * (total - count * first) + count * step * step


@register_jitable(error_model="numpy", inline="always")
def add(value, total, rest):
    """One step of Kahan's summation with Neumaier's improvement."""
    added = total + value
    if np.isinf(added):
        return added, 0.0
    if abs(total) >= abs(value):
        return added, rest + ((total - added) + value)
    return added, rest + ((value - added) + total)

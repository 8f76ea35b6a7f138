"""Lines of OpenMetrics or Prometheus text to columns.

line := series SP value [SP time] [SP # exemplar] LF | # comment LF | LF          series := name | name { … } | { … }
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.hash import hash_bytes, same_bytes

_SPACE, _TAB, _LINE, _RETURN, _HASH, _QUOTE, _ESCAPE = 32, 9, 10, 13, 35, 34, 92
_OPEN, _CLOSE, _PLUS, _MINUS, _POINT, _ZERO, _NINE, _E, _SMALL_E = 123, 125, 43, 45, 46, 48, 57, 69, 101

EXACT_DIGITS, EXACT_POWER = 15, 22
"""A whole number of so many digits times or over such a power of ten is one rounding of two exact floats, so it is exact."""

_POWERS = 10.0 ** np.arange(EXACT_POWER + 1)

NO_SERIES, NO_VALUE, NO_TIME, BAD_TIME = 1, 2, 3, 4
"""What is wrong with a line."""


@register_jitable
def _blank(byte):
    return byte in (_SPACE, _TAB, _RETURN)


@register_jitable
def _series_end(b, i, end):
    """The position behind the series that begins at i, -1 where it is cut."""
    while i < end and b[i] != _OPEN:
        if _blank(b[i]) or b[i] == _LINE:
            return i
        i += 1
    quoted = False
    while i < end and b[i] != _LINE:
        if quoted and b[i] == _ESCAPE:
            i += 1
        elif b[i] == _QUOTE:
            quoted = not quoted
        elif b[i] == _CLOSE and not quoted:
            return i + 1
        i += 1
    return -1


@register_jitable
def _token(b, i, end):
    """(start, end) of the next run of bytes that are no blanks, inside the line."""
    while i < end and _blank(b[i]):
        i += 1
    start = i
    while i < end and not _blank(b[i]) and b[i] != _LINE:
        i += 1
    return start, i


@register_jitable
def _digits(b, i, end, value, seen):
    """(value, digits seen, position) after more decimal digits; leading zeros are not counted."""
    while i < end and b[i] >= _ZERO and b[i] <= _NINE:
        if seen < 18:
            value = value * 10 + np.int64(b[i] - _ZERO)
        seen += 1 if value > 0 else 0
        i += 1
    return value, seen, i


@register_jitable
def read_decimal(b, start, end):
    """(f64, whether it is exactly the number at b[start:end]): a plain decimal of at most EXACT_DIGITS digits."""
    i = start
    minus = i < end and b[i] == _MINUS
    if i < end and (b[i] == _MINUS or b[i] == _PLUS):
        i += 1
    first = i
    value, seen, i = _digits(b, i, end, np.int64(0), 0)
    digits, power = i - first, 0
    if i < end and b[i] == _POINT:
        point = i + 1
        value, seen, i = _digits(b, point, end, value, seen)
        power, digits = point - i, digits + i - point
    if i < end and (b[i] == _E or b[i] == _SMALL_E) and digits > 0:
        i += 1
        down = i < end and b[i] == _MINUS
        if i < end and (b[i] == _MINUS or b[i] == _PLUS):
            i += 1
        first = i
        shift, _, i = _digits(b, i, end, np.int64(0), 0)
        power += -shift if down else shift
        digits = digits if i > first and i - first < 6 else 0
    exact = i == end and digits > 0 and seen <= EXACT_DIGITS and -EXACT_POWER <= power <= EXACT_POWER
    if not exact:
        return 0.0, False
    out = np.float64(value)
    out = out * _POWERS[power] if power >= 0 else out / _POWERS[-power]
    return (-out if minus else out), True


@njit(nogil=True, cache=True, boundscheck=True)
def scan_exposition(b, start, end, scale, series_start, series_end, hashes, values, t_ms, slow):
    """i64[4]: samples, slow values, and the fault and position of the first bad line (0 and -1 if there is none).

    b u8[start:end] are whole lines; times are multiplied by `scale` (f64) to milliseconds. Sample j has the series text
    b[series_start[j]:series_end[j]] with hashes[j] u64, values[j] f64 and t_ms[j] i64; where its value is no short decimal the
    value's text is b[slow[0, k]:slow[1, k]], of sample slow[2, k] (i64[3, m]). The outputs are as long as there are lines.
    """
    out = np.array([0, 0, 0, -1])
    n, k, i = 0, 0, start
    while i < end:
        if _blank(b[i]) or b[i] == _LINE:
            i += 1
            continue
        line = i
        if b[i] != _HASH:
            stop = _series_end(b, i, end)
            low, high = _token(b, stop, end) if stop > i else (end, end)
            first, last = _token(b, high, end)
            if stop <= i or high == low or last == first or b[first] == _HASH:
                out[2] = NO_SERIES if stop <= i else NO_VALUE if high == low else NO_TIME
                out[3] = line
                break
            stamp, sound = read_decimal(b, first, last)
            if not sound or not abs(stamp * scale) < 4e18:
                out[2], out[3] = BAD_TIME, line
                break
            series_start[n], series_end[n], hashes[n] = i, stop, hash_bytes(b, i, stop)
            t_ms[n] = np.int64(np.round(stamp * scale))
            values[n], sound = read_decimal(b, low, high)
            if not sound:
                slow[0, k], slow[1, k], slow[2, k] = low, high, n
                k += 1
            n += 1
            i = last
        while i < end and b[i] != _LINE:
            i += 1
        i += 1
    out[0], out[1] = n, k
    return out


@njit(nogil=True, cache=True, boundscheck=True)
def first_different(b, start, end, like):
    """The first j whose bytes b[start[j]:end[j]] are not those of like[j] (i64[n]), -1 if there is none."""
    for j in range(len(start)):
        size = end[j] - start[j]
        other = like[j]
        if size != end[other] - start[other] or not same_bytes(b, start[j], b, start[other], size):
            return j
    return -1


@njit(nogil=True, cache=True, boundscheck=True)
def join_texts(b, start, end, out):
    """How many bytes of u8 `out` are written: the ranges b[start[j]:end[j]] with a blank behind each."""
    used = 0
    for j in range(len(start)):
        for i in range(start[j], end[j]):
            out[used] = b[i]
            used += 1
        out[used] = _SPACE
        used += 1
    return used

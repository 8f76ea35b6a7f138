"""JSON text of samples: `[seconds,"value"]` pairs with Go's float text, the pairs of many series in one call.

Whole numbers below 2^53 (most counters and gauges) are written here; of all others the shortest digits come in as text
(`digits`, made by orjson in one call) and are copied, or laid out anew where Go and orjson differ.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

WHOLE_LIMIT = 9007199254740992.0
"""2^53: whole floats below it are exact as int64 and have no shorter digits."""

STAMP_BYTES = 24
"""At most so many bytes take the seconds of any int64 of milliseconds: 16 digits, a sign, a point and 3 digits."""

POINT_BYTES = STAMP_BYTES + 32
"""At most so many bytes take a pair, its comma included: a value has 17 digits and up to 6 zeros, or 21 digits, and a sign."""

LEAN: dict[str, Any] = {"_nrt": False, "no_cfunc_wrapper": True}
"""Compiler options: arrays are not reference-counted, for none is made here, and no wrapper for C is compiled."""

_COMMA, _MINUS, _PLUS, _POINT, _ZERO, _QUOTE, _OPEN, _CLOSE, _E = 44, 45, 43, 46, 48, 34, 91, 93, 101


@njit(nogil=True, cache=True, **LEAN)
def write_series(texts, text_offsets, offsets, at, t_ms, values, digits, stamps, out):
    """How many bytes of `out` are written: for each of n series texts[2i], its pairs between commas, then texts[2i+1].

    texts u8[...] with text_offsets i64[2n+1]; series i has the pairs offsets[i]:offsets[i+1], i64[n+1]; pair j is at time
    t_ms[at[j]] (t_ms i64[k], at i32[m]) with values[j], f64[m]; digits u8[...] is `[a,b,…]` of the values that are not
    `is_plain`, in order. stamps u8[k, STAMP_BYTES + 1] is scratch. out u8[...]: POINT_BYTES a pair and the texts must fit.
    """
    _write_stamps(t_ms, stamps)
    used, d = 0, 1
    for i in range(len(offsets) - 1):
        for k in range(text_offsets[2 * i], text_offsets[2 * i + 1]):
            out[used] = texts[k]
            used += 1
        first = offsets[i]
        for j in range(first, offsets[i + 1]):
            if j > first:
                out[used] = _COMMA
                used += 1
            stamp = at[j]
            out[used] = _OPEN
            used += 1
            for k in range(stamps[stamp, STAMP_BYTES]):
                out[used + k] = stamps[stamp, k]
            used += stamps[stamp, STAMP_BYTES]
            out[used], out[used + 1] = _COMMA, _QUOTE
            used += 2
            if is_plain(values[j]):
                used = _put_plain(out, used, values[j])
            else:
                used, d = _put_digits(out, used, digits, d)
            out[used], out[used + 1] = _QUOTE, _CLOSE
            used += 2
        for k in range(text_offsets[2 * i + 1], text_offsets[2 * i + 2]):
            out[used] = texts[k]
            used += 1
    return used


@register_jitable(**LEAN)
def is_plain(value):
    """Whether a value's text is made without its digits: whole below 2^53, NaN or infinite."""
    return not (abs(value) < np.inf) or (abs(value) < WHOLE_LIMIT and value == np.floor(value))


@register_jitable(**LEAN)
def _write_stamps(t_ms, stamps):
    """Each row of stamps gets the seconds of one time, up to three decimals, and its length in the last place."""
    for i in range(len(t_ms)):
        t = t_ms[i]
        row = stamps[i]
        used = 0
        if t < 0:
            row[0] = _MINUS
            used, t = 1, -t
        used = _put_int(row, used, t // 1000)
        rest = t % 1000
        if rest:
            row[used] = _POINT
            row[used + 1], row[used + 2], row[used + 3] = _ZERO + rest // 100, _ZERO + rest // 10 % 10, _ZERO + rest % 10
            used += 4
        row[STAMP_BYTES] = used


@register_jitable(**LEAN)
def _put_int(out, used, n):
    """Bytes used after the decimal digits of n >= 0."""
    size, bound = 1, 10
    while n >= bound and size < 19:
        size += 1
        bound *= 10
    for k in range(size - 1, -1, -1):
        out[used + k] = _ZERO + n % 10
        n //= 10
    return used + size


@register_jitable(**LEAN)
def _put_plain(out, used, value):
    """Bytes used after the text of an `is_plain` value."""
    if np.isnan(value):
        out[used], out[used + 1], out[used + 2] = 78, 97, 78  # NaN
        return used + 3
    if np.isinf(value):
        out[used] = _PLUS if value > 0 else _MINUS
        out[used + 1], out[used + 2], out[used + 3] = 73, 110, 102  # Inf
        return used + 4
    if np.signbit(value):
        out[used] = _MINUS
        used += 1
    return _put_int(out, used, np.int64(abs(value)))


@register_jitable(**LEAN)
def _put_digits(out, used, digits, d):
    """(bytes used, where the next number starts) after the number at digits[d] in Go's text."""
    start = used
    while True:
        c = digits[d]
        if c in (_COMMA, _CLOSE):
            break
        if c == _E:
            return _put_exponent(out, start, used, digits, d + 1)
        out[used] = c
        used += 1
        d += 1
    if out[used - 1] == _ZERO and out[used - 2] == _POINT:
        used -= 2
    return used, d + 1


@register_jitable(**LEAN)
def _put_exponent(out, start, used, digits, d):
    """The same for a number whose mantissa is out[start:used] and whose exponent is at digits[d].

    Go writes an exponent of at least two digits below 1e-6 and from 1e+21 on, else every place. orjson writes one below 1e-5
    and from 1e+16 on, so what is laid out here is either 1e-6 … 1e-5 or a whole number.
    """
    negative = digits[d] == _MINUS
    if negative or digits[d] == _PLUS:
        d += 1
    power = 0
    while digits[d] != _COMMA and digits[d] != _CLOSE:
        power = power * 10 + digits[d] - _ZERO
        d += 1
    if (negative and power > 6) or (not negative and power >= 21):
        if used - start > 2 and out[used - 1] == _ZERO and out[used - 2] == _POINT:
            used -= 2
        out[used], out[used + 1] = _E, _MINUS if negative else _PLUS
        used += 2
        if power < 10:
            out[used] = _ZERO
            used += 1
        return _put_int(out, used, power), d + 1
    if out[start] == _MINUS:
        start += 1
    kept = 1  # the mantissa's digits without its point, at out[start:start + kept]
    for k in range(start + 2, used):
        out[start + kept] = out[k]
        kept += 1
    if not negative:
        for k in range(kept, power + 1):
            out[start + k] = _ZERO
        return start + power + 1, d + 1
    shift = power + 1  # 0.00000 goes before them
    for k in range(kept - 1, -1, -1):
        out[start + shift + k] = out[start + k]
    for k in range(shift):
        out[start + k] = _ZERO
    out[start + 1] = _POINT
    return start + shift + kept, d + 1

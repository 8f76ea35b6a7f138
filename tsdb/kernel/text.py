"""JSON text of samples: `[seconds,"value"]` pairs with Go's float text, the pairs of many series in one call.

Whole numbers below 2^53 (most counters and gauges) are written here; of all others the shortest digits come in as text
(`digits`, made by orjson in one call) and are copied, or laid out anew where Go and orjson differ.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.entropy import bit_length
from tsdb.kernel.hash import load_u64
from tsdb.kernel.protowire import store_u64

WHOLE_LIMIT = 9007199254740992.0
"""2^53: whole floats below it are exact as int64 and have no shorter digits."""

STAMP_BYTES = 32
"""A time with what is before and behind it in its pair takes at most 28: the seconds of any int64 of milliseconds have 16 digits, a
sign, a point and 3 digits. So many are always copied, for that is one instruction."""

POINT_BYTES = STAMP_BYTES + 32
"""At most so many bytes take a pair: a value has 17 digits and up to 6 zeros, or 21 digits, and a sign, and is copied by eights."""

LEAN: dict[str, Any] = {"_nrt": False, "no_cfunc_wrapper": True}
"""Compiler options: arrays are not reference-counted, for none is made here, and no wrapper for C is compiled."""

HEAD, OPENING, CLOSING, NAMES = range(4)
"""The first pieces of `write_series`: before the labels of a series, before its pairs and behind them; then the label names."""

_COMMAS, _LOW = np.uint64(0x2C2C2C2C2C2C2C2C), np.uint64(0x7F7F7F7F7F7F7F7F)

_TEN, _DIGIT = np.uint64(10), np.uint64(48)

_COMMA, _MINUS, _PLUS, _POINT, _ZERO, _QUOTE, _OPEN, _CLOSE, _E, _BRACE = 44, 45, 43, 46, 48, 34, 91, 93, 101, 125


@njit(nogil=True, cache=True, **LEAN)
def write_series(rows, pieces, piece_at, ids, tails, tail_at, offsets, present, values, t_ms, base, digits, stamps, out):
    """How many bytes of `out` are written: the series rows i64[r] of n between commas, each labels, pairs, tail and `}`.

    Piece p is pieces[piece_at[p]:piece_at[p+1]]; ids i32[names, n] are the pieces of label values, -1 = none. tails u8[...] with
    tail_at i64[n+1]. Series i has the cells offsets[i]:offsets[i+1], i64[n+1], of values f64[m], of which those with present
    bool[m] are pairs. Cell j is at t_ms[j - base] where base is not negative, else at t_ms[j - offsets[i]]. digits u8[...] is
    `[a,b,…]` of those pairs' values that are not `is_plain`, in order. stamps u8[len(t_ms), STAMP_BYTES + 1] is scratch. out
    u8[...] must have room for POINT_BYTES a pair and one more, and for all pieces, commas and tails.
    """
    _write_stamps(t_ms, stamps)
    used, d = 0, 1
    for r in range(len(rows)):
        i = rows[r]
        if r > 0:
            out[used] = _COMMA
            used += 1
        used = _put_labels(out, used, pieces, piece_at, ids, i)
        pairs, first = 0, base if base >= 0 else offsets[i]
        for j in range(offsets[i], offsets[i + 1]):
            if not present[j]:
                continue
            if pairs == 0:
                used = _put(out, used, pieces, piece_at[OPENING], piece_at[OPENING + 1])
            stamp = stamps[j - first]
            if pairs == 0:  # no comma before the first: its place has something already
                before = out[used - 1]
                _copy_stamp(out[used - 1 : used - 1 + STAMP_BYTES], stamp)
                out[used - 1] = before
                used -= 1
            else:
                _copy_stamp(out[used : used + STAMP_BYTES], stamp)
            used += stamp[STAMP_BYTES]
            pairs += 1
            if is_plain(values[j]):
                used = _put_plain(out, used, values[j])
            else:
                used, d = _put_digits(out, used, digits, d)
            out[used], out[used + 1] = _QUOTE, _CLOSE
            used += 2
        if pairs > 0:
            used = _put(out, used, pieces, piece_at[CLOSING], piece_at[CLOSING + 1])
        used = _put(out, used, tails, tail_at[i], tail_at[i + 1])
        out[used] = _BRACE
        used += 1
    return used


@register_jitable(**LEAN)
def _put(out, used, texts, start, stop):
    """Bytes used after texts[start:stop]."""
    source, target = texts[start:stop], out[used : used + stop - start]
    for k in range(len(source)):
        target[k] = source[k]
    return used + stop - start


@register_jitable(**LEAN)
def _put_labels(out, used, pieces, piece_at, ids, i):
    used = _put(out, used, pieces, piece_at[HEAD], piece_at[HEAD + 1])
    labels = 0
    for name in range(len(ids)):
        piece = ids[name, i]
        if piece >= 0:
            if labels > 0:
                out[used] = _COMMA
                used += 1
            labels += 1
            used = _put(out, used, pieces, piece_at[NAMES + name], piece_at[NAMES + name + 1])
            used = _put(out, used, pieces, piece_at[piece], piece_at[piece + 1])
    out[used] = _BRACE
    return used + 1


@register_jitable(**LEAN)
def _copy_stamp(target, stamp):
    for k in range(STAMP_BYTES):
        target[k] = stamp[k]


@register_jitable(**LEAN)
def is_plain(value):
    """Whether a value's text is made without its digits: whole below 2^53, NaN or infinite."""
    return not (abs(value) < np.inf) or (abs(value) < WHOLE_LIMIT and value == np.floor(value))


@register_jitable(**LEAN)
def _write_stamps(t_ms, stamps):
    """Each row of stamps gets `,[seconds,"` of one time, up to three decimals, and its length in the last place."""
    for i in range(len(t_ms)):
        t = t_ms[i]
        row = stamps[i]
        row[0], row[1] = _COMMA, _OPEN
        used = 2
        if t < 0:
            row[used] = _MINUS
            used, t = used + 1, -t
        used = _put_int(row, used, t // 1000)
        rest = t % 1000
        if rest:
            row[used] = _POINT
            row[used + 1], row[used + 2], row[used + 3] = _ZERO + rest // 100, _ZERO + rest // 10 % 10, _ZERO + rest % 10
            used += 4
        row[used], row[used + 1] = _COMMA, _QUOTE
        row[STAMP_BYTES] = used + 2


@register_jitable(**LEAN)
def _put_int(out, used, n):
    """Bytes used after the decimal digits of n >= 0."""
    rest = np.uint64(n)  # a signed one costs more to divide
    size, bound = 1, _TEN
    while rest >= bound and size < 19:
        size += 1
        bound *= _TEN
    for k in range(size - 1, -1, -1):
        tens = rest // _TEN
        out[used + k] = _DIGIT + (rest - _TEN * tens)
        rest = tens
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
    start, last = used, len(digits) - 8
    while d <= last:
        word = load_u64(digits, d)
        store_u64(out, used, word)
        size = _bytes_before_end(word)
        used, d = used + size, d + size
        if size < 8:
            break
    while digits[d] not in (_COMMA, _CLOSE, _E):  # there were no eight bytes more
        out[used] = digits[d]
        used, d = used + 1, d + 1
    if digits[d] == _E:
        return _put_exponent(out, start, used, digits, d + 1)
    if out[used - 1] == _ZERO and out[used - 2] == _POINT:
        used -= 2
    return used, d + 1


@register_jitable(**LEAN)
def _bytes_before_end(word):
    """How many of a number's next 8 bytes come before the first comma, bracket or e. The last two alone have the bit 64."""
    other = word ^ _COMMAS
    marks = ~((other & _LOW) + _LOW | other | _LOW) | ((word << np.uint64(1)) & ~_LOW)
    return (bit_length(marks & (~marks + np.uint64(1))) - 1) >> 3 if marks else 8


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

"""Float chunks of Prometheus (XOR, XOR2) to columns, many in one call.

XOR    samples u16 | t_0 varint | v_0 64 bits | t_1 - t_0 uvarint | v_1 xor | then a delta of deltas and a xor each
XOR2   samples u16 | start header u8 | as above, but from the third sample on one prefix tells of both time and value:
       0 same delta, same value | 10 same delta, value | 110 13 bits, value | 1110 20 bits, value | 11110 64 bits, value
       | 11111 same delta, stale; each with its start time behind it if the header says so

The start header is known << 7 | first changed: whether sample 0 has its start time, and from which sample on each has one.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.bits import ones, peek, read_uvarint, read_varbit, read_varint, read_window, read_xor, signed, top

XOR, XOR2 = 1, 4
STALE = np.uint64(0x7FF0000000000002)
_0, _1 = np.uint64(0), np.uint64(1)


@register_jitable
def _read_delta(b, at, delta):
    """(delta i64, position) of the next time step of an XOR chunk."""
    word = peek(b, at)
    prefix = ones(word, 4)
    if prefix == 0:
        return delta, at + 1
    if prefix == 4:
        return delta + np.int64(peek(b, at + 4)), at + 68
    size = 11 + 3 * prefix
    return delta + signed(top(word << np.uint64(prefix + 1), size), size), at + prefix + 1 + size


@register_jitable
def _decode_xor(b, at, limit, n, to, t_ms, bits):
    """Whether the n samples from bit `at` on ended before bit `limit`."""
    t, at = read_varint(b, at)
    value = peek(b, at)
    at += 64
    t_ms[to], bits[to] = t, value
    delta, leading, size = np.int64(0), np.int64(0), np.int64(64)  # a writer that reopened a chunk counts on it
    for i in range(1, n):
        if at > limit:
            return False
        if i == 1:
            first, at = read_uvarint(b, at)
            delta = np.int64(first)
        else:
            delta, at = _read_delta(b, at, delta)
        t += delta
        value, leading, size, at = read_xor(b, at, value, leading, size)
        if size < 0:
            return False
        t_ms[to + i], bits[to + i] = t, value
    return at <= limit


@register_jitable
def _read_changed(b, at, fresh, value, leading, size):
    """(bits, leading, size, position) of a value that changes, in the window of before or in a `fresh` one."""
    if fresh:
        leading, size, at = read_window(b, at)
    if size <= 0:
        return value, leading, -1, at
    delta = top(peek(b, at), size) << np.uint64(64 - leading - size)
    return value ^ delta, leading, size, at + size


@register_jitable
def _read_value2(b, at, base, leading, size):
    """(bits, base, leading, size, position): 0 as before, 10 and 110 changed, 111 stale, after which `base` stays."""
    prefix = ones(peek(b, at), 3)
    if prefix == 0:
        return base, base, leading, size, at + 1
    if prefix == 3:
        return STALE, base, leading, size, at + 3
    value, leading, size, at = _read_changed(b, at + prefix + 1, prefix == 2, base, leading, size)
    return value, value, leading, size, at


@register_jitable
def _read_sample2(b, at, delta, base, leading, size):
    """(delta, bits, base, leading, size, position) of the third sample or a later one of an XOR2 chunk."""
    word = peek(b, at)
    prefix = ones(word, 5)
    if prefix == 0:
        return delta, base, base, leading, size, at + 1
    if prefix == 1:
        fresh = (word >> np.uint64(61)) & _1 == _1
        value, leading, size, at = _read_changed(b, at + 3, fresh, base, leading, size)
        return delta, value, value, leading, size, at
    if prefix == 5:
        return delta, STALE, base, leading, size, at + 5
    if prefix == 4:
        delta += np.int64(peek(b, at + 5))
        at += 69
    else:
        width = 13 if prefix == 2 else 20
        change = np.int64(top(word << np.uint64(prefix + 1), width))
        delta += change - (np.int64(1) << width) if change >= np.int64(1) << (width - 1) else change
        at += prefix + 1 + width
    value, base, leading, size, at = _read_value2(b, at, base, leading, size)
    return delta, value, base, leading, size, at


@register_jitable
def _decode_xor2(b, at, limit, n, to, t_ms, bits, start_ms):
    """Whether the n samples, whose start header lies at bit `at`, ended before bit `limit`."""
    header = b[at >> 3]
    first_change = header & 0x7F
    t, at = read_varint(b, at + 8)
    value = peek(b, at)
    at += 64
    started, behind = np.int64(0), np.int64(0)
    if header & 0x80:
        behind, at = read_varint(b, at)
        started = t - behind
    t_ms[to], bits[to], start_ms[to] = t, value, started
    base = _0 if value == STALE else value
    delta, leading, size = np.int64(0), np.int64(0), np.int64(64)  # a writer that reopened a chunk counts on it
    for i in range(1, n):
        if at > limit:
            return False
        before = t
        if i == 1:
            first, at = read_uvarint(b, at)
            delta = np.int64(first)
            value, base, leading, size, at = _read_value2(b, at, base, leading, size)
        else:
            delta, value, base, leading, size, at = _read_sample2(b, at, delta, base, leading, size)
        if size < 0:
            return False
        t += delta
        if first_change > 0 and i >= first_change:
            change, at = read_varbit(b, at)
            behind = change if i == first_change else behind + change
            started = before - behind
        t_ms[to + i], bits[to + i], start_ms[to + i] = t, value, started
    return at <= limit


@njit(nogil=True, cache=True, boundscheck=True)
def decode_floats(b, start, end, encoding, at, t_ms, bits, start_ms):
    """-1, or the number of the first broken chunk: chunk j is b[start[j]:end[j]] (u8, with `bits.MARGIN` bytes to spare).

    start, end, at i64[c]; encoding u8[c], of which other than XOR and XOR2 are left alone; the samples of chunk j go to
    t_ms i64, bits u64 and start_ms i64 (0 = unknown) from at[j] on, as many as its first two bytes say.
    """
    for j in range(len(start)):
        if encoding[j] != XOR and encoding[j] != XOR2:
            continue
        head = 2 if encoding[j] == XOR else 3
        if end[j] - start[j] < head:
            return j
        n = np.int64(b[start[j]]) << 8 | np.int64(b[start[j] + 1])
        if n == 0:
            continue
        if encoding[j] == XOR:
            sound = _decode_xor(b, (start[j] + 2) << 3, end[j] << 3, n, at[j], t_ms, bits)
            start_ms[at[j] : at[j] + n] = 0
        else:
            sound = _decode_xor2(b, (start[j] + 2) << 3, end[j] << 3, n, at[j], t_ms, bits, start_ms)
        if not sound:
            return j
    return -1


@njit(nogil=True, cache=True, boundscheck=True)
def aggregate_chunks(b, start, end, which, sub_start, sub_end, encoding):
    """-1, or the number of the first broken chunk: finds the aggregate `which` (0 to 4) of Thanos' downsampled chunks.

    b u8, start and end i64[c] of their payloads, of which each is five times: uvarint size, and if that is not 0 an encoding
    byte and `size` bytes. Fills sub_start, sub_end i64[c] and encoding u8[c]; where the aggregate is absent encoding is 0.
    """
    for j in range(len(start)):
        at = start[j]
        encoding[j], sub_start[j], sub_end[j] = 0, at, at
        for k in range(which + 1):
            if at >= end[j]:
                return j
            size, bit = read_uvarint(b, at << 3)
            at = bit >> 3
            if size == _0:
                continue
            if size > np.uint64(end[j] - at):
                return j
            if k == which:
                encoding[j], sub_start[j], sub_end[j] = b[at], at + 1, at + 1 + np.int64(size)
            at += 1 + np.int64(size)
            if at > end[j]:
                return j
    return -1

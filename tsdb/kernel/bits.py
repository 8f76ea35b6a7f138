"""Reading bit by bit, most significant bit first, as Prometheus' chunks are written; a position counts from the buffer's start.

Nothing here looks for the end: who reads keeps MARGIN bytes behind the last one readable, and compares the position with the
end after every sample, none of which is longer than MARGIN.
"""

import numpy as np
from numba.extending import register_jitable

from tsdb.kernel.hash import load_u64

MARGIN = 64
"""The longest sample of one number is 28 bytes (XOR2 with all escapes and a start time), and a look reaches 9 further."""

_8, _16, _32, _64 = np.uint64(8), np.uint64(16), np.uint64(32), np.uint64(64)
_BYTES, _PAIRS, _HALVES = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0xFFFFFFFF)
_0, _1 = np.uint64(0), np.uint64(1)


@register_jitable
def peek(b, at):
    """The 64 bits from bit `at` on, as u64, the first on top."""
    i = at >> 3
    word = load_u64(b, i)
    word = ((word >> _8) & _BYTES) | ((word & _BYTES) << _8)
    word = ((word >> _16) & _PAIRS) | ((word & _PAIRS) << _16)
    word = (word >> _32) | (word << _32)
    shift = np.uint64(at & 7)
    return (word << shift) | (np.uint64(b[i + 8]) >> (_8 - shift))


@register_jitable
def top(word, size):
    """The first `size` (1 to 64) bits of a look, as u64."""
    return word >> (_64 - np.uint64(size))


@register_jitable
def signed(bits, size):
    """i64 of `size` (below 64) bits that count from -(2^(size-1) - 1) to 2^(size-1)."""
    value = np.int64(bits)
    return value - (np.int64(1) << size) if value > (np.int64(1) << (size - 1)) else value


@register_jitable
def ones(word, most):
    """How many of the first `most` bits are 1 before the first 0."""
    n = 0
    while n < most and (word >> np.uint64(63 - n)) & _1 == _1:
        n += 1
    return n


@register_jitable
def read_uvarint(b, at):
    """(u64, position after it) of a varint, seven bits a byte; over ten bytes are cut."""
    value = _0
    for k in range(10):
        byte = peek(b, at) >> np.uint64(56)
        at += 8
        value |= (byte & np.uint64(0x7F)) << np.uint64(7 * k)
        if byte < np.uint64(0x80):
            break
    return value, at


@register_jitable
def read_varint(b, at):
    """(i64, position after it) of a zigzag varint."""
    value, at = read_uvarint(b, at)
    return np.int64(value >> _1) ^ -np.int64(value & _1), at


@register_jitable
def varbit_size(prefix):
    """Bits that follow a varbit's `prefix` (0 to 8) ones: 0, 3, 6, 9, 12, 18, 25, 56 or 64."""
    if prefix < 5:
        return 3 * prefix
    if prefix == 5:
        return 18
    if prefix == 6:
        return 25
    return 56 if prefix == 7 else 64


@register_jitable
def read_varbit(b, at):
    """(i64, position after it) of a signed varbit."""
    word = peek(b, at)
    prefix = ones(word, 8)
    size = varbit_size(prefix)
    at += min(prefix + 1, 8)
    if size == 0:
        return np.int64(0), at
    bits = top(peek(b, at), size)
    return (np.int64(bits) if size == 64 else signed(bits, size)), at + size


@register_jitable
def read_varbit_uint(b, at):
    """(u64, position after it) of an unsigned varbit."""
    word = peek(b, at)
    prefix = ones(word, 8)
    size = varbit_size(prefix)
    at += min(prefix + 1, 8)
    if size == 0:
        return _0, at
    return top(peek(b, at), size), at + size


@register_jitable
def read_window(b, at):
    """(leading, significant, position) of a new XOR window: 5 bits of leading zeros, 6 of length with 0 for 64.

    A window that does not fit into 64 bits has the length -1.
    """
    word = peek(b, at)
    leading = np.int64(top(word, 5))
    size = np.int64(top(word << np.uint64(5), 6))
    size = 64 if size == 0 else size
    return leading, (size if leading + size <= 64 else -1), at + 11


@register_jitable
def read_xor(b, at, bits, leading, size):
    """(bits u64, leading, size, position) of the next float after `bits`, as Gorilla writes it; size -1 where it is broken.

    0: the same; 10: significant bits in the window of before; 11: a new window.
    """
    word = peek(b, at)
    if word >> np.uint64(63) == _0:
        return bits, leading, size, at + 1
    at += 2
    if (word >> np.uint64(62)) & _1 == _1:
        leading, size, at = read_window(b, at)
    if size <= 0:
        return bits, leading, -1, at
    delta = top(peek(b, at), size) << np.uint64(64 - leading - size)
    return bits ^ delta, leading, size, at + size

"""The wire grammar of protobuf, for the scans: varints, lengths, fields to skip, UTF-8.

A position that comes back as -1 says that the bytes are broken at the position that was passed in.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from tsdb.kernel.hash import load_u64

OUTSIDE: dict[str, Any] = {"boundscheck": True, "_nrt": False, "no_cfunc_wrapper": True}
"""Compiler options of code that reads bytes from outside.

Bounds are checked (each function must say so: it is not inherited). Arrays are not reference-counted, for none is made here:
the counting took three quarters of a scan's time. No wrapper for C is compiled, which nobody calls.
"""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types, the low three bits of a tag."""

ASCII = np.uint64(0x8080808080808080)
_1, _2, _4, _7, _8, _16, _32, _63, _64 = (np.uint64(n) for n in (1, 2, 4, 7, 8, 16, 32, 63, 64))
_BYTES = np.uint64(0x00FF00FF00FF00FF)
_PAIRS = np.uint64(0x0000FFFF0000FFFF)


@register_jitable(**OUTSIDE)
def read_varint(b, i, end):
    """(u64 value, position after it or -1) of the varint at b[i:end]; over ten bytes or over 64 bits is broken."""
    value, shift = np.uint64(0), np.uint64(0)
    while i < end:
        c = b[i]
        i += 1
        value |= np.uint64(c & 0x7F) << shift
        if c < 0x80:
            return value, (-1 if shift == _63 and c > 1 else i)
        shift += _7
        if shift > _63:
            break
    return value, -1


@register_jitable(forceinline=True, **OUTSIDE)
def six_byte_varint(word):
    """u64 of the varint in the lower six bytes of a word, or 0 where a varint of six bytes is not there."""
    if word & np.uint64(0x808080808080) != np.uint64(0x008080808080):
        return np.uint64(0)
    x = (word & np.uint64(0x7F007F007F)) | (word & np.uint64(0x7F007F007F00)) >> _1
    return (x & np.uint64(0x3FFF)) | (x & np.uint64(0x3FFF0000)) >> _2 | (x & np.uint64(0x3FFF00000000)) >> _4


@register_jitable(**OUTSIDE)
def read_tag(b, i, end):
    """(field number, wire type, position after the tag or -1)."""
    if i < end and b[i] < 0x80:
        tag, i = np.int64(b[i]), i + 1
    else:
        wide, i = read_varint(b, i, end)
        tag = np.int64(wide & np.uint64(0xFFFFFFFF))
        if wide > np.uint64(0xFFFFFFFF):
            i = -1
    return tag >> 3, tag & 7, (-1 if tag < 8 else i)


@register_jitable(**OUTSIDE)
def read_length(b, i, end):
    """(first byte, end) of a length-delimited field whose length is at b[i]; end is -1 if it reaches past `end`."""
    if i < end and b[i] < 0x80:
        size, i = np.uint64(b[i]), i + 1
    else:
        size, i = read_varint(b, i, end)
        if i < 0:
            return 0, -1
    if size > np.uint64(end - i):
        return i, -1
    return i, i + np.int64(size)


@register_jitable(**OUTSIDE)
def skip_field(b, i, end, wire):
    """Position after the value at b[i] of the given wire type, or -1; groups, which proto3 has not, are broken."""
    if wire == VARINT:
        return read_varint(b, i, end)[1]
    if wire == BYTES:
        return read_length(b, i, end)[1]
    i += 8 if wire == FIXED64 else 4
    return i if wire in (FIXED64, FIXED32) and i <= end else -1


@register_jitable(**OUTSIDE)
def zigzag(value):
    """int64 of a zigzag-encoded u64."""
    return np.int64(value >> _1) ^ -np.int64(value & _1)


@register_jitable(forceinline=True, **OUTSIDE)
def order_key(b, start, size):
    """u64 that orders like the first eight bytes of b[start:start+size], zero-padded; eight bytes must be readable at start."""
    x = load_u64(b, start)
    x = ((x & _BYTES) << _8) | ((x >> _8) & _BYTES)
    x = ((x & _PAIRS) << _16) | ((x >> _16) & _PAIRS)
    x = (x << _32) | (x >> _32)
    if size >= 8:
        return x
    cut = _64 - _8 * np.uint64(size)
    return (x >> cut) << cut if size > 0 else np.uint64(0)


@register_jitable(**OUTSIDE)
def compare_bytes(b, x, x_size, y, y_size):
    """-1, 0 or 1 as b[x:x+x_size] sorts before, equals or sorts after b[y:y+y_size]."""
    for k in range(min(x_size, y_size)):
        if b[x + k] != b[y + k]:
            return -1 if b[x + k] < b[y + k] else 1
    return 0 if x_size == y_size else (-1 if x_size < y_size else 1)


def store_u64(b, i, word):
    """Writes a u64 as the little-endian bytes b[i:i+8]; the caller guarantees the range. One unaligned store when compiled."""
    b[i : i + 8] = np.frombuffer(int(word).to_bytes(8, "little"), np.uint8)


@intrinsic
def _store_unaligned(_typing: Any, array: Any, index: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        at = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [args[1]])
        builder.store(args[2], builder.bitcast(at, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


@overload(store_u64)
def _store_u64_compiled(b, i, word):
    return lambda b, i, word: _store_unaligned(b, np.int64(i), np.uint64(word))


@register_jitable(forceinline=True, **OUTSIDE)
def copy_bytes(a, to, b, start, size):
    """Copies b[start:start+size] to a[to:to+size] by words: up to seven bytes more are read and overwritten."""
    for k in range(0, size, 8):
        store_u64(a, to + k, load_u64(b, start + k))


@register_jitable(**OUTSIDE)
def is_ascii(b, start, end):
    """Whether b[start:end] has no byte over 127; eight bytes must be readable at every position before `end`."""
    seen = np.uint64(0)
    i = start
    while i + 8 <= end:
        seen |= load_u64(b, i)
        i += 8
    if i < end:
        cut = _64 - _8 * np.uint64(end - i)
        seen |= load_u64(b, i) << cut
    return seen & ASCII == 0


@register_jitable(**OUTSIDE)
def is_utf8(b, start, end):
    """Whether b[start:end] is UTF-8 (RFC 3629: no overlong form, no surrogate, nothing over U+10FFFF)."""
    i = start
    while i < end:
        c = b[i]
        i += 1
        if c < 0x80:
            continue
        more = 1 if c < 0xE0 else (2 if c < 0xF0 else 3)
        if c < 0xC2 or c > 0xF4 or i + more > end:
            return False
        second = b[i]
        low = 0xA0 if c == 0xE0 else (0x90 if c == 0xF0 else 0x80)
        high = 0x9F if c == 0xED else (0x8F if c == 0xF4 else 0xBF)
        if second < low or second > high:
            return False
        for k in range(1, more):
            if b[i + k] & 0xC0 != 0x80:
                return False
        i += more
    return True

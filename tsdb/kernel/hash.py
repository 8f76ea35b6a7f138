"""A 64-bit hash of a byte range, the same in every process and on every machine.

Multiply-rotate over 8-byte little-endian words, then a finaliser; quality is that of a table and ring hash, not of a
cryptographic one, so every table that uses it compares the bytes as well.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload, register_jitable

P1 = np.uint64(0x9E3779B185EBCA87)
P2 = np.uint64(0xC2B2AE3D27D4EB4F)
P3 = np.uint64(0x165667B19E3779F9)
_29, _31, _32, _33 = np.uint64(29), np.uint64(31), np.uint64(32), np.uint64(33)


def load_u64(b, i):
    """The 8 bytes at b[i:i+8] as a little-endian u64; the caller guarantees the range. One unaligned load when compiled."""
    return np.uint64(int.from_bytes(b[i : i + 8].tobytes(), "little"))


@intrinsic
def _load_unaligned(_typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        at = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [args[1]])
        return builder.load(builder.bitcast(at, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@overload(load_u64)
def _load_u64_compiled(b, i):
    return lambda b, i: _load_unaligned(b, np.int64(i))


@register_jitable
def _round(h, word):
    h = h ^ (word * P2)
    return ((h << _31) | (h >> _33)) * P1


@njit(nogil=True, cache=True)
def hash_bytes(b, start, end):
    """u64 hash of b[start:end] (b: contiguous u8 array); the caller guarantees 0 <= start <= end <= len(b)."""
    h = np.uint64(end - start) * P1 + P3
    i = start
    if end - start >= 32:
        v1, v2, v3, v4 = h + P1, h ^ P2, h + P3, h  # four lanes hide the multiplier's latency
        while i + 32 <= end:
            v1 = _round(v1, load_u64(b, i))
            v2 = _round(v2, load_u64(b, i + 8))
            v3 = _round(v3, load_u64(b, i + 16))
            v4 = _round(v4, load_u64(b, i + 24))
            i += 32
        h = _round(_round(_round(v1, v2), v3), v4)
    while i + 8 <= end:
        h = _round(h, load_u64(b, i))
        i += 8
    tail, shift = np.uint64(0), np.uint64(0)
    while i < end:
        tail |= np.uint64(b[i]) << shift
        shift += np.uint64(8)
        i += 1
    h = _round(h, tail)
    h = (h ^ (h >> _29)) * P3
    return h ^ (h >> _32)


@register_jitable
def same_bytes(a, a_start, b, b_start, size):
    """Whether a[a_start:a_start+size] equals b[b_start:b_start+size]; the caller guarantees both ranges."""
    if size < 8:
        same = True
        for i in range(size):
            same &= a[a_start + i] == b[b_start + i]
        return same
    last = size - 8  # the last word overlaps the one before; no early exit, for callers compare what is most likely equal
    different = load_u64(a, a_start + last) ^ load_u64(b, b_start + last)
    for word in range((last + 7) >> 3):  # a loop of this form is vectorised, three times faster
        different |= load_u64(a, a_start + 8 * word) ^ load_u64(b, b_start + 8 * word)
    return different == np.uint64(0)


@njit(nogil=True, cache=True)
def ring_tokens(hashes, salt):
    """u32[n] ring tokens of label hashes u64[n] under a salt (u64), which tells one owner's equal label sets from another's."""
    out = np.empty(len(hashes), np.uint32)
    for i in range(len(hashes)):
        h = (hashes[i] ^ salt) * P1
        h = (h ^ (h >> _32)) * P2
        out[i] = np.uint32(h >> _32)
    return out

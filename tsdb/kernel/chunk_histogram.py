"""Native histogram chunks of Prometheus to columns, many in one call.

HISTOGRAM, FLOAT   samples u16 | reset bits u8 | layout | samples
with start times   reset bits << 14 | samples u16 | start header u8 (as in `xor`) | layout | samples
layout             zero threshold u8 (0: none; 255: 64 bits follow; else 2^(n-244)) | schema varbit | spans of both sides
                   | custom bounds, if the schema is -53
spans              how many, then for each its length and the distance from the bucket behind the one before
sample             time, count, zero count, sum, buckets: the first absolute, then deltas of deltas (integers) or XOR (floats);
                   a stale sum has no buckets behind it

All samples of a chunk have the same buckets. Buckets of integer histograms are differences from their left neighbour.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.bits import peek, read_varbit, read_varbit_uint, read_varint, read_xor
from tsdb.kernel.xor import STALE

HISTOGRAM, FLOAT, HISTOGRAM_START, FLOAT_START = 2, 3, 5, 6
CUSTOM = -53

SAMPLES, POSITIVE, NEGATIVE, BOUNDS, BODY, SCHEMA = range(6)
"""Rows of what `measure_histograms` tells of each chunk."""

MOST_A_BIT = 64
"""Buckets in all samples per bit of the chunk: each costs a bit but behind a stale sample, of which no real chunk has so many."""


@register_jitable
def _samples(b, start, encoding):
    n = np.int64(b[start]) << 8 | np.int64(b[start + 1])
    return n & 0x3FFF if encoding in (HISTOGRAM_START, FLOAT_START) else n


@register_jitable
def _zero_threshold(b, at):
    """(u64 bits of the float, position): powers of two have their exponent in one byte."""
    code = peek(b, at) >> np.uint64(56)
    if code == np.uint64(0):
        return code, at + 8
    if code == np.uint64(255):
        return peek(b, at + 8), at + 72
    return (code + np.uint64(1023 - 244)) << np.uint64(52), at + 8


@register_jitable
def _spans(b, at, limit, index, to):
    """(buckets, position): the places of a side's buckets into index i32 from `to` on (not if to < 0); -1 if damaged."""
    spans, at = read_varbit_uint(b, at)
    place, n = np.int64(0), np.int64(0)
    if spans > np.uint64(limit - at):
        return np.int64(-1), at
    for _ in range(np.int64(spans)):
        length, at = read_varbit_uint(b, at)
        offset, at = read_varbit(b, at)
        if at > limit or length > np.uint64(limit):
            return np.int64(-1), at
        place += offset
        if to >= 0:
            for k in range(np.int64(length)):
                index[to + n + k] = place + k
        place += np.int64(length)
        n += np.int64(length)
    return n, at


@register_jitable
def _bounds(b, at, limit, bounds, bits, to):
    """(number, position): custom bounds into f64 `bounds`, of which u64 `bits` is a view, from `to` on (not if to < 0).

    Each is thousandths + 1, or 0 and 64 bits. -1 if damaged.
    """
    n, at = read_varbit_uint(b, at)
    if n > np.uint64(limit):
        return np.int64(-1), at
    for k in range(np.int64(n)):
        code, at = read_varbit_uint(b, at)
        if at > limit:
            return np.int64(-1), at
        if code == np.uint64(0):
            if to >= 0:
                bits[to + k] = peek(b, at)
            at += 64
        elif to >= 0:
            bounds[to + k] = np.float64(code - np.uint64(1)) / 1000.0
    return np.int64(n), at


@njit(nogil=True, cache=True, boundscheck=True)
def measure_histograms(b, start, end, encoding, sizes):
    """-1, or the number of the first broken chunk. Chunk j is b[start[j]:end[j]] (u8, with `bits.MARGIN` bytes to spare).

    Fills sizes i64[6, c]: samples, buckets of each side, custom bounds, the bit where the samples begin, and the schema.
    """
    index, bounds, bits = np.empty(0, np.int32), np.empty(0, np.float64), np.empty(0, np.uint64)
    for j in range(len(start)):
        limit = end[j] << 3
        if end[j] - start[j] < 3:
            return j
        _, at = _zero_threshold(b, (start[j] + 3) << 3)
        schema, at = read_varbit(b, at)
        positive, at = _spans(b, at, limit, index, -1)
        if positive < 0:
            return j
        negative, at = _spans(b, at, limit, index, -1)
        custom = np.int64(0)
        if negative >= 0 and schema == CUSTOM:
            custom, at = _bounds(b, at, limit, bounds, bits, -1)
        samples = _samples(b, start[j], encoding[j])
        most = MOST_A_BIT * (limit - (start[j] << 3))
        if at > limit or negative < 0 or custom < 0 or samples * (positive + negative) > most:
            return j
        sizes[SAMPLES, j], sizes[POSITIVE, j], sizes[NEGATIVE, j] = samples, positive, negative
        sizes[BOUNDS, j], sizes[BODY, j], sizes[SCHEMA, j] = custom, at, schema
    return -1


@njit(nogil=True, cache=True, boundscheck=True)
def read_layouts(b, start, end, threshold, index, index_at, bounds, bits, bounds_at):
    """Fills what all samples of a chunk share; chunks and their sizes as `measure_histograms` found them sound.

    threshold u64[c]; index i32 of chunk j from index_at[j] on, the positive buckets' before the negative ones';
    bounds f64 from bounds_at[j] on, of which `bits` is the view as u64.
    """
    for j in range(len(start)):
        limit = end[j] << 3
        threshold[j], at = _zero_threshold(b, (start[j] + 3) << 3)
        schema, at = read_varbit(b, at)
        positive, at = _spans(b, at, limit, index, index_at[j])
        _, at = _spans(b, at, limit, index, index_at[j] + positive)
        if schema == CUSTOM:
            _, at = _bounds(b, at, limit, bounds, bits, bounds_at[j])


@register_jitable
def _read_number(b, at, first, integer, state, k):
    """The position behind number k of a sample, whose state i64[3, k] is its value and delta, or its bits, leading and size; -1."""
    if integer and first:
        if k < 2:
            count, at = read_varbit_uint(b, at)
            state[0, k] = np.int64(count)
        else:
            state[0, k], at = read_varbit(b, at)
        state[1, k] = 0
        return at
    if integer:
        change, at = read_varbit(b, at)
        state[1, k] += change
        state[0, k] += state[1, k]
        return at
    if first:
        state[0, k], state[1, k], state[2, k] = np.int64(peek(b, at)), 0, 64
        return at + 64
    bits, state[1, k], state[2, k], at = read_xor(b, at, np.uint64(state[0, k]), state[1, k], state[2, k])
    state[0, k] = np.int64(bits)
    return at if state[2, k] >= 0 else -1


@register_jitable
def _read_sample(b, at, limit, first, integer, state, width):
    """The position behind a sample of `width` buckets, -1 if it is damaged; columns 0 to 2 are count, zero count and sum."""
    for k in range(3 + width):
        if at < 0 or at > limit:
            return -1
        at = _read_number(b, at, first, integer and k != 2, state, k)
        if k == 2 and np.uint64(state[0, 2]) == STALE:
            break
    return at


@register_jitable
def _write_side(state, integer, low, high, out, bits, to):
    """The counts of buckets low:high into f64 out, of which u64 bits is a view, from `to` on."""
    count = np.int64(0)
    for k in range(low, high):
        if integer:
            count += state[0, k]
            out[to + k - low] = np.float64(count)
        else:
            bits[to + k - low] = np.uint64(state[0, k])


@njit(nogil=True, cache=True, boundscheck=True)
def decode_histograms(
    b, start, end, encoding, sizes, at, counts_at, state, t_ms, start_ms, numbers, number_bits, counts, count_bits
):
    """-1, or the number of the first broken chunk; chunks and `sizes` as `measure_histograms` found them.

    Samples of chunk j go to t_ms, start_ms i64 and numbers f64[3, ...] (count, zero count, sum) from at[j] on; their buckets to
    counts f64 from counts_at[j] on, sample after sample, the positive ones of each before the negative ones, those of a stale
    sample left as they are. number_bits and count_bits are views as u64; state i64[3, 3 + most buckets] is scratch.
    """
    for j in range(len(start)):
        integer = encoding[j] == HISTOGRAM or encoding[j] == HISTOGRAM_START
        started = encoding[j] == HISTOGRAM_START or encoding[j] == FLOAT_START
        header = b[start[j] + 2] if started else np.uint8(0)
        limit, bit = end[j] << 3, sizes[BODY, j]
        positive, width = sizes[POSITIVE, j], sizes[POSITIVE, j] + sizes[NEGATIVE, j]
        t, delta, since, behind = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for i in range(sizes[SAMPLES, j]):
            before, row, to = t, at[j] + i, counts_at[j] + i * width
            change, bit = read_varbit(b, bit)
            delta += change
            t += delta
            if i == 0:
                delta = np.int64(0)
            bit = _read_sample(b, bit, limit, i == 0, integer, state, width)
            if bit < 0:
                return j
            if (i == 0 and header & 0x80) or (header & 0x7F and i >= header & 0x7F):
                change, bit = read_varint(b, bit) if i == 0 else read_varbit(b, bit)
                behind = change if i <= header & 0x7F or i == 0 else behind + change
                since = (t if i == 0 else before) - behind
            if bit > limit:
                return j
            t_ms[row], start_ms[row] = t, since
            for k in range(3):
                if integer and k != 2:
                    numbers[k, row] = np.float64(state[0, k])
                else:
                    number_bits[k, row] = np.uint64(state[0, k])
            if np.uint64(state[0, 2]) != STALE:
                _write_side(state, integer, 3, 3 + positive, counts, count_bits, to)
                _write_side(state, integer, 3 + positive, 3 + width, counts, count_bits, to + positive)
    return -1

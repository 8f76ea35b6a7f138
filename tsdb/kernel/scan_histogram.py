"""The scan of native histogram messages (the same in remote write 1.0 and 2.0): deltas or counts under spans become sparse
absolute buckets, checked as Prometheus's `Histogram.Validate` and `FloatHistogram.Validate` do.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.hash import load_u64
from tsdb.kernel.protowire import BYTES, FIXED64, OUTSIDE, VARINT, read_length, read_tag, read_varint, skip_field, zigzag
from tsdb.kernel.scan import TIME_LIMIT_MS

(
    GOOD, STALE, BAD_TIME, SCHEMA, SPAN_OFFSET, SPAN_COUNT, NEGATIVE_BUCKET, NEGATIVE_COUNT, COUNT_SMALL, COUNT_MISMATCH,
    CUSTOM_ZERO, CUSTOM_NEGATIVE, CUSTOM_FEW, CUSTOM_ORDER, CUSTOM_INFINITE, CUSTOM_NAN, EXPONENTIAL_BOUNDS,
) = range(17)  # fmt: skip
"""What became of a histogram: good, the stale marker, or the rule of Prometheus that it breaks."""

COUNT, SUM, ZERO_THRESHOLD, ZERO_COUNT = range(4)
"""Places in `HistogramColumns.numbers`."""

MAX_RESERVED_SCHEMA = 52
"""Schemas over 8 up to this one are taken at the resolution of schema 8, as Prometheus does."""

_CUSTOM, _MIN, _MAX = -53, -4, 8
_STALE = np.uint64(0x7FF0000000000002)
_INDEX_LIMIT = 1 << 31
_ZERO = np.uint64(0)


class HistogramColumns(NamedTuple):
    """What a scan of h histograms fills.

    fault u8[h]; detail f64[h, 2], the numbers that belong to a fault; schema i64[h]; hint u8[h]; integer bool[h];
    numbers f64[4, h] and the same memory as bits u64[4, h]; t_ms i64[h]; start_ms i64[h];
    of both sides (0 negative, 1 positive) offsets i64[2, h + 1], buckets i32[2, b] (their index), counts f64[2, b];
    custom bounds ragged: bounds_offsets i64[h + 1], bounds f64[c] and the same memory as bound_bits i64[c].
    Scratch for one histogram: spans i64[2, s, 2] (offset, length); raw i64[4, r] (deltas and counts of both sides, the latter
    also as raw_floats f64[4, r]); used i64[6] of those; integers u64[2] (count and zero count).
    """

    fault: np.ndarray
    detail: np.ndarray
    schema: np.ndarray
    hint: np.ndarray
    integer: np.ndarray
    numbers: np.ndarray
    bits: np.ndarray
    t_ms: np.ndarray
    start_ms: np.ndarray
    offsets: np.ndarray
    buckets: np.ndarray
    counts: np.ndarray
    bounds_offsets: np.ndarray
    bounds: np.ndarray
    bound_bits: np.ndarray
    spans: np.ndarray
    raw: np.ndarray
    raw_floats: np.ndarray
    used: np.ndarray
    integers: np.ndarray


@njit(nogil=True, cache=True, **OUTSIDE)
def scan_histograms(b, ranges, out):
    """-1, or where the bytes are broken. The messages are b[ranges[j, 2]:ranges[j, 3]], ranges i64[h, 4]; fills `out`."""
    out.offsets[0, 0], out.offsets[1, 0], out.bounds_offsets[0] = 0, 0, 0
    for j in range(len(ranges)):
        broken = _read_histogram(b, ranges[j, 2], ranges[j, 3], out, j)
        if broken >= 0:
            return broken
        for side in range(2):
            out.offsets[side, j + 1] = out.offsets[side, j]
        fault = _check(out, j)
        out.fault[j] = fault
        if fault != GOOD:
            out.bounds_offsets[j + 1] = out.bounds_offsets[j]
            for side in range(2):
                out.offsets[side, j + 1] = out.offsets[side, j]
        elif out.schema[j] > _MAX:
            out.schema[j] = _MAX
    return -1


@register_jitable(**OUTSIDE)
def _read_histogram(b, i, end, out, j):
    """-1, or where the Histogram message b[i:end] is broken; its fields go to row j and to the scratch."""
    out.schema[j], out.hint[j], out.integer[j], out.t_ms[j], out.start_ms[j] = 0, 0, True, 0, 0
    for z in range(4):
        out.bits[z, j] = _ZERO
    out.integers[0], out.integers[1] = _ZERO, _ZERO
    for z in range(6):
        out.used[z] = 0
    out.bounds_offsets[j + 1] = out.bounds_offsets[j]
    while i < end:
        field, wire, k = read_tag(b, i, end)
        if k < 0:
            return i
        if 8 <= field <= 13:
            k = _read_buckets(b, k, end, field - 8, wire, out)
        elif field == 16 and wire in (BYTES, FIXED64):
            k, out.bounds_offsets[j + 1] = _read_doubles(b, k, end, wire, out.bound_bits, out.bounds_offsets[j + 1])
        elif wire == VARINT:
            k = _read_integer(b, k, end, field, out, j)
        elif wire == FIXED64 and k + 8 <= end and field in (2, 3, 5, 7):
            place = COUNT if field == 2 else (SUM if field == 3 else (ZERO_THRESHOLD if field == 5 else ZERO_COUNT))
            out.bits[place, j] = load_u64(b, k)
            if field == 2:
                out.integer[j] = False
            k += 8
        else:
            k = skip_field(b, k, end, wire)
        if k < 0:
            return i
        i = k
    return -1


@register_jitable(**OUTSIDE)
def _read_integer(b, i, end, field, out, j):
    """Position after the varint field at b[i], or -1."""
    value, i = read_varint(b, i, end)
    if field == 1:
        out.integers[0], out.integer[j] = value, True
    elif field == 4:
        out.schema[j] = zigzag(value & np.uint64(0xFFFFFFFF))
    elif field == 6:
        out.integers[1] = value
        out.bits[ZERO_COUNT, j] = _ZERO
    elif field == 14:
        out.hint[j] = value if value <= np.uint64(3) else _ZERO
    elif field == 15:
        out.t_ms[j] = np.int64(value)
    elif field == 17:
        out.start_ms[j] = np.int64(value)
    return i


@register_jitable(**OUTSIDE)
def _read_buckets(b, i, end, part, wire, out):
    """Position after the field at b[i], or -1; part is 3 * side + (0 span, 1 deltas, 2 counts)."""
    side, kind = part // 3, part % 3
    if kind == 0 and wire == BYTES:
        k, i = read_length(b, i, end)
        return _read_span(b, k, i, out.spans, side, out.used) if i >= 0 else -1
    place = 2 * side + kind - 1
    if kind == 1 and wire in (BYTES, VARINT):
        stop = i + 1
        if wire == BYTES:
            i, end = read_length(b, i, end)
            stop = end
        while i < stop:  # a single one: `stop` lies inside it
            value, i = read_varint(b, i, end)
            if i < 0:
                return -1
            out.raw[place, out.used[2 + place]] = zigzag(value)
            out.used[2 + place] += 1
        return i if stop >= 0 else -1
    if kind == 2 and wire in (BYTES, FIXED64):
        i, out.used[2 + place] = _read_doubles(b, i, end, wire, out.raw[place], out.used[2 + place])
        return i
    return skip_field(b, i, end, wire)


@register_jitable(**OUTSIDE)
def _read_doubles(b, i, end, wire, column, used):
    """(position after the field at b[i] or -1, entries of `column` now used) of one double or packed ones, kept as bits."""
    stop = i + 8
    if wire == BYTES:
        i, stop = read_length(b, i, end)
    if stop < 0 or stop > end or (stop - i) % 8 != 0:
        return -1, used
    while i < stop:
        column[used] = np.int64(load_u64(b, i))
        used += 1
        i += 8
    return i, used


@register_jitable(**OUTSIDE)
def _read_span(b, i, end, spans, side, used):
    """`end` after the BucketSpan message b[i:end] is appended to one side's spans, or -1."""
    offset, length = np.uint64(0), np.uint64(0)
    while i < end:
        field, wire, i = read_tag(b, i, end)
        if i < 0:
            return -1
        if wire != VARINT:
            i = skip_field(b, i, end, wire)
        else:
            value, i = read_varint(b, i, end)
            if field == 1:
                offset = value
            elif field == 2:
                length = value
        if i < 0:
            return -1
    spans[side, used[side], 0] = zigzag(offset & np.uint64(0xFFFFFFFF))
    spans[side, used[side], 1] = np.int64(length & np.uint64(0xFFFFFFFF))
    used[side] += 1
    return end


@register_jitable(**OUTSIDE)
def _check(out, j):
    """GOOD, STALE or the fault of histogram j; if GOOD its buckets are written and its numbers final."""
    if out.t_ms[j] <= -TIME_LIMIT_MS or out.t_ms[j] >= TIME_LIMIT_MS:
        return BAD_TIME
    if out.bits[SUM, j] == _STALE:
        return STALE
    schema, integer = out.schema[j], out.integer[j]
    out.detail[j, 0] = schema
    numbers = out.numbers
    if integer:
        numbers[COUNT, j], numbers[ZERO_COUNT, j] = np.float64(out.integers[0]), np.float64(out.integers[1])
    if schema == _CUSTOM:
        fault = _check_custom(out, j)
        if fault != GOOD:
            return fault
    elif schema < _MIN or schema > MAX_RESERVED_SCHEMA:
        return SCHEMA
    elif out.bounds_offsets[j + 1] > out.bounds_offsets[j]:
        return EXPONENTIAL_BOUNDS
    total = out.integers[1]
    for side in range(2):
        fault, seen = _write_side(out, j, side, integer, max(schema - _MAX, 0))
        total += seen
        if fault != GOOD:
            return fault
    if not integer:
        return NEGATIVE_COUNT if numbers[COUNT, j] < 0 or numbers[ZERO_COUNT, j] < 0 else GOOD
    out.detail[j, 0], out.detail[j, 1] = np.float64(total), np.float64(out.integers[0])
    if np.isnan(numbers[SUM, j]):
        return COUNT_SMALL if total > out.integers[0] else GOOD
    return COUNT_MISMATCH if total != out.integers[0] else GOOD


@register_jitable(**OUTSIDE)
def _check_custom(out, j):
    """The fault of what only histograms with custom buckets have, or GOOD."""
    if out.numbers[ZERO_COUNT, j] != 0 or out.numbers[ZERO_THRESHOLD, j] != 0:
        return CUSTOM_ZERO
    if out.used[0] + out.used[2] + out.used[3] > 0:
        return CUSTOM_NEGATIVE
    first, last = out.bounds_offsets[j], out.bounds_offsets[j + 1]
    for k in range(first, last):
        if np.isnan(out.bounds[k]):
            return CUSTOM_NAN
        if np.isinf(out.bounds[k]):
            return CUSTOM_INFINITE
        if k > first and out.bounds[k] <= out.bounds[k - 1]:
            return CUSTOM_ORDER
    reach = 0
    for k in range(out.used[1]):
        if out.spans[1, k, 0] < 0:
            return SPAN_OFFSET
        reach += out.spans[1, k, 0] + out.spans[1, k, 1]
    out.detail[j, 0], out.detail[j, 1] = last - first, reach
    return CUSTOM_FEW if reach > last - first + 1 else GOOD


@register_jitable(**OUTSIDE)
def _write_side(out, j, side, integer, reduce):
    """(fault, u64 observations of an integer histogram) after one side's buckets that are not 0 are appended.

    `reduce` halvings of the resolution put each bucket where schema 8 has it.
    """
    place = 2 * side + (0 if integer else 1)
    have, need = out.used[2 + place], 0
    for k in range(out.used[side]):
        need += out.spans[side, k, 1]
        if k > 0 and out.spans[side, k, 0] < 0:
            return SPAN_OFFSET, _ZERO
    if need != have:
        out.detail[j, 0], out.detail[j, 1] = need, have
        return SPAN_COUNT, _ZERO
    at, first = out.offsets[side, j], out.offsets[side, j]
    i, count, seen = 0, np.int64(0), _ZERO
    index = np.int64(0)
    for k in range(out.used[side]):
        index += out.spans[side, k, 0]
        for _ in range(out.spans[side, k, 1]):
            if integer:
                count += out.raw[place, i]
            value = np.float64(count) if integer else out.raw_floats[place, i]
            if value < 0:
                out.detail[j, 0], out.detail[j, 1] = i + 1, value
                return NEGATIVE_BUCKET, _ZERO
            seen += np.uint64(count)
            bucket = ((index - 1) >> reduce) + 1
            if bucket <= -_INDEX_LIMIT or bucket >= _INDEX_LIMIT:
                return SPAN_OFFSET, _ZERO
            if at > first and out.buckets[side, at - 1] == bucket:
                out.counts[side, at - 1] += value
            elif value != 0:
                out.buckets[side, at], out.counts[side, at] = bucket, value
                at += 1
            i += 1
            index += 1
    out.offsets[side, j + 1] = at
    return GOOD, seen

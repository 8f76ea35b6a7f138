"""The scan of a remote-write 1.0 body: from wire bytes to label ranges, hashes and sample columns, in one walk.

A series whose labels are already canonical (see `tsdb.model.labels`) keeps them where they are; of any other the canonical
form is written behind the body, into the arena. Labels whose bytes equal those of the known series that should come next are
passed over. Of the others only those whose lengths are below 128 and whose bytes are ASCII take the quick way: all else is checked
by the general one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.append import known_labels, known_ref
from tsdb.kernel.hash import hash_bytes, load_u64
from tsdb.kernel.protowire import (
    BYTES,
    FIXED64,
    OUTSIDE,
    VARINT,
    compare_bytes,
    copy_bytes,
    is_ascii,
    is_utf8,
    order_key,
    read_length,
    read_tag,
    read_varint,
    six_byte_varint,
    skip_field,
)

PADDING = 8
"""Bytes that must follow the last byte of a scanned buffer, so that words can be loaded without a test."""

SAMPLE_BYTES = 18
"""A Sample with both fields and a time of six bytes, its tag and length included."""

OK, BROKEN, FULL = 0, 1, 2
"""What a scan returns: done; broken at state[OFFSET]; a column is too short, try again with longer ones."""

STATES = 9
SERIES, SAMPLES, EXTRAS, ARENA, OFFSET, FAMILIES, START_TIMES, METRIC, NEXT = range(STATES)
"""Places in `Columns.state`: counts, the end of the arena, where it broke; of 2.0 whether start times came, the metric symbol; the
known series that should come next."""

EXEMPLAR, HISTOGRAM, FAMILY = range(3)
"""Kinds of extras."""

GOOD, EMPTY, NO_METRIC, NO_NAME, DUPLICATE, MANY_LABELS, LONG_NAME, LONG_VALUE, NOT_UTF8, BAD_TIME, BAD_REF = range(11)
"""What is wrong with a series; of EMPTY only that it carries nothing."""

MAX_LABELS, MAX_NAME, MAX_VALUE = range(3)
"""Places in the limits of a scan, i64[3]."""

TIME_LIMIT_MS = 1 << 53
"""Times are within ± this: 285,000 years, exact as a float, and differences cannot overflow."""

METRIC_WORD = np.uint64(int.from_bytes(b"__name__", "little"))
"""The eight bytes of `__name__`, as `load_u64` reads them."""


SERIES_ROWS = 5
START, END, HASH, FAULT, REF = range(SERIES_ROWS)
"""Rows of `Columns.series`."""

ROW, TIME, VALUE, START_TIME = range(4)
"""Rows of `Columns.samples`."""


class Columns(NamedTuple):
    """What a scan fills: n series, m samples, x extras; the columns may be longer.

    series i64[SERIES_ROWS, n]: the range of the canonical label bytes (with a fault: of the whole message), their hash's bits, the
    fault, which known series it is or -1 (1.0 only);
    samples i64[4, m]: series row, time, the value's bits, start time (2.0 only); extras i64[x, 4]: kind, series row, and the
    range of a message that is read elsewhere; state i64[STATES]; labels i64[MAX_LABELS, 4] is scratch.
    Few arrays with many rows, because each array is seven arguments of every compiled function.
    """

    series: np.ndarray
    samples: np.ndarray
    extras: np.ndarray
    state: np.ndarray
    labels: np.ndarray


@njit(nogil=True, cache=True, **OUTSIDE)
def scan_v1(b, size, limits, known, out):
    """OK, BROKEN or FULL. b u8[2 * size + PADDING]: the body, then room for the arena; fills `out` (`Columns`).

    Series of `known` (`KnownLabels`) are within the limits, for they came this way before; senders repeat their order.
    """
    state = out.state
    state[:] = 0
    state[ARENA] = size
    i = 0
    while i < size:
        state[OFFSET] = i
        field, wire, k = read_tag(b, i, size)
        if k < 0:
            return BROKEN
        if wire != BYTES or (field != 1 and field != 3):
            i = skip_field(b, k, size, wire)
            if i < 0:
                return BROKEN
            continue
        first, stop = read_length(b, k, size)
        if stop < 0:
            return BROKEN
        code = _scan_series(b, first, stop, limits, known, out) if field == 1 else note_extra(out, FAMILY, -1, first, stop)
        if code != OK:
            return code
        i = stop
    return OK


@register_jitable(**OUTSIDE)
def _scan_series(b, first, stop, limits, known, out):
    """OK, BROKEN or FULL after the TimeSeries message b[first:stop]."""
    state = out.state
    n = state[SERIES]
    if n >= out.series.shape[1]:
        return FULL
    m, extras = state[SAMPLES], state[EXTRAS]
    ref = state[NEXT]
    i = known_labels(known, ref, b, first, stop)
    same = quick = i >= 0
    if not same:
        i, quick = _quick_labels(b, first, stop, limits)
    labels_end = i
    bad_time = False
    while i < stop:
        value, t, end = _quick_sample(b, i, stop)
        if end > 0 and m < out.samples.shape[1]:
            out.samples[ROW, m], out.samples[TIME, m], out.samples[VALUE, m] = n, t, np.int64(value)
            m += 1
            i = end
            continue
        field, wire, k = read_tag(b, i, stop)
        state[OFFSET] = i
        if k < 0:
            return BROKEN
        if wire != BYTES or field > 4:
            i = skip_field(b, k, stop, wire)
            if i < 0:
                return BROKEN
            continue
        k, end = read_length(b, k, stop)
        if end < 0:
            return BROKEN
        if field == 2:
            if m >= out.samples.shape[1]:
                return FULL
            value, t = _read_sample(b, k, end, state)
            if state[OFFSET] < 0:
                state[OFFSET] = k
                return BROKEN
            bad_time |= t <= -TIME_LIMIT_MS or t >= TIME_LIMIT_MS
            out.samples[ROW, m], out.samples[TIME, m], out.samples[VALUE, m] = n, t, np.int64(value)
            m += 1
        elif field == 1:
            quick = False
        elif note_extra(out, EXEMPLAR if field == 3 else HISTOGRAM, n, k, end) != OK:
            return FULL
        i = end
    something = m > state[SAMPLES] or extras < state[EXTRAS]
    state[SAMPLES] = m
    fault = _close_series(b, first, stop, labels_end if quick else -1, ref if same and quick else -1, limits, known, out)
    if fault < 0:
        return BROKEN
    if fault == GOOD:
        fault = BAD_TIME if bad_time else (GOOD if something else EMPTY)
    if fault != GOOD:
        out.series[START, n], out.series[END, n] = first, stop
    out.series[FAULT, n] = fault
    state[SERIES] = n + 1
    return OK


@register_jitable(**OUTSIDE)
def _close_series(b, first, stop, labels_end, ref, limits, known, out):
    """The fault of the labels of the TimeSeries b[first:stop], or -1 if they are broken; where they are good, their range and hash.

    They are b[first:labels_end], or any if that is -1; those of known series `ref`, or of any if that is -1.
    """
    n = out.state[SERIES]
    out.series[REF, n] = ref
    if labels_end >= 0:
        out.series[START, n], out.series[END, n] = first, labels_end
    else:
        fault = _general_labels(b, first, stop, limits, out)
        if fault != GOOD:
            return fault
    if ref >= 0:
        key = known.hashes[ref]
    else:
        key = np.uint64(hash_bytes(b, out.series[START, n], out.series[END, n]))
        ref = known_ref(known, key, out.state[NEXT] - 1)
    out.series[HASH, n], out.state[NEXT] = np.int64(key), ref + 1
    return GOOD


@register_jitable(**OUTSIDE)
def note_extra(out, kind, row, first, stop):
    """OK or FULL after a message for elsewhere is noted."""
    x = out.state[EXTRAS]
    if x >= len(out.extras):
        return FULL
    out.extras[x, 0], out.extras[x, 1], out.extras[x, 2], out.extras[x, 3] = kind, row, first, stop
    out.state[EXTRAS] = x + 1
    return OK


@register_jitable(**OUTSIDE)
def _quick_sample(b, i, stop):
    """(value bits, time, position after it or 0) of a Sample as senders write it: value first, a time between 2004 and 2109."""
    end = i + SAMPLE_BYTES
    if end > stop or b[i] != 0x12 or b[i + 1] != SAMPLE_BYTES - 2 or b[i + 2] != 0x09 or b[i + 11] != 0x10:
        return np.uint64(0), np.int64(0), 0
    t = six_byte_varint(load_u64(b, i + 12))
    return load_u64(b, i + 3), np.int64(t), (end if t else 0)


@register_jitable(**OUTSIDE)
def _read_sample(b, i, end, state):
    """(value bits, time) of the Sample message b[i:end]; state[OFFSET] = -1 if it is broken."""
    value, t = np.uint64(0), np.uint64(0)
    while i < end:
        field, wire, k = read_tag(b, i, end)
        if k >= 0 and field == 1 and wire == FIXED64 and k + 8 <= end:
            value = load_u64(b, k)
            i = k + 8
        elif k >= 0 and field == 2 and wire == VARINT:
            t, i = read_varint(b, k, end)
        else:
            i = skip_field(b, k, end, wire) if k >= 0 else -1
        if i < 0:
            state[OFFSET] = -1
            break
    return value, np.int64(t)


@register_jitable(**OUTSIDE)
def _quick_labels(b, first, stop, limits):
    """(position after the leading labels, whether they are canonical, within the limits, ASCII and name a metric)."""
    i = first
    named = False
    count = 0
    last, last_size, last_key = 0, 0, np.uint64(0)
    while i + 8 <= stop and b[i] == 0x0A:  # the smallest label with a value takes eight bytes
        size, n = np.int64(b[i + 1]), np.int64(b[i + 3])
        name, end = i + 4, i + 2 + size
        value = name + n + 2
        if size >= 128 or b[i + 2] != 0x0A or n == 0 or end > stop or value >= end:
            return i, False
        if b[value - 2] != 0x12 or value + np.int64(b[value - 1]) != end or n > limits[MAX_NAME] or end - value > limits[MAX_VALUE]:
            return i, False
        key = order_key(b, name, n)
        if key <= last_key and (key < last_key or compare_bytes(b, last, last_size, name, n) >= 0):
            return i, False
        named |= n == 8 and load_u64(b, name) == METRIC_WORD
        last, last_size, last_key = name, n, key
        count += 1
        i = end
    return i, named and count <= limits[MAX_LABELS] and is_ascii(b, first, i)


@register_jitable(**OUTSIDE)
def _general_labels(b, i, stop, limits, out):
    """The fault of any labels of the TimeSeries b[i:stop], or -1 if broken; if GOOD they are in the arena, in canonical form."""
    labels, count = out.labels, 0
    while i < stop:
        out.state[OFFSET] = i
        field, wire, k = read_tag(b, i, stop)
        if field == 1 and wire == BYTES:
            k, end = read_length(b, k, stop)
            if count == len(labels):
                return MANY_LABELS
            if not _read_label(b, k, end, labels, count):
                return -1
            if labels[count, 3] > 0 or labels[count, 1] == 0:
                count += 1
            i = end
        else:
            i = skip_field(b, k, stop, wire)
    return write_labels(b, b, count, limits, out)


@register_jitable(**OUTSIDE)
def _read_label(b, i, end, labels, z):
    """Whether b[i:end] is a whole Label message; labels[z] becomes name, its size, value, its size."""
    labels[z, 0], labels[z, 1], labels[z, 2], labels[z, 3] = 0, 0, 0, 0
    while i < end:
        field, wire, k = read_tag(b, i, end)
        if k < 0:
            return False
        if wire == BYTES and field <= 2:
            k, i = read_length(b, k, end)
            labels[z, 2 * field - 2], labels[z, 2 * field - 1] = k, i - k
        else:
            i = skip_field(b, k, end, wire)
        if i < 0:
            return False
    return True


@register_jitable(**OUTSIDE)
def write_labels(b, arena, count, limits, out):
    """The fault of out.labels[:count] (name, size, value, size in b); if GOOD their canonical form is in the arena, range and all.

    Sorts them in place. The arena must have room, and PADDING after it. An empty name is a fault even where the value is empty.
    """
    named, labels = False, out.labels
    for i in range(count):
        name, n, value, m = labels[i, 0], labels[i, 1], labels[i, 2], labels[i, 3]
        if n == 0:
            return NO_NAME
        if n > limits[MAX_NAME]:
            return LONG_NAME
        if m > limits[MAX_VALUE]:
            return LONG_VALUE
        if not (is_ascii(b, name, name + n) and is_ascii(b, value, value + m)) and not (
            is_utf8(b, name, name + n) and is_utf8(b, value, value + m)
        ):
            return NOT_UTF8
        named |= n == 8 and load_u64(b, name) == METRIC_WORD
        k = i
        key = order_key(b, name, n)
        while k > 0:
            before = order_key(b, labels[k - 1, 0], labels[k - 1, 1])
            if before < key:
                break
            if before == key:
                order = compare_bytes(b, labels[k - 1, 0], labels[k - 1, 1], name, n)
                if order == 0:
                    return DUPLICATE
                if order < 0:
                    break
            for z in range(4):
                labels[k, z] = labels[k - 1, z]
            k -= 1
        labels[k, 0], labels[k, 1], labels[k, 2], labels[k, 3] = name, n, value, m
    if not named:
        return NO_METRIC
    row, at = out.state[SERIES], out.state[ARENA]
    out.series[START, row] = at
    for i in range(count):
        at = _put_label(b, arena, at, labels, i)
    out.state[ARENA] = out.series[END, row] = at
    return GOOD


@register_jitable(**OUTSIDE)
def _put_label(b, arena, at, labels, i):
    """Position after the canonical label written at arena[at]."""
    n, m = labels[i, 1], labels[i, 3]
    arena[at] = 0x0A
    at = _put_varint(arena, at + 1, n + m + 4 + (n > 127) + (m > 127) + (n > 16383) + (m > 16383))
    for z in range(2):
        start, size = labels[i, 2 * z], labels[i, 2 * z + 1]
        arena[at] = 0x0A if z == 0 else 0x12
        at = _put_varint(arena, at + 1, size)
        copy_bytes(arena, at, b, start, size)
        at += size
    return at


@register_jitable(**OUTSIDE)
def _put_varint(arena, at, n):
    while n > 127:
        arena[at] = n & 127 | 128
        n >>= 7
        at += 1
    arena[at] = n
    return at + 1

"""The scan of a remote-write 2.0 body: symbols first, then series whose canonical label bytes are built into an arena."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.hash import hash_bytes, load_u64
from tsdb.kernel.protowire import BYTES, FIXED64, OUTSIDE, VARINT, read_length, read_tag, read_varint, skip_field
from tsdb.kernel.scan import (
    ARENA,
    BAD_REF,
    BAD_TIME,
    BROKEN,
    EMPTY,
    END,
    EXEMPLAR,
    EXTRAS,
    FAMILIES,
    FAULT,
    FULL,
    GOOD,
    HASH,
    HISTOGRAM,
    MANY_LABELS,
    MAX_LABELS,
    MAX_NAME,
    MAX_VALUE,
    METRIC,
    METRIC_WORD,
    OFFSET,
    OK,
    ROW,
    SAMPLES,
    SERIES,
    START,
    START_TIME,
    START_TIMES,
    TIME,
    TIME_LIMIT_MS,
    VALUE,
    note_extra,
    write_labels,
)

LABEL_OVERHEAD_BYTES = 16
"""At most so many bytes are tags and lengths in one label's canonical form."""


SYMBOL, SIZE, TOLD = range(3)
"""Rows of `Symbols.table`."""


class Symbols(NamedTuple):
    """The symbols of a request and what families are told of: s symbols, f families; state[FAMILIES] is f.

    table i64[3, s]: where a symbol starts, its size, and 1 + the last family told under that metric name (0 = none);
    families i64[f, 4]: metric name, help and unit as symbol numbers, and the type.
    """

    table: np.ndarray
    families: np.ndarray


@njit(nogil=True, cache=True, **OUTSIDE)
def scan_v2(b, size, arena, limits, out, symbols):
    """OK, BROKEN or FULL. b u8[size + PADDING] is a Request; label bytes go to arena u8[...]; fills `out` and `symbols`."""
    state = out.state
    state[:] = 0
    known = 0
    for collect in (True, False):
        i = 0
        while i < size:
            state[OFFSET] = i
            field, wire, k = read_tag(b, i, size)
            if k < 0:
                return BROKEN
            if wire != BYTES:
                i = skip_field(b, k, size, wire)
                if i < 0:
                    return BROKEN
                continue
            k, i = read_length(b, k, size)
            if i < 0:
                return BROKEN
            if collect and field == 4:
                if known >= symbols.table.shape[1]:
                    return FULL
                symbols.table[SYMBOL, known], symbols.table[SIZE, known], symbols.table[TOLD, known] = k, i - k, 0
                known += 1
            elif not collect and field == 5:
                code = _scan_series(b, k, i, arena, limits, out, symbols, known)
                if code != OK:
                    return code
    return OK


@register_jitable(**OUTSIDE)
def _scan_series(b, first, stop, arena, limits, out, symbols, known):
    """OK, BROKEN or FULL after the TimeSeries message b[first:stop]."""
    state = out.state
    n = state[SERIES]
    if n >= out.series.shape[1]:
        return FULL
    samples, extras = state[SAMPLES], state[EXTRAS]
    refs, bad_time = 0, False
    about, about_end = 0, 0
    i = first
    while i < stop:
        state[OFFSET] = i
        field, wire, k = read_tag(b, i, stop)
        if k < 0:
            return BROKEN
        if field == 1 and wire in (BYTES, VARINT):
            i, refs = _read_refs(b, k, stop, wire, out.labels, refs)
        elif wire == BYTES and field <= 5:
            k, i = read_length(b, k, stop)
            if i >= 0 and field == 2:
                if state[SAMPLES] >= out.samples.shape[1]:
                    return FULL
                t = _read_sample(b, k, i, n, out)
                if state[OFFSET] < 0:
                    state[OFFSET] = k
                    return BROKEN
                bad_time |= t <= -TIME_LIMIT_MS or t >= TIME_LIMIT_MS
            elif field == 5:
                about, about_end = k, i
            elif i >= 0 and note_extra(out, HISTOGRAM if field == 3 else EXEMPLAR, n, k, i) != OK:
                return FULL
        else:
            i = skip_field(b, k, stop, wire)
        if i < 0:
            return BROKEN
    fault = _resolve_labels(b, arena, out, symbols, known, refs, limits)
    if fault < 0:
        return FULL
    if fault == GOOD:
        out.series[HASH, n] = np.int64(np.uint64(hash_bytes(arena, out.series[START, n], out.series[END, n])))
        if about_end > about:
            told = _read_metadata(b, about, about_end, out, symbols, known)
            if told in (BROKEN, FULL):
                state[OFFSET] = about
                return told
            fault = told
    if fault == GOOD:
        fault = BAD_TIME if bad_time else (EMPTY if samples == state[SAMPLES] and extras == state[EXTRAS] else GOOD)
    if fault != GOOD:
        out.series[START, n], out.series[END, n] = first, stop
    out.series[FAULT, n] = fault
    state[SERIES] = n + 1
    return OK


@register_jitable(**OUTSIDE)
def _read_refs(b, i, stop, wire, labels, refs):
    """(position after the field or -1, refs so far); ref r is in labels[r // 2, 2 * (r % 2)], others only count."""
    end = i + 1
    if wire == BYTES:
        i, end = read_length(b, i, stop)
        stop = end
    while i < end:  # a single one: end lies inside it
        ref, i = read_varint(b, i, stop)
        if i < 0:
            return -1, refs
        if refs >> 1 < len(labels):
            labels[refs >> 1, 2 * (refs & 1)] = np.int64(ref & np.uint64(0xFFFFFFFF))
        refs += 1
    return (i if end >= 0 else -1), refs


@register_jitable(**OUTSIDE)
def _read_sample(b, i, end, row, out):
    """The time of the Sample message b[i:end], which is appended to `out`; state[OFFSET] = -1 if it is broken."""
    value, t, start = np.uint64(0), np.uint64(0), np.uint64(0)
    while i < end:
        field, wire, k = read_tag(b, i, end)
        if k >= 0 and field == 1 and wire == FIXED64 and k + 8 <= end:
            value = load_u64(b, k)
            i = k + 8
        elif k >= 0 and wire == VARINT and field == 2:
            t, i = read_varint(b, k, end)
        elif k >= 0 and wire == VARINT and field == 3:
            start, i = read_varint(b, k, end)
        else:
            i = skip_field(b, k, end, wire) if k >= 0 else -1
        if i < 0:
            out.state[OFFSET] = -1
            break
    m = out.state[SAMPLES]
    out.samples[ROW, m], out.samples[VALUE, m] = row, np.int64(value)
    out.samples[TIME, m], out.samples[START_TIME, m] = np.int64(t), np.int64(start)
    out.state[START_TIMES] |= start != 0
    out.state[SAMPLES] = m + 1
    return np.int64(t)


@register_jitable(**OUTSIDE)
def _resolve_labels(b, arena, out, symbols, known, refs, limits):
    """The fault of a series' label refs, or -1 if the arena is full; if GOOD the canonical labels are in the arena."""
    labels = out.labels
    if refs & 1:
        return BAD_REF
    if refs >> 1 > min(limits[MAX_LABELS], len(labels)):
        return MANY_LABELS
    count, room = 0, 0
    for z in range(refs >> 1):
        name, value = labels[z, 0], labels[z, 2]
        if name >= known or value >= known:
            return BAD_REF
        n, m = symbols.table[SIZE, name], symbols.table[SIZE, value]
        if m > 0 or n == 0:
            if n == 8 and load_u64(b, symbols.table[SYMBOL, name]) == METRIC_WORD:
                out.state[METRIC] = value
            labels[count, 0], labels[count, 1] = symbols.table[SYMBOL, name], n
            labels[count, 2], labels[count, 3] = symbols.table[SYMBOL, value], m
            room += min(n, limits[MAX_NAME]) + min(m, limits[MAX_VALUE]) + LABEL_OVERHEAD_BYTES
            count += 1
    if out.state[ARENA] + room > len(arena):
        return -1
    return write_labels(b, arena, count, limits, out)


@register_jitable(**OUTSIDE)
def _read_metadata(b, i, end, out, symbols, known):
    """GOOD, BAD_REF, BROKEN or FULL after the Metadata message b[i:end]; a family unless it was told already."""
    kind, text, unit = np.uint64(0), np.uint64(0), np.uint64(0)
    while i < end:
        field, wire, k = read_tag(b, i, end)
        if k < 0:
            return BROKEN
        if wire != VARINT:
            i = skip_field(b, k, end, wire)
        else:
            value, i = read_varint(b, k, end)
            if field == 1:
                kind = value
            elif field == 3:
                text = value
            elif field == 4:
                unit = value
        if i < 0:
            return BROKEN
    if text >= np.uint64(known) or unit >= np.uint64(known):
        return BAD_REF
    metric, f = out.state[METRIC], out.state[FAMILIES]
    wanted = (metric, np.int64(text), np.int64(unit), np.int64(kind & np.uint64(7)))
    last = symbols.table[TOLD, metric] - 1
    families = symbols.families
    if last >= 0:
        same = True
        for z in range(4):
            same &= families[last, z] == wanted[z]
        if same:
            return GOOD
    if f >= len(families):
        return FULL
    for z in range(4):
        families[f, z] = wanted[z]
    symbols.table[TOLD, metric] = out.state[FAMILIES] = f + 1
    return GOOD

"""What a batch takes of many opened pages, in one call: where the samples of each stand, and the samples themselves.

The arrays of a page are passed by their addresses, a row of numbers for each page: a call from Python for each page would cost as
much as decoding some thousand samples.
"""

import ctypes
from typing import Any

import numpy as np
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload, register_jitable

from tsdb.kernel.decode import COLUMN, FIELDS, HIGH, LOW, TO, decode_columns
from tsdb.kernel.downsample import single_windows
from tsdb.kernel.entropy import SYMBOLS
from tsdb.kernel.ranges import copy_ranges, row_from

ARRAYS = 10
TIMES, TIME_AT, TIME_REF, COUNTS, LENGTHS, RECORDS, STREAMS, CLASSES, POSITION, EXACT_BITS = range(ARRAYS)
"""The first words of a page: the addresses of its arrays, which `tsdb.block.page.Page` tells of."""

WORDS = ARRAYS + 13
(
    SERIES,
    TIME_COLUMNS,
    COLUMNS,
    STREAM_BYTES,
    TABLES,
    EXCEPTION_COUNT,
    MIN_MS,
    MAX_MS,
    VALUES_FROM,
    OWN,
    WITH_START,
    VALUES,
    VALUES_AT,
) = range(ARRAYS, WORDS)
"""The other words: sizes of the arrays, the page's bounds, its first value column, how many of those each series has, whether it
has start times, and the addresses of its decoded values and of where those of each series begin, 0 where they are not kept."""


def _pointer(address):
    """The address as numba.carray takes it."""
    return ctypes.c_void_p(int(address))


@intrinsic
def _as_pointer(_typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


@overload(_pointer)
def _pointer_compiled(address):
    return lambda address: _as_pointer(address)


@register_jitable
def _i64(address, size):
    return carray(_pointer(address), size, np.int64)


@njit(nogil=True, cache=True)
def describe_page(times, time_at, time_ref, counts, lengths, records, streams, classes, position, exact, words):
    """Fill in words i64[WORDS] of a page what its arrays, in the order of their words, tell: addresses, sizes, bounds."""
    words[TIMES], words[TIME_AT], words[TIME_REF] = times.ctypes.data, time_at.ctypes.data, time_ref.ctypes.data
    words[COUNTS], words[LENGTHS], words[RECORDS] = counts.ctypes.data, lengths.ctypes.data, records.ctypes.data
    words[STREAMS], words[CLASSES] = streams.ctypes.data, classes.ctypes.data
    words[POSITION], words[EXACT_BITS] = position.ctypes.data, exact.ctypes.data
    words[SERIES], words[TIME_COLUMNS], words[COLUMNS] = len(time_ref), len(time_at) - 1, len(lengths)
    words[STREAM_BYTES], words[TABLES], words[EXCEPTION_COUNT] = len(streams), len(classes), len(position)
    first, last = (times[0], times[0]) if len(times) else (0, 0)
    for i in range(len(times)):
        first, last = min(first, times[i]), max(last, times[i])
    words[MIN_MS], words[MAX_MS] = first, last


@njit(nogil=True, cache=True)
def place_shares(pages, share_at, local, rows, bounds, grid, counts, low, high, size, to):
    """Where the samples of each share stand in their page, and where they belong behind the first of their row.

    Share s takes of pages i64[s, WORDS] the series local[share_at[s]:share_at[s+1]], which are rows[...] of a batch, between bounds
    i64[s, 2]. low, high, size and to i64[r] are filled in; counts i64[rows of the batch] are those taken before, and become those
    taken. Of the samples low:high of a series all are taken or, where grid = (at_ms, every_ms, range_ms) has every_ms > 0, only
    those that are seen from a time of the grid (`tsdb.model.source.Grid`).
    """
    for s in range(len(pages)):
        page = pages[s]
        time_ref, time_at, times = _times(page)
        whole = page[MIN_MS] >= bounds[s, 0] and page[MAX_MS] < bounds[s, 1]
        thinned = grid[1] > 0
        seen = np.empty(len(times) if thinned else 0, np.int64)
        column, first, last, taken = -1, 0, 0, 0
        for k in range(share_at[s], share_at[s + 1]):
            if time_ref[local[k]] != column:
                column = time_ref[local[k]]
                begin, end = time_at[column], time_at[column + 1]
                first = 0 if whole else row_from(times, begin, end, bounds[s, 0]) - begin
                last = end - begin if whole else row_from(times, begin + first, end, bounds[s, 1]) - begin
                taken = _seen(times[begin + first : begin + last], grid, seen) if thinned else last - first
            low[k], high[k], size[k], to[k] = first, last, taken, counts[rows[k]]
            counts[rows[k]] += taken


@register_jitable
def _seen(times, grid, rows):
    """How many of the rising times are seen from some time of the grid, and which: rows i64[...]."""
    at, every, reach = grid[0], grid[1], grid[2]
    count, i = 0, 0
    while i < len(times):
        limit = at - (at - times[i]) // every * every
        while reach and i < len(times) and times[i] <= limit - reach:
            i += 1
        while i < len(times) and times[i] <= limit:
            if reach or i + 1 == len(times) or times[i + 1] > limit:
                rows[count] = i
                count += 1
            i += 1
    return count


@njit(nogil=True, cache=True)
def copy_shares(pages, share_at, local, low, high, size, to, grid, wanted, t_ms, columns, start_ms):
    """The samples of shares, as `place_shares` tells them, to the places `to`.

    Times go into t_ms i64[m], values and windows into columns f64[k, m], start times into start_ms i64[m]. Not wanted are t_ms and
    start_ms of no length, and of the columns those that bool[k] `wanted` leaves out. Samples of a page without windows become
    windows of one each where k > 1.
    """
    flat = columns.reshape(columns.size)
    for s in range(len(pages)):
        page = pages[s]
        part = slice(share_at[s], share_at[s + 1])
        mine = (local[part], low[part], size[part], to[part])
        if grid[1] > 0:
            _copy_seen(page, mine, high[part], grid, t_ms, columns[0].view(np.int64))
            continue
        if len(t_ms):
            _copy_times(page, mine, t_ms)
        own = page[OWN]
        if page[VALUES]:
            _copy_values(page, mine, columns[0].view(np.int64))
        else:
            _decode(page, page[VALUES_FROM], mine, wanted[:own], columns.shape[1], flat.view(np.int64), flat)
        if own < len(columns):
            single_windows(columns[0], columns[0].view(np.uint64), wanted[1:], mine[3], mine[2], columns[1:])
        if len(start_ms) and page[WITH_START]:
            _decode(page, 0, mine, np.ones(1, np.bool_), 0, start_ms, start_ms.view(np.float64))
        elif len(start_ms):
            for k in range(len(mine[0])):
                start_ms[mine[3][k] : mine[3][k] + mine[2][k]] = 0


@register_jitable
def _times(page):
    """(the time column of each series, where each column begins, the times of all)."""
    time_ref, time_at = _i64(page[TIME_REF], page[SERIES]), _i64(page[TIME_AT], page[TIME_COLUMNS] + 1)
    return time_ref, time_at, _i64(page[TIMES], time_at[page[TIME_COLUMNS]])


@register_jitable
def _copy_times(page, mine, t_ms):
    local, low, size, to = mine
    time_ref, time_at, times = _times(page)
    source = np.empty(len(local), np.int64)
    for k in range(len(local)):
        source[k] = time_at[time_ref[local[k]]] + low[k]
    copy_ranges(times, source, size, t_ms, to)


@register_jitable
def _copy_values(page, mine, out):
    local, low, size, to = mine
    at = _i64(page[VALUES_AT], page[SERIES] + 1)
    source = np.empty(len(local), np.int64)
    for k in range(len(local)):
        source[k] = at[local[k]] + low[k]
    copy_ranges(_i64(page[VALUES], at[page[SERIES]]), source, size, out, to)


@register_jitable
def _copy_seen(page, mine, high, grid, t_ms, out):
    """Times and values of those samples low:high of each series that are seen from a time of the grid."""
    local, low, size, to = mine
    time_ref, time_at, times = _times(page)
    values, begin = _values(page, local, low, high)
    rows = np.empty(len(times), np.int64)
    column = -1
    for k in range(len(local)):
        if time_ref[local[k]] != column:
            column = time_ref[local[k]]
            own = times[time_at[column] + low[k] : time_at[column] + high[k]]
            _seen(own, grid, rows)
        for j in range(size[k]):
            t_ms[to[k] + j] = own[rows[j]]
            out[to[k] + j] = values[begin[k] + rows[j]]


@register_jitable
def _values(page, local, low, high):
    """(the bits of values, decoded now if they are not kept; where those of samples low:high of each series begin)."""
    if page[VALUES]:
        at = _i64(page[VALUES_AT], page[SERIES] + 1)
        return _i64(page[VALUES], at[page[SERIES]]), at[local] + low
    size = high - low
    begin = np.cumsum(size) - size
    values = np.empty(size.sum(), np.int64)
    _decode(page, page[VALUES_FROM], (local, low, size, begin), np.ones(1, np.bool_), 0, values, values.view(np.float64))
    return values, begin


@register_jitable
def _decode(page, first, mine, wanted, stride, out, out_f):
    """Decode columns, from `first` on one for each series of the page after another, of each as many as bool[k] `wanted` has.

    Those that it says are wanted, the k-th of a series at `to` + k * stride. out i64[...] and out_f f64[...] are the same memory.
    """
    local, low, size, to = mine
    n, count, w = page[SERIES], page[SERIES] * len(wanted), 0
    places = np.empty((4, len(local) * wanted.sum()), np.int64)
    for k in range(len(wanted)):
        if wanted[k]:
            for i in range(len(local)):
                places[COLUMN, w], places[LOW, w] = k * n + local[i], low[i]
                places[HIGH, w], places[TO, w] = low[i] + size[i], to[i] + k * stride
                w += 1
    records = carray(_pointer(page[RECORDS]), (page[COLUMNS] + 1, FIELDS), np.int64)[first : first + count + 1]
    lengths = _i64(page[LENGTHS], page[COLUMNS])[first : first + count]
    streams = carray(_pointer(page[STREAMS]), page[STREAM_BYTES], np.uint8)
    classes = carray(_pointer(page[CLASSES]), (page[TABLES], SYMBOLS), np.uint8)
    position, exact = _i64(page[POSITION], page[EXCEPTION_COUNT]), _i64(page[EXACT_BITS], page[EXCEPTION_COUNT])
    decode_columns(streams, classes, records, lengths, places, position, exact, out, out_f)

"""The loops of the head: find and add series by their label bytes, append samples to the log, walk a series' chain, read labels.

A series table is open addressing with linear probing: keys u64[2^k] hashes, refs i32[2^k] (-1 = free slot). The bytes of
series r are arena[starts[r] : starts[r] + sizes[r]]; a hit has equal bytes, never only an equal hash.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.hash import hash_bytes, same_bytes

NEVER_MS = -(1 << 63)
"""The time of the newest sample of a series that has none."""

STORED, DUPLICATE, CONFLICT, TOO_OLD, TOO_NEW, NO_SERIES = range(6)
"""What became of a sample: those up to DUPLICATE count as stored."""

CHAIN_STEPS = 64
"""How far an out-of-order sample looks back for one of equal time; what it misses, the merge rule decides when read."""

_NAME = np.frombuffer(b"__name__", np.uint8).copy()


class SeriesTableArrays(NamedTuple):
    """The table and the label bytes of all series (see the top of this file); sizes of refs that are free are -1."""

    keys: npt.NDArray[np.uint64]
    refs: npt.NDArray[np.int32]
    arena: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]


class LogColumns(NamedTuple):
    """Samples in the order of arrival; prev i32[c] is the sample of the same series before it, -1 = none."""

    ref: npt.NDArray[np.int32]
    prev: npt.NDArray[np.int32]
    t_ms: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]


@register_jitable
def _find(keys, refs, arena, starts, sizes, data, start, size, key):
    """(ref or -1, its slot or the free one it would take). Arrays one by one: out of a tuple each costs two atomic counts."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while True:
        ref = refs[slot]
        if ref < 0:
            return -1, slot
        if keys[slot] == key and sizes[ref] == size and same_bytes(arena, starts[ref], data, start, size):
            return ref, slot
        slot = (slot + np.uint64(1)) & mask


@njit(nogil=True, cache=True)
def find_series(table, data, start, end, hashes, out):
    """Fills out i32[n] with the refs of label bytes data[start[i]:end[i]] of hashes[i], -1 = unknown; returns how many are."""
    keys, refs, arena, starts, sizes, known = table
    unknown = 0
    ref = -1
    for i in range(len(hashes)):
        size = end[i] - start[i]
        ref += 1  # a sender repeats its order, so the next series is mostly the next ref: near in memory, unlike its slot
        if (
            ref >= len(known) or known[ref] != hashes[i] or sizes[ref] != size
            or not same_bytes(arena, starts[ref], data, start[i], size)
        ):  # fmt: skip
            ref, _ = _find(keys, refs, arena, starts, sizes, data, start[i], size, hashes[i])
        out[i] = ref
        unknown += ref < 0
    return unknown


@njit(nogil=True, cache=True)
def add_series(table, used, data, start, end, hashes, which, fresh, out):
    """Adds series which i64[k] of the batch under refs fresh i32[k], in that order, and writes their refs to out.

    A series that is there by now (twice in one batch) takes no ref. Returns (refs taken, arena bytes used); the caller
    guarantees room in arena, starts and sizes, and a free slot.
    """
    keys, refs, arena, starts, sizes, known = table
    taken = 0
    for i in which:
        size = end[i] - start[i]
        ref, slot = _find(keys, refs, arena, starts, sizes, data, start[i], size, hashes[i])
        if ref < 0:
            ref = fresh[taken]
            taken += 1
            for k in range(size):  # assigning a slice takes 1.5 s longer to compile
                arena[used + k] = data[start[i] + k]
            starts[ref], sizes[ref], known[ref] = used, size, hashes[i]
            keys[slot], refs[slot] = hashes[i], ref
            used += size
        out[i] = ref
    return taken, used


@njit(nogil=True, cache=True)
def hash_ranges(data, start, end):
    """u64[n] hashes of data[start[i]:end[i]]."""
    out = np.empty(len(start), np.uint64)
    for i in range(len(start)):
        out[i] = hash_bytes(data, start[i], end[i])
    return out


@njit(nogil=True, cache=True)
def append_samples(log, count, last, newest, refs, row, t_ms, bits, floor_ms, ceiling_ms, code, sample_ref, saved):
    """Appends samples t_ms i64[m], bits i64[m] of series refs[row] (row i32[m]) to the log from place `count`; returns its count.

    last i32[r] is the last place of each series in this log; newest i64[r, 2] its newest time and value bits. code u8[m] tells
    what became of each sample, sample_ref i32[m] whose it is; saved i64[m, 2] keeps what `newest` was before each stored one.
    Samples below floor_ms that are not the newest of their series, and those above ceiling_ms, are refused.
    """
    log_ref, log_prev, log_t, log_bits = log
    at = count
    for j in range(len(row)):
        ref = refs[row[j]]
        sample_ref[j] = ref
        t = t_ms[j]
        if t > ceiling_ms:
            code[j] = TOO_NEW
            continue
        if ref < 0:
            code[j] = NO_SERIES
            continue
        before = newest[ref, 0]
        if t <= before:
            code[j] = _judge_late(log_prev, log_t, log_bits, last[ref], before, newest[ref, 1], t, bits[j], floor_ms)
            if code[j] != STORED:
                continue
        else:
            code[j] = STORED
        saved[at - count, 0], saved[at - count, 1] = before, newest[ref, 1]
        if t > before:
            newest[ref, 0], newest[ref, 1] = t, bits[j]
        log_ref[at], log_prev[at], log_t[at], log_bits[at] = ref, last[ref], t, bits[j]
        last[ref] = at
        at += 1
    return at


@register_jitable
def _judge_late(prev, log_t, log_bits, place, newest_ms, newest_bits, t, bits, floor_ms):
    if t == newest_ms:
        return DUPLICATE if newest_bits == bits else CONFLICT
    if t < floor_ms:
        return TOO_OLD
    for _ in range(CHAIN_STEPS):
        if place < 0:
            break
        if log_t[place] == t:
            return DUPLICATE if log_bits[place] == bits else CONFLICT
        place = prev[place]
    return STORED


@njit(nogil=True, cache=True)
def chain_places(prev, t_ms, last, count, refs, start_ms, end_ms, lengths, out):
    """Fills out i64[...] with the places < count of the series refs i32[k] with times in [start_ms, end_ms), series by series.

    Inside a series they come in the order of arrival; lengths i64[k] are their numbers. Returns their total: where it is
    more than len(out), out is not filled to the end and the call must be repeated.
    """
    total = 0
    for i in range(len(refs)):
        place = np.int64(last[refs[i]])
        while place >= count:
            place = np.int64(prev[place])
        first = total
        while place >= 0:
            if start_ms <= t_ms[place] < end_ms:
                if total < len(out):
                    out[total] = place
                total += 1
            place = np.int64(prev[place])
        lengths[i] = total - first
        low, high = first, total - 1
        while low < high < len(out):
            out[low], out[high] = out[high], out[low]
            low += 1
            high -= 1
    return total


@register_jitable
def _size(data, i, end):
    """(end of a length-delimited field, its first byte); the end is -1 where it reaches past `end`."""
    size, shift = 0, 0
    while i < end and shift < 35:
        byte = np.int64(data[i])
        i += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (i + size if i + size <= end else -1), i
        shift += 7
    return -1, i


@register_jitable
def _label(data, i, end):
    """(name start, name end, value start, value end) of the label at i; the last is -1 where the bytes are no label."""
    if data[i] != 0x0A:
        return i, i, i, -1
    stop, i = _size(data, i + 1, end)
    if stop < 0 or i >= stop or data[i] != 0x0A:
        return i, i, i, -1
    name_end, name = _size(data, i + 1, stop)
    if name_end < 0 or name_end >= stop or data[name_end] != 0x12:
        return i, i, i, -1
    value_end, value = _size(data, name_end + 1, stop)
    return name, name_end, value, (value_end if value_end == stop else -1)


@njit(nogil=True, cache=True, boundscheck=True)
def metric_names(data, start, end, which, name_start, name_end):
    """Where the `__name__` value of each series which i64[k] stands: data[name_start[j]:name_end[j]], empty where it has none.

    Returns the first j whose bytes are not canonical label bytes, or -1.
    """
    for j in range(len(which)):
        i, stop = start[which[j]], end[which[j]]
        name_start[j] = name_end[j] = i
        while i < stop:
            name, name_stop, value, value_stop = _label(data, i, stop)
            if value_stop < 0:
                return j
            if name_stop - name == 8 and same_bytes(data, name, _NAME, 0, 8):
                name_start[j], name_end[j] = value, value_stop
            i = value_stop
    return -1


@njit(nogil=True, cache=True, boundscheck=True)
def number_labels(arena, starts, sizes, refs, slots, symbol_start, symbol_end, pair_row, pair_name, pair_value):
    """(pairs p, symbols s) of the labels of series refs i32[k]: pair_row, pair_name and pair_value i32[p] number each label.

    Symbol j is arena[symbol_start[j]:symbol_end[j]]; names and values share one numbering. slots i32[2^k] is scratch filled
    with -1; every output has room for as many labels (two symbols a label) as the bytes can hold.
    """
    pairs = symbols = 0
    for k in range(len(refs)):
        i = starts[refs[k]]
        stop = i + sizes[refs[k]]
        while i < stop:
            name, name_stop, value, i = _label(arena, i, stop)
            pair_row[pairs] = k
            pair_name[pairs], symbols = _number(arena, name, name_stop, slots, symbol_start, symbol_end, symbols)
            pair_value[pairs], symbols = _number(arena, value, i, slots, symbol_start, symbol_end, symbols)
            pairs += 1
    return pairs, symbols


@register_jitable
def _number(arena, start, end, slots, symbol_start, symbol_end, symbols):
    mask = len(slots) - 1
    slot = np.int64(hash_bytes(arena, start, end) & np.uint64(mask))
    while slots[slot] >= 0:
        known = slots[slot]
        size = symbol_end[known] - symbol_start[known]
        if size == end - start and same_bytes(arena, symbol_start[known], arena, start, size):
            return known, symbols
        slot = (slot + 1) & mask
    slots[slot] = symbols
    symbol_start[symbols], symbol_end[symbols] = start, end
    return symbols, symbols + 1

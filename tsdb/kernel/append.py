"""The loops of the head: find and add series by their label bytes, append samples to the log, walk a series' chain, read labels.

The label bytes of a series are kept as pieces, runs of whole labels of about PIECE_BYTES, and equal pieces are kept once: series
differ from their neighbours in few labels. Two tables find them, both open addressing with linear probing, -1 = free slot: `slots`
series by the hash of their bytes, `piece_slots` pieces by theirs. A hit has equal bytes, never only an equal hash.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.hash import hash_bytes, load_u64, same_bytes

NEVER_MS = -(1 << 63)
"""The time of the newest sample of a series that has none."""

STORED, DUPLICATE, CONFLICT, TOO_OLD, TOO_NEW, NO_SERIES = range(6)
"""What became of a sample: those up to DUPLICATE count as stored."""

CHAIN_STEPS = 64
"""How far an out-of-order sample looks back for one of equal time; what it misses, the merge rule decides when read."""

PIECE_BYTES = 48
"""Shorter pieces are shared by more series and take longer to compare."""

SERIES_OPTIONS: dict[str, Any] = {"_nrt": False}
"""For code that makes no arrays: counting who uses those it is given would take half of its time."""

_NAME = np.frombuffer(b"__name__", np.uint8).copy()


class SeriesTableArrays(NamedTuple):
    """All series and their label bytes (see the top of this file).

    Series r has hashes[r] and the pieces pieces[starts[r]:][:counts[r]]; counts of refs that are free are -1. Piece p is
    arena[piece_at[p] : piece_at[p + 1]].
    """

    slots: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int32]
    pieces: npt.NDArray[np.int32]
    piece_slots: npt.NDArray[np.int32]
    piece_at: npt.NDArray[np.int64]
    arena: npt.NDArray[np.uint8]


class LogColumns(NamedTuple):
    """Samples in the order of arrival; prev i32[c] is the sample of the same series before it, -1 = none."""

    ref: npt.NDArray[np.int32]
    prev: npt.NDArray[np.int32]
    t_ms: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]


class KnownLabels(NamedTuple):
    """Some of the series of a `SeriesTableArrays`, as they are read without its owner's lock: the counts of all others are -1.

    What these speak of is never written again: the owner adds behind it, and works on copies before a ref is given out anew.
    Not the table itself: with its eighth array the scan is no longer compiled into one piece, and takes five times as long.
    """

    slots: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int32]
    pieces: npt.NDArray[np.int32]
    piece_at: npt.NDArray[np.int64]
    arena: npt.NDArray[np.uint8]


NOTHING_KNOWN = KnownLabels(
    np.full(1, -1, np.int32), np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int32),
    np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.uint8),
)  # fmt: skip


@register_jitable(**SERIES_OPTIONS)
def known_labels(known, ref, data, at, end):
    """Where the labels of series `ref` end that data[at:end] begins with, or -1."""
    if ref >= len(known.counts) or known.counts[ref] <= 0:
        return -1
    return _after_labels(known.pieces, known.piece_at, known.arena, known.starts[ref], known.counts[ref], data, at, end)


@register_jitable(**SERIES_OPTIONS)
def known_ref(known, key, otherwise):
    """The series whose hash this is, if it stands where it should; its bytes are not compared."""
    ref = known.slots[key & np.uint64(len(known.slots) - 1)]
    if 0 <= ref < len(known.counts) and known.counts[ref] > 0 and known.hashes[ref] == key:
        return np.int64(ref)
    return otherwise


@register_jitable(**SERIES_OPTIONS)
def _after_labels(pieces, piece_at, arena, first, count, data, at, end):
    """Where these pieces end if data[at:end] begins with them, else -1. No early exit: most likely they are equal."""
    different = np.uint64(0)
    for k in range(first, first + count):
        start = piece_at[pieces[k]]
        size = piece_at[pieces[k] + 1] - start
        if at + size > end:
            return -1
        if size < 8:
            for i in range(size):
                different |= np.uint64(arena[start + i] ^ data[at + i])
        else:
            last = size - 8  # the last word overlaps the one before
            different |= load_u64(arena, start + last) ^ load_u64(data, at + last)
            for word in range((last + 7) >> 3):
                different |= load_u64(arena, start + 8 * word) ^ load_u64(data, at + 8 * word)
        at += size
    return at if different == np.uint64(0) else -1


@register_jitable(**SERIES_OPTIONS)
def _find(slots, hashes, starts, counts, pieces, piece_at, arena, data, start, end, key):
    """(ref or -1, its slot or the free one it would take). Arrays one by one: out of a tuple each costs two atomic counts."""
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while True:
        ref = slots[slot]
        if ref < 0:
            return -1, slot
        if hashes[ref] == key and _after_labels(pieces, piece_at, arena, starts[ref], counts[ref], data, start, end) == end:
            return ref, slot
        slot = (slot + np.uint64(1)) & mask


@njit(nogil=True, cache=True, **SERIES_OPTIONS)
def find_series(table, data, start, end, hashes, out):
    """Fills out i32[n] with the refs of label bytes data[start[i]:end[i]] of hashes[i], -1 = unknown; returns how many are.

    Where out is not -1 before, it stays.
    """
    slots, known, starts, counts, pieces, _, piece_at, arena = table
    unknown = 0
    ref = -1
    for i in range(len(hashes)):
        if out[i] >= 0:
            ref = out[i]
            continue
        ref += 1  # a sender repeats its order, so the next series is mostly the next ref: near in memory, unlike its slot
        if (
            ref >= len(known) or known[ref] != hashes[i]
            or _after_labels(pieces, piece_at, arena, starts[ref], counts[ref], data, start[i], end[i]) != end[i]
        ):  # fmt: skip
            ref, _ = _find(slots, known, starts, counts, pieces, piece_at, arena, data, start[i], end[i], hashes[i])
        out[i] = ref
        unknown += ref < 0
    return unknown


@njit(nogil=True, cache=True, **SERIES_OPTIONS)
def add_series(table, used, piece_count, data, start, end, hashes, which, fresh, out):
    """Adds series which i64[k] of the batch under refs fresh i32[k], in that order, and writes their refs to out.

    A series that is there by now (twice in one batch) takes no ref. Returns (refs taken, places of `pieces` used, pieces there
    are); the caller guarantees canonical label bytes, room in every column for the most that they can take, and free slots.
    """
    slots, known, starts, counts, pieces, piece_slots, piece_at, arena = table
    taken = 0
    for i in which:
        ref, slot = _find(slots, known, starts, counts, pieces, piece_at, arena, data, start[i], end[i], hashes[i])
        if ref < 0:
            ref = fresh[taken]
            taken += 1
            first, at = used, start[i]
            while at < end[i]:
                stop = _piece_end(data, at, end[i])
                piece, slot_of = _find_piece(piece_slots, piece_at, arena, data, at, stop)
                if piece < 0:
                    piece, to = piece_count, piece_at[piece_count]
                    for k in range(stop - at):  # assigning a slice takes 1.5 s longer to compile
                        arena[to + k] = data[at + k]
                    piece_slots[slot_of] = piece
                    piece_count += 1
                    piece_at[piece_count] = to + stop - at
                pieces[used] = piece
                used += 1
                at = stop
            starts[ref], counts[ref], known[ref], slots[slot] = first, used - first, hashes[i], ref
        out[i] = ref
    return taken, used, piece_count


@register_jitable(**SERIES_OPTIONS)
def _piece_end(data, start, end):
    """Where the piece that begins at `start` ends: after as many labels as make it PIECE_BYTES long."""
    i = start
    while i < end and i - start < PIECE_BYTES:
        i, _ = _size(data, i + 1, end)
        if i < 0:
            return end
    return i


@register_jitable(**SERIES_OPTIONS)
def _find_piece(piece_slots, piece_at, arena, data, start, end):
    """(piece or -1, its slot or the free one it would take)."""
    mask = len(piece_slots) - 1
    slot = np.int64(hash_bytes(data, start, end) & np.uint64(mask))
    while piece_slots[slot] >= 0:
        piece = piece_slots[slot]
        size = piece_at[piece + 1] - piece_at[piece]
        if size == end - start and same_bytes(arena, piece_at[piece], data, start, size):
            return piece, slot
        slot = (slot + 1) & mask
    return -1, slot


@njit(nogil=True, cache=True, **SERIES_OPTIONS)
def place_numbers(slots, hashes, numbers):
    """Puts numbers i32[k] with hashes u64[k] into a table of free slots i32[2^j], j > log2(k)."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(numbers)):
        slot = hashes[i] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = numbers[i]


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


@register_jitable(**SERIES_OPTIONS)
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
def number_labels(arena, sizes, slots, symbol_start, symbol_end, pair_row, pair_name, pair_value):
    """(pairs p, symbols s) of the labels of k series: pair_row, pair_name and pair_value i32[p] number each label.

    The label bytes of the series, sizes i64[k], follow one another in the arena. Symbol j is
    arena[symbol_start[j]:symbol_end[j]]; names and values share one numbering. slots i32[2^k] is scratch filled with -1; every
    output has room for as many labels (two symbols a label) as the bytes can hold.
    """
    pairs = symbols = i = stop = 0
    for k in range(len(sizes)):
        stop += sizes[k]
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

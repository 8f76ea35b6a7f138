"""The label bytes of all series of a head, by their refs: found by hash and bytes, and kept in pieces that many series share.

A few hundred bytes of labels become a few numbers of pieces: of a fleet's ten labels, 220 bytes, less than half is left. Not
thread-safe: the head's lock guards it.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.kernel.append import (
    PIECE_BYTES,
    KnownLabels,
    SeriesTableArrays,
    add_series,
    find_series,
    hash_ranges,
    place_numbers,
)
from tsdb.kernel.ranges import copy_ranges
from tsdb.model.series import I32, I64, Bool
from tsdb.model.write import U8, U64

Scalar = TypeVar("Scalar", bound=np.generic)

MOVED_AT_ONCE = 4096
"""Series whose bytes are put together at once when the store is made anew."""


class LabelStore:
    """Refs are given by the caller; all are below the room."""

    def __init__(self, room: int) -> None:
        self._arrays = _empty(room, series=room, pieces=room, size_bytes=room)
        self._series = 0
        self._used = 0
        self._piece_count = 0

    @property
    def size_bytes(self) -> int:
        """What labels take: the bytes of pieces, their places, and the numbers of the pieces of each series."""
        return int(self._arrays.piece_at[self._piece_count]) + 8 * self._piece_count + 4 * self._used

    def find(self, data: U8, start: I64, end: I64, hashes: U64, refs: I32) -> int:
        """Fills in the refs i32[n] that are -1 as far as they are here; returns how many series are unknown."""
        return int(find_series(self._arrays, data, start, end, hashes, refs))

    def add(self, data: U8, start: I64, end: I64, hashes: U64, *, which: I64, fresh: I32, refs: I32) -> int:
        """Adds series `which` of a batch under the refs `fresh`, writes them into refs i32[n]; returns how many were taken."""
        self._make_room(len(which), int((end[which] - start[which]).sum()))
        taken, self._used, self._piece_count = add_series(
            self._arrays, self._used, self._piece_count, data, start, end, hashes, which, fresh, refs
        )
        self._series += int(taken)
        return int(taken)

    def texts(self, refs: I32) -> tuple[U8, I64]:
        """(label bytes of series one after another, their sizes i64[n])."""
        return _texts(self._arrays, refs)

    def shown(self, which: Bool) -> KnownLabels:
        """The series of which bool[room], to be read without a lock, whatever happens here later."""
        slots, hashes, starts, counts, pieces, _, piece_at, arena = self._arrays
        return KnownLabels(slots, hashes, starts, np.where(which, counts, np.int32(-1)), pieces, piece_at, arena)

    def forget(self, gone: I64) -> None:
        """Forgets series. Their room is taken back once it is half of all."""
        old = self._arrays  # their refs will be given out anew, and others may read the old places yet
        self._arrays = old._replace(hashes=old.hashes.copy(), starts=old.starts.copy(), counts=old.counts.copy())
        self._arrays.counts[gone] = -1
        alive = self._alive()
        self._series = len(alive)
        if int(self._arrays.counts[alive].sum()) * 2 < self._used:
            self._rebuild(alive)
        else:
            self._place_series(alive, len(self._arrays.slots))

    def grow(self, room: int) -> None:
        """Makes room for refs below `room`."""
        arrays = self._arrays
        counts = resized(arrays.counts, room)
        counts[len(arrays.counts) :] = -1
        self._arrays = arrays._replace(starts=resized(arrays.starts, room), counts=counts, hashes=resized(arrays.hashes, room))

    def _alive(self) -> I32:
        return np.flatnonzero(self._arrays.counts >= 0).astype(np.int32)

    def _make_room(self, series: int, size_bytes: int) -> None:
        """Room for so many more series, none of whose pieces is known."""
        most = size_bytes // PIECE_BYTES + series
        if (self._series + series) * 3 > len(self._arrays.slots) * 2:
            self._place_series(self._alive(), _slots(self._series + series))
        if (self._piece_count + most) * 3 > len(self._arrays.piece_slots) * 2:
            self._place_pieces(_slots(self._piece_count + most))
        arrays, count = self._arrays, self._piece_count
        arena_bytes = int(arrays.piece_at[count])
        self._arrays = arrays._replace(
            pieces=_roomy(arrays.pieces, self._used, self._used + most),
            piece_at=_roomy(arrays.piece_at, count + 1, count + most + 1),
            arena=_roomy(arrays.arena, arena_bytes, arena_bytes + size_bytes),
        )

    def _place_series(self, refs: I32, slots: int) -> None:
        table = np.full(slots, -1, np.int32)
        place_numbers(table, self._arrays.hashes[refs], refs)
        self._arrays = self._arrays._replace(slots=table)

    def _place_pieces(self, slots: int) -> None:
        arrays, count = self._arrays, self._piece_count
        table = np.full(slots, -1, np.int32)
        hashes = hash_ranges(arrays.arena, arrays.piece_at[:count], arrays.piece_at[1 : count + 1])
        place_numbers(table, hashes, np.arange(count, dtype=np.int32))
        self._arrays = arrays._replace(piece_slots=table)

    def _rebuild(self, alive: I32) -> None:
        """Makes the store anew of the series that stay."""
        old = self._arrays
        self._arrays = _empty(len(old.hashes), series=len(alive), pieces=0, size_bytes=0)
        self._series = self._used = self._piece_count = 0
        for first in range(0, len(alive), MOVED_AT_ONCE):
            part = alive[first : first + MOVED_AT_ONCE]
            data, sizes = _texts(old, part)
            which, end, refs = np.arange(len(part), dtype=np.int64), np.cumsum(sizes), np.empty(len(part), np.int32)
            taken = self.add(data, end - sizes, end, old.hashes[part], which=which, fresh=part, refs=refs)
            assert taken == len(part), "two live series have equal label bytes"


def _texts(arrays: SeriesTableArrays, refs: I32) -> tuple[U8, I64]:
    counts = arrays.counts[refs].astype(np.int64)
    last = np.cumsum(counts)
    pieces = arrays.pieces[np.repeat(arrays.starts[refs] - last + counts, counts) + np.arange(int(counts.sum()))]
    piece_start = arrays.piece_at[pieces]
    size = arrays.piece_at[pieces + 1] - piece_start
    end = np.concatenate([[0], np.cumsum(size)])
    data = np.empty(int(end[-1]), np.uint8)
    copy_ranges(arrays.arena, piece_start, size, data, end[:-1])
    return data, np.diff(end[np.concatenate([[0], last])])


def grown(room: int, need: int) -> int:
    """Half as much again until it is enough; memory that is not touched costs nothing."""
    while room < need:
        room += (room >> 1) + 1024
    return room


def resized(array: npt.NDArray[Scalar], room: int) -> npt.NDArray[Scalar]:
    """A larger array with the same start, zeros behind."""
    out = np.zeros(room, array.dtype)
    out[: len(array)] = array
    return out


def _roomy(array: npt.NDArray[Scalar], used: int, need: int) -> npt.NDArray[Scalar]:
    """The array, or a larger one with the same `used` places, the others undefined."""
    if need <= len(array):
        return array
    out = np.empty(grown(len(array), need), array.dtype)
    out[:used] = array[:used]
    return out


def _slots(count: int) -> int:
    return 1 << max(10, (count * 2).bit_length())


def _empty(room: int, *, series: int, pieces: int, size_bytes: int) -> SeriesTableArrays:
    return SeriesTableArrays(
        np.full(_slots(series), -1, np.int32), np.zeros(room, np.uint64), np.zeros(room, np.int64), np.full(room, -1, np.int32),
        np.empty(pieces, np.int32), np.full(_slots(pieces), -1, np.int32), np.zeros(pieces + 1, np.int64),
        np.empty(size_bytes, np.uint8),
    )  # fmt: skip

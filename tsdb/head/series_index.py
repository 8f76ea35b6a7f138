"""Which series the head holds: from label bytes to a small number (ref), and from matchers to refs in the order of series.

Series stand on shelves: runs of neighbouring metrics of about SHELF_SERIES series (one metric is never torn). Each shelf
builds its `SeriesTable` when a query first reads it and keeps it until a series joins or leaves, so a query about one
metric touches one shelf, and a new series costs the sorting of one shelf only. Not thread-safe: the head's lock guards it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.kernel.append import SeriesTableArrays, add_series, find_series, metric_names, number_labels
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME, Labels, decode_labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import I32, I64, Bool, SeriesTable, strings
from tsdb.model.write import U8, U64

Scalar = TypeVar("Scalar", bound=np.generic)

SHELF_SERIES = 2048
"""A shelf of this many series sorts in about 4 ms and is matched in 20 µs a matcher."""
MIN_ROOM = 1024
MIN_LABEL_BYTES = 6
"""A label takes so many at least: three tags and three lengths."""


@dataclass(slots=True)
class Shelf:
    """The series of some metrics: their refs as they came, and sorted beside their table once that is asked for."""

    metrics: set[int]
    parts: list[I32] = field(default_factory=list)
    size: int = 0
    table: SeriesTable | None = None
    sorted_refs: I32 = field(default_factory=lambda: np.empty(0, np.int32))

    def add(self, refs: I32) -> None:
        self.parts.append(refs)
        self.size += len(refs)
        self.table = None

    def refs(self) -> I32:
        if len(self.parts) > 1:
            self.parts = [np.concatenate(self.parts)]
        return self.parts[0] if self.parts else np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Rows:
    """Series in their order, and their keys i64[n]."""

    table: SeriesTable
    keys: I64


def keys_of(refs: I32, metric: I32) -> I64:
    """i64[n] keys of refs i32[n]: the metric's number above the ref, so that the series of a metric have neighbouring keys."""
    return (metric[refs].astype(np.int64) << 32) | refs


def refs_of(keys: I64) -> I32:
    """i32[n] refs of keys."""
    return (keys & 0xFFFFFFFF).astype(np.int32)


class SeriesIndex:
    """All series of a head. `metric` i32[room] is the metric number of each ref; refs of series that left are given out again."""

    def __init__(self) -> None:
        self._arrays = _room_for(MIN_ROOM)
        self._used_bytes = 0
        self.metric: I32 = np.zeros(MIN_ROOM, np.int32)
        self.alive: Bool = np.zeros(MIN_ROOM, bool)
        self._free: list[int] = []
        self._next_ref = 0
        self._size = 0
        self._metric_number: dict[str, int] = {}
        self._metric_text: list[str] = []
        self._metric_shelf: list[Shelf] = []
        self._metric_size: list[int] = []
        self._free_metrics: list[int] = []
        self._shelves: list[Shelf] = [Shelf(set())]
        self._firsts: list[str] = [""]

    def __len__(self) -> int:
        return self._size

    @property
    def room(self) -> int:
        """Every ref is below this."""
        return len(self.metric)

    @property
    def label_bytes(self) -> int:
        return self._used_bytes

    def metric_sizes(self) -> dict[str, int]:
        """Series by metric name."""
        return {text: self._metric_size[number] for text, number in self._metric_number.items()}

    def find(self, data: U8, start: I64, end: I64, hashes: U64) -> tuple[I32, int]:
        """(refs i32[n] with -1 for unknown series, how many are unknown)."""
        refs = np.empty(len(hashes), np.int32)
        return refs, int(find_series(self._arrays, data, start, end, hashes, refs))

    def metrics_of(self, data: U8, start: I64, end: I64, which: I64) -> list[str]:
        """The metric names of series `which`. BadData where label bytes are not canonical."""
        name_start, name_end = np.empty(len(which), np.int64), np.empty(len(which), np.int64)
        wrong = int(metric_names(data, start, end, which, name_start, name_end))
        if wrong >= 0:
            raw = data[start[which[wrong]] : end[which[wrong]]][:200].tobytes()
            raise BadData(f"label bytes of series {which[wrong]} are not canonical: {raw!r}")
        whole = data.tobytes() if len(which) > 64 else None  # slicing bytes is several times faster than slicing arrays
        spans = zip(name_start.tolist(), name_end.tolist(), strict=True)
        if whole is not None:
            return [whole[a:b].decode(errors="replace") for a, b in spans]
        return [data[a:b].tobytes().decode(errors="replace") for a, b in spans]

    def metric_size(self, metric: str) -> int:
        number = self._metric_number.get(metric)
        return 0 if number is None else self._metric_size[number]

    def add(self, data: U8, start: I64, end: I64, hashes: U64, *, which: I64, metrics: Sequence[str], refs: I32) -> I32:
        """Adds series `which` of a batch, of those metrics, writes their refs into refs i32[n]; returns the refs that are new."""
        self._make_room(len(which), int((end[which] - start[which]).sum()))
        fresh = self._fresh(len(which))
        taken, self._used_bytes = add_series(self._arrays, self._used_bytes, data, start, end, hashes, which, fresh, refs)
        self._free.extend(fresh[taken:].tolist())
        fresh = fresh[:taken]
        known = refs[which]
        numbers = np.fromiter((self._number_metric(metric) for metric in metrics), np.int32, len(metrics))
        self.metric[known] = numbers
        self.alive[fresh] = True
        self._size += taken
        self._shelve(fresh)
        return fresh

    def labels(self, ref: int) -> Labels:
        """The label set of one series."""
        return decode_labels(self.bytes_of(ref))

    def bytes_of(self, ref: int) -> bytes:
        start = int(self._arrays.starts[ref])
        return self._arrays.arena[start : start + int(self._arrays.sizes[ref])].tobytes()

    def spans(self, refs: I32) -> tuple[U8, I64, I64]:
        """(arena, starts i64[n], sizes i64[n]) of the label bytes of series."""
        return self._arrays.arena, self._arrays.starts[refs], self._arrays.sizes[refs].astype(np.int64)

    def select(self, matchers: Sequence[Matcher]) -> list[Rows]:
        """The matching series, shelf by shelf, in their order."""
        found = []
        for shelf in self._shelves_of([m for m in matchers if m.name == METRIC_NAME]):
            table = self._sorted(shelf)
            rows = matching_rows(table, matchers)
            if len(rows) == len(table):
                found.append(Rows(table, keys_of(shelf.sorted_refs, self.metric)))
            elif len(rows):
                found.append(Rows(table.take(rows), keys_of(shelf.sorted_refs[rows], self.metric)))
        return found

    def keep(self, live: Bool) -> int:
        """Forgets every series whose live bool[room] is false; returns how many went."""
        gone = np.flatnonzero(self.alive & ~live)
        if len(gone) == 0:
            return 0
        self.alive[gone] = False
        self._arrays.sizes[gone] = -1
        self._free.extend(gone.tolist())
        self._size -= len(gone)
        numbers, counts = np.unique(self.metric[gone], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._metric_size[number] -= count
        for shelf in {id(s): s for s in (self._metric_shelf[n] for n in numbers.tolist())}.values():
            self._thin(shelf)
        for number in numbers.tolist():
            self._forget_metric(number)
        self._drop_empty_shelves()
        used = int(self._arrays.sizes[self.alive].sum())
        small = used * 2 < len(self._arrays.arena)
        self._rebuild(len(self), room_bytes=_grown(MIN_ROOM, used) if small else len(self._arrays.arena))
        return len(gone)

    def _shelves_of(self, names: Sequence[Matcher]) -> list[Shelf]:
        exact = next((m.value for m in names if m.op == "="), None)
        if exact is not None:
            number = self._metric_number.get(exact)
            return [] if number is None else [self._metric_shelf[number]]
        if not names:
            return [shelf for shelf in self._shelves if shelf.size]
        text = self._metric_text
        return [s for s in self._shelves if any(all(m.matches(text[number]) for m in names) for number in s.metrics)]

    def _sorted(self, shelf: Shelf) -> SeriesTable:
        if shelf.table is None:
            refs = shelf.refs()
            table = label_table(self._arrays, refs)
            order = table.order()
            shelf.table, shelf.sorted_refs = table.take(order), refs[order]
            shelf.parts = [shelf.sorted_refs]
        return shelf.table

    def _make_room(self, series: int, size_bytes: int) -> None:
        arrays = self._arrays
        need = self._next_ref + max(0, series - len(self._free))
        if need > len(self.metric):
            room = _grown(len(self.metric), need)
            sizes = _resized(arrays.sizes, room)
            sizes[len(arrays.sizes) :] = -1
            arrays = arrays._replace(starts=_resized(arrays.starts, room), sizes=sizes, hashes=_resized(arrays.hashes, room))
            self.metric, self.alive = _resized(self.metric, room), _resized(self.alive, room)
        if self._used_bytes + size_bytes > len(arrays.arena):
            room = _grown(len(arrays.arena), self._used_bytes + size_bytes)
            arrays = arrays._replace(arena=_resized(arrays.arena, room, used=self._used_bytes))
        self._arrays = arrays
        if (self._size + series) * 3 > len(arrays.keys) * 2:
            self._rebuild(self._size + series, room_bytes=len(arrays.arena))

    def _fresh(self, count: int) -> I32:
        """i32[count] refs that nobody uses."""
        reused = self._free[len(self._free) - min(count, len(self._free)) :]
        del self._free[len(self._free) - len(reused) :]
        fresh = np.arange(self._next_ref, self._next_ref + count - len(reused), dtype=np.int32)
        self._next_ref += len(fresh)
        return np.concatenate([np.array(reused, np.int32), fresh])

    def _number_metric(self, text: str) -> int:
        number = self._metric_number.get(text)
        if number is not None:
            return number
        shelf = self._shelves[max(0, bisect_right(self._firsts, text) - 1)]
        if self._free_metrics:
            number = self._free_metrics.pop()
            self._metric_text[number], self._metric_shelf[number], self._metric_size[number] = text, shelf, 0
        else:
            number = len(self._metric_text)
            self._metric_text.append(text)
            self._metric_shelf.append(shelf)
            self._metric_size.append(0)
        self._metric_number[text] = number
        shelf.metrics.add(number)
        return number

    def _shelve(self, fresh: I32) -> None:
        metric = self.metric[fresh]
        order = np.argsort(metric, kind="stable")
        numbers, first = np.unique(metric[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(fresh[order], first[1:]), strict=True):
            shelf = self._metric_shelf[number]
            self._metric_size[number] += len(part)
            shelf.add(part)
        for shelf in {id(s): s for s in (self._metric_shelf[n] for n in numbers.tolist())}.values():
            self._split(shelf)

    def _split(self, shelf: Shelf) -> None:
        """Tears a shelf into such as hold no more than SHELF_SERIES, or one metric."""
        if shelf.size <= SHELF_SERIES or len(shelf.metrics) < 2:
            return
        ordered = sorted(shelf.metrics, key=self._metric_text.__getitem__)
        refs = shelf.refs()
        metric = self.metric[refs]
        at = self._shelves.index(shelf)
        pieces: list[Shelf] = []
        for number in ordered:
            size = self._metric_size[number]
            if not pieces or pieces[-1].size + size > SHELF_SERIES // 2:
                pieces.append(Shelf(set()))
            pieces[-1].metrics.add(number)
            pieces[-1].size += size
            self._metric_shelf[number] = pieces[-1]
        place = np.empty(len(self._metric_text), np.int32)
        for i, piece in enumerate(pieces):
            place[list(piece.metrics)] = i
        piece_of = place[metric]
        by_piece = np.argsort(piece_of, kind="stable")
        bounds = np.searchsorted(piece_of[by_piece], np.arange(1, len(pieces)))
        for piece, part in zip(pieces, np.split(refs[by_piece], bounds), strict=True):
            piece.parts = [part]
        self._shelves[at : at + 1] = pieces
        firsts = [min(self._metric_text[n] for n in piece.metrics) for piece in pieces]
        self._firsts[at : at + 1] = [self._firsts[at], *firsts[1:]]

    def _thin(self, shelf: Shelf) -> None:
        refs = shelf.refs()
        shelf.parts = [refs[self.alive[refs]]]
        shelf.size = len(shelf.parts[0])
        if shelf.table is not None:
            stay = self.alive[shelf.sorted_refs]
            shelf.table, shelf.sorted_refs = shelf.table.take(stay), shelf.sorted_refs[stay]

    def _forget_metric(self, number: int) -> None:
        if self._metric_size[number] == 0:
            del self._metric_number[self._metric_text[number]]
            self._metric_shelf[number].metrics.discard(number)
            self._free_metrics.append(number)

    def _drop_empty_shelves(self) -> None:
        stay = [i for i, shelf in enumerate(self._shelves) if shelf.metrics] or [0]
        self._shelves = [self._shelves[i] for i in stay]
        self._firsts = ["", *(self._firsts[i] for i in stay[1:])]

    def _rebuild(self, series: int, *, room_bytes: int) -> None:
        """Makes anew a table for `series` and an arena of room_bytes from the series that are alive."""
        old, alive = self._arrays, np.flatnonzero(self.alive).astype(np.int32)
        starts, sizes = old.starts[alive], old.sizes[alive].astype(np.int64)
        slots = 1 << max(10, (series * 2).bit_length())
        self._arrays = SeriesTableArrays(
            np.zeros(slots, np.uint64),
            np.full(slots, -1, np.int32),
            np.empty(room_bytes, np.uint8),
            old.starts,
            old.sizes,
            old.hashes,
        )
        which, refs = np.arange(len(alive), dtype=np.int64), np.empty(len(alive), np.int32)
        taken, used = add_series(self._arrays, 0, old.arena, starts, starts + sizes, old.hashes[alive], which, alive, refs)
        assert taken == len(alive), "two live series have equal label bytes"
        self._used_bytes = used


def matching_rows(table: SeriesTable, matchers: Sequence[Matcher]) -> I64:
    """i64[...] rows of an ascending table that match all matchers; equality is a binary search for its symbol."""
    rows: I64 | None = None
    for matcher in sorted(matchers, key=lambda m: m.op != "=" or not m.value):
        part = table if rows is None else table.take(rows)
        keep = np.flatnonzero(_matching(part, matcher))
        rows = keep if rows is None else rows[keep]
    return np.arange(len(table), dtype=np.int64) if rows is None else rows


def label_table(arrays: SeriesTableArrays, refs: I32) -> SeriesTable:
    """The table of series refs i32[n], in that order, with symbols of its own that ascend. About 1 µs a series."""
    most = int(arrays.sizes[refs].sum()) // MIN_LABEL_BYTES + 1
    symbol_start, symbol_end = np.empty(2 * most, np.int64), np.empty(2 * most, np.int64)
    row, name, value = (np.empty(most, np.int32) for _ in range(3))
    slots = np.full(1 << (4 * most).bit_length(), -1, np.int32)
    pairs, symbols = number_labels(
        arrays.arena, arrays.starts, arrays.sizes, refs, slots, symbol_start, symbol_end, row, name, value
    )
    spans = zip(symbol_start[:symbols].tolist(), symbol_end[:symbols].tolist(), strict=True)
    texts = [arrays.arena[a:b].tobytes().decode(errors="replace") for a, b in spans]
    row, name, value = row[:pairs], name[:pairs], value[:pairs]
    named = sorted(np.unique(name).tolist(), key=texts.__getitem__)
    used = sorted(np.unique(value).tolist(), key=texts.__getitem__)
    column, number = np.empty(symbols, np.int32), np.empty(symbols, np.int32)
    column[named] = np.arange(len(named), dtype=np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    ids = np.full((len(named), len(refs)), -1, np.int32)
    ids[column[name], row] = number[value]
    return SeriesTable(strings([texts[i] for i in used]), tuple(texts[i] for i in named), ids, True)


def _matching(table: SeriesTable, matcher: Matcher) -> Bool:
    if matcher.op != "=" or not matcher.value or not table.ascending:
        return matcher.select(table)
    at = bisect_left(table.symbols, matcher.value)
    if at == len(table.symbols) or table.symbols[at] != matcher.value:
        return np.zeros(len(table), bool)
    return np.asarray(table.column(matcher.name) == at)


def _room_for(series: int) -> SeriesTableArrays:
    return SeriesTableArrays(
        np.zeros(2 * series, np.uint64), np.full(2 * series, -1, np.int32), np.empty(MIN_ROOM, np.uint8),
        np.zeros(series, np.int64), np.full(series, -1, np.int32), np.zeros(series, np.uint64),
    )  # fmt: skip


def _grown(room: int, need: int) -> int:
    """Half as much again until it is enough; memory that is not touched costs nothing."""
    while room < need:
        room += (room >> 1) + MIN_ROOM
    return room


def _resized(array: npt.NDArray[Scalar], room: int, *, used: int | None = None) -> npt.NDArray[Scalar]:
    """A larger array with the same start; with `used` only so much of it is defined."""
    out = np.zeros(room, array.dtype) if used is None else np.empty(room, array.dtype)
    count = len(array) if used is None else used
    out[:count] = array[:count]
    return out

"""Which series the head holds: from label bytes to a small number (ref), and from matchers to refs in the order of series.

Series stand on shelves: runs of neighbouring metrics of about SHELF_SERIES series (one metric is never torn). Each shelf
builds its `SeriesTable` when a query first reads it and keeps it until a series joins or leaves, so a query about one
metric touches one shelf, and a new series costs the sorting of one shelf only. Not thread-safe: the head's lock guards it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tsdb.head.label_store import LabelStore, grown, resized
from tsdb.kernel.append import metric_names, number_labels
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME, Labels, decode_labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import I32, I64, Bool, SeriesTable, strings
from tsdb.model.write import U8, U64, KnownRefs, KnownSeries

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
        self._labels = LabelStore(MIN_ROOM)
        self.metric: I32 = np.zeros(MIN_ROOM, np.int32)
        self.alive: Bool = np.zeros(MIN_ROOM, bool)
        self._free: list[int] = []
        self._numbering = object()
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
        """What labels take in memory."""
        return self._labels.size_bytes

    def metric_sizes(self) -> dict[str, int]:
        """Series by metric name."""
        return {text: self._metric_size[number] for text, number in self._metric_number.items()}

    def find(self, data: U8, start: I64, end: I64, hashes: U64, known: KnownRefs | None = None) -> tuple[I32, int]:
        """(refs i32[n] with -1 for unknown series, how many are unknown). Known refs are taken if they are still this index's."""
        mine = known is not None and known.owner is self._numbering
        refs = known.refs.copy() if known is not None and mine else np.full(len(hashes), -1, np.int32)
        return refs, self._labels.find(data, start, end, hashes, refs)

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
        self._make_room(len(which))
        fresh = self._fresh(len(which))
        taken = self._labels.add(data, start, end, hashes, which=which, fresh=fresh, refs=refs)
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
        return decode_labels(self.texts(np.array([ref], np.int32))[0].tobytes())

    def shown(self, which: Bool) -> KnownSeries:
        """The series of which bool[room], to be read without a lock, whatever happens here later."""
        return KnownSeries(self._labels.shown(which), self._numbering)

    def texts(self, refs: I32) -> tuple[U8, I64]:
        """(label bytes of series one after another, their sizes i64[n])."""
        return self._labels.texts(refs)

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
        self._labels.forget(gone)
        self._numbering = object()  # refs will be given out anew: who holds some from before must not use them
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
            table = label_table(*self.texts(refs))
            order = table.order()
            shelf.table, shelf.sorted_refs = table.take(order), refs[order]
            shelf.parts = [shelf.sorted_refs]
        return shelf.table

    def _make_room(self, series: int) -> None:
        need = self._next_ref + max(0, series - len(self._free))
        if need > len(self.metric):
            room = grown(len(self.metric), need)
            self.metric, self.alive = resized(self.metric, room), resized(self.alive, room)
            self._labels.grow(room)

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


def matching_rows(table: SeriesTable, matchers: Sequence[Matcher]) -> I64:
    """i64[...] rows of an ascending table that match all matchers; equality is a binary search for its symbol."""
    rows: I64 | None = None
    for matcher in sorted(matchers, key=lambda m: m.op != "=" or not m.value):
        part = table if rows is None else table.take(rows)
        keep = np.flatnonzero(_matching(part, matcher))
        rows = keep if rows is None else rows[keep]
    return np.arange(len(table), dtype=np.int64) if rows is None else rows


def label_table(data: U8, sizes: I64) -> SeriesTable:
    """The table of series whose label bytes, sizes i64[n], follow one another, with symbols that ascend. About 1 µs a series."""
    most = len(data) // MIN_LABEL_BYTES + 1
    symbol_start, symbol_end = np.empty(2 * most, np.int64), np.empty(2 * most, np.int64)
    row, name, value = (np.empty(most, np.int32) for _ in range(3))
    slots = np.full(1 << (4 * most).bit_length(), -1, np.int32)
    pairs, symbols = number_labels(data, sizes, slots, symbol_start, symbol_end, row, name, value)
    spans = zip(symbol_start[:symbols].tolist(), symbol_end[:symbols].tolist(), strict=True)
    texts = [data[a:b].tobytes().decode(errors="replace") for a, b in spans]
    row, name, value = row[:pairs], name[:pairs], value[:pairs]
    named = sorted(np.unique(name).tolist(), key=texts.__getitem__)
    used = sorted(np.unique(value).tolist(), key=texts.__getitem__)
    column, number = np.empty(symbols, np.int32), np.empty(symbols, np.int32)
    column[named] = np.arange(len(named), dtype=np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    ids = np.full((len(named), len(sizes)), -1, np.int32)
    ids[column[name], row] = number[value]
    return SeriesTable(strings([texts[i] for i in used]), tuple(texts[i] for i in named), ids, True)


def _matching(table: SeriesTable, matcher: Matcher) -> Bool:
    if matcher.op != "=" or not matcher.value or not table.ascending:
        return matcher.select(table)
    at = bisect_left(table.symbols, matcher.value)
    if at == len(table.symbols) or table.symbols[at] != matcher.value:
        return np.zeros(len(table), bool)
    return np.asarray(table.column(matcher.name) == at)

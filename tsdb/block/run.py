"""Blocks of one resolution that follow one another in time as one `Source`: pages are decoded to where their samples belong.

Nothing is merged: which series there are is known from the indexes, and of each series the blocks have samples one after another.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np

from tsdb.block.block import BATCH_SERIES, Block, Cell, cells_of
from tsdb.block.index import Directory, Index
from tsdb.block.page import Page
from tsdb.block.page_batch import Share, join_shares
from tsdb.block.part_cache import PartCache
from tsdb.merge import merge_streams, merge_tables, union_tables
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate, together
from tsdb.model.series import I64, SeriesBatch, SeriesTable
from tsdb.model.source import Selection

MAX_UNION_SERIES = 1 << 18
"""Series of all blocks together beyond which their labels (10 MB here) are not held at once, but merged a batch at a time."""
BATCH_WORDS = 1 << 20
"""Numbers in one batch: half a million samples, of which a few fit into the processor's cache together."""
LONG_BATCH_WORDS = 2 << 20
"""A sum over 90 days of 500 series takes a quarter less CPU at 5 m than with the batches above, and 80 MiB more; with twice as many
words 0.4 s less again, and 200 MiB more."""
AHEAD = 2
"""Batches that threads decode while the one before is used: with each 8 MB."""

Made = TypeVar("Made")
Damage = Callable[[str, Exception], str]
"""The warning for a block, by its ulid, that cannot be read."""


@dataclass(frozen=True, slots=True)
class BlockPiece:
    """The samples of a block in [start_ms, end_ms)."""

    block: Block
    start_ms: int
    end_ms: int

    def within(self, selection: Selection) -> Selection:
        start_ms, end_ms = max(self.start_ms, selection.start_ms), min(self.end_ms, selection.end_ms)
        return replace(selection, start_ms=start_ms, end_ms=max(start_ms, end_ms))


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Pieces of blocks of one resolution, by rising time and without overlap.

    What all have of a selection's labels is kept in `cache`. Batches are decoded ahead in `executor`, if there is one. A block that
    turns out damaged or gone is left out and told of by `damage`; without that its error is raised.
    """

    pieces: tuple[BlockPiece, ...]
    cache: PartCache = field(default_factory=PartCache)
    executor: Executor | None = None
    damage: Damage | None = None

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`."""
        reading = _Reading(self)
        members = _members(reading, selection)
        if len(members) > 1 and sum(len(member.rows) for member in members) > MAX_UNION_SERIES:
            batches = merge_streams([reading.streamed(member) for member in members])
        else:
            batches = reading.batches(_united(self.cache, selection, members)) if members else iter(())
        for batch in batches:
            if len(batch):
                yield replace(batch, warnings=reading.told(), resolution_ms=self.pieces[0].block.meta.resolution_ms)
        if warnings := reading.told():
            yield SeriesBatch.empty(warnings)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`."""
        reading = _Reading(self)
        asked = [reading.attempt(piece, partial(piece.block.series, piece.within(selection))) for piece in self.pieces]
        return merge_tables([table for tables in asked for table in tables])

    def estimate(self, selection: Selection) -> Estimate:
        """See `tsdb.model.estimate`."""
        reading = _Reading(self)
        asked = [reading.attempt(piece, partial(piece.block.estimate, piece.within(selection))) for piece in self.pieces]
        parts = [part for found in asked for part in found]
        counts = [part.series for part in parts if part.series]
        return together(parts, len(self.series(selection)) if len(counts) > 1 else sum(counts))


@dataclass(frozen=True, slots=True)
class _Member:
    """A piece with what its index says of a selection: the rows i64[r] that match, and the pages that hold them."""

    piece: BlockPiece
    selection: Selection
    index: Index
    directory: Directory
    rows: I64


@dataclass(frozen=True, slots=True)
class _United:
    """The distinct series of all members, in order; row i of a member is series places[i] of them, i64[r]. No table of only one."""

    members: tuple[_Member, ...]
    places: tuple[I64, ...]
    table: SeriesTable | None

    def labels(self, start: int, stop: int) -> SeriesTable:
        if self.table is not None:
            return self.table.take(slice(start, stop))
        return self.members[0].index.table(self.members[0].rows[start:stop])

    def __len__(self) -> int:
        return len(self.members[0].rows) if self.table is None else len(self.table)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The cells of a member that a batch needs, and their pages as loaded."""

    member: _Member
    places: I64
    cells: list[Cell]
    pages: list[Page | bytes]


@dataclass(slots=True)
class _Reading:
    """One selection under way: the warning for each block that failed, by its ulid; the first `given` of them were given."""

    run: BlockRun
    failed: dict[str, str] = field(default_factory=dict)
    given: int = 0
    begun: dict[str, dict[int, Page | bytes]] = field(default_factory=dict)

    def attempt(self, piece: BlockPiece, work: Callable[[], Made]) -> list[Made]:
        """[what the work gives], or [] where the block is damaged or gone."""
        ulid = piece.block.meta.ulid
        if ulid in self.failed:
            return []
        try:
            return [work()]
        except (Corrupt, NotFound, BadData) as error:
            if self.run.damage is None:
                raise
            self.failed[ulid] = self.run.damage(ulid, error)
            return []

    def told(self) -> tuple[str, ...]:
        """The warnings since last time."""
        fresh = tuple(self.failed.values())[self.given :]
        self.given += len(fresh)
        return fresh

    def streamed(self, member: _Member) -> Iterator[SeriesBatch]:
        """The batches of one block by itself."""
        batches = member.piece.block.select(member.selection)
        while found := self.attempt(member.piece, lambda: next(batches, None)):
            if found[0] is None:
                return
            yield found[0]

    def batches(self, united: _United) -> Iterator[SeriesBatch]:
        """The batches of all members; those to come are decoded ahead."""
        cells = [cells_of(member.directory, member.rows, member.selection) for member in united.members]
        edges = _edges(united, cells)
        executor = self.run.executor
        jobs = (partial(self._join, united.labels(a, b), a, self._load(united, cells, a, b)) for a, b in pairwise(edges))
        if executor is None or len(edges) == 2:
            for job in jobs:
                yield job(executor)
            return
        waiting: deque[Future[SeriesBatch]] = deque()
        try:
            for job in jobs:
                waiting.append(executor.submit(job, None))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _load(self, united: _United, cells: list[list[Cell]], start: int, stop: int) -> list[_Wanted]:
        """What the batch of series start:stop needs of each member; the reads of all run side by side."""
        asked = []
        for member, places, all_cells in zip(united.members, united.places, cells, strict=True):
            a, b = np.searchsorted(places, [start, stop]).tolist()
            touched = [cell for cell in all_cells if cell.a < b and cell.b > a]
            known = self.begun.get(member.piece.block.meta.ulid, {})
            numbers = [cell.page for cell in touched if cell.page not in known]
            waits = self.attempt(member.piece, partial(member.piece.block.ask_pages, member.directory, numbers))
            asked += [(member, places, touched, (a, b), known, numbers, wait) for wait in waits]
        out = []
        for member, places, touched, (a, b), known, numbers, wait in asked:
            for loaded in self.attempt(member.piece, wait):
                pages = known | dict(zip(numbers, loaded, strict=True))
                self.begun[member.piece.block.meta.ulid] = {cell.page: pages[cell.page] for cell in touched if cell.b > b}
                chosen = [Cell(cell.page, max(cell.a, a), min(cell.b, b)) for cell in touched]
                out.append(_Wanted(member, places, chosen, [pages[cell.page] for cell in touched]))
        return out

    def _join(self, table: SeriesTable, first: int, wanted: list[_Wanted], executor: Executor | None) -> SeriesBatch:
        """The batch of series `table`, those from `first` on."""
        found = [self.attempt(one.member.piece, partial(_shares, one, first)) for one in wanted]
        shares = [share for shares in found for part in shares for share in part]
        return join_shares(table, shares, executor, columns=wanted[0].member.selection.columns if wanted else None)


def _members(reading: _Reading, selection: Selection) -> tuple[_Member, ...]:
    """The pieces that have matching series."""
    found = [member for piece in reading.run.pieces for member in reading.attempt(piece, partial(_member, piece, selection))]
    return tuple(member for member in found if len(member.rows))


def _member(piece: BlockPiece, selection: Selection) -> _Member:
    index = piece.block.index()
    return _Member(piece, piece.within(selection), index, index.directory(), index.rows(selection.matchers))


def _united(cache: PartCache, selection: Selection, members: tuple[_Member, ...]) -> _United:
    """The distinct series of the members; what is known of them is kept."""
    if len(members) == 1:
        return _United(members, (np.arange(len(members[0].rows)),), None)

    def load() -> tuple[tuple[SeriesTable, list[I64]], int]:
        table, places = union_tables([member.index.table(member.rows) for member in members])
        return (table, places), table.ids.nbytes + 100 * len(table.symbols) + sum(one.nbytes for one in places)

    key = ("union", *(member.index.key for member in members), repr(selection.matchers))
    table, places = cache.get(key, load)
    return _United(members, tuple(places), table)


def _edges(united: _United, cells: list[list[Cell]]) -> list[int]:
    """Where batches begin and end: each is about BATCH_WORDS large, and begins where a page does, if it can.

    Of a long time a row of pages holds more than that. It is then one batch, up to LONG_BATCH_WORDS: each batch opens all pages of
    its row, and decodes the columns of other series that its own refer to.
    """
    weight = np.zeros(len(united))
    starts: list[I64] = []
    for member, places, mine in zip(united.members, united.places, cells, strict=True):
        for cell in mine:
            share = int(member.directory.words[cell.page]) / int(
                member.directory.row_to[cell.page] - member.directory.row_from[cell.page]
            )
            weight[places[cell.a : cell.b]] += share
        starts.append(places[np.array([cell.a for cell in mine], np.int64)])
    page_starts = np.unique(max(starts, key=len))
    before = np.concatenate([[0.0], np.cumsum(weight)])
    row = max((cell.b - cell.a for mine in cells for cell in mine), default=0)
    words = min(max(BATCH_WORDS, row * before[-1] / len(united)), max(BATCH_WORDS, LONG_BATCH_WORDS))
    edges = [0]
    while edges[-1] < len(united):
        stop = int(np.searchsorted(before, before[edges[-1]] + words, side="left"))
        stop = min(max(stop, edges[-1] + 1), edges[-1] + BATCH_SERIES, len(united))
        aligned = int(page_starts[np.searchsorted(page_starts, stop, side="right") - 1]) if len(page_starts) else 0
        edges.append(aligned if stop < len(united) and aligned > edges[-1] else stop)
    return edges


def _shares(wanted: _Wanted, first: int) -> list[Share]:
    """What the pages give to a batch whose first series is number `first`."""
    member, block, within = wanted.member, wanted.member.piece.block, wanted.member.selection
    return [
        Share(
            block.open_page(cell.page, page), member.rows[cell.a : cell.b] - int(member.directory.row_from[cell.page]),
            wanted.places[cell.a : cell.b] - first, within.start_ms, within.end_ms,
        )
        for cell, page in zip(wanted.cells, wanted.pages, strict=True)
    ]  # fmt: skip

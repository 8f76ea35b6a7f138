"""Blocks as one `Source`: every page is decoded once, to where its samples stand in the answer.

Which series there are is known from the indexes. Where of each series the blocks have samples one after another, nothing is merged.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar, cast

import numpy as np

from tsdb.block.block import BATCH_SERIES, Block, Cell, cells_of
from tsdb.block.index import Directory, Index
from tsdb.block.page import Page, PageValues
from tsdb.block.page_batch import Share, join_shares
from tsdb.block.part_cache import PartCache
from tsdb.merge import merge_streams, merge_tables, union_tables
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate, together
from tsdb.model.series import I64, Bool, SeriesBatch, SeriesTable
from tsdb.model.source import MIN_MS, Selection
from tsdb.model.windows import COLUMNS
from tsdb.model.work import Pending, submit

MAX_UNION_SERIES = 1 << 18
"""Series of all blocks together beyond which their labels (10 MB here) are not held at once, but merged a batch at a time."""
BATCH_WORDS = 1 << 20
"""Numbers in one batch: half a million samples, of which a few fit into the processor's cache together."""
FEW_BATCHES = 2
"""Of numbers for no more batches one is made, whose parts threads share: that is less work than two side by side."""
LONG_WORDS = 4 << 20
"""Numbers in a batch of long series, of which a row of pages holds more than the above. A sum over 30 days of 500 series takes a
third less time than with half as many, and 50 MiB more. Its largest array is as large as glibc reuses: 32 MiB."""
MIN_BATCHES = 4
"""For threads, batches become long only if there are so many still: fewer would leave one of two idle for long."""
AHEAD = 2
"""Batches that threads decode while the one before is used, as many as there are threads to use them: each of 8 MB, or up to 32
of long series."""

_NONE = np.empty(0, np.int64)

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
    """Pieces of blocks, by their start. They may overlap, as when a window is cut twice, then seldom in samples.

    What all have of a selection's labels is kept in `cache`. `ahead` batches are decoded ahead in `executor`, if there is one. A
    block that turns out damaged or gone is left out and told of by `damage`; without that its error is raised.
    """

    pieces: tuple[BlockPiece, ...]
    cache: PartCache = field(default_factory=PartCache)
    executor: Executor | None = None
    damage: Damage | None = None
    batch_words: int = BATCH_WORDS
    long_words: int = LONG_WORDS
    ahead: int = AHEAD

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`."""
        reading = _Reading(self, selection)
        for batch in reading.batches():
            if len(batch):
                warnings = reading.told()
                yield replace(batch, warnings=(*warnings, *batch.warnings)) if warnings else batch
        if warnings := reading.told():
            yield SeriesBatch.empty(warnings)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`."""
        reading = _Reading(self, selection)
        asked = [reading.attempt(piece, partial(piece.block.series, piece.within(selection))) for piece in self.pieces]
        return merge_tables([table for tables in asked for table in tables])

    def estimate(self, selection: Selection) -> Estimate:
        """See `tsdb.model.estimate`."""
        reading = _Reading(self, selection)
        asked = [reading.attempt(piece, partial(piece.block.estimate, piece.within(selection))) for piece in self.pieces]
        parts = [part for found in asked for part in found]
        counts = [part.series for part in parts if part.series]
        return together(parts, len(self.series(selection)) if len(counts) > 1 else sum(counts))


@dataclass(frozen=True, slots=True)
class _Member:
    """A piece, what is wanted of it, its index, and which of its pages overlap the times wanted: bool[p]."""

    piece: BlockPiece
    selection: Selection
    index: Index
    directory: Directory
    inside: Bool


@dataclass(frozen=True, slots=True)
class _Found:
    """The rows i64[r] of a member that match, which are the series `places` i64[r] of all that were found in any member."""

    member: _Member
    rows: I64
    places: I64


@dataclass(frozen=True, slots=True)
class _Take:
    """What a batch takes of the page of that number in the directory: its series `local` i64[r] are `rows` i64[r] of the batch.

    All batches together take so many series of it as are `wanted`.
    """

    page: int
    local: I64
    rows: I64
    wanted: int


@dataclass(frozen=True, slots=True)
class _Job:
    """A batch to be made: its series, and what it takes of each member."""

    table: SeriesTable
    takes: tuple[tuple[_Take, ...], ...]


@dataclass(slots=True)
class _Held:
    """A page, and its values where they are kept.

    They are asked for once a query, however many batches take of the page, if it was kept itself.
    """

    page: Page
    asked: bool
    values: PageValues | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The pages of a member that a batch takes from."""

    member: _Member
    takes: tuple[_Take, ...]
    pages: list[_Held]


@dataclass(slots=True)
class _Reading:
    """One selection under way: the warning for each block that failed, by its ulid; the first `given` of them were given.

    `apart`: no member has samples before the last one of the member before it. `begun` has the pages of the batch before, by ulid
    and number: the next may need more of them.
    """

    run: BlockRun
    selection: Selection
    failed: dict[str, str] = field(default_factory=dict)
    given: int = 0
    apart: bool = False
    begun: dict[str, dict[int, _Held]] = field(default_factory=dict)

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

    def batches(self) -> Iterator[SeriesBatch]:
        """The batches of all members. How they are made is kept: it stays the same while the same pages are in the range."""
        selection = self.selection
        members = _members(self)
        self.apart = _are_apart(members)
        of_each = ((member.index.key, member.inside.tobytes()) for member in members)
        key = ("jobs", *of_each, selection.matchers, self.run.batch_words, self.run.long_words)
        jobs = cast(tuple[_Job, ...] | None, self.run.cache.find([key])[0])
        if jobs is None:
            rows = [self._rows(member) for member in members]
            count = sum(map(len, rows))
            if count > MAX_UNION_SERIES and sum(len(some) > 0 for some in rows) > 1:
                streams = [self._streamed(member) for member, some in zip(members, rows, strict=True) if len(some)]
                return merge_streams(streams, selection.columns)
            table, places = _united(self.run.cache, members, rows, selection)
            found = [_Found(*one) for one in zip(members, rows, places, strict=True)]
            if count > MAX_UNION_SERIES:
                return self._made(members, _jobs(found, table, self.run), several=True)
            jobs = tuple(_jobs(found, table, self.run))
            if not self.failed:
                self.run.cache.keep(key, jobs, sum(map(_job_bytes, jobs)))
        return self._made(members, iter(jobs), several=len(jobs) > 1)

    def _rows(self, member: _Member) -> I64:
        """The rows that match; none where the index is damaged."""
        return next(iter(self.attempt(member.piece, partial(member.index.rows, member.selection.matchers))), _NONE)

    def _streamed(self, member: _Member) -> Iterator[SeriesBatch]:
        """The batches of one block by itself."""
        batches = member.piece.block.select(member.selection)
        while found := self.attempt(member.piece, lambda: next(batches, None)):
            if found[0] is None:
                return
            yield found[0]

    def _made(self, members: Sequence[_Member], jobs: Iterator[_Job], *, several: bool) -> Iterator[SeriesBatch]:
        """The batches of the jobs; where there are several, those to come are decoded ahead."""
        executor = self.run.executor
        ready = (partial(self._join, job.table, self._load(members, job)) for job in jobs)
        if executor is None or not several:
            for work in ready:
                yield work(executor)
            return
        waiting: deque[Pending[SeriesBatch]] = deque()
        try:
            for work in ready:
                waiting.append(submit(executor, partial(work, None)))
                if len(waiting) > self.run.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.future.cancel()

    def _load(self, members: Sequence[_Member], job: _Job) -> list[_Loaded]:
        """What a job needs of each member; the reads of all run side by side. The next job may need the same pages."""
        asked = []
        for member, takes in zip(members, job.takes, strict=True):
            known = self.begun.get(member.piece.block.meta.ulid, {})
            numbers = [take.page for take in takes if take.page not in known]
            ask = partial(member.piece.block.ask_pages, member.directory, numbers)
            asked += [(member, takes, known, numbers, wait) for wait in self.attempt(member.piece, ask)]
        loaded = []
        for member, takes, known, numbers, wait in asked:
            for found in self.attempt(member.piece, wait):
                pages = known | {i: _Held(one.page, asked=not one.kept) for i, one in zip(numbers, found, strict=True)}
                self.begun[member.piece.block.meta.ulid] = {take.page: pages[take.page] for take in takes}
                loaded.append(_Loaded(member, takes, [pages[take.page] for take in takes]))
        return loaded

    def _join(self, table: SeriesTable, loaded: list[_Loaded], executor: Executor | None) -> SeriesBatch:
        """The batch of the series `table`."""
        found = [self.attempt(one.member.piece, partial(_shares, one)) for one in loaded]
        shares = [share for shares in found for part in shares for share in part]
        batch = join_shares(table, shares, executor, apart=self.apart, columns=self.selection.columns, grid=self.selection.grid)
        coarsest_ms = max((one.member.piece.block.meta.resolution_ms for one in loaded if one.takes), default=0)
        return replace(batch, resolution_ms=coarsest_ms) if coarsest_ms else batch


def _members(reading: _Reading) -> list[_Member]:
    asked = (reading.attempt(piece, partial(_member, piece, reading.selection)) for piece in reading.run.pieces)
    return [member for found in asked for member in found]


def _member(piece: BlockPiece, selection: Selection) -> _Member:
    index, within = piece.block.index(), piece.within(selection)
    directory = index.directory()
    inside = (directory.t_max >= within.start_ms) & (directory.t_min < within.end_ms)
    return _Member(piece, within, index, directory, inside)


def _are_apart(members: Sequence[_Member]) -> bool:
    until_ms = MIN_MS
    for member in members:
        if member.inside.any():
            first_ms, last_ms = int(member.directory.t_min[member.inside].min()), int(member.directory.t_max[member.inside].max())
            if max(first_ms, member.selection.start_ms) <= until_ms:
                return False
            until_ms = min(last_ms, member.selection.end_ms - 1)
    return True


def _united(
    cache: PartCache, members: Sequence[_Member], rows: Sequence[I64], selection: Selection
) -> tuple[SeriesTable | None, list[I64]]:
    """(the distinct series of all members, in order; the place i64[r] of each member's rows among them). No table of only one."""
    some = [i for i, one in enumerate(rows) if len(one)]
    places = [_NONE] * len(rows)
    if len(some) < 2:
        for i in some:
            places[i] = np.arange(len(rows[i]))
        return None, places

    def load() -> tuple[tuple[SeriesTable, list[I64]], int]:
        table, places = union_tables([members[i].index.table(rows[i]) for i in some])
        return (table, places), table.ids.nbytes + 100 * len(table.symbols) + sum(one.nbytes for one in places)

    key = ("union", *(members[i].index.key for i in some), selection.matchers)
    table, found = cache.get(key, load)
    for i, one in zip(some, found, strict=True):
        places[i] = one
    return table, places


def _jobs(found: Sequence[_Found], table: SeriesTable | None, run: BlockRun) -> Iterator[_Job]:
    """The batches of all series that were found; `table` are their labels, None where only one member has any."""
    cells = [cells_of(one.member.directory, one.rows, one.member.selection) for one in found]
    count = max((len(one.rows) for one in found), default=0) if table is None else len(table)
    for start, stop in pairwise(_edges(found, cells, count, run)):
        takes = tuple(tuple(_takes(one, mine, start, stop)) for one, mine in zip(found, cells, strict=True))
        if table is not None:
            yield _Job(table.take(slice(start, stop)), takes)
        else:
            only = next(one for one in found if len(one.rows))
            yield _Job(only.member.index.table(only.rows[start:stop]), takes)


def _takes(found: _Found, cells: list[Cell], start: int, stop: int) -> Iterator[_Take]:
    """What the batch of series start:stop takes of a member."""
    a, b = np.searchsorted(found.places, [start, stop]).tolist()
    for cell in cells:
        if cell.a < b and cell.b > a:
            part = slice(max(cell.a, a), min(cell.b, b))
            local = found.rows[part] - int(found.member.directory.row_from[cell.page])
            yield _Take(cell.page, local, found.places[part] - start, cell.b - cell.a)


def _job_bytes(job: _Job) -> int:
    return job.table.ids.nbytes + sum(200 + take.local.nbytes + take.rows.nbytes for takes in job.takes for take in takes)


def _edges(found: Sequence[_Found], cells: list[list[Cell]], count: int, run: BlockRun) -> list[int]:
    """Where batches of `count` series begin and end: each is about `batch_words` large, and begins where a page does, if it can.

    Of a long time a row of pages holds more than that. It is then one batch, up to `long_words`: each batch opens all pages of its
    row, and decodes the columns of other series that its own refer to.
    """
    weight = np.zeros(count)
    starts: list[I64] = []
    downsampled = any(one.member.piece.block.meta.resolution_ms for one in found)
    for one, mine in zip(found, cells, strict=True):
        directory = one.member.directory
        # beside windows, raw samples become such, with as many numbers
        widened = 1 + len(COLUMNS) / 2 if downsampled and not one.member.piece.block.meta.resolution_ms else 1.0
        for cell in mine:
            share = int(directory.words[cell.page]) / int(directory.row_to[cell.page] - directory.row_from[cell.page]) * widened
            weight[one.places[cell.a : cell.b]] += share
        starts.append(one.places[np.array([cell.a for cell in mine], np.int64)])
    page_starts = np.unique(max(starts, key=len, default=_NONE))
    before = np.concatenate([[0.0], np.cumsum(weight)])
    row = max((cell.b - cell.a for mine in cells for cell in mine), default=0)
    long_words = min(run.long_words, row * before[-1] / max(count, 1))
    words = max(run.batch_words, long_words if run.executor is None else min(long_words, before[-1] / MIN_BATCHES))
    if before[-1] <= FEW_BATCHES * run.batch_words:
        words = before[-1]
    edges = [0]
    while edges[-1] < count:
        stop = int(np.searchsorted(before, before[edges[-1]] + words, side="left"))
        stop = min(max(stop, edges[-1] + 1), edges[-1] + BATCH_SERIES, count)
        aligned = int(page_starts[np.searchsorted(page_starts, stop, side="right") - 1]) if len(page_starts) else 0
        edges.append(aligned if stop < count and aligned > edges[-1] else stop)
    return edges


def _shares(loaded: _Loaded) -> list[Share]:
    """What the pages of a member give to a batch."""
    block, within = loaded.member.piece.block, loaded.member.selection
    shares = []
    for take, held in zip(loaded.takes, loaded.pages, strict=True):
        if not held.asked:
            held.values, held.asked = block.kept_values(take.page, held.page, take.wanted), True
        shares.append(Share(held.page, take.local, take.rows, within.start_ms, within.end_ms, held.values))
    return shares

"""Blocks: immutable samples in a bucket. `write_block` makes one, `Block` is a `Source` over it, `verify_block` reads all of it.

<ulid>/pages-000000 ...     pages one after another, ordered by series, then time
<ulid>/index                which series, and where their pages are (`tsdb.block.index`)
<ulid>/meta.json            written last: the block exists once this does (`tsdb.block.meta`)
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tsdb.block.index import Directory, Index
from tsdb.block.meta import (
    BlockMeta,
    ObjectMeta,
    encode_meta,
    find_object,
    is_ulid,
    list_blocks,
    list_ulids,
    new_ulid,
    read_meta,
)
from tsdb.block.page import Page, PageValues, open_page
from tsdb.block.page_batch import Share, join_shares
from tsdb.block.page_cache import PageCache
from tsdb.block.part_cache import Key, PartCache
from tsdb.block.writer import BlockWriter, part_name, write_block
from tsdb.bucket.bucket import Bucket
from tsdb.bucket.range_cache import RangeCache, RangeKey, find_sound, read_checked
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate
from tsdb.model.series import I64, SeriesBatch, SeriesTable
from tsdb.model.source import Selection

__all__ = [
    "Block", "BlockMeta", "BlockWriter", "ObjectMeta", "encode_meta", "is_ulid", "list_blocks", "list_ulids",
    "new_ulid", "read_meta", "verify_block", "write_block",
]  # fmt: skip

BATCH_WORDS = 2 << 20
"""Numbers in one batch: a million samples. Its arrays of 8 MiB stay in the processor's cache and in the allocator."""
BATCH_SERIES = 4096
GAP_BYTES = 64 << 10
"""Two wanted pages with less between them are read at once: a request to S3 costs more than so many bytes."""
REQUEST_BYTES = 8 << 20
OPEN_AT_ONCE = 64
"""Blocks of one query that wait for their first read together: other queries read in between."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A page that a selection needs: its number in the directory, and which of the selection's rows it holds: rows[a:b]."""

    page: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class LoadedPage:
    """A page, and whether it was kept from an earlier query, or was read for this one."""

    page: Page
    kept: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """One range read of a pages object, and the pages in it."""

    part: int
    start: int
    size: int
    pages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The samples of one block as a `Source`; reads only what a selection needs, and checks every byte that it reads.

    Index parts are kept in `cache` and pages in `page_cache`, which many blocks may share; `ranges` keeps what was read of the
    bucket outside of this process. Reads of one batch run in `executor` if there is one.
    Errors: Corrupt naming object and offset, NotFound where an object is gone, Unavailable.
    """

    bucket: Bucket
    meta: BlockMeta
    cache: PartCache = field(default_factory=PartCache)
    executor: Executor | None = None
    batch_words: int = BATCH_WORDS
    page_cache: PageCache | None = None
    ranges: RangeCache | None = None

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`. A downsampled block gives its windows, whatever resolution is asked for."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return
        index = self.index()
        rows = index.rows(selection.matchers)
        directory = index.directory()
        for cells in _batches(directory, rows, selection, self.batch_words):
            first, last = cells[0].a, max(cell.b for cell in cells)
            pages = [cell.page for cell in cells]
            shares = [
                Share(
                    loaded.page, rows[cell.a : cell.b] - int(directory.row_from[cell.page]),
                    np.arange(cell.a - first, cell.b - first), selection.start_ms, selection.end_ms,
                )
                for cell, loaded in zip(cells, self.load_pages(directory, pages), strict=True)
            ]  # fmt: skip
            batch = join_shares(index.table(rows[first:last]), shares, columns=selection.columns)
            if len(batch):
                yield replace(batch, resolution_ms=self.meta.resolution_ms)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`: series whose pages overlap the range."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return SeriesTable.empty()
        index = self.index()
        rows = index.rows(selection.matchers)
        keep = np.zeros(len(rows), bool)
        for cell in cells_of(index.directory(), rows, selection):
            keep[cell.a : cell.b] = True
        return index.table(rows[keep])

    def estimate(self, selection: Selection) -> Estimate:
        """What `select` would read; costs the index parts that `select` reads first."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return Estimate()
        index = self.index()
        rows, directory = index.rows(selection.matchers), index.directory()
        cells = cells_of(directory, rows, selection)
        page, a, b = (np.array([getattr(cell, name) for cell in cells], np.int64) for name in ("page", "a", "b"))
        keep = np.zeros(len(rows), bool)
        for low, high in np.unique(np.stack([a, b], axis=1), axis=0).tolist():
            keep[low:high] = True
        first_ms, last_ms = directory.t_min[page], directory.t_max[page]
        inside_ms = np.minimum(last_ms + 1, selection.end_ms) - np.maximum(first_ms, selection.start_ms)
        share = inside_ms / (last_ms + 1 - first_ms) * (b - a) / (directory.row_to[page] - directory.row_from[page])
        samples = self.meta.samples * (share * directory.words[page]).sum() / max(int(directory.words.sum()), 1)
        size_bytes = int(directory.size[page].sum())
        return Estimate(int(keep.sum()), 1, len(cells), size_bytes, round(samples), (self.meta.resolution_ms,))

    def count_series(self) -> int:
        """How many series its index has; reads the index's end, and its directory and symbols with it."""
        index = self.index()
        index.directory()
        return index.series

    def index(self) -> Index:
        """Its index, nothing of which is read yet."""
        part = find_object(self.meta, "index")
        whole = RangeKey(self.meta.key("index"), 0, part.size_bytes, part.crc32)
        return Index(whole, lambda start, size: self._get(whole.name, start, size), self.cache, self.ranges)

    def load_pages(self, directory: Directory, pages: list[int]) -> list[LoadedPage]:
        """The pages, ascending, opened. Of those not kept neighbours are read at once, requests in parallel; all is checked."""
        return self.ask_pages(directory, pages)()

    def ask_pages(self, directory: Directory, pages: list[int]) -> Callable[[], list[LoadedPage]]:
        """What waits for the pages as `load_pages` gives them; their reads have begun, if there is an executor."""
        kept = [None] * len(pages) if self.page_cache is None else self.page_cache.find(self._page_keys(pages))
        missing = [page for page, found in zip(pages, kept, strict=True) if found is None]
        read = self._ask(directory, missing) if missing else list

        def wait() -> list[LoadedPage]:
            fresh = iter(read())
            return [LoadedPage(next(fresh), kept=False) if found is None else LoadedPage(found, kept=True) for found in kept]

        return wait

    def kept_values(self, number: int, page: Page, wanted: int) -> PageValues | None:
        """The values of a page that was known before and of which so many series are wanted; None where they are not kept."""
        return None if self.page_cache is None else self.page_cache.values_of(self._page_keys([number])[0], page, wanted)

    def _page_keys(self, numbers: Sequence[int]) -> list[Key]:
        """Two buckets may hold blocks of one name: the checksum of the index tells them apart."""
        ulid, crc32 = self.meta.ulid, find_object(self.meta, "index").crc32
        return [(ulid, crc32, number) for number in numbers]

    def _ask(self, directory: Directory, pages: list[int]) -> Callable[[], list[Page]]:
        """What waits for the pages; neighbours are read in one request, requests in parallel."""
        requests = _requests(directory, np.array(pages, np.int64))
        run: Callable[..., Iterator[list[Page]]] = map if self.executor is None else self.executor.map
        found = run(lambda request: self._open(directory, request), requests)
        return lambda: [page for some in found for page in some]

    def _open(self, directory: Directory, request: _Request) -> list[Page]:
        """The pages of one request, opened where they were read, so that its bytes can go at once; they are kept."""
        bodies = self._bodies(directory, request)
        if self.page_cache is None:
            return [open_page(body) for body in bodies]
        return [self.page_cache.open(key, body) for key, body in zip(self._page_keys(request.pages), bodies, strict=True)]

    def _bodies(self, directory: Directory, request: _Request) -> Sequence[bytes | memoryview]:
        """The bytes of the pages of one request, of which only those are read that no cache has."""
        name = self.meta.key(part_name(request.part))
        keys = [RangeKey(name, *map(int, (directory.offset[i], directory.size[i], directory.crc[i]))) for i in request.pages]
        found = find_sound(self.ranges, keys)
        missing = [key for key, body in zip(keys, found, strict=True) if body is None]
        if not missing:
            return [body for body in found if body is not None]
        start, end = missing[0].start, missing[-1].start + missing[-1].size
        data = memoryview(self._get(name, start, end - start))
        get = partial(self._get, name)
        return [
            read_checked(key, self.ranges, get, data[key.start - start : key.start - start + key.size]) if body is None else body
            for key, body in zip(keys, found, strict=True)
        ]

    def _get(self, key: str, start: int, size: int) -> bytes:
        """A range of an object of this block; that it is shorter than promised means damage."""
        try:
            data = self.bucket.get(key, start, size)
        except BadData as error:
            raise Corrupt(f"{key}: shorter than the block promises: {error}") from error
        return data


def open_blocks(blocks: Sequence[Block], executor: Executor | None) -> None:
    """Reads the indexes of the blocks that are not known yet, OPEN_AT_ONCE side by side; one that is damaged or gone is left to
    who reads it. Unavailable."""

    def work(block: Block) -> None:
        with suppress(Corrupt, NotFound, BadData):
            block.index().open()

    if executor is None or len(blocks) < 2:
        return
    waiting = [block for block in blocks if not block.index().is_open]
    for at in range(0, len(waiting), OPEN_AT_ONCE):
        deque(executor.map(work, waiting[at : at + OPEN_AT_ONCE]), maxlen=0)


def verify_block(bucket: Bucket, meta: BlockMeta) -> list[str]:
    """What is wrong with a block, in sentences; empty if nothing. Reads every byte, one pages object at a time."""
    problems = []
    for part in meta.objects:
        key = meta.key(part.name)
        try:
            data = bucket.get(key)
        except NotFound:
            problems.append(f"{key}: is missing")
            continue
        if len(data) != part.size_bytes:
            problems.append(f"{key}: has {len(data)} bytes, the block promises {part.size_bytes}")
        elif zlib.crc32(data) != part.crc32:
            problems.append(f"{key}: its {len(data)} bytes do not have the checksum {part.crc32:08x}")
    return problems + (_verify_content(bucket, meta) if not problems else [])


def _verify_content(bucket: Bucket, meta: BlockMeta) -> list[str]:
    """Whether all pages decode and hold what the meta counts."""
    everything = Selection((), meta.min_ms, meta.max_ms)
    try:
        batches = [(len(batch), batch.samples) for batch in Block(bucket, meta).select(everything)]
    except Corrupt as error:
        return [str(error)]
    series, samples = sum(n for n, _ in batches), sum(m for _, m in batches)
    if (series, samples) != (meta.series, meta.samples):
        return [f"{meta.ulid}: holds {series} series and {samples} samples, its meta says {meta.series} and {meta.samples}"]
    return []


def cells_of(directory: Directory, rows: I64, selection: Selection) -> list[Cell]:
    """The pages that hold any of the rows and overlap the range, in the order of the directory."""
    a, b = np.searchsorted(rows, directory.row_from), np.searchsorted(rows, directory.row_to)
    wanted = (b > a) & (directory.t_max >= selection.start_ms) & (directory.t_min < selection.end_ms)
    at = np.flatnonzero(wanted)
    return [Cell(*cell) for cell in zip(at.tolist(), a[at].tolist(), b[at].tolist(), strict=True)]


def _batches(directory: Directory, rows: I64, selection: Selection, batch_words: int) -> Iterator[list[Cell]]:
    """Cells in batches of whole series that are about batch_words large."""
    batch: list[Cell] = []
    words = 0.0
    for cell in cells_of(directory, rows, selection):
        new_row = not batch or cell.a != batch[-1].a
        if batch and new_row and (words >= batch_words or cell.b - batch[0].a > BATCH_SERIES):
            yield batch
            batch, words = [], 0.0
        batch.append(cell)
        share = (cell.b - cell.a) / int(directory.row_to[cell.page] - directory.row_from[cell.page])
        words += share * int(directory.words[cell.page])
    if batch:
        yield batch


def _requests(directory: Directory, pages: I64) -> list[_Request]:
    """Range reads that cover the pages, which are ascending."""
    requests: list[_Request] = []
    for page in pages.tolist():
        part, start, size = int(directory.part[page]), int(directory.offset[page]), int(directory.size[page])
        last = requests[-1] if requests else None
        if (
            last
            and last.part == part
            and start - last.start - last.size <= GAP_BYTES
            and start + size - last.start <= REQUEST_BYTES
        ):
            requests[-1] = _Request(part, last.start, start + size - last.start, (*last.pages, page))
        else:
            requests.append(_Request(part, start, size, (page,)))
    return requests

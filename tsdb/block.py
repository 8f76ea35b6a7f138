"""Blocks: immutable samples in a bucket. `write_block` makes one, `Block` is a `Source` over it, `verify_block` reads all of it.

<ulid>/pages-000000 ...     pages one after another, ordered by series, then time
<ulid>/index                which series, and where their pages are (`tsdb.index`)
<ulid>/meta.json            written last: the block exists once this does (`tsdb.block_meta`)
"""

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from tsdb.block_meta import (
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
from tsdb.block_writer import BlockWriter, part_name, write_block
from tsdb.bucket import Bucket
from tsdb.index import Directory, Index
from tsdb.merge import merge_batches
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate
from tsdb.model.series import I64, SeriesBatch, SeriesTable
from tsdb.model.source import Selection
from tsdb.page import Page, decode_page, open_page
from tsdb.part_cache import PartCache

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


@dataclass(frozen=True, slots=True)
class _Cell:
    """A page that a selection needs: its number in the directory, and which of the selection's rows it holds: rows[a:b]."""

    page: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Block:
    """The samples of one block as a `Source`; reads only what a selection needs, and checks every byte that it reads.

    Index parts are kept in `cache`, which many blocks may share; reads of one batch run in `executor` if there is one.
    Errors: Corrupt naming object and offset, NotFound where an object is gone, Unavailable.
    """

    bucket: Bucket
    meta: BlockMeta
    cache: PartCache = field(default_factory=PartCache)
    executor: Executor | None = None
    batch_words: int = BATCH_WORDS

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`. A downsampled block gives its windows, whatever resolution is asked for."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return
        index = self._index()
        rows = index.rows(selection.matchers)
        directory = index.directory()
        for cells in _batches(directory, rows, selection, self.batch_words):
            first, last = cells[0].a, max(cell.b for cell in cells)
            pages = self._read(directory, cells)
            batch = _decode(index.table(rows[first:last]), pages, cells, directory, rows, selection, first)
            if len(batch):
                yield replace(batch, resolution_ms=self.meta.resolution_ms)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`: series whose pages overlap the range."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return SeriesTable.empty()
        index = self._index()
        rows = index.rows(selection.matchers)
        keep = np.zeros(len(rows), bool)
        for cell in _cells(index.directory(), rows, selection):
            keep[cell.a : cell.b] = True
        return index.table(rows[keep])

    def estimate(self, selection: Selection) -> Estimate:
        """What `select` would read; costs the index parts that `select` reads first."""
        if selection.start_ms >= self.meta.max_ms or selection.end_ms <= self.meta.min_ms:
            return Estimate()
        index = self._index()
        rows, directory = index.rows(selection.matchers), index.directory()
        cells = _cells(directory, rows, selection)
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
        index = self._index()
        index.directory()
        return index.series

    def _index(self) -> Index:
        part = find_object(self.meta, "index")
        key = self.meta.key("index")
        return Index(key, part.size_bytes, part.crc32, lambda start, size: self._get(key, start, size), self.cache)

    def _read(self, directory: Directory, cells: list[_Cell]) -> list[bytes]:
        """The bytes of each cell's page, checked; neighbours in one request, requests in parallel."""
        requests = _requests(directory, np.array([cell.page for cell in cells]))
        run: Callable[..., Iterator[bytes]] = map if self.executor is None else self.executor.map
        found = run(lambda request: self._get(self.meta.key(part_name(request.part)), request.start, request.size), requests)
        pages = []
        for request, data in zip(requests, found, strict=True):
            for page in request.pages:
                start = int(directory.offset[page]) - request.start
                body = data[start : start + int(directory.size[page])]
                if zlib.crc32(body) != directory.crc[page]:
                    raise Corrupt(
                        f"{self.meta.key(part_name(request.part))}: the page of {len(body)} bytes at byte {directory.offset[page]} "
                        f"does not have the checksum {directory.crc[page]:08x}"
                    )
                pages.append(body)
        return pages

    def _get(self, key: str, start: int, size: int) -> bytes:
        """A range of an object of this block; that it is shorter than promised means damage."""
        try:
            data = self.bucket.get(key, start, size)
        except BadData as error:
            raise Corrupt(f"{key}: shorter than the block promises: {error}") from error
        return data


@dataclass(frozen=True, slots=True)
class _Request:
    part: int
    start: int
    size: int
    pages: tuple[int, ...]


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


def _cells(directory: Directory, rows: I64, selection: Selection) -> list[_Cell]:
    """The pages that hold any of the rows and overlap the range, in the order of the directory."""
    a, b = np.searchsorted(rows, directory.row_from), np.searchsorted(rows, directory.row_to)
    wanted = (b > a) & (directory.t_max >= selection.start_ms) & (directory.t_min < selection.end_ms)
    at = np.flatnonzero(wanted)
    return [_Cell(*cell) for cell in zip(at.tolist(), a[at].tolist(), b[at].tolist(), strict=True)]


def _batches(directory: Directory, rows: I64, selection: Selection, batch_words: int) -> Iterator[list[_Cell]]:
    """Cells in batches of whole series that are about batch_words large."""
    batch: list[_Cell] = []
    words = 0.0
    for cell in _cells(directory, rows, selection):
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


def _decode(
    table: SeriesTable, data: list[bytes], cells: list[_Cell], directory: Directory, rows: I64, selection: Selection, first: int
) -> SeriesBatch:
    """The batch of series `table`, rows[first:...], out of the pages of its cells."""
    pages = [open_page(body) for body in data]
    places = [rows[cell.a : cell.b] - int(directory.row_from[cell.page]) for cell in cells]
    if any(page.layout is not None for page in pages):
        parts = [
            _with_histograms(table.take(slice(cell.a - first, cell.b - first)), body, place, selection)
            for body, cell, place in zip(data, cells, places, strict=True)
        ]
        return merge_batches(parts)
    counts = np.zeros(len(table), np.int64)
    spans = []
    for page, cell, place in zip(pages, cells, places, strict=True):
        low, high = page.spans(selection.start_ms, selection.end_ms)
        to = np.full(len(page), -1, np.int64)
        to[place] = counts[cell.a - first : cell.b - first]
        counts[cell.a - first : cell.b - first] += (high - low)[place]
        spans.append((low, high, to))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    t_ms = np.empty(int(offsets[-1]), np.int64)
    columns = np.empty((1 + max(len(page.names) for page in pages), len(t_ms)))
    start_ms = np.empty(len(t_ms), np.int64) if any(page.with_start for page in pages) else None
    for page, cell, place, (low, high, to) in zip(pages, cells, places, spans, strict=True):
        to[place] += offsets[cell.a - first : cell.b - first]
        page.copy_times(low, high, to, t_ms)
        page.copy_windows(low, high, to, columns)
        if start_ms is not None:
            page.copy_start(low, high, to, start_ms)
    windows = columns[1:] if len(columns) > 1 else None
    batch = SeriesBatch(table, offsets, t_ms, columns[0], start_ms=start_ms, windows=windows)
    return batch if counts.all() else _drop_empty(batch, counts)


def _drop_empty(batch: SeriesBatch, counts: I64) -> SeriesBatch:
    keep = np.flatnonzero(counts)
    offsets = np.append(batch.offsets[:-1][keep], batch.offsets[-1])
    return replace(batch, series=batch.series.take(keep), offsets=offsets)


def _with_histograms(table: SeriesTable, data: bytes, place: I64, selection: Selection) -> SeriesBatch:
    """One page's chosen series with their histograms."""
    columns = decode_page(data)
    whole = SeriesBatch(
        SeriesTable.empty(len(columns.offsets) - 1), columns.offsets, columns.t_ms, columns.values, columns.histograms,
        columns.histogram_at, columns.start_ms, windows=columns.windows,
    )  # fmt: skip
    chosen = whole if len(place) == len(whole) else whole.take(place)
    return replace(chosen, series=table).clip(selection.start_ms, selection.end_ms)

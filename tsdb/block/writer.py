"""Writing a block: batches of series in, pages and an index in the bucket out, `meta.json` last.

Memory is bounded by one row of pages and one pages object (`MAX_PART_BYTES`), beside the index (4 bytes a label of each series).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from tsdb.block.index import IndexWriter, PageEntry
from tsdb.block.meta import META, BlockMeta, ObjectMeta, encode_meta
from tsdb.block.page import encode_page
from tsdb.bucket.bucket import Bucket
from tsdb.kernel.codec import NEIGHBOURS
from tsdb.kernel.ranges import copy_ranges, edge_rows
from tsdb.merge import concat_batches
from tsdb.model.errors import BadData
from tsdb.model.series import F64, I64, SeriesBatch
from tsdb.model.windows import COLUMNS

SLAB_SAMPLES = 1024
"""Samples of a series in one page. Measured on real scrapes: fewer repeat heads and times, more leave few series to share them."""
PAGE_WORDS = 256 << 10
"""Numbers in one page: 128 K samples of time and value, about 11 KB stored. With half as many, fewer series that resemble each
other meet in a page, and blocks are 4 % larger."""
MAX_SLABS = 64
"""A row of pages has at most 64 × PAGE_WORDS numbers, 128 MiB; longer series get longer slabs of fewer series."""
MAX_PART_BYTES = 64 << 20
"""A pages object is put when it has this size: what a bucket holds in memory at once."""
GATHER_WORDS = 1 << 20
"""Small batches are joined up to so many numbers first, and up to a row of pages: pages do not cross batches."""

Column = TypeVar("Column", I64, F64)


class BlockWriter:
    """One block on its way into a bucket: `add` batches in the order of series, then `finish`."""

    def __init__(
        self, bucket: Bucket, *, ulid: str, min_ms: int, max_ms: int, level: int = 1, sources: tuple[str, ...] = (),
        resolution_ms: int = 0, neighbours: int = NEIGHBOURS, edits: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._bucket, self._neighbours = bucket, neighbours
        self._meta = BlockMeta(ulid, min_ms, max_ms, 0, 0, level, sources or (ulid,), resolution_ms, (), edits=edits)
        self._index = IndexWriter()
        self._part = bytearray()
        self._objects: list[ObjectMeta] = []
        self._samples = self._histograms = 0

    def add(self, batch: SeriesBatch) -> None:
        """Append whole series. BadData where a sample is outside [min_ms, max_ms) or a series out of order."""
        batch = _with_samples(batch)
        if batch.samples == 0:
            return
        low, high = int(batch.t_ms.min()), int(batch.t_ms.max())
        if low < self._meta.min_ms or high >= self._meta.max_ms:
            raise BadData(f"block {self._meta.ulid} of [{self._meta.min_ms}, {self._meta.max_ms}): samples from {low} to {high}")
        first_row = self._index.series
        self._index.add_series(batch.series)
        words = _words(batch)
        slabs = _slabs(int(words[-1]), len(words) - 1)
        for a, b in _rows(words, slabs * PAGE_WORDS):
            for slab in _cut(batch, a, b, slabs):
                self._add_page(slab, first_row + a, first_row + b)
        self._samples += batch.samples
        self._histograms += 0 if batch.histogram_at is None else int(np.count_nonzero(batch.histogram_at >= 0))

    def finish(self, before_commit: Callable[[BlockMeta], None] = lambda _: None) -> BlockMeta | None:
        """Put what is left, `meta.json` last: then the block exists. None, and no object, where no sample was added.

        `before_commit` is called when everything but `meta.json` is there; if it raises, the block does not come to be.
        """
        if self._samples == 0:
            return None
        self._put_part()
        self._put("index", self._index.finish())
        meta = BlockMeta(
            self._meta.ulid, self._meta.min_ms, self._meta.max_ms, self._samples, self._index.series, self._meta.level,
            self._meta.sources, self._meta.resolution_ms, tuple(self._objects), COLUMNS if self._meta.resolution_ms else (),
            self._histograms,
            edits=self._meta.edits,
        )  # fmt: skip
        before_commit(meta)
        self._bucket.put(meta.key(META), encode_meta(meta))
        return meta

    def _add_page(self, batch: SeriesBatch, row_from: int, row_to: int) -> None:
        data = encode_page(batch, neighbours=self._neighbours)
        if self._part and len(self._part) + len(data) > MAX_PART_BYTES:
            self._put_part()
        words = int(_words(batch)[-1])
        where = len(self._objects), len(self._part), len(data), zlib.crc32(data)
        self._index.add_page(PageEntry(row_from, row_to, *where, int(batch.t_ms.min()), int(batch.t_ms.max()), words))
        self._part += data

    def _put_part(self) -> None:
        self._put(part_name(len(self._objects)), bytes(self._part))
        self._part.clear()

    def _put(self, name: str, data: bytes) -> None:
        self._bucket.put(self._meta.key(name), data)
        self._objects.append(ObjectMeta(name, len(data), zlib.crc32(data)))


def write_block(
    bucket: Bucket, batches: Iterable[SeriesBatch], *, ulid: str, min_ms: int, max_ms: int, level: int = 1,
    sources: tuple[str, ...] = (), resolution_ms: int = 0, neighbours: int = NEIGHBOURS, edits: tuple[str, ...] = (),
    before_commit: Callable[[BlockMeta], None] = lambda _: None,
) -> BlockMeta | None:  # fmt: skip
    """The meta of the new block with all samples of `batches`; None, and no object, where there are none.

    Batches come in the order of series, their samples in [min_ms, max_ms): else BadData. A failing bucket leaves objects without
    `meta.json`, which no reader sees. `before_commit`: see `BlockWriter.finish`.
    """
    writer = BlockWriter(
        bucket,
        ulid=ulid,
        min_ms=min_ms,
        max_ms=max_ms,
        level=level,
        sources=sources,
        resolution_ms=resolution_ms,
        neighbours=neighbours,
        edits=edits,
    )
    for batch in gather(batches):
        writer.add(batch)
    return writer.finish(before_commit)


def part_name(number: int) -> str:
    """The name of a pages object."""
    return f"pages-{number:06d}"


def gather(batches: Iterable[SeriesBatch]) -> Iterator[SeriesBatch]:
    """The same series with small neighbouring batches joined, until they fill a row of pages."""
    waiting: list[SeriesBatch] = []
    words = series = 0
    for batch in batches:
        if len(batch):
            waiting.append(batch)
            words, series = words + int(_words(batch)[-1]), series + len(batch)
        if words >= GATHER_WORDS and words >= _slabs(words, series) * PAGE_WORDS:
            yield _join(waiting)
            waiting, words, series = [], 0, 0
    if waiting:
        yield _join(waiting)


def _join(batches: list[SeriesBatch]) -> SeriesBatch:
    return batches[0] if len(batches) == 1 else concat_batches(batches)


def _with_samples(batch: SeriesBatch) -> SeriesBatch:
    """Without the series that have no sample; the samples stay as they are."""
    lengths = np.diff(batch.offsets)
    if not (len(lengths) and lengths.all() and batch.offsets[0] == 0):
        batch = batch.take(np.flatnonzero(lengths))
    if batch.windows is None or batch.windows.flags.c_contiguous:
        return batch
    return replace(batch, windows=np.ascontiguousarray(batch.windows))


def _words(batch: SeriesBatch) -> I64:
    """i64[n+1] how many numbers the samples of all series before each have."""
    columns = 2 + (batch.start_ms is not None) + (0 if batch.windows is None else len(batch.windows))
    words: I64 = (batch.offsets - batch.offsets[0]) * columns
    h = batch.histograms
    if h is None or batch.histogram_at is None:
        return words
    sizes = 6 + np.diff(h.positive.offsets) + np.diff(h.negative.offsets)
    each = np.where(batch.histogram_at >= 0, np.append(sizes, 0)[batch.histogram_at], 0)
    before = np.concatenate([[0], np.cumsum(each)])[batch.offsets]
    return np.asarray(words + before - before[0])


def _slabs(words: int, series: int) -> int:
    """How many slabs of time the pages of series have that have so many numbers together."""
    return min(MAX_SLABS, max(1, round(words // (2 * series) / SLAB_SAMPLES)))


def _rows(words: I64, limit: int) -> Iterator[tuple[int, int]]:
    """Runs [a, b) of series that have about `limit` numbers each, or of one series that has more."""
    runs = max(1, round(int(words[-1]) / limit))
    marks = np.searchsorted(words[:-1], np.arange(1, runs) * (int(words[-1]) / runs))
    cuts = np.unique(np.concatenate([[0], marks, [len(words) - 1]])).tolist()
    return pairwise(cuts)


def _cut(batch: SeriesBatch, a: int, b: int, slabs: int) -> Iterator[SeriesBatch]:
    """Series [a, b) of a batch in `slabs` equal slabs of time; a slab without samples is left out, a series without is kept."""
    start, end = int(batch.offsets[a]), int(batch.offsets[b])
    offsets, t_ms = batch.offsets[a : b + 1], batch.t_ms[start:end]
    if slabs == 1:
        yield _part(batch, slice(a, b), offsets - start, slice(start, end))
        return
    low, high = int(t_ms.min()), int(t_ms.max()) + 1
    edges = np.array([low + (high - low) * i // slabs for i in range(slabs + 1)], np.int64)
    rows = np.empty((slabs + 1, b - a), np.int64)
    edge_rows(np.require(offsets, np.int64, ["C", "W"]), np.require(batch.t_ms, np.int64, ["C", "W"]), edges, rows)
    for first, last in pairwise(rows):
        offsets = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
        if offsets[-1]:
            yield _part(batch, slice(a, b), offsets, _Ranges(first, last - first, offsets[:-1]))


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Rows first[i]:first[i]+sizes[i], put at to[i]; i64[n] each."""

    first: I64
    sizes: I64
    to: I64


def _part(batch: SeriesBatch, rows: slice, offsets: I64, at: slice | _Ranges) -> SeriesBatch:
    histogram_at = None if batch.histogram_at is None else _pick(batch.histogram_at, at)
    if histogram_at is not None and not (histogram_at >= 0).any():
        histogram_at = None
    return SeriesBatch(
        batch.series.take(rows), offsets, _pick(batch.t_ms, at), _pick(batch.values, at),
        batch.histograms if histogram_at is not None else None, histogram_at,
        None if batch.start_ms is None else _pick(batch.start_ms, at),
        windows=None if batch.windows is None else np.stack([_pick(column, at) for column in batch.windows]),
    )  # fmt: skip


def _pick(column: Column, at: slice | _Ranges) -> Column:
    """The rows of a column that `at` says."""
    if isinstance(at, slice):
        return column[at]
    out = np.empty(int(at.sizes.sum()), column.dtype)
    copy_ranges(np.require(column, requirements=["C", "W"]).view(np.int64), at.first, at.sizes, out.view(np.int64), at.to)
    return out

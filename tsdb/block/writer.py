"""Writing a block: batches of series in, pages and an index in the bucket out, `meta.json` last.

Memory is bounded by one row of pages, one page beside it, and one pages object twice (`MAX_PART_BYTES`: it is joined when it is
put), beside the index (4 bytes a label of each series).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable
from tsdb.model.windows import COLUMNS, windows_of

SLAB_SAMPLES = 1024
"""Samples of a series in one page. Measured on real scrapes: fewer repeat heads and times, more leave few series to share them."""
PAGE_WORDS = 256 << 10
"""Numbers in one page: 128 K samples of time and value, about 11 KB stored. With half as many, fewer series that resemble each
other meet in a page, and blocks are 4 % larger."""
MAX_SLABS = 64
"""A row has about so many pages at most. Longer series get longer slabs, for each page costs a reader time; and fewer of them share
their pages where a row is added whole: 128 MiB of numbers."""
MAX_PART_BYTES = 32 << 20
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

    def add(self, *batches: SeriesBatch) -> None:
        """Append whole series. BadData where a sample is outside [min_ms, max_ms) or a series out of order.

        Pages may hold series of several of the batches, but not of batches of two calls.
        """
        filled = [batch for batch in map(_with_samples, batches) if batch.samples]
        if not filled:
            return
        first_row = self._index.series
        for batch in filled:
            self._check_times(batch)
            self._index.add_series(batch.series)
            self._samples += batch.samples
            self._histograms += 0 if batch.histogram_at is None else int(np.count_nonzero(batch.histogram_at >= 0))
        if any(batch.histograms is not None for batch in filled):
            filled = [_join(filled)]
        words = _joined_words(filled)
        slabs = min(MAX_SLABS, slabs_of(sum(map(_plain_words, filled)), len(words) - 1))
        for a, b in row_edges(words, slabs):
            for slab in _cut(_between(filled, a, b), slabs):
                self._add_page(slab, first_row + a, first_row + b)

    def add_all(self, batches: Iterable[SeriesBatch]) -> None:
        """Append whole series, as many together as fill a row of pages; errors as of `add`."""
        for together in _rows_of(batches):
            self.add(*together)
            together.clear()  # or they would stay until the next ones are there

    def add_row(self, series: SeriesTable, strips: Iterable[SeriesBatch], *, slab_samples: int) -> None:
        """Append whole series that share their pages, a stretch of rising time after another, floats only; BadData as by `add`.

        Each strip has all the series, with or without samples. Only one of them need be in memory. A page has about
        `slab_samples` of a series.
        """
        first_row = self._index.series
        self._index.add_series(series)
        for strip in strips:
            if strip.samples:
                self._check_times(strip)
                self._samples += strip.samples
                series_in = int(np.count_nonzero(np.diff(strip.offsets)))
                for slab in _cut([strip], slabs_of(int(_words(strip)[-1]), series_in, slab_samples)):
                    self._add_page(slab, first_row, first_row + len(series))

    def _check_times(self, batch: SeriesBatch) -> None:
        low, high = int(batch.t_ms.min()), int(batch.t_ms.max())
        if low < self._meta.min_ms or high >= self._meta.max_ms:
            raise BadData(f"block {self._meta.ulid} of [{self._meta.min_ms}, {self._meta.max_ms}): samples from {low} to {high}")

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
    for together in _rows_of(batches):
        writer.add(*together)
        together.clear()  # or they would stay until the next ones are there
    return writer.finish(before_commit)


def part_name(number: int) -> str:
    """The name of a pages object."""
    return f"pages-{number:06d}"


def gather(batches: Iterable[SeriesBatch]) -> Iterator[SeriesBatch]:
    """The same series with small neighbouring batches joined, until they fill a row of pages."""
    return map(_join, _rows_of(batches))


def _rows_of(batches: Iterable[SeriesBatch]) -> Iterator[list[SeriesBatch]]:
    """Neighbouring batches that fill a row of pages together."""
    waiting: list[SeriesBatch] = []
    words = plain = series = 0
    for batch in batches:
        if len(batch):
            waiting.append(batch)
            words, plain, series = words + int(_words(batch)[-1]), plain + _plain_words(batch), series + len(batch)
        if words >= GATHER_WORDS and words >= min(MAX_SLABS, slabs_of(plain, series)) * PAGE_WORDS:
            yield waiting
            waiting, words, plain, series = [], 0, 0, 0
    if waiting:
        yield waiting


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
    words: I64 = (batch.offsets - batch.offsets[0]) * _columns(batch)
    h = batch.histograms
    if h is None or batch.histogram_at is None:
        return words
    sizes = 6 + np.diff(h.positive.offsets) + np.diff(h.negative.offsets)
    each = np.where(batch.histogram_at >= 0, np.append(sizes, 0)[batch.histogram_at], 0)
    before = np.concatenate([[0], np.cumsum(each)])[batch.offsets]
    return np.asarray(words + before - before[0])


def _columns(batch: SeriesBatch) -> int:
    """How many numbers a sample has, those of its histogram not counted."""
    return 2 + (batch.start_ms is not None) + (0 if batch.windows is None else len(batch.windows))


def _plain_words(batch: SeriesBatch) -> int:
    """How many numbers all samples have without those of histograms: a bucket is a column of its own, as long as one of values."""
    return batch.samples * _columns(batch)


def _joined_words(batches: Sequence[SeriesBatch]) -> I64:
    """As `_words`, of the series of all batches."""
    each = [_words(batch) for batch in batches]
    ends = np.cumsum([0, *(int(words[-1]) for words in each)])
    return np.concatenate([[0], *(words[1:] + end for words, end in zip(each, ends[:-1], strict=True))]).astype(np.int64)


def slabs_of(words: int, series: int, slab_samples: int | None = None) -> int:
    """How many slabs of time the pages of series have that have so many numbers together, those of histograms not counted."""
    return max(1, round(words // (2 * series) / (slab_samples or SLAB_SAMPLES)))


def row_edges(words: I64, slabs: int) -> Iterator[tuple[int, int]]:
    """Runs [a, b) of series that fill about `slabs` pages each, or of one series that fills more; words as of `_words`."""
    runs = max(1, round(int(words[-1]) / (slabs * PAGE_WORDS)))
    marks = np.searchsorted(words[:-1], np.arange(1, runs) * (int(words[-1]) / runs))
    cuts = np.unique(np.concatenate([[0], marks, [len(words) - 1]])).tolist()
    return pairwise(cuts)


def _between(batches: Sequence[SeriesBatch], a: int, b: int) -> list[SeriesBatch]:
    """Series [a, b) of all batches, sharing memory."""
    starts = np.cumsum([0, *map(len, batches)]).tolist()
    found = (
        (batch, max(a, start) - start, min(b, stop) - start) for batch, (start, stop) in zip(batches, pairwise(starts), strict=True)
    )
    return [batch.between(low, high) for batch, low, high in found if low < high]


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Rows first[i]:first[i]+sizes[i] of a batch, put at to[i]; i64[n] each."""

    first: I64
    sizes: I64
    to: I64


def _cut(batches: Sequence[SeriesBatch], slabs: int) -> Iterator[SeriesBatch]:
    """All series in `slabs` equal slabs of time, without labels; a slab without samples is left out, a series without is kept."""
    if slabs == 1 and len(batches) == 1:
        yield replace(batches[0], histograms=None if _no_histograms(batches[0].histogram_at) else batches[0].histograms)
        return
    low, high = min(int(batch.t_ms.min()) for batch in batches), max(int(batch.t_ms.max()) for batch in batches) + 1
    edges = np.array([low + (high - low) * i // slabs for i in range(slabs + 1)], np.int64)
    rows = []
    for batch in batches:
        rows.append(np.empty((slabs + 1, len(batch)), np.int64))
        edge_rows(np.require(batch.offsets, np.int64, ["C", "W"]), np.require(batch.t_ms, np.int64, ["C", "W"]), edges, rows[-1])
    for slab in range(slabs):
        sizes = [each[slab + 1] - each[slab] for each in rows]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
        if offsets[-1]:
            to = np.split(offsets[:-1], np.cumsum([len(size) for size in sizes])[:-1])
            at = [_Ranges(each[slab], size, place) for each, size, place in zip(rows, sizes, to, strict=True)]
            yield _slab(batches, offsets, at)


def _slab(batches: Sequence[SeriesBatch], offsets: I64, at: Sequence[_Ranges]) -> SeriesBatch:
    """The rows `at` of each batch, put together. Histograms come from the only batch that has them."""
    first = batches[0]
    starts = [_starts(batch) for batch in batches] if any(batch.start_ms is not None for batch in batches) else []
    histogram_at = None if first.histogram_at is None else _pick([first.histogram_at], at)
    if _no_histograms(histogram_at):
        histogram_at = None
    windows = [windows_of(batch) for batch in batches] if any(batch.windows is not None for batch in batches) else []
    return SeriesBatch(
        SeriesTable.empty(len(offsets) - 1), offsets, _pick([batch.t_ms for batch in batches], at),
        _pick([batch.values for batch in batches], at), first.histograms if histogram_at is not None else None, histogram_at,
        _pick(starts, at) if starts else None,
        windows=np.stack([_pick([each[c] for each in windows], at) for c in range(len(COLUMNS))]) if windows else None,
    )  # fmt: skip


def _starts(batch: SeriesBatch) -> I64:
    return np.zeros(batch.samples, np.int64) if batch.start_ms is None else batch.start_ms


def _no_histograms(histogram_at: I64 | None) -> bool:
    return histogram_at is None or not bool((histogram_at >= 0).any())


def _pick(columns: Sequence[Column], at: Sequence[_Ranges]) -> Column:
    """The rows of a column of each batch that `at` says."""
    out = np.empty(sum(int(ranges.sizes.sum()) for ranges in at), columns[0].dtype)
    for column, ranges in zip(columns, at, strict=True):
        bits = np.require(column, requirements=["C", "W"]).view(np.int64)
        copy_ranges(bits, ranges.first, ranges.sizes, out.view(np.int64), ranges.to)
    return out

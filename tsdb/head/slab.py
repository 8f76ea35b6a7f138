"""Sealed samples of the head: a log turned into compressed pages in memory, each a run of neighbouring series.

Series stand in the order of their keys (`tsdb.head.series_index.keys_of`). Slabs that hold the same series share them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from tsdb.block.page import Page, PageColumns, PageValues, decode_page, encode_page, open_page, page_columns
from tsdb.block.page_cache import PageCache
from tsdb.head.fragment import Fragment, PageFragment, settle
from tsdb.head.open_samples import Snapshot
from tsdb.head.series_index import keys_of, refs_of
from tsdb.head.spill import Spilled
from tsdb.model.histogram import ragged
from tsdb.model.series import I32, I64, SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS

PAGE_SAMPLES = 16_384
"""Decodes in 0.1 ms, which is what an instant query of one series pays; larger pages pack little better."""
PAGE_HISTOGRAM_BYTES = 1 << 20
"""Of histograms in one page, of which each has some forty columns: those of a few series are decoded by themselves."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Series keys i64[n] ascending; page j, data[page_at[j]:page_at[j+1]], holds those first_row[j]:first_row[j+1].

    One run of bytes for all pages, lest thousands of small ones keep the memory between them from being given back.
    """

    keys: I64
    first_row: I64
    data: Spilled
    page_at: I64
    page_min_ms: I64
    page_max_ms: I64
    page_samples: I64
    page_histogram_bytes: I64
    min_ms: int
    max_ms: int
    serial: int = field(default_factory=count().__next__)
    """Told apart by this in a cache; slabs of one serial have the same samples."""

    @property
    def samples(self) -> int:
        return int(self.page_samples.sum())

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def refs(self) -> I32:
        return refs_of(self.keys)

    def read(self, keys: I64, start_ms: int, end_ms: int, cache: PageCache | None = None) -> Iterator[Fragment | PageFragment]:
        """What is here of the series keys i64[k] in [start_ms, end_ms); pages outside are not decoded, others kept in the cache."""
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        rows = np.flatnonzero(self.keys[at] == keys) if len(self.keys) else at[:0]
        page = np.searchsorted(self.first_row, at[rows], side="right") - 1
        keep = (self.page_min_ms[page] < end_ms) & (self.page_max_ms[page] >= start_ms)
        rows, page = rows[keep], page[keep]
        if len(rows) == 0:
            return
        order = np.argsort(page, kind="stable")
        numbers, first = np.unique(page[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(rows[order], first[1:]), strict=True):
            local = at[part] - self.first_row[number]
            fragment = _read_page(*self._opened(number, len(local), cache), part, local, start_ms, end_ms)
            if len(fragment.rows):
                yield fragment

    def _opened(self, number: int, wanted: int, cache: PageCache | None) -> tuple[Page, PageValues | None]:
        """(a page, its values if they are kept), of which so many series are wanted."""
        if cache is None:
            return open_page(self.page(number)), None
        key = ("slab", self.serial, number)
        known = cache.find([key])[0]
        return (cache.open(key, self.page(number)), None) if known is None else (known, cache.values_of(key, known, wanted))

    def page(self, number: int) -> bytes:
        """The bytes of one page."""
        return self.data[self.page_at[number] : self.page_at[number + 1]]


def seal(log: Snapshot, metric: I32, before: Slab | None) -> Slab:
    """All samples of a log as a slab; `before` is one whose keys may be the same. About 25 ns a sample."""
    keys = np.sort(keys_of(np.flatnonzero(log.last >= 0).astype(np.int32), metric))
    counts = log.sizes()[refs_of(keys)]
    share = max(1 / PAGE_SAMPLES, log.histogram_bytes / max(log.count, 1) / PAGE_HISTOGRAM_BYTES)
    page = ((np.cumsum(counts) - 1) * share).astype(np.int64)
    bounds = np.flatnonzero(np.diff(page)) + 1
    pages = []
    for part in np.split(keys, bounds):
        fragments = log.read(part, MIN_MS, MAX_MS)
        pages.append(_seal_page(part, settle(list(fragments), len(part))))
    slab = _join(pages)
    return replace(slab, keys=before.keys) if before is not None and np.array_equal(before.keys, slab.keys) else slab


def trim(slab: Slab, start_ms: int) -> Slab:
    """The slab without its samples before start_ms; pages that have none such stay as they are."""
    pages = []
    for number in range(len(slab.page_samples)):
        data = slab.page(number)
        keys = slab.keys[slab.first_row[number] : slab.first_row[number + 1]]
        low, high = int(slab.page_min_ms[number]), int(slab.page_max_ms[number])
        if low >= start_ms:
            sizes = int(slab.page_samples[number]), int(slab.page_histogram_bytes[number])
            pages.append(_Page(keys, data, low, high, *sizes))
        elif high >= start_ms:
            rows = np.arange(len(keys))
            fragment = _clip(_pick(decode_page(data), rows, rows), start_ms, MAX_MS)
            keys = keys[fragment.rows]
            whole = replace(fragment, rows=np.arange(len(keys)))
            pages.append(_seal_page(keys, settle([whole], len(keys))))
    return _join(pages)


@dataclass(frozen=True, slots=True)
class _Page:
    keys: I64
    data: bytes
    min_ms: int
    max_ms: int
    samples: int
    histogram_bytes: int


def _seal_page(keys: I64, columns: PageColumns) -> _Page:
    batch = SeriesBatch(
        SeriesTable.empty(len(keys)), columns.offsets, columns.t_ms, columns.values,
        columns.histograms, columns.histogram_at, columns.start_ms,
    )  # fmt: skip
    data = encode_page(batch, neighbours=0)  # sealed samples live for hours, and their writer waits
    size_bytes = 0 if columns.histograms is None else columns.histograms.size_bytes
    return _Page(keys, data, int(columns.t_ms.min()), int(columns.t_ms.max()), len(columns.t_ms), size_bytes)


def _join(pages: list[_Page]) -> Slab:
    return Slab(
        np.concatenate([page.keys for page in pages]) if pages else np.empty(0, np.int64),
        np.cumsum([0, *(len(page.keys) for page in pages)]),
        b"".join([page.data for page in pages]),
        np.cumsum([0, *(len(page.data) for page in pages)]),
        np.array([page.min_ms for page in pages], np.int64),
        np.array([page.max_ms for page in pages], np.int64),
        np.array([page.samples for page in pages], np.int64),
        np.array([page.histogram_bytes for page in pages], np.int64),
        min((page.min_ms for page in pages), default=MAX_MS),
        max((page.max_ms for page in pages), default=MIN_MS),
    )


def _read_page(page: Page, values: PageValues | None, rows: I64, local: I64, start_ms: int, end_ms: int) -> Fragment | PageFragment:
    """What a page holds of its series `local` in [start_ms, end_ms), for the places `rows`."""
    if page.layout is not None:
        chosen = np.unique(local)
        return _clip(_pick(page_columns(page, chosen), rows, np.searchsorted(chosen, local)), start_ms, end_ms)
    low, lengths = page.spans(local, start_ms, end_ms)
    if not lengths.all():
        some = np.flatnonzero(lengths)
        rows, local, low, lengths = rows[some], local[some], low[some], lengths[some]
    return PageFragment(rows, lengths, page, local, low, values)


def _pick(columns: PageColumns, rows: I64, local: I64) -> Fragment:
    """Series `local` of a page as a fragment for the places `rows`."""
    if len(local) == len(columns.offsets) - 1 and bool(np.all(np.diff(local) == 1)):
        lengths, t_ms, values = np.diff(columns.offsets), columns.t_ms, columns.values
        histogram_at, start_ms = columns.histogram_at, columns.start_ms
    else:
        offsets, at = ragged(columns.offsets, local)
        lengths, t_ms, values = np.diff(offsets), columns.t_ms[at], columns.values[at]
        histogram_at = None if columns.histogram_at is None else columns.histogram_at[at]
        start_ms = None if columns.start_ms is None else columns.start_ms[at]
    return _with_histograms(Fragment(rows, lengths, t_ms, values.view(np.int64), columns.histograms, histogram_at, start_ms))


def _clip(fragment: Fragment, start_ms: int, end_ms: int) -> Fragment:
    """Only the samples in [start_ms, end_ms); series left without one go."""
    keep = (fragment.t_ms >= start_ms) & (fragment.t_ms < end_ms)
    before = np.concatenate([[0], np.cumsum(keep)])
    lengths = np.diff(before[np.concatenate([[0], np.cumsum(fragment.lengths)])])
    some = np.flatnonzero(lengths)
    at = np.flatnonzero(keep)
    clipped = Fragment(
        fragment.rows[some], lengths[some], fragment.t_ms[at], fragment.bits[at], fragment.histograms,
        None if fragment.histogram_at is None else fragment.histogram_at[at],
        None if fragment.start_ms is None else fragment.start_ms[at],
    )  # fmt: skip
    return _with_histograms(clipped)


def _with_histograms(fragment: Fragment) -> Fragment:
    """The same with no other histograms than its samples refer to."""
    if fragment.histograms is None or fragment.histogram_at is None:
        return fragment
    used = np.flatnonzero(fragment.histogram_at >= 0)
    if len(used) == len(fragment.histograms):
        return fragment
    if len(used) == 0:
        return replace(fragment, histograms=None, histogram_at=None)
    at = np.full(len(fragment.histogram_at), -1, np.int64)
    at[used] = np.arange(len(used))
    return replace(fragment, histograms=fragment.histograms.take(fragment.histogram_at[used]), histogram_at=at)

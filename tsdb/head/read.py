"""The parts of a head, the windows of time through which head and cuts look at them, and reading through those windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsdb.block.page_cache import PageCache
from tsdb.head.fragment import Fragment, PageFragment, settle
from tsdb.head.open_samples import OpenSamples, Snapshot
from tsdb.head.series_index import Rows, refs_of
from tsdb.head.slab import Slab
from tsdb.model.series import I64, Bool, SeriesBatch, SeriesTable, concat_tables
from tsdb.model.source import MAX_MS, MIN_MS

BATCH_SERIES, BATCH_SAMPLES, BATCH_PAGES = 4096, 1 << 19, 4
"""The most series in a batch; about the samples in one, of which a few fit into the processor's cache together; pages at least."""
SAMPLE_BYTES = 16
"""Of a sample: a histogram counts as as many as would take its room."""


@dataclass(slots=True, eq=False)
class Part:
    """An open, a full or a sealed log; sealing replaces the content, whose samples stay the same."""

    content: OpenSamples | Slab


@dataclass(frozen=True, slots=True)
class View:
    """The samples of a part in [start_ms, end_ms)."""

    part: Part
    start_ms: int = MIN_MS
    end_ms: int = MAX_MS

    @property
    def min_ms(self) -> int:
        """No sample is before this; past `max_ms` where there is none."""
        return max(self.part.content.min_ms, self.start_ms)

    @property
    def max_ms(self) -> int:
        return min(self.part.content.max_ms, self.end_ms - 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """A view as it was when a query began."""

    content: Snapshot | Slab
    start_ms: int
    end_ms: int

    def read(self, keys: I64, cache: PageCache | None) -> Iterator[Fragment | PageFragment]:
        """What is here of the series keys i64[k]."""
        if isinstance(self.content, Slab):
            return self.content.read(keys, self.start_ms, self.end_ms, cache)
        return self.content.read(keys, self.start_ms, self.end_ms)


def readings(views: Sequence[View], start_ms: int, end_ms: int) -> list[Reading]:
    """What a query of [start_ms, end_ms) must look at, oldest first; to be taken under the head's lock."""
    found = []
    for view in views:
        low, high = max(start_ms, view.start_ms), min(end_ms, view.end_ms)
        if view.min_ms < high and view.max_ms >= low:
            content = view.part.content
            found.append(Reading(content.snapshot() if isinstance(content, OpenSamples) else content, low, high))
    return found


def bounds_of(views: Sequence[View]) -> tuple[int, int] | None:
    """(min, max) between which all sample times lie, None where there is no sample."""
    some = [view for view in views if view.min_ms <= view.max_ms]
    return (min(view.min_ms for view in some), max(view.max_ms for view in some)) if some else None


def marked(views: Sequence[View], room: int) -> Bool:
    """bool[room] which refs have samples in these parts."""
    live = np.zeros(room, bool)
    seen: set[int] = set()
    for view in views:
        content = view.part.content
        if isinstance(content, OpenSamples):
            live[: len(content.last)] |= content.last >= 0
        elif id(content.keys) not in seen:
            seen.add(id(content.keys))
            live[content.refs()] = True
    return live


def read(rows: Sequence[Rows], parts: Sequence[Reading], cache: PageCache | None = None) -> Iterator[SeriesBatch]:
    """The samples of the series, in their order, in batches of about BATCH_SAMPLES; series without a sample are left out.

    Sealed pages are kept in the cache.
    """
    for batch in _batches(rows, _batch_series(rows, parts)):
        keys = np.concatenate([r.keys for r in batch]) if len(batch) > 1 else batch[0].keys
        fragments = [fragment for part in parts for fragment in part.read(keys, cache)]
        columns = settle(fragments, len(keys))
        lengths = np.diff(columns.offsets)
        some = np.flatnonzero(lengths)
        if len(some) == 0:
            continue
        table = concat_tables([r.table for r in batch])
        offsets = columns.offsets if len(some) == len(keys) else np.concatenate([[0], np.cumsum(lengths[some])]).astype(np.int64)
        yield SeriesBatch(
            table if len(some) == len(keys) else table.take(some),
            offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at, columns.start_ms,
        )  # fmt: skip


def labels_of(rows: Sequence[Rows], live: Bool) -> SeriesTable:
    """The labels of those of the series that have samples."""
    tables = [r.table.take(np.flatnonzero(live[refs_of(r.keys)])) for r in rows]
    return concat_tables([table for table in tables if len(table)] or [SeriesTable.empty()])


def _batch_series(rows: Sequence[Rows], parts: Sequence[Reading]) -> int:
    """How many series have about BATCH_SAMPLES, as far as the parts tell, and fill BATCH_PAGES pages of each slab: the pages at the
    edges of a batch may be opened twice."""
    each, page_series = 1.0, 1.0
    for part in parts:
        content = part.content
        if not isinstance(content, Slab):
            series = max(int(np.count_nonzero(content.last >= 0)), 1)
            each += (content.count + content.histogram_bytes / SAMPLE_BYTES) / series
        elif content.page_histogram_bytes.any():
            samples, per_page = _slab_weight(content, rows)
            each += samples
            page_series = max(page_series, per_page)
        else:
            each += content.samples / max(len(content.keys), 1)
            page_series = max(page_series, BATCH_PAGES * len(content.keys) // max(len(content.page_samples), 1))
    return max(1, min(BATCH_SERIES, max(round(BATCH_SAMPLES / each), round(page_series))))


def _slab_weight(slab: Slab, rows: Sequence[Rows]) -> tuple[float, float]:
    """(samples of a series, histograms by their weight; series of a page) in the pages of a slab that have any of the rows."""
    keys = np.concatenate([r.keys for r in rows]) if rows else slab.keys[:0]
    at = np.searchsorted(slab.keys, keys)
    found = at[slab.keys[np.minimum(at, len(slab.keys) - 1)] == keys]
    pages = np.unique(np.searchsorted(slab.first_row, found, side="right") - 1)
    series = int(np.diff(slab.first_row)[pages].sum())
    samples = slab.page_samples[pages].sum() + slab.page_histogram_bytes[pages].sum() / SAMPLE_BYTES
    return float(samples) / max(series, 1), series / max(len(pages), 1)


def _batches(rows: Sequence[Rows], most: int) -> Iterator[list[Rows]]:
    """The same rows, split and joined to batches of at most so many."""
    batch: list[Rows] = []
    size = 0
    for shelf in rows:
        for first in range(0, len(shelf.keys), most):
            part = slice(first, first + most)
            whole = len(shelf.keys) <= most
            piece = shelf if whole else Rows(shelf.table.take(part), shelf.keys[part])
            if size + len(piece.keys) > most:
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += len(piece.keys)
    if batch:
        yield batch

"""Merging samples of the same series from several places, so that replicas, retries and overlaps need no special case.

Of samples of one series at one time a histogram beats a float; of two floats the larger by the IEEE total order of their bits is
kept, the stale marker losing to any other; of two histograms the one with the larger count, then sum, then digest of its content.
Of equal samples the larger start time is kept. Before all that, of two downsampled samples the one that stands for more is kept:
the other was made before all of its samples had come. No rule looks at who came first: merging is commutative, associative,
idempotent.

Raw samples that lie in a window of their series are left out, and that is told: the window does not say which samples it was made
of, so that one that is in both would count twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsdb.kernel.downsample import COUNT, FIRST_MS
from tsdb.kernel.merge import merge_runs
from tsdb.kernel.ranges import copy_ranges
from tsdb.model.estimate import Estimate, merged
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import F64, I64, Bool, SeriesBatch, SeriesTable, concat_tables
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source
from tsdb.model.windows import COLUMNS, wanted_columns, windows_of

U64 = np.uint64

LEFT_OUT = (
    "samples that came late are left out of this answer: their time is kept only downsampled, and windows cannot take them in"
)
"""The warning where raw samples lie in windows of their series."""


def merge_batches(batches: Sequence[SeriesBatch], columns: Sequence[str] | None = None) -> SeriesBatch:
    """All series of all batches, in their order, with the samples of equal series merged; warnings are joined.

    Of window columns there are only those that are named (None = all), others are of no meaning.
    """
    warnings = tuple(dict.fromkeys(warning for batch in batches for warning in batch.warnings))
    filled = [batch for batch in batches if len(batch)]
    if not filled:
        return SeriesBatch.empty(warnings)
    if len(filled) == 1:
        return filled[0] if filled[0].warnings == warnings else replace(filled[0], warnings=warnings)
    table, places = union_tables([batch.series for batch in filled])
    merged = _placed(filled, table, places, columns)
    if merged is None:
        merged = _merge_runs(concat_batches(filled, columns), np.concatenate(places), table)
    return without_covered(replace(merged, warnings=warnings))


def without_covered(batch: SeriesBatch) -> SeriesBatch:
    """The batch without samples that lie in a window of their series, and the warning where there are any."""
    if batch.windows is None:
        return batch
    covered = _covered(batch, batch.windows)
    if not np.any(covered):
        return batch
    return replace(batch.where(~covered), warnings=tuple(dict.fromkeys((*batch.warnings, LEFT_OUT))))


@dataclass(frozen=True, slots=True)
class MergeSource:
    """Many sources as one. Holds one batch of each at a time."""

    sources: Sequence[Source]

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`."""
        streams = [source.select(selection) for source in self.sources]
        return streams[0] if len(streams) == 1 else merge_streams(streams, selection.columns)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`."""
        return merge_tables([source.series(selection) for source in self.sources])

    def estimate(self, selection: Selection) -> Estimate:
        """See `tsdb.model.estimate`."""
        return merged(self.sources, self, selection)


def concat_batches(batches: Sequence[SeriesBatch], columns: Sequence[str] | None = None) -> SeriesBatch:
    """All series of all batches one after another; equal ones stay apart, warnings are left out. `columns` as above."""
    sizes = np.concatenate([np.diff(batch.offsets) for batch in batches])
    histograms, histogram_at = None, None
    if any(batch.histograms is not None for batch in batches):
        histograms = concat_histograms([batch.histograms or Histograms.empty() for batch in batches])
        histogram_at = _histogram_places(batches)
    start_ms = None
    if any(batch.start_ms is not None for batch in batches):
        start_ms = np.concatenate(
            [np.zeros(batch.samples, np.int64) if batch.start_ms is None else batch.start_ms for batch in batches]
        )
    t_ms, values = np.concatenate([batch.t_ms for batch in batches]), np.concatenate([batch.values for batch in batches])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    windows = _window_room(batches)
    if windows is not None:
        parts = [windows_of(batch, columns) for batch in batches]
        for row in np.flatnonzero(wanted_columns(columns)):
            np.concatenate([part[row] for part in parts], out=windows[row])
    return SeriesBatch(
        concat_tables([batch.series for batch in batches]), offsets, t_ms, values, histograms, histogram_at, start_ms,
        windows=windows, resolution_ms=max(batch.resolution_ms for batch in batches),
    )  # fmt: skip


def merge_tables(tables: Sequence[SeriesTable]) -> SeriesTable:
    """The distinct series of all tables, in the order of series."""
    filled = [table for table in tables if len(table)]
    if len(filled) < 2:
        return filled[0] if filled else SeriesTable.empty()
    joined = concat_tables(filled)
    distinct = joined.take(joined.group()[1])
    return distinct.take(distinct.order())


def union_tables(tables: Sequence[SeriesTable]) -> tuple[SeriesTable, list[I64]]:
    """(the distinct series of all tables, in the order of series; the place i64[n] of each row of each table among them)."""
    first = tables[0]
    if all(_same_table(table, first) for table in tables[1:]):
        return first, [np.arange(len(first))] * len(tables)
    joined = concat_tables(tables)
    group, firsts = joined.group()
    distinct = joined.take(firsts)
    order = distinct.order()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return distinct.take(order), np.split(place[group], ends)


def _same_table(a: SeriesTable, b: SeriesTable) -> bool:
    same_symbols = a.symbols is b.symbols or np.array_equal(a.symbols, b.symbols)
    return a.names == b.names and same_symbols and np.array_equal(a.ids, b.ids)


def merge_streams(streams: Sequence[Iterator[SeriesBatch]], columns: Sequence[str] | None = None) -> Iterator[SeriesBatch]:
    """The merge of streams of batches, each in the order of series: what no stream can add to any more is merged and given.

    `columns` as for `merge_batches`.
    """
    held: list[SeriesBatch | None] = [None] * len(streams)
    live = [True] * len(streams)
    warnings: tuple[str, ...] = ()
    while True:
        for i, stream in enumerate(streams):
            while live[i] and held[i] is None:
                batch = next(stream, None)
                live[i] = batch is not None
                if batch is not None:
                    warnings += batch.warnings
                    held[i] = replace(batch, warnings=()) if len(batch) else None
        waiting = [batch for batch in held if batch is not None]
        if not waiting:
            break
        bound = _least(
            [batch.series.labels(len(batch) - 1) for batch, on in zip(held, live, strict=True) if batch is not None and on]
        )
        ready = []
        for i, batch in enumerate(held):
            if batch is not None:
                cut = _until(batch.series, bound)
                ready.append(batch.between(0, cut))
                held[i] = batch.between(cut, len(batch)) if cut < len(batch) else None
        merged = merge_batches(ready, columns)
        yield replace(merged, warnings=tuple(dict.fromkeys((*warnings, *merged.warnings))))
        warnings = ()
    if warnings:
        yield SeriesBatch.empty(tuple(dict.fromkeys(warnings)))


def compare_labels(a: Labels, b: Labels) -> int:
    """Negative, 0 or positive: the order of two series (see `tsdb.model.series`)."""
    left, right = a.as_dict(), b.as_dict()
    for name in (METRIC_NAME, *sorted({*left, *right})):
        mine, other = left.get(name, ""), right.get(name, "")
        if mine != other:
            return -1 if mine < other else 1
    return 0


def _least(labels: Sequence[Labels]) -> Labels | None:
    """The first in the order of series; None if there is none, for then nothing more can come."""
    least = None
    for each in labels:
        if least is None or compare_labels(each, least) < 0:
            least = each
    return least


def _until(series: SeriesTable, bound: Labels | None) -> int:
    """How many leading series are not after `bound`."""
    if bound is None:
        return len(series)
    low, high = 0, len(series)
    if compare_labels(series.labels(high - 1), bound) <= 0:
        return high
    while low < high:
        middle = (low + high) // 2
        if compare_labels(series.labels(middle), bound) <= 0:
            low = middle + 1
        else:
            high = middle
    return low


def _histogram_places(batches: Sequence[SeriesBatch]) -> I64:
    places, before = [], 0
    for batch in batches:
        if batch.histogram_at is None or batch.histograms is None:
            places.append(np.full(batch.samples, -1, np.int64))
            continue
        places.append(np.where(batch.histogram_at >= 0, batch.histogram_at + before, -1))
        before += len(batch.histograms)
    return np.concatenate(places)


def _window_room(batches: Sequence[SeriesBatch]) -> F64 | None:
    """Room f64[12, m] for the windows of all batches, None where none has any."""
    if all(batch.windows is None for batch in batches):
        return None
    return np.empty((len(COLUMNS), sum(batch.samples for batch in batches)))


def _placed(
    batches: Sequence[SeriesBatch], table: SeriesTable, places: Sequence[I64], columns: Sequence[str] | None
) -> SeriesBatch | None:
    """The samples of all batches, whose series are those of `table` at these places, each copied once.

    None unless those of each series follow one another in time, batch by batch: only then nothing needs comparing.
    """
    counts, until = np.zeros(len(table), np.int64), np.full(len(table), MIN_MS, np.int64)
    to: list[I64] = [np.empty(0, np.int64)] * len(batches)
    for i in sorted(range(len(batches)), key=lambda i: int(batches[i].t_ms.min(initial=MAX_MS))):
        batch = batches[i]
        size = np.diff(batch.offsets)
        some = np.flatnonzero(size)
        at, ends = places[i][some], batch.offsets[1:][some]
        if (np.diff(places[i]) <= 0).any() or (until[at] >= batch.t_ms[ends - size[some]]).any():
            return None
        to[i] = counts[places[i]]
        counts[places[i]] += size
        until[at] = batch.t_ms[ends - 1]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    t_ms, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
    start_ms = np.zeros(offsets[-1], np.int64) if any(batch.start_ms is not None for batch in batches) else None
    native = any(batch.histograms is not None for batch in batches)
    histogram_at = np.empty(offsets[-1], np.int64) if native else None
    windows = _window_room(batches)
    own_places = np.split(_histogram_places(batches), np.cumsum([batch.samples for batch in batches])[:-1]) if native else []
    for i, (batch, place, before) in enumerate(zip(batches, places, to, strict=True)):
        ranges = batch.offsets[:-1], np.diff(batch.offsets), offsets[place] + before
        _copy(batch.t_ms, t_ms, *ranges)
        _copy(batch.values, values, *ranges)
        if start_ms is not None and batch.start_ms is not None:
            _copy(batch.start_ms, start_ms, *ranges)
        if histogram_at is not None:
            _copy(own_places[i], histogram_at, *ranges)
        if windows is not None:
            own = windows_of(batch, columns)
            for row in np.flatnonzero(wanted_columns(columns)):
                _copy(own[row], windows[row], *ranges)
    histograms = concat_histograms([batch.histograms or Histograms.empty() for batch in batches]) if native else None
    return SeriesBatch(
        table, offsets, t_ms, values, histograms, histogram_at, start_ms,
        windows=windows, resolution_ms=max(batch.resolution_ms for batch in batches),
    )  # fmt: skip


def _copy(source: I64 | F64, out: I64 | F64, at: I64, size: I64, to: I64) -> None:
    """Rows of a column; one that is read-only or has gaps is copied first, for which the kernel would be compiled once more."""
    copy_ranges(np.require(source, requirements=["C", "W"]).view(np.int64), at, size, out.view(np.int64), to)


def _merge_runs(joined: SeriesBatch, place: I64, table: SeriesTable) -> SeriesBatch:
    """The samples of `joined`, whose series i becomes series place[i] of `table`."""
    starts, ends = joined.offsets[:-1], joined.offsets[1:]
    with_samples = np.flatnonzero(ends > starts)
    runs = with_samples[np.lexsort((joined.t_ms[starts[with_samples]], place[with_samples]))]
    groups = np.searchsorted(place[runs], np.arange(len(table) + 1))
    none = np.empty(0, np.int64)
    rank = none if joined.histograms is None or joined.histogram_at is None else _rank(joined.histograms, joined.histogram_at)
    if joined.windows is not None:
        rank = joined.windows[COUNT].astype(np.int64) << 32 | (rank + 1 if len(rank) else 0)
    pick = np.empty(joined.samples, np.int64)
    bits = np.ascontiguousarray(joined.values).view(np.int64)
    start_ms = none if joined.start_ms is None else joined.start_ms
    kept = merge_runs(joined.t_ms, bits, start_ms, rank, starts[runs], ends[runs], groups, pick)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    at = pick[: offsets[-1]]
    return replace(
        joined, series=table, offsets=offsets, t_ms=joined.t_ms[at], values=joined.values[at],
        histogram_at=None if joined.histogram_at is None else joined.histogram_at[at],
        start_ms=None if joined.start_ms is None else joined.start_ms[at],
        windows=None if joined.windows is None else np.take(joined.windows, at, axis=1),
    )  # fmt: skip


def _covered(batch: SeriesBatch, windows: F64) -> Bool:
    """bool[m]: the samples before the end of a later window of their series and not before its first sample."""
    begins_ms = batch.t_ms - windows[FIRST_MS].astype(np.int64)
    covered = np.zeros(batch.samples, bool)
    covered[:-1] = begins_ms[1:] <= batch.t_ms[:-1]
    covered[batch.offsets[1:-1][batch.offsets[1:-1] > 0] - 1] = False
    if not np.any(covered):
        return covered  # as nearly always: what any window covers has a neighbour that is
    ticks = np.unique(np.concatenate([batch.t_ms, begins_ms]))
    line = np.repeat(np.arange(len(batch)), np.diff(batch.offsets)) * len(ticks)
    first = np.searchsorted(line + np.searchsorted(ticks, batch.t_ms), line + np.searchsorted(ticks, begins_ms))
    covered[:-1] = np.minimum.accumulate(first[:0:-1])[::-1] <= np.arange(batch.samples - 1)
    return covered


def _rank(h: Histograms, histogram_at: I64) -> I64:
    """i64[m] the place of each sample's histogram in the order of histograms, equal ones at one place; -1 for a float."""
    keys = np.stack([_ordered(h.count), _ordered(h.sum), _digest(h).view(np.int64)])
    order = np.lexsort(keys[::-1])
    fresh = np.concatenate([[0], np.any(np.diff(keys[:, order], axis=1) != 0, axis=0)]).astype(np.int64)
    place = np.empty(len(order) + 1, np.int64)
    place[order] = np.cumsum(fresh)
    place[-1] = -1  # where a float's -1 points
    return np.asarray(place[histogram_at])


def _ordered(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> I64:
    """i64[n] that sort as the IEEE total order of floats does."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return np.asarray(bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF))


def _digest(h: Histograms) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """u64[n] of all that a histogram holds beside count and sum: equal for equal content, in every process."""
    total = _mix(h.schema.astype(U64), 1) + _mix(h.hint.astype(U64), 2) + _mix(h.integer.astype(U64), 3)
    total += _mix(h.zero_threshold.view(U64), 4) + _mix(h.zero_count.view(U64), 5)
    for salt, side in ((6, h.positive), (7, h.negative)):
        total += _sum_rows(side.offsets, _mix(side.index.astype(U64) * U64(0xD6E8FEB86659FD93) ^ side.counts.view(U64), salt))
    place = np.arange(len(h.bounds), dtype=np.int64) - np.repeat(h.bounds_offsets[:-1], np.diff(h.bounds_offsets))
    return total + _sum_rows(h.bounds_offsets, _mix(h.bounds.view(U64) + place.astype(U64) * U64(0xD6E8FEB86659FD93), 8))


def _mix(words: np.ndarray[tuple[int], np.dtype[np.uint64]], salt: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    x = (words + U64(salt * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(29))) * U64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> U64(32)))


def _sum_rows(offsets: I64, words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    sums = np.concatenate([np.zeros(1, U64), np.cumsum(words, dtype=U64)])
    return np.asarray(sums[offsets[1:]] - sums[offsets[:-1]])

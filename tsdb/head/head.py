"""The head: the samples of one store that are not in blocks yet, in memory and in a write-ahead log.

New samples go to an open log (`tsdb.head.open_samples`); a full log is sealed into a slab of compressed pages
(`tsdb.head.slab`). `cut` sets all samples before a time apart,
as a `Source` for the block writer; `drop` forgets them once their block is in the bucket.
A cut moves no sample: parts are immutable, and head and cut look at them through windows of time (`tsdb.head.read.View`).

One lock guards memory and the order of the write-ahead log. Syncing, sealing and reading go on outside it; a full log is
sealed by the thread that filled it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.block.page_cache import PageCache
from tsdb.head.admission import tell_rejected
from tsdb.head.exemplars import CAPACITY as EXEMPLAR_CAPACITY
from tsdb.head.exemplars import Exemplars, ExemplarSeries
from tsdb.head.memory import Appended, HeadMemory, Samples, fingerprints
from tsdb.head.metadata import CAPACITY as METADATA_CAPACITY
from tsdb.head.metadata import MetadataTable
from tsdb.head.read import View, bounds_of, labels_of, marked, read, readings
from tsdb.head.replay import Replay
from tsdb.head.slab import Slab
from tsdb.model.errors import BadData, Unavailable
from tsdb.model.matcher import Matcher
from tsdb.model.series import I32, I64, SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.write import NO_SERIES, Exemplar, Metadata, PushResult, WriteBatch
from tsdb.wal.log import COMMIT, OS, SEGMENT_BYTES, Position, Wal, sync_directory
from tsdb.wal.record import (
    ExemplarsRecord,
    HistogramsRecord,
    MetadataRecord,
    Record,
    SamplesRecord,
    SeriesRecord,
    split_histograms,
    split_samples,
    split_series,
)
from tsdb.wal.replay import Mark, ReplayReport, needless, read_marks, write_marks

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """Limits and promises of one head.

    wal_sync "commit": a write is answered once it is synced; "os": once the operating system has it. A sample that is not
    newer than its series' newest may be out_of_order_window_ms older than the newest of the head (None: of any age, 0:
    none). Samples later than now + future_limit_ms are refused. A limit of 0 series is none.
    """

    wal_sync: str = COMMIT
    segment_size_bytes: int = SEGMENT_BYTES
    out_of_order_window_ms: int | None = None
    future_limit_ms: int = 600_000
    max_series: int = 0
    max_series_per_metric: int = 0
    max_exemplars: int = EXEMPLAR_CAPACITY
    max_metadata: int = METADATA_CAPACITY

    def __post_init__(self) -> None:
        if self.wal_sync not in (COMMIT, OS):
            raise BadData(f"wal_sync is {self.wal_sync!r}, want {COMMIT!r} or {OS!r}")


@dataclass(frozen=True, slots=True)
class HeadStats:
    """Figures for metrics and status pages."""

    opened_ms: int
    series: int
    samples: int
    sealed_samples: int
    sealed_bytes: int
    label_bytes: int
    exemplars: int
    metadata: int
    pending_cuts: int
    wal_segments: int
    wal_bytes: int
    wal_syncs: int
    wal_failures: int
    min_ms: int | None
    max_ms: int | None


@dataclass(slots=True, eq=False)
class Cut:
    """All samples of a head before before_ms, as they were when it was cut: a `Source`, until it is dropped."""

    head: "Head"
    before_ms: int
    below_segment: int
    views: tuple[View, ...]
    dropped: bool = False

    def bounds(self) -> tuple[int, int] | None:
        """(min, max) between which all its sample times lie."""
        return bounds_of(self.views)

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self.head.select_from(self.views, selection)

    def series(self, selection: Selection) -> SeriesTable:
        return self.head.series_from(self.views, selection)


class Head:
    """See the top of this file. All methods may be called from any thread."""

    def __init__(self, directory: Path, options: HeadOptions, *, opened_ms: int, page_cache: PageCache | None = None) -> None:
        self.directory, self.options, self._page_cache = directory, options, page_cache
        self._lock = Lock()
        self._dropping = Lock()
        self._memory = HeadMemory(directory)
        self._exemplars = Exemplars(options.max_exemplars)
        self._metadata = MetadataTable(options.max_metadata)
        self._wal = Wal(directory, options.wal_sync, options.segment_size_bytes)
        self._cuts: list[Cut] = []
        self._marks: list[Mark] = []
        self._closed, self._opened_ms = False, opened_ms
        self._unshown = 0
        self.known_series = NO_SERIES
        """Most of the series that were written since the head was opened: they need not be checked again."""
        self.replayed = ReplayReport()

    @classmethod
    def open(cls, directory: Path, *, options: HeadOptions, now_ms: int, page_cache: PageCache | None = None) -> "Head":
        """The head whose log is in a directory (made if missing), replayed; `replayed` tells what was found.

        Sealed pages that queries read are kept in the cache, which others may share.
        """
        if not directory.exists():
            directory.mkdir(parents=True)
            for parent in list(directory.parents)[:2]:  # else a power cut may take the folder, and all that is in it
                sync_directory(parent)
        head = cls(directory, options, opened_ms=now_ms, page_cache=page_cache)
        head._marks = read_marks(directory)
        replay = Replay(head._memory, head._exemplars, head._metadata)
        replay.run(head._wal, head._marks)
        head.replayed = replay.report
        head._wal.delete(needless(head._marks, head._wal.newest_ms))
        return head

    def append(self, batch: WriteBatch, *, now_ms: int) -> PushResult:
        """Stores a write and returns what became of it, once it is as safe as `wal_sync` promises.

        Good samples are kept beside bad ones. BadData where label bytes are not canonical, Unavailable where the log cannot be
        written: then nothing was promised, and the same write may be sent again.
        """
        if self._memory.full_logs > 1:
            self._memory.seal_full()
        result = PushResult()
        with self._lock:
            if self._closed:
                raise Unavailable(f"head {self.directory} is closed")
            position = self._append(batch, result, now_ms)
        if position is not None:
            self._wal.commit(position)
        self._memory.seal_full()
        return result

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """As `Source` says; the samples are those that were there when the first batch was asked for."""
        return self.select_from(None, selection)

    def series(self, selection: Selection) -> SeriesTable:
        """As `Source` says."""
        return self.series_from(None, selection)

    def exemplars(self, selectors: Sequence[Sequence[Matcher]], *, start_ms: int, end_ms: int) -> list[ExemplarSeries]:
        """Exemplars in [start_ms, end_ms] of series that match any of the selectors."""
        with self._lock:
            return self._exemplars.query(selectors, start_ms=start_ms, end_ms=end_ms)

    def metadata(self) -> list[Metadata]:
        """What is known of metric families, by metric."""
        with self._lock:
            return self._metadata.all()

    def bounds(self) -> tuple[int, int] | None:
        """(min, max) between which all sample times lie, those of pending cuts apart; None where there is no sample."""
        with self._lock:
            return bounds_of(self._memory.views)

    @property
    def active_series(self) -> int:
        return len(self._memory.index)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Cuts that are not dropped yet, oldest first."""
        with self._lock:
            return tuple(cut for cut in self._cuts if not cut.dropped)

    def cut(self, before_ms: int) -> Cut | None:
        """All samples before a time, set apart, or None where there is none. They stay readable here until `drop`."""
        with self._lock:
            memory = self._memory
            if all(view.min_ms >= before_ms or view.min_ms > view.max_ms for view in memory.views):
                return None
            if memory.open.min_ms < before_ms:
                memory.freeze()
            views, rest = [], []
            for view in memory.views:
                if view.min_ms < before_ms:
                    views.append(View(view.part, view.start_ms, min(view.end_ms, before_ms)))
                if view.max_ms >= before_ms or view is memory.views[-1]:
                    rest.append(View(view.part, max(view.start_ms, before_ms), view.end_ms) if view.min_ms < before_ms else view)
            memory.views = tuple(rest)
            cut = Cut(self, before_ms, self._wal.rotate(), tuple(views))
            self._cuts.append(cut)
        memory.seal_full()
        return cut

    def drop(self, cut: Cut) -> None:
        """Forgets a cut whose samples are safe elsewhere, series that are left without a sample, and what the log needs no more."""
        with self._dropping:
            if cut.dropped:
                return
            self._memory.seal_full()
            trimmed = self._memory.trimmed()
            with self._lock:
                cut.dropped = True
                self._memory.replace_views(trimmed)
                self._memory.forget_series([view for other in self._cuts if not other.dropped for view in other.views])
                self._show_series()
            self._truncate()

    def stats(self) -> HeadStats:
        with self._lock:
            views = self._all_views()
            slabs = [view.part.content for view in views if isinstance(view.part.content, Slab)]
            bounds = bounds_of(views)
            sealed = sum(slab.samples for slab in slabs)
            logs = sum(view.part.content.count for view in views if not isinstance(view.part.content, Slab))
            return HeadStats(
                self._opened_ms, len(self._memory.index), sealed + logs, sealed, sum(slab.size_bytes for slab in slabs),
                self._memory.index.label_bytes, len(self._exemplars), len(self._metadata), len(self._cuts),
                len(self._wal.newest_ms), self._wal.size_bytes(), self._wal.syncs, self._wal.failures,
                bounds[0] if bounds else None, bounds[1] if bounds else None,
            )  # fmt: skip

    def metric_sizes(self) -> dict[str, int]:
        """Series by metric name."""
        with self._lock:
            return self._memory.index.metric_sizes()

    def close(self) -> None:
        """Syncs and closes the log; further appends are Unavailable."""
        with self._lock:
            self._closed = True
            self._wal.close()

    def select_from(self, views: Sequence[View] | None, selection: Selection) -> Iterator[SeriesBatch]:
        """`select` of these views, of all if None."""
        with self._lock:
            parts = readings(self._all_views() if views is None else views, selection.start_ms, selection.end_ms)
            rows = self._memory.index.select(selection.matchers) if parts else []
        yield from read(rows, parts, self._page_cache if views is None else None)  # a cut is read once

    def series_from(self, views: Sequence[View] | None, selection: Selection) -> SeriesTable:
        """`series` of these views, of all if None."""
        with self._lock:
            every = self._all_views() if views is None else views
            inside = [view for view in every if view.min_ms < selection.end_ms and view.max_ms >= selection.start_ms]
            return labels_of(self._memory.index.select(selection.matchers), marked(inside, self._memory.index.room))

    def _all_views(self) -> list[View]:
        return [*(view for cut in self._cuts if not cut.dropped for view in cut.views), *self._memory.views]

    def _append(self, batch: WriteBatch, result: PushResult, now_ms: int) -> Position | None:
        """Stores a batch under the lock; returns what is to be synced."""
        number = self._wal.prepare()
        window_ms, memory = self.options.out_of_order_window_ms, self._memory
        ceiling_ms = min(now_ms + self.options.future_limit_ms, MAX_MS - 1)
        # What was stored while the clock ran ahead must not close the window for all.
        floor_ms = MIN_MS if window_ms is None else min(memory.max_ms, ceiling_ms) - window_ms
        refs = self._refs(batch, result, ceiling_ms)
        groups = _groups(batch, refs)
        first = memory.make_room(sum(len(group.row) for group in groups)).count
        done: list[Appended] = []
        for group in groups:
            done.append(memory.append(group, first=done[-1].end if done else first, floor_ms=floor_ms, ceiling_ms=ceiling_ms))
        records, newest_ms = self._sample_records(done, refs, number)
        side = self._side_records(batch, result, ceiling_ms) if batch.exemplars or batch.metadata else []
        position = None
        if records or side:
            try:
                position = self._wal.write([*records, *side], newest_ms=newest_ms)
            except Unavailable:
                memory.undo(done)
                raise
        if records:
            self._note_logged(refs[refs >= 0], number)
        if side:
            self._keep_side(side)
        for part in done:
            accepted = len(part.code) if part.all_stored else len(part.accepted)
            if accepted < len(part.code):
                tell_rejected(memory, part, result, floor_ms=floor_ms, ceiling_ms=ceiling_ms)
            if part.samples.histograms is None:
                result.samples += accepted
            else:
                result.histograms += accepted
        if done:
            memory.publish(done)
        return position

    def _note_logged(self, refs: I32, number: int) -> None:
        logged = self._memory.logged
        self._unshown += int(np.count_nonzero(logged[refs] < 0))
        logged[refs] = number
        if self._unshown > len(self._memory.index) >> 4:
            self._show_series()

    def _show_series(self) -> None:
        self.known_series, self._unshown = self._memory.index.shown(self._memory.logged >= 0), 0

    def _refs(self, batch: WriteBatch, result: PushResult, ceiling_ms: int) -> I32:
        """i32[n] refs of the batch's series; those new are added, as far as limits allow and a sample of theirs will be stored."""
        data, start, end = _plain(batch.label_bytes, np.uint8), _plain(batch.start, np.int64), _plain(batch.end, np.int64)
        hashes = _plain(batch.hash, np.uint64)
        index = self._memory.index
        refs, unknown = index.find(data, start, end, hashes, batch.known)
        if not unknown:
            return refs
        used = np.zeros(len(refs), bool)
        used[batch.row[batch.t_ms <= ceiling_ms]] = True
        if batch.histograms is not None:
            used[batch.histograms.row[batch.histograms.t_ms <= ceiling_ms]] = True
        which = np.flatnonzero(used & (refs < 0))
        metrics = index.metrics_of(data, start, end, which)
        if self.options.max_series or self.options.max_series_per_metric:
            which, metrics = self._within_limits(which, metrics, result)
        if len(which):
            fresh = index.add(data, start, end, hashes, which=which, metrics=metrics, refs=refs)
            self._memory.number_series(fresh)
        return refs

    def _within_limits(self, which: I64, metrics: list[str], result: PushResult) -> tuple[I64, list[str]]:
        """Those of the new series that may be added."""
        limit, metric_limit = self.options.max_series, self.options.max_series_per_metric
        free = limit - len(self._memory.index) if limit else len(which)
        more: Counter[str] = Counter()
        keep: list[int] = []
        for i, metric in enumerate(metrics):
            if len(keep) >= free:
                result.message = result.message or f"series limit of {limit} series reached, series of {metric!r} refused"
            elif metric_limit and self._memory.index.metric_size(metric) + more[metric] >= metric_limit:
                result.message = result.message or f"metric {metric!r}: limit of {metric_limit} series a metric reached"
            else:
                more[metric] += 1
                keep.append(i)
        return which[keep], [metrics[i] for i in keep]

    def _sample_records(self, done: Sequence[Appended], refs: I32, number: int) -> tuple[list[Record], int]:
        """(what the log must hold of appended samples, their newest time), series that segment `number` does not know first.

        Equal duplicates are logged again: the first time may have been lost with a failed sync.
        """
        records: list[Record] = []
        newest_ms = MIN_MS
        for part in done:
            samples = part.samples
            at: I64 | slice = slice(None) if part.all_stored else part.accepted
            ids, t_ms = self._memory.id[part.ref[at]], samples.t_ms[at]
            if len(ids) == 0:
                continue
            newest_ms = max(newest_ms, int(t_ms.max()))
            start_ms = None if samples.start_ms is None else samples.start_ms[at]
            if samples.histograms is None:
                records += split_samples(SamplesRecord(ids, t_ms, samples.bits[at], start_ms))
            else:
                histograms = samples.histograms if part.all_stored else samples.histograms.take(part.accepted)
                starts = np.zeros(len(ids), np.int64) if start_ms is None else start_ms
                records += split_histograms(HistogramsRecord(ids, t_ms, starts, histograms))
        return ([*self._series_records(refs, number), *records] if records else []), newest_ms

    def _series_records(self, refs: I32, number: int) -> list[SeriesRecord]:
        known = refs[refs >= 0]
        news = known[self._memory.logged[known] != number]
        if len(news) == 0:
            return []
        news = np.unique(news)
        data, sizes = self._memory.index.texts(news)
        return list(split_series(self._memory.id[news], sizes, data))

    def _side_records(self, batch: WriteBatch, result: PushResult, ceiling_ms: int) -> list[Record]:
        """What the log must hold of the batch's exemplars and metadata; equal exemplars again, for the reason above."""
        records: list[Record] = []
        timely = [e for e in batch.exemplars if e.t_ms <= ceiling_ms]
        if len(timely) < len(batch.exemplars):
            late = next(e for e in batch.exemplars if e.t_ms > ceiling_ms)
            message = f"exemplar at {late.t_ms} is later than {ceiling_ms}, the latest time accepted now"
            result.reject("too-far-in-future", len(batch.exemplars) - len(timely), message)
        if timely:
            result.exemplars += len(timely)
            series = tuple(batch.label_bytes[batch.start[e.row] : batch.end[e.row]].tobytes() for e in timely)
            records.append(ExemplarsRecord(series, _renumbered(timely)))
        if batch.metadata:
            news = tuple(m for m in batch.metadata if self._metadata.get(m.metric) != m)
            records += [MetadataRecord(news)] if news else []
        return records

    def _keep_side(self, records: Sequence[Record]) -> None:
        """Keeps exemplars and metadata that are in the log."""
        for record in records:
            if isinstance(record, ExemplarsRecord):
                for exemplar in record.exemplars:
                    self._exemplars.add(record.series[exemplar.row], exemplar)
            elif isinstance(record, MetadataRecord):
                self._metadata.put_all(record.metadata)

    def _truncate(self) -> None:
        """Marks what dropped cuts hold and deletes segments of which nothing is left."""
        with self._lock:
            while self._cuts and self._cuts[0].dropped:  # a mark covers all that is older, so cuts are marked in their order
                cut = self._cuts.pop(0)
                self._marks.append(Mark(cut.below_segment, cut.before_ms))
            oldest = min(self._wal.newest_ms, default=0)
            self._marks = [mark for mark in self._marks if mark.below > oldest]
            marks = list(self._marks)
            gone = needless(marks, self._wal.newest_ms)
        if gone:
            self._log_rest()
            self._wal.delete(gone)  # needs no mark, so it goes first: on a full disk it makes the room for that
        write_marks(self.directory, marks)

    def _log_rest(self) -> None:
        """Logs again what deleted segments alone may hold: exemplars and metadata; on a full disk not, for deleting makes room."""
        with self._lock:
            rows, metadata = self._exemplars.rows(), tuple(self._metadata.all())
            exemplars = _renumbered([exemplar for _, exemplar in rows])
            records: list[Record] = [MetadataRecord(metadata)] if metadata else []
            if rows:
                records.append(ExemplarsRecord(tuple(series for series, _ in rows), exemplars))
            if not records:
                return
            try:
                self._wal.prepare()
                position = self._wal.write(records)
            except Unavailable:
                return
        self._wal.commit(position)


def _renumbered(exemplars: Sequence[Exemplar]) -> tuple[Exemplar, ...]:
    """The same, each of a row of its own."""
    return tuple(Exemplar(i, e.labels, e.value, e.t_ms) for i, e in enumerate(exemplars))


def _groups(batch: WriteBatch, refs: I32) -> list[Samples]:
    """The float samples and the histograms of a batch, those there are."""
    groups = []
    if len(batch.row):
        bits = _plain(batch.values, np.float64).view(np.int64)
        start_ms = None if batch.start_ms is None else _plain(batch.start_ms, np.int64)
        groups.append(Samples(refs, _plain(batch.row, np.int32), _plain(batch.t_ms, np.int64), bits, start_ms))
    h = batch.histograms
    if h is not None and len(h.row):
        start_ms = _plain(h.start_ms, np.int64) if h.start_ms.any() else None
        bits = fingerprints(h.histograms)
        groups.append(Samples(refs, _plain(h.row, np.int32), _plain(h.t_ms, np.int64), bits, start_ms, h.histograms))
    return groups


def _plain(array: npt.NDArray[Scalar], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array as kernels take it: contiguous, of that type, and writable (a read-only one would compile them anew)."""
    out = np.ascontiguousarray(array, dtype)
    return out if out.flags.writeable else out.copy()

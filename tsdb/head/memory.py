"""What a head keeps in memory: the index of series, their newest samples, the open log, and the sealed parts.

Not thread-safe, but for `seal_full`: the head's lock guards it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from tsdb.head.open_samples import OpenSamples
from tsdb.head.read import Part, View, marked
from tsdb.head.series_index import SeriesIndex
from tsdb.head.slab import Slab, seal, trim
from tsdb.head.spill import spill
from tsdb.kernel.append import DUPLICATE, NEVER_MS, STORED, append_samples
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.series import I32, I64
from tsdb.model.source import MIN_MS

MIN_LOG, MAX_LOG = 1 << 14, 1 << 22
"""Samples in a log. The upper bound is 100 MB, and a quarter of a second to seal."""
SAMPLES_PER_SERIES, FEWEST_PER_SERIES = 64, 12
"""A log is full once it holds so many of each series: long runs pack and decode well. Past SPARE_LOG samples in all, fewer do."""
SPARE_LOG = 1 << 20
MAX_LOG_HISTOGRAM_BYTES = 64 << 20

FINGERPRINT = 0x7FF9
"""The upper 16 bits of a histogram's fingerprint: a NaN with a payload, so that no number equals one."""

U8Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Samples:
    """m samples to append: row i32[m] of refs i32[n], t_ms i64[m], bits i64[m] of the values, start_ms i64[m] or None.

    Where `histograms` are given, these m are the values, and bits are their fingerprints.
    """

    refs: I32
    row: I32
    t_ms: I64
    bits: I64
    start_ms: I64 | None = None
    histograms: Histograms | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of samples: code u8[m] and ref i32[m] of each; those stored are rows first:end of the open log.

    saved i64[end - first, 2] is what was newest before. Rows from the log's `count` on are not visible until published.
    """

    samples: Samples
    code: U8Codes
    ref: I32
    first: int
    end: int
    saved: I64

    @property
    def all_stored(self) -> bool:
        return self.end - self.first == len(self.code)

    @property
    def accepted(self) -> I64:
        """Which samples are stored, or were already."""
        return np.flatnonzero(self.code <= DUPLICATE)


class HeadMemory:
    """See the top of this file. `views` are its parts, the open log's last."""

    def __init__(self, directory: Path) -> None:
        """Sealed samples are spilled into unnamed files of `directory`."""
        self._directory = directory
        self.index = SeriesIndex()
        self.newest: I64 = np.empty((0, 2), np.int64)
        self.id: I64 = np.empty(0, np.int64)
        self.logged: I64 = np.empty(0, np.int64)
        self.next_id = 0
        self.max_ms = MIN_MS
        self._fit()
        self.open = OpenSamples.of(MIN_LOG, self.index.room)
        self.views: tuple[View, ...] = (View(Part(self.open)),)
        self._full: deque[Part] = deque()
        self._sealing = Lock()
        self._last_slab: Slab | None = None

    def number_series(self, fresh: I32) -> None:
        """Sets up new refs: nothing appended, not in the log, an id that was never used."""
        self._fit()
        self.newest[fresh] = NEVER_MS, 0
        self.logged[fresh] = -1
        self.id[fresh] = np.arange(self.next_id, self.next_id + len(fresh))
        self.next_id += len(fresh)

    def make_room(self, count: int) -> OpenSamples:
        """The open log, with room for `count` more samples."""
        log = self.open
        if log.count + count > log.capacity or log.histogram_bytes > MAX_LOG_HISTOGRAM_BYTES:
            wanted = _log_size(len(self.index))
            if log.count * 8 >= wanted * 7 or (log.count and log.histogram_bytes > MAX_LOG_HISTOGRAM_BYTES):
                log = self.freeze()
            if log.count + count > log.capacity:
                log.grow(max(log.count + count, min(wanted, 2 * log.capacity)))
        return log

    def append(self, samples: Samples, *, first: int, floor_ms: int, ceiling_ms: int) -> Appended:
        """Appends to the open log from row `first` on, for which there is room; nothing of it is visible yet."""
        log, count = self.open, len(samples.row)
        code, ref, saved = np.empty(count, np.uint8), np.empty(count, np.int32), np.empty((count, 2), np.int64)
        end = append_samples(
            log.columns, first, log.last, self.newest, samples.refs, samples.row, samples.t_ms, samples.bits,
            floor_ms, ceiling_ms, code, ref, saved,
        )  # fmt: skip
        done = Appended(samples, code, ref, first, end, saved[: end - first])
        stored = slice(None) if done.all_stored else np.flatnonzero(code == STORED)
        if samples.start_ms is not None:
            log.note_starts(first, samples.start_ms[stored])
        if samples.histograms is not None and end > first:
            log.note_histograms(first, samples.histograms if done.all_stored else samples.histograms.take(np.asarray(stored)))
        return done

    def publish(self, done: Sequence[Appended]) -> None:
        """Makes what was appended visible."""
        self.open.publish(done[-1].end)
        self.max_ms = max(self.max_ms, self.open.max_ms)

    def undo(self, done: Sequence[Appended]) -> None:
        """Takes back what was appended and not published."""
        for part in reversed(done):
            self.open.undo(part.first, part.end, self.newest, part.saved)
            if part.samples.histograms is not None:
                self.open.forget_histograms(part.first, part.end - part.first)

    def freeze(self) -> OpenSamples:
        """Ends the open log, which is to be sealed, and returns the next one."""
        self._full.append(self.views[-1].part)
        self.open = OpenSamples.of(min(MAX_LOG, max(MIN_LOG, self.open.capacity)), self.index.room)
        self.views = (*self.views, View(Part(self.open)))
        return self.open

    @property
    def full_logs(self) -> int:
        """Logs that wait to be sealed."""
        return len(self._full)

    def seal_full(self) -> None:
        """Turns full logs into slabs; to be called without the head's lock, which others need meanwhile."""
        while self._full:
            with self._sealing:
                if self._full:
                    part = self._full[0]
                    assert isinstance(part.content, OpenSamples)
                    slab = seal(part.content.snapshot(), self.index.metric, self._last_slab)
                    slab = replace(slab, data=spill(bytes(slab.data), self._directory))
                    part.content = self._last_slab = slab
                    self._full.popleft()

    def trimmed(self) -> list[tuple[View, View]]:
        """(view, the same over a part of its own without the samples before it) of sealed views that begin inside their part."""
        found = []
        for view in self.views:
            content = view.part.content
            if isinstance(content, Slab) and content.min_ms < view.start_ms:
                found.append((view, View(Part(trim(content, view.start_ms)), MIN_MS, view.end_ms)))
        return found

    def replace_views(self, pairs: Sequence[tuple[View, View]]) -> None:
        """Puts views in the place of others; those that have changed since are left alone."""
        for old, new in pairs:
            self.views = tuple(new if view is old else view for view in self.views)

    def forget_series(self, others: Sequence[View]) -> int:
        """Forgets series without a sample here or in other views; returns how many went."""
        live = marked([*self.views, *others], self.index.room)
        return self.index.keep(live)

    def _fit(self) -> None:
        """Gives the columns beside the index its room."""
        room, had = self.index.room, len(self.id)
        if room == had:
            return
        newest, ids, logged = np.empty((room, 2), np.int64), np.full(room, -1, np.int64), np.full(room, -1, np.int64)
        newest[had:] = NEVER_MS, 0
        newest[:had], ids[:had], logged[:had] = self.newest, self.id, self.logged
        self.newest, self.id, self.logged = newest, ids, logged
        if had:
            self.open.grow_refs(room)


def _log_size(series: int) -> int:
    """How many samples a log should take before it is sealed."""
    return min(MAX_LOG, max(MIN_LOG, FEWEST_PER_SERIES * series, min(SAMPLES_PER_SERIES * series, SPARE_LOG)))


def fingerprints(h: Histograms) -> I64:
    """i64[n] by which equal histograms are known: 48 bits of hash over every column, under a prefix that no usual float has."""
    out = np.zeros(len(h), np.uint64)
    scalars = [h.count, h.sum, h.zero_threshold, h.zero_count]
    columns = [column.view(np.uint64) for column in map(np.ascontiguousarray, scalars)]
    for column in (*columns, h.schema.astype(np.uint64), h.hint.astype(np.uint64), h.integer.astype(np.uint64)):
        out = _mix(out ^ column)
    for side in (h.positive, h.negative):
        out = _mix(out ^ _ragged_hash(side))
    sizes = np.diff(h.bounds_offsets)
    places = (np.arange(len(h.bounds)) - np.repeat(h.bounds_offsets[:-1], sizes)).astype(np.int32)
    out = _mix(out ^ _ragged_hash(Buckets(h.bounds_offsets, places, h.bounds)))
    return np.asarray(((out >> np.uint64(16)) | np.uint64(FINGERPRINT << 48)).view(np.int64))


def _ragged_hash(buckets: Buckets) -> npt.NDArray[np.uint64]:
    """u64[n]: the sum of the hashes of (index, count) of each histogram."""
    counts = np.ascontiguousarray(buckets.counts).view(np.uint64)
    each = _mix(counts ^ _mix(buckets.index.astype(np.uint64) + np.uint64(1)))
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each)])
    return np.asarray(np.diff(before[buckets.offsets]))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""From the write-ahead log back into memory, a bounded number of samples at a time."""

import numpy as np

from tsdb.head.exemplars import Exemplars
from tsdb.head.memory import HeadMemory, Samples, fingerprints
from tsdb.head.metadata import MetadataTable
from tsdb.kernel.append import hash_ranges
from tsdb.model.series import I32, I64
from tsdb.model.source import MAX_MS, MIN_MS
from tsdb.wal.log import Wal
from tsdb.wal.record import ExemplarsRecord, HistogramsRecord, MetadataRecord, Record, SamplesRecord, SeriesRecord
from tsdb.wal.replay import Mark, ReplayReport, dropped_before_ms, numbers_and_paths, read_segment

PENDING_SAMPLES = 1 << 16
"""Small records are appended together: a call costs as much as some thousand samples."""
MAX_ID_GAP = 1 << 28
"""No log names ids further apart; what claims so is damage that passed a checksum."""


class Replay:
    """One replay: what each id of the log is in memory, and samples that wait to be appended."""

    def __init__(self, memory: HeadMemory, exemplars: Exemplars, metadata: MetadataTable) -> None:
        self._memory, self._exemplars, self._metadata = memory, exemplars, metadata
        self.report = ReplayReport()
        self._ref_of: I32 = np.empty(0, np.int32)
        self._first_id = 0
        self._pending: list[tuple[I32, SamplesRecord]] = []
        self._pending_count = 0

    def run(self, wal: Wal, marks: list[Mark]) -> None:
        """Reads all segments, oldest first, and leaves the log ready for a new one, of a number that no mark speaks of."""
        wal.next_number = max((mark.below for mark in marks), default=0)
        for number, path in numbers_and_paths(wal.directory):
            newest_ms, before_ms = MIN_MS, dropped_before_ms(marks, number)
            for record in read_segment(path, self.report):
                newest_ms = max(newest_ms, self._apply(record, before_ms))
            self._flush()
            wal.newest_ms[number] = newest_ms
            wal.next_number = max(wal.next_number, number + 1)
        self._memory.forget_series(())

    def _apply(self, record: Record, before_ms: int) -> int:
        """Takes one record in; returns its newest sample time."""
        match record:
            case SamplesRecord():
                return self._samples(record, before_ms)
            case SeriesRecord():
                self._series(record)
            case HistogramsRecord():
                return self._histograms(record, before_ms)
            case MetadataRecord():
                self._metadata.put_all(record.metadata)
            case ExemplarsRecord():
                for exemplar in record.exemplars:
                    self._exemplars.add(record.series[exemplar.row], exemplar)
        return MIN_MS

    def _series(self, record: SeriesRecord) -> None:
        self._flush()
        index = self._memory.index
        data = record.data.copy()
        end = np.cumsum(record.sizes)
        start = end - record.sizes
        hashes = hash_ranges(data, start, end)
        refs, unknown = index.find(data, start, end, hashes)
        if unknown:
            which = np.flatnonzero(refs < 0)
            metrics = index.metrics_of(data, start, end, which)
            fresh = index.add(data, start, end, hashes, which=which, metrics=metrics, refs=refs)
            self._memory.number_series(fresh)
            self.report.series += len(fresh)
        self._memory.id[refs] = record.ids
        self._note(record.ids, refs)

    def _note(self, ids: I64, refs: I32) -> None:
        low, high = int(ids.min()), int(ids.max())
        self._memory.next_id = max(self._memory.next_id, high + 1)
        if len(self._ref_of) == 0:
            self._first_id = low
        first = min(low, self._first_id)
        room = max(high + 1, self._first_id + len(self._ref_of)) - first
        if first < self._first_id or room > len(self._ref_of):
            grown = np.full(room + (room >> 1), -1, np.int32)
            at = self._first_id - first
            grown[at : at + len(self._ref_of)] = self._ref_of
            self._ref_of, self._first_id = grown, first
        self._ref_of[ids - self._first_id] = refs

    def _refs(self, ids: I64) -> I32:
        """i32[n] refs of ids, -1 where no series record told of one."""
        at = ids - self._first_id
        known = (at >= 0) & (at < len(self._ref_of))
        refs = np.full(len(ids), -1, np.int32)
        refs[known] = self._ref_of[at[known]]
        if len(ids):
            self._memory.next_id = max(self._memory.next_id, int(ids.max()) + 1)
        return refs

    def _samples(self, record: SamplesRecord, before_ms: int) -> int:
        refs = self._refs(record.ids)
        keep = self._wanted(refs, record.t_ms, before_ms)
        newest_ms = int(record.t_ms.max(initial=MIN_MS))
        if not keep.all():
            start_ms = None if record.start_ms is None else record.start_ms[keep]
            refs, record = refs[keep], SamplesRecord(record.ids[keep], record.t_ms[keep], record.bits[keep], start_ms)
        self.report.samples += len(refs)
        self._pending.append((refs, record))
        self._pending_count += len(refs)
        if self._pending_count >= PENDING_SAMPLES:
            self._flush()
        return newest_ms

    def _histograms(self, record: HistogramsRecord, before_ms: int) -> int:
        self._flush()
        refs = self._refs(record.ids)
        keep = np.flatnonzero(self._wanted(refs, record.t_ms, before_ms))
        self.report.histograms += len(keep)
        if len(keep):
            chosen = record.histograms.take(keep)
            start_ms = record.start_ms[keep]
            samples = (refs[keep], record.t_ms[keep], fingerprints(chosen), start_ms if start_ms.any() else None)
            self._append(Samples(samples[0], _rows(len(keep)), *samples[1:], chosen))
        return int(record.t_ms.max(initial=MIN_MS))

    def _wanted(self, refs: I32, t_ms: I64, before_ms: int) -> "np.typing.NDArray[np.bool_]":
        known, later = refs >= 0, t_ms >= before_ms
        self.report.orphans += int(np.count_nonzero(~known))
        self.report.dropped += int(np.count_nonzero(known & ~later))
        return np.asarray(known & later)

    def _flush(self) -> None:
        if not self._pending_count:
            return
        records = [record for _, record in self._pending]
        refs = np.concatenate([refs for refs, _ in self._pending])
        start_ms = None
        if any(record.start_ms is not None for record in records):
            none = [np.zeros(len(r.ids), np.int64) if r.start_ms is None else r.start_ms for r in records]
            start_ms = np.concatenate(none)
        t_ms, bits = np.concatenate([r.t_ms for r in records]), np.concatenate([r.bits for r in records])
        self._pending, self._pending_count = [], 0
        self._append(Samples(refs, _rows(len(refs)), t_ms, bits, start_ms))

    def _append(self, samples: Samples) -> None:
        log = self._memory.make_room(len(samples.row))
        done = self._memory.append(samples, first=log.count, floor_ms=MIN_MS, ceiling_ms=MAX_MS)
        self._memory.publish([done])
        self._memory.seal_full()


def _rows(count: int) -> I32:
    return np.arange(count, dtype=np.int32)

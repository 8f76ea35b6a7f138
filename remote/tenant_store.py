"""One tenant's data in one ingester: the head, what is on its way from it into blocks, and the blocks just written.

The way of a sample: WAL and head; frozen in a cut; in a block whose meta.json is in the bucket; dropped from head and WAL.
After a crash between the last two it is in both, which merging does not notice.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from remote.blocks import GuardedBlock, choose_blocks
from remote.flush import BLOCK_RANGE_MS, HeadClock, block_windows, cut_before
from remote.replicas import started
from tsdb.block.block import Block
from tsdb.block.meta import BlockMeta, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.tombstones import BuriedSource, Tombstone, touching
from tsdb.head.head import Cut, Head
from tsdb.merge import merge_streams, merge_tables
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source
from tsdb.model.write import PushResult, WriteBatch

KEEP_FLUSHED_MS = 15 * 60_000
"""How long a flushed block is still answered from here: three refreshes of a store gateway that looks every 5 minutes. 0 where
every reader is told of new blocks at once (`announce`): they would only be read twice."""
IDLE_MS = 3_600_000
"""How long a tenant without a sample stays open: its head costs about 100 KB."""

Announce = Callable[[BlockMeta], None]


@dataclass(frozen=True, slots=True)
class _Window:
    """A block still to be written. It keeps its ULID when it must be tried again, so that a try of which only the answer was
    lost leaves no second block."""

    start_ms: int
    end_ms: int
    ulid: str


@dataclass(slots=True)
class _Flush:
    """A cut on its way into blocks: the windows that are not written yet."""

    cut: Cut
    windows: list[_Window]


@dataclass(frozen=True, slots=True)
class _Recent:
    block: Block
    meta: BlockMeta
    written_ms: int


class TenantStore:
    """A head with its way out. Thread-safe; `tick` and `flush` exclude one another, pushes and reads go on meanwhile."""

    def __init__(
        self,
        head: Head,
        bucket: Bucket,
        *,
        now_ms: int,
        entropy: Callable[[int], bytes],
        announce: Announce | None = None,
        block_range_ms: int = BLOCK_RANGE_MS,
        keep_flushed_ms: int = KEEP_FLUSHED_MS,
    ) -> None:
        self.head = head
        self._bucket, self._entropy, self._announce = bucket, entropy, announce
        self._range_ms, self._keep_ms = block_range_ms, keep_flushed_ms
        self._flushing = threading.Lock()
        self._flush: _Flush | None = None
        self._recent: tuple[_Recent, ...] = ()
        self._tombstones: tuple[Tombstone, ...] = ()
        self._boundary_ms: int | None = None
        self._cut_at_ms, self._samples_then = now_ms, 0
        self._pushed_ms = now_ms

    def push(self, batch: WriteBatch, *, now_ms: int) -> PushResult:
        self._pushed_ms = now_ms
        return self.head.append(batch, now_ms=now_ms)

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """Head first, then the blocks: what leaves the head in between is in a block that is known by then."""
        live = started(self.head.select(selection))
        streams = [*live, *(source.select(selection) for source in self._recent_sources(selection))]
        yield from streams[0] if len(streams) == 1 else merge_streams(streams, selection.columns)

    def series(self, selection: Selection) -> SeriesTable:
        live = self.head.series(selection)
        return merge_tables([live, *(source.series(selection) for source in self._recent_sources(selection))])

    def oldest_ms(self) -> int | None:
        """The time of the oldest sample in the head or in a block that is answered from here."""
        spans = [self.head.bounds(), *(cut.bounds() for cut in self.head.cuts)]  # in this order: a cut comes from the head
        return min([*(span[0] for span in spans if span), *(one.meta.min_ms for one in self._recent)], default=None)

    def tick(self, now_ms: int) -> list[BlockMeta]:
        """Cuts the head if it is time, and writes what is cut. What the bucket refuses stays and is tried at the next tick.

        Returns the blocks written; raises what the bucket raises.
        """
        with self._flushing:
            self._forget_recent(now_ms)
            written = self._resume(now_ms)
            before_ms = self._cut_before(now_ms)
            if before_ms is not None:
                self._boundary_ms = before_ms
                written += self._cut(before_ms, now_ms)
            return written

    def flush(self, now_ms: int) -> list[BlockMeta]:
        """Writes all that is in the head into blocks, and returns them; raises what the bucket raises."""
        with self._flushing:
            self._forget_recent(now_ms)
            return self._resume(now_ms) + self._cut(MAX_MS, now_ms)

    def is_idle(self, now_ms: int) -> bool:
        """Whether nothing is here and nothing has come for a while."""
        return now_ms - self._pushed_ms >= IDLE_MS and self.is_empty()

    def is_empty(self) -> bool:
        """Whether every sample is in blocks that others answer for."""
        return not self._recent and self.head.stats().samples == 0 and not self.head.cuts

    def bury(self, tombstone: Tombstone) -> None:
        """Hides what a tombstone deletes of the blocks that are answered from here."""
        with self._flushing:
            self._tombstones = (*self._tombstones, tombstone)

    def close(self) -> None:
        """Closes the head; what is in it is in its WAL."""
        self.head.close()

    def _cut_before(self, now_ms: int) -> int | None:
        bounds = self.head.bounds()
        if bounds is None:
            return None
        since = self.head.stats().samples - self._samples_then
        clock = HeadClock(bounds[0], bounds[1], self._boundary_ms, self._cut_at_ms, since)
        return cut_before(clock, now_ms=now_ms, block_range_ms=self._range_ms)

    def _cut(self, before_ms: int, now_ms: int) -> list[BlockMeta]:
        self._cut_at_ms = now_ms
        cut = self.head.cut(before_ms)
        if cut is None:
            return []
        windows = block_windows(_occupied(cut, self._range_ms), block_range_ms=self._range_ms)
        self._flush = _Flush(cut, [_Window(start, end, new_ulid(now_ms, self._entropy(10))) for start, end in windows])
        return self._resume(now_ms)

    def _resume(self, now_ms: int) -> list[BlockMeta]:
        """Writes the rest of the cut under way, if there is one; then the head may forget it."""
        flush, written = self._flush, []
        if flush is None:
            return []
        while flush.windows:
            meta = self._write(flush.cut, flush.windows[0])
            if meta is not None:
                written.append(meta)
                if self._keep_ms > 0:
                    self._recent = (*self._recent, _Recent(Block(self._bucket, meta), meta, now_ms))
                if self._announce is not None:
                    self._announce(meta)
            del flush.windows[0]
        self.head.drop(flush.cut)
        self._samples_then = self.head.stats().samples
        self._flush = None
        return written

    def _write(self, cut: Cut, window: _Window) -> BlockMeta | None:
        batches = cut.select(Selection((), window.start_ms, window.end_ms))
        return write_block(self._bucket, batches, ulid=window.ulid, min_ms=window.start_ms, max_ms=window.end_ms)

    def _forget_recent(self, now_ms: int) -> None:
        self._recent = tuple(one for one in self._recent if now_ms - one.written_ms < self._keep_ms)
        self._tombstones = tuple(one for one in self._tombstones if any(touching(recent.meta, [one]) for recent in self._recent))

    def _recent_sources(self, selection: Selection) -> list[Source]:
        recent = {one.meta.ulid: one for one in self._recent}
        chosen = choose_blocks([one.meta for one in recent.values()], selection)
        return [GuardedBlock(meta.ulid, _buried(recent[meta.ulid].block, self._tombstones)) for meta in chosen]


def _buried(block: Block, tombstones: Sequence[Tombstone]) -> Source:
    touched = touching(block.meta, tombstones)
    return BuriedSource(block, touched, block.meta) if touched else block


def _occupied(cut: Cut, range_ms: int) -> np.ndarray:
    """i64 numbers of the windows in which the cut may have samples; one that spans many is read for that, a batch at a time."""
    bounds = cut.bounds()
    if bounds is None:
        return np.empty(0, np.int64)
    first, last = bounds[0] // range_ms, bounds[1] // range_ms
    if last - first < 3:
        return np.arange(first, last + 1, dtype=np.int64)
    numbers: set[int] = set()
    for batch in cut.select(Selection((), MIN_MS, MAX_MS)):
        numbers.update(np.unique(batch.t_ms // range_ms).tolist())
    return np.array(sorted(numbers), np.int64)

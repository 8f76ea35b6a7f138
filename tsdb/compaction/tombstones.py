"""Tombstones: samples that were deleted, and are hidden from every reader until compaction has rewritten the blocks that hold them.

index/tombstone-<ulid>      one deletion; immutable, deleted when no block holds any of its samples

A tombstone covers the blocks that held matching samples when it was made, by the ulids of their level 1 sources: what is written
later into the same range is not deleted. (A block that was damaged then is covered by its own ulid.) A block that was made with the
tombstone applied names it in `BlockMeta.edits`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsdb.block.meta import BlockMeta
from tsdb.bucket.bucket import Bucket
from tsdb.bucket.sealed import seal, unseal
from tsdb.compaction.lineage import sources_of
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import Bool, SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source

PREFIX = "index/tombstone-"
MAX_TOMBSTONES = 1000
"""Deletions under way at once: every read tests each one that touches its blocks."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The samples in [start_ms, end_ms) of series that match all matchers of any of the sets, in blocks made from `blocks`."""

    ulid: str
    at_ms: int
    start_ms: int
    end_ms: int
    sets: tuple[tuple[Matcher, ...], ...]
    blocks: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its bucket key."""
        return PREFIX + self.ulid


def put_tombstone(bucket: Bucket, tombstone: Tombstone) -> None:
    bucket.put(tombstone.key, seal(tombstone))


def read_tombstone(bucket: Bucket, key: str) -> Tombstone:
    """NotFound; Corrupt."""
    return unseal(bucket.get(key), Tombstone, key=key)


def touching(meta: BlockMeta, tombstones: Iterable[Tombstone]) -> tuple[Tombstone, ...]:
    """The tombstones that hide samples of a block: in its range, covering one of its sources, not applied to it yet."""
    first_ms = meta.min_ms - meta.resolution_ms  # a window's time is its end
    found = [one for one in tombstones if one.start_ms < meta.max_ms and one.end_ms > first_ms]
    own = sources_of(meta) | {meta.ulid} if found else frozenset()
    return tuple(one for one in found if one.ulid not in meta.edits and not own.isdisjoint(one.blocks))


def matching_rows(series: SeriesTable, sets: Sequence[tuple[Matcher, ...]]) -> Bool:
    """bool[n] which series match all matchers of any set."""
    hit = np.zeros(len(series), bool)
    for matchers in sets:
        hit |= select_rows(series, matchers)
    return hit


def bury(batch: SeriesBatch, tombstones: Sequence[Tombstone], *, resolution_ms: int = 0) -> SeriesBatch:
    """The batch without what the tombstones delete; series left without a sample go.

    Of downsampled samples every window goes that overlaps a deleted range: no part of what was deleted is told.
    """
    if not tombstones:
        return batch
    keep = np.ones(batch.samples, bool)
    first_ms = batch.t_ms - (resolution_ms - 1 if resolution_ms else 0)
    for one in tombstones:
        hit = matching_rows(batch.series, one.sets)
        if hit.any():
            inside = (batch.t_ms >= one.start_ms) & (first_ms < one.end_ms)
            keep &= ~(inside & np.repeat(hit, np.diff(batch.offsets)))
    return batch if keep.all() else batch.where(keep)


@dataclass(frozen=True, slots=True)
class BuriedSource:
    """A block as a `Source` without what the tombstones delete."""

    source: Source
    tombstones: tuple[Tombstone, ...]
    meta: BlockMeta

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`."""
        for batch in self.source.select(selection):
            left = bury(batch, self.tombstones, resolution_ms=self.meta.resolution_ms)
            if len(left) or left.warnings:
                yield left

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`: without the series whose part in the range is deleted whole."""
        table = self.source.series(selection)
        start_ms, end_ms = max(selection.start_ms, self.meta.min_ms), min(selection.end_ms, self.meta.max_ms)
        gone = np.zeros(len(table), bool)
        for one in self.tombstones:
            if one.start_ms <= start_ms and one.end_ms >= end_ms:
                gone |= matching_rows(table, one.sets)
        return table.take(~gone) if gone.any() else table

    def estimate(self, selection: Selection) -> Estimate:
        """See `tsdb.model.estimate`: as if nothing were deleted."""
        return estimate(self.source, selection)

"""Deleting series online: what was there when it was asked for is hidden from every reader when the call returns."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from tsdb.block.block import Block
from tsdb.block.meta import is_ulid, new_ulid, read_meta
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.bucket_index import Inventory, LiveBlock, answering, scan_bucket
from tsdb.compaction.lineage import sources_of
from tsdb.compaction.tombstones import MAX_TOMBSTONES, BuriedSource, Tombstone, matching_rows, put_tombstone
from tsdb.model.errors import BadData, Corrupt, LimitExceeded, NotFound, Unavailable
from tsdb.model.matcher import Matcher
from tsdb.model.source import Selection, Source


@dataclass(frozen=True, slots=True)
class Deletion:
    """The samples in [start_ms, end_ms) of series that match all matchers of any set."""

    sets: tuple[tuple[Matcher, ...], ...]
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What a deletion would hide."""

    series: int
    samples: int


def count(source: Source, deletion: Deletion) -> Counted:
    """How many series and samples of a source a deletion hits. Reads them all, a batch at a time."""
    series = samples = 0
    for number, matchers in enumerate(deletion.sets):
        for batch in source.select(Selection(matchers, deletion.start_ms, deletion.end_ms)):
            fresh = ~matching_rows(batch.series, deletion.sets[:number])
            series += int(np.count_nonzero(fresh))
            samples += int(np.diff(batch.offsets)[fresh].sum())
    return Counted(series, samples)


def delete(
    bucket: Bucket, deletion: Deletion, *, now_ms: int, entropy: Callable[[int], bytes], executor: Executor | None = None
) -> Tombstone | None:
    """The tombstone that hides it in the blocks of a bucket; None where no block has any of it.

    What is in memory must have been put into blocks before. Costs the index of every block in the range. LimitExceeded where
    MAX_TOMBSTONES wait to be rewritten; Unavailable.
    """
    if not deletion.sets or deletion.start_ms >= deletion.end_ms:
        raise BadData(
            f"deletion of {len(deletion.sets)} selectors from {deletion.start_ms} to {deletion.end_ms} ms deletes nothing"
        )
    inventory = scan_bucket(bucket, Inventory(), executor).inventory
    if len(inventory.tombstones) >= MAX_TOMBSTONES:
        raise LimitExceeded(
            f"{len(inventory.tombstones)} deletions wait for compaction, the limit is {MAX_TOMBSTONES}", retry_after_s=600.0
        )
    covered = [block.meta for block in answering(inventory, now_ms=now_ms, ignore_after_ms=0) if _is_hit(bucket, block, deletion)]
    unreadable = [ulid for ulid in inventory.damaged if is_ulid(ulid) and not _is_readable(bucket, ulid)]
    if not covered and not unreadable:
        return None
    sources = sorted(frozenset(unreadable).union(*(sources_of(meta) for meta in covered)))
    ulid = new_ulid(now_ms, entropy(10))
    tombstone = Tombstone(ulid, now_ms, deletion.start_ms, deletion.end_ms, deletion.sets, tuple(sources))
    put_tombstone(bucket, tombstone)
    return tombstone


def _is_readable(bucket: Bucket, ulid: str) -> bool:
    """False where a block's meta is damaged for good. Unavailable where it may be read later: who knows what it holds."""
    try:
        read_meta(bucket, ulid)
    except (Corrupt, NotFound, BadData):
        return False
    raise Unavailable(f"block {ulid} could not be read a moment ago: nothing is deleted, try again")


def _is_hit(bucket: Bucket, block: LiveBlock, deletion: Deletion) -> bool:
    """Whether a block has matching series in the range; one that cannot be read may have."""
    meta = block.meta
    last_ms = deletion.end_ms + meta.resolution_ms  # a window's time is its end
    source = BuriedSource(Block(bucket, meta), block.tombstones, meta)
    try:
        return any(len(source.series(Selection(matchers, deletion.start_ms, last_ms))) for matchers in deletion.sets)
    except (Corrupt, NotFound, BadData):
        return True

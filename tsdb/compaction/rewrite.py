"""Rewriting a block with other labels. New labels mean a new order of series, so the block is sorted outside of memory.

Each batch is relabelled, sorted and put as a small block into a scratch bucket; these runs are merged, FAN_IN at a time, and the
last merge goes into the real bucket. Memory is bounded by a batch and a page row of each run that is merged.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tsdb.block.block import Block
from tsdb.block.meta import BlockMeta, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.compact import BATCH_WORDS, Job, Kind, check_written, edits_of, read_sources
from tsdb.compaction.reclaim import delete_block
from tsdb.compaction.relabel import RelabelRule, relabel
from tsdb.compaction.tombstones import Tombstone
from tsdb.merge import MergeSource, merge_batches
from tsdb.model.series import SeriesBatch
from tsdb.model.source import Selection

FAN_IN = 16


def relabel_block(
    bucket: Bucket,
    meta: BlockMeta,
    rules: Sequence[RelabelRule],
    *,
    ulid: str,
    scratch: Bucket,
    tombstones: Sequence[Tombstone] = (),
    proceed: Callable[[], None] = lambda: None,
) -> BlockMeta | None:
    """The new block, which replaces the old one wherever both are known; None where the rules keep no series.

    Series that become equal are merged. `scratch` must be empty, and is again afterwards. SourceFailed, Unavailable.
    """
    job = Job(Kind.REWRITE, (meta,))
    batches = read_sources(job, bucket, tombstones=tombstones, expired=(), proceed=proceed)
    runs = [run for run in (_put_run(scratch, batch, meta, i) for i, batch in enumerate(_relabelled(batches, rules))) if run]
    number = len(runs)
    while len(runs) > FAN_IN:
        some, runs = runs[:FAN_IN], runs[FAN_IN:]
        merged = _put_run(scratch, _merged(scratch, some), meta, number := number + 1)
        runs += [merged] if merged else []
        for run in some:
            delete_block(scratch, run.ulid)
    made = write_block(
        bucket,
        _merged(scratch, runs),
        ulid=ulid,
        min_ms=meta.min_ms,
        max_ms=meta.max_ms,
        level=meta.level + 1,
        sources=meta.sources,
        resolution_ms=meta.resolution_ms,
        edits=edits_of(job, tombstones),
        before_commit=lambda new: check_written(bucket, new),
    )
    for run in runs:
        delete_block(scratch, run.ulid)
    return made


def relabel_batch(batch: SeriesBatch, rules: Sequence[RelabelRule]) -> SeriesBatch:
    """The batch with other labels, in the order of series, samples of series that become equal merged."""
    table, kept = relabel(batch.series, rules)
    rows = np.flatnonzero(kept)
    renamed = replace(batch, series=table).take(rows)
    order = renamed.series.order()
    renamed = renamed.take(order)
    group, first = renamed.series.group()
    if len(first) == len(renamed):
        return renamed
    turn = np.arange(len(group)) - first[group]  # equal series are neighbours now: the how-manieth of its equals each is
    return merge_batches([renamed.take(np.flatnonzero(turn == k)) for k in range(int(turn.max()) + 1)])


def _relabelled(batches: Iterator[SeriesBatch], rules: Sequence[RelabelRule]) -> Iterator[SeriesBatch]:
    return (relabel_batch(batch, rules) for batch in batches)


def _put_run(scratch: Bucket, batches: SeriesBatch | Iterator[SeriesBatch], meta: BlockMeta, number: int) -> BlockMeta | None:
    run = [batches] if isinstance(batches, SeriesBatch) else batches
    ulid = new_ulid(number, bytes(10))
    return write_block(
        scratch, run, ulid=ulid, min_ms=meta.min_ms, max_ms=meta.max_ms, resolution_ms=meta.resolution_ms, neighbours=0
    )


def _merged(scratch: Bucket, runs: Sequence[BlockMeta]) -> Iterator[SeriesBatch]:
    """All samples of the runs. No order among them: merging needs none."""
    if not runs:
        return iter(())
    blocks = [Block(scratch, run, batch_words=BATCH_WORDS // len(runs)) for run in runs]
    return MergeSource(blocks).select(Selection((), runs[0].min_ms, runs[0].max_ms, runs[0].resolution_ms))

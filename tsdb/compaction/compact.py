"""Compaction: `plan` decides which blocks become one, `run` makes it. Neither knows why the other did what it did.

Blocks of a closed window of time are merged, the widest window first: 2 h blocks become one of 12 h, 24 h, 7 d, 28 d. Overlapping
blocks (replicas, late samples, backfill) are merged like neighbours, for merging is idempotent.

`run` streams. Of the sources it holds a batch of BATCH_WORDS numbers (16 MiB, or one series if that has more), about four times
over where sources overlap and are merged, and PAGE_CACHE_BYTES of pages, for rows of pages are longer; of the result a row
of pages (at most 128 MiB, or 64 MiB of one that is longer: `tsdb.compaction.strips`), a pages object twice (64 MiB) and the index,
4 bytes a label of each series.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from tsdb.block.block import Block
from tsdb.block.meta import BlockMeta
from tsdb.block.page_cache import PageCache
from tsdb.block.part_cache import PartCache
from tsdb.block.run import MAX_UNION_SERIES, BlockPiece, BlockRun
from tsdb.block.writer import BlockWriter
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.lineage import live_blocks, sources_of
from tsdb.compaction.strips import Row, long_rows
from tsdb.compaction.tombstones import Tombstone, bury, touching
from tsdb.merge import merge_streams
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RANGES_MS = (2 * HOUR_MS, 12 * HOUR_MS, DAY_MS, 7 * DAY_MS, 28 * DAY_MS)
"""28 days: the widest on which one index and one page directory are still quick to read."""
SETTLE_MS = 75 * 60_000
"""How long after its end a window is closed: ingesters cut an hour after a boundary and take minutes to write."""
MAX_SOURCES = 16
"""Blocks that one job merges; each holds a batch in memory. More take several jobs."""
MAX_SAMPLES = 20_000_000_000
"""No job makes a larger block: it would take hours, and be read by one thread."""
SMALL_BYTES = 32 << 20
LOPSIDED = 8
"""A block this many times larger than all that would be merged into it, and not small, is left alone until they have grown."""
BATCH_WORDS = 2 << 20
"""Numbers that all sources together hold in memory."""
PAGE_CACHE_BYTES = 32 << 20
INDEX_CACHE_BYTES = 32 << 20


class Kind(StrEnum):
    """What a job does."""

    MERGE = "merge"
    REWRITE = "rewrite"
    DOWNSAMPLE = "downsample"


@dataclass(frozen=True, slots=True)
class Job:
    """Blocks of one resolution that become one block; downsampling makes it one of `to_ms` (`tsdb.compaction.downsample`)."""

    kind: Kind
    sources: tuple[BlockMeta, ...]
    to_ms: int = 0

    @property
    def resolution_ms(self) -> int:
        return self.sources[0].resolution_ms

    @property
    def min_ms(self) -> int:
        return min(meta.min_ms for meta in self.sources)

    @property
    def max_ms(self) -> int:
        return max(meta.max_ms for meta in self.sources)

    @property
    def size_bytes(self) -> int:
        return sum(meta.size_bytes for meta in self.sources)


class SourceFailed(Corrupt):
    """A block that a job reads is damaged, incomplete or gone."""

    def __init__(self, ulid: str, error: Exception) -> None:
        super().__init__(f"block {ulid}: {error}")
        self.ulid = ulid


def check_ranges(ranges_ms: Sequence[int]) -> None:
    """BadData unless they ascend, each a multiple of the one before it."""
    for narrow, wide in pairwise(ranges_ms):
        if narrow <= 0 or wide <= narrow or wide % narrow:
            raise BadData(f"compaction ranges: {wide} ms after {narrow} ms; each must be a multiple of the one before it")


def plan(
    metas: Iterable[BlockMeta],
    *,
    now_ms: int,
    ranges_ms: Sequence[int] = RANGES_MS,
    settle_ms: int = SETTLE_MS,
    max_sources: int = MAX_SOURCES,
    skip: frozenset[str] = frozenset(),
    tombstones: Sequence[Tombstone] = (),
    rewrite_after_ms: int = 0,
) -> list[Job]:
    """The jobs that can be done now, no block in two of them, the smallest first; none where everything is as it should be.

    `metas` are the blocks without a deletion mark; those that another replaces and those in `skip` (marked no-compact) take no
    part. A block that only a tombstone of at least `rewrite_after_ms` touches is rewritten.
    """
    live = [meta for meta in live_blocks(metas) if meta.ulid not in skip]
    rules = _Rules(tuple(ranges_ms), now_ms - settle_ms, max_sources)
    jobs: list[Job] = []
    for resolution_ms in sorted({meta.resolution_ms for meta in live}):
        jobs += _merges([meta for meta in live if meta.resolution_ms == resolution_ms], len(ranges_ms) - 1, rules)
    busy = {meta.ulid for job in jobs for meta in job.sources}
    due = [one for one in tombstones if now_ms - one.at_ms >= rewrite_after_ms]
    jobs += [Job(Kind.REWRITE, (meta,)) for meta in live if meta.ulid not in busy and touching(meta, due)]
    return sorted(jobs, key=lambda job: (job.size_bytes, job.sources[0].ulid))


def run(
    job: Job,
    bucket: Bucket,
    *,
    ulid: str,
    tombstones: Sequence[Tombstone] = (),
    expired: Sequence[Tombstone] = (),
    proceed: Callable[[], None] = lambda: None,
) -> BlockMeta | None:
    """The new block, complete in the bucket, and checked before it came to be; None where nothing of the sources is left.

    `tombstones` are all that are known; those that touch a source are applied to it. `expired` are ranges of series that go by
    retention, of every source. `proceed` is called between batches and may raise to give up. The sources stay as they are.
    SourceFailed names a source that cannot be read; Unavailable.
    """
    writer = BlockWriter(
        bucket,
        ulid=ulid,
        min_ms=job.min_ms,
        max_ms=job.max_ms,
        level=max(meta.level for meta in job.sources) + 1,
        sources=tuple(sorted(frozenset[str]().union(*(sources_of(meta) for meta in job.sources)))),
        resolution_ms=job.resolution_ms,
        edits=edits_of(job, tombstones),
    )
    rows = None if expired else _long_rows(job, bucket, tombstones)
    if rows is None:
        writer.add_all(read_sources(job, bucket, tombstones=tombstones, expired=expired, proceed=proceed))
    else:
        for row in rows:
            proceed()
            writer.add_row(row.series, row.strips, slab_samples=row.slab_samples)
    return writer.finish(lambda meta: check_written(bucket, meta))


def _long_rows(job: Job, bucket: Bucket, tombstones: Sequence[Tombstone]) -> Iterator[Row] | None:
    """The rows of the sources, where they follow one another, nothing is deleted from them, and they are too long to be held."""
    runs = chains(job.sources, apart=any(touching(meta, tombstones) for meta in job.sources))
    if len(runs) > 1 or any(meta.histograms for meta in job.sources):
        return None
    cache = PartCache(INDEX_CACHE_BYTES)
    return long_rows([Block(bucket, meta, cache) for meta in runs[0]], SourceFailed)


def read_sources(
    job: Job,
    bucket: Bucket,
    *,
    tombstones: Sequence[Tombstone],
    expired: Sequence[Tombstone],
    proceed: Callable[[], None],
    start_ms: int = MIN_MS,
    end_ms: int = MAX_MS,
) -> Iterator[SeriesBatch]:
    """All that is left of a job's sources in [start_ms, end_ms), merged; other arguments and errors as of `run`."""
    cache, pages = PartCache(INDEX_CACHE_BYTES), PageCache(PAGE_CACHE_BYTES)
    runs = chains(job.sources, apart=any(touching(meta, tombstones) for meta in job.sources))
    selection = Selection((), start_ms, end_ms, job.resolution_ms)
    words = BATCH_WORDS // len(runs)
    streams = []
    for chain in runs:
        pieces = tuple(BlockPiece(Block(bucket, meta, cache, page_cache=pages), meta.min_ms, meta.max_ms) for meta in chain)
        blocks = BlockRun(pieces, cache, damage=_fail, batch_words=words // 2, long_words=words)
        streams.append(_read(blocks, selection, [*touching(chain[0], tombstones), *expired]))
    for batch in streams[0] if len(streams) == 1 else merge_streams(streams):
        proceed()
        yield batch


def chains(sources: Sequence[BlockMeta], *, apart: bool) -> list[list[BlockMeta]]:
    """The sources in as few runs as need no merging: blocks of rising time without overlap. One each, if they must be read `apart`,
    or have so many series that their labels cannot be held at once."""
    runs: list[list[BlockMeta]] = []
    apart = apart or sum(meta.series for meta in sources) > MAX_UNION_SERIES
    for meta in sorted(sources, key=lambda meta: (meta.min_ms, meta.max_ms)):
        fit = None if apart else next((chain for chain in runs if chain[-1].max_ms <= meta.min_ms), None)
        if fit is None:
            runs.append([meta])
        else:
            fit.append(meta)
    return runs


def edits_of(job: Job, tombstones: Sequence[Tombstone]) -> tuple[str, ...]:
    """The ulids of the tombstones that do not touch a job's result any more; those that are known no longer need no naming."""
    sources = frozenset[str]().union(*(sources_of(meta) for meta in job.sources))
    return tuple(sorted(one.ulid for one in tombstones if not sources.isdisjoint(one.blocks)))


def check_written(bucket: Bucket, meta: BlockMeta) -> None:
    """Corrupt unless the objects in the bucket are what the block's writer thinks they are: their sizes, and the index.

    Costs a few small reads; pages are under checksums that every reader tests.
    """
    for part in meta.objects:
        size_bytes = bucket.size(meta.key(part.name))
        if size_bytes != part.size_bytes:
            raise Corrupt(f"{meta.key(part.name)}: has {size_bytes} bytes, {part.size_bytes} were written")
    series = Block(bucket, meta).count_series()
    if series != meta.series:
        raise Corrupt(f"block {meta.ulid}: its index has {series} series, {meta.series} were written")


@dataclass(frozen=True, slots=True)
class _Rules:
    ranges_ms: tuple[int, ...]
    closed_before_ms: int
    max_sources: int


def _merges(blocks: Sequence[BlockMeta], level: int, rules: _Rules) -> list[Job]:
    """The merges inside each window of ranges_ms[level]: of the whole window where that can be one job, else of its parts."""
    jobs: list[Job] = []
    for end_ms, inside in _windows(blocks, rules.ranges_ms[level]):
        closed = end_ms <= rules.closed_before_ms
        chosen = _worth_merging(inside) if closed else []
        fits = len(chosen) <= rules.max_sources and sum(meta.samples for meta in chosen) <= MAX_SAMPLES
        if len(chosen) > 1 and fits:
            jobs.append(Job(Kind.MERGE, tuple(chosen)))
            continue
        parts = _merges(inside, level - 1, rules) if level else []
        if not parts and len(chosen) > rules.max_sources:
            parts = [Job(Kind.MERGE, tuple(chosen[: rules.max_sources]))]
        jobs += parts
    return jobs


def _windows(blocks: Sequence[BlockMeta], range_ms: int) -> Iterator[tuple[int, list[BlockMeta]]]:
    """(end, the blocks that lie inside) of each window. Downsampled blocks have times (start, end] instead of [start, end)."""
    windows: dict[int, list[BlockMeta]] = {}
    for meta in blocks:
        shift_ms = 1 if meta.resolution_ms else 0
        number = (meta.min_ms - shift_ms) // range_ms
        if (meta.max_ms - 1 - shift_ms) // range_ms == number:
            windows.setdefault(number, []).append(meta)
    return (((number + 1) * range_ms, inside) for number, inside in sorted(windows.items()))


def _worth_merging(blocks: list[BlockMeta]) -> list[BlockMeta]:
    """The blocks without one that dwarfs all others: what trickles in late must not rewrite a month each time.

    Downsampled blocks that overlap are not merged: two halves of a window do not add up. They are made anew from finer ones.
    """
    if blocks[0].resolution_ms and any(left.max_ms > right.min_ms for left, right in pairwise(blocks)):
        return []
    largest = max(blocks, key=lambda meta: meta.size_bytes)
    rest = sum(meta.size_bytes for meta in blocks) - largest.size_bytes
    dwarfs = largest.size_bytes > max(SMALL_BYTES, LOPSIDED * rest)
    return [meta for meta in blocks if meta is not largest] if dwarfs else blocks


def _read(blocks: BlockRun, selection: Selection, tombstones: Sequence[Tombstone]) -> Iterator[SeriesBatch]:
    """All that is left of a run of sources; SourceFailed where one cannot be read."""
    for batch in blocks.select(selection):
        yield bury(replace(batch, resolution_ms=selection.resolution_ms), tombstones, resolution_ms=selection.resolution_ms)


def _fail(ulid: str, error: Exception) -> str:
    raise SourceFailed(ulid, error) from error

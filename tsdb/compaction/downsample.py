"""Downsampling: which blocks need windows of 5 minutes and 1 hour (`plan_downsample`), and making them (`run_downsample`).

A block of windows made of the samples in (start_ms, end_ms] has the times (start_ms, end_ms] itself, for a window's time is its
end: its meta says [start_ms + 1, end_ms + 1). The sample at exactly end_ms may lie in the next block; a job names both.
What windows are is told in `tsdb.model.windows`. Start timestamps are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tsdb.block.meta import BlockMeta
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.compact import Job, Kind, check_written, edits_of, read_sources
from tsdb.compaction.lineage import live_blocks, sources_of
from tsdb.compaction.tombstones import Tombstone
from tsdb.kernel import downsample as kernel
from tsdb.kernel.downsample import COUNT
from tsdb.merge import merge_batches
from tsdb.model.histogram import COUNTER_RESET, GAUGE, Histograms, ragged
from tsdb.model.series import I64, Bool, SeriesBatch
from tsdb.model.windows import RESOLUTIONS_MS, windows_of

HOUR_MS = 3_600_000
LEAST_RANGE_MS = {300_000: 40 * HOUR_MS, HOUR_MS: 240 * HOUR_MS}
"""How long a block must be for windows of each length to be made of it: Thanos's 40 h and 10 d."""


def plan_downsample(
    metas: Sequence[BlockMeta], *, now_ms: int, skip: frozenset[str] = frozenset(), final_range_ms: int | None = None
) -> list[Job]:
    """The jobs that blocks need, oldest first: 5 m windows of raw blocks, then 1 h windows of 5 m ones.

    A block is due when it is as long as LEAST_RANGE_MS, or final_range_ms, beyond which nothing is compacted; when its end has
    passed; and when some of its sources are in no block of the next resolution, as after a late block was merged into it. It is
    the first source of its job; blocks that touch the ends of its range follow. Blocks in `skip` are not used.
    """
    jobs = []
    live = live_blocks(metas)
    for finer_ms, resolution_ms in zip((0, *RESOLUTIONS_MS), RESOLUTIONS_MS, strict=False):
        finer = [meta for meta in live if meta.resolution_ms == finer_ms]
        made = [meta for meta in live if meta.resolution_ms == resolution_ms]
        least_ms = min(LEAST_RANGE_MS[resolution_ms], final_range_ms or LEAST_RANGE_MS[resolution_ms])
        due = [meta for meta in finer if meta.max_ms - meta.min_ms >= least_ms and meta.max_ms <= now_ms]
        missing = [_job(meta, finer, resolution_ms) for meta in due if not _covered(meta, made)]
        jobs += [job for job in missing if skip.isdisjoint(meta.ulid for meta in job.sources)]
    return jobs


def run_downsample(
    job: Job,
    bucket: Bucket,
    *,
    ulid: str,
    tombstones: Sequence[Tombstone] = (),
    expired: Sequence[Tombstone] = (),
    proceed: Callable[[], None] = lambda: None,
) -> BlockMeta | None:
    """The new block of windows, complete and checked; None where there is no sample.

    Arguments, errors and memory are those of `tsdb.compaction.compact.run`. Costs about 10 ns a sample beside reading it.
    """
    start_ms, end_ms = range_of(job)
    merged = read_sources(
        job, bucket, tombstones=tombstones, expired=expired, proceed=proceed, start_ms=start_ms + 1, end_ms=end_ms + 1
    )
    return write_block(
        bucket,
        downsampled(merged, job.to_ms),
        ulid=ulid,
        min_ms=start_ms + 1,
        max_ms=end_ms + 1,
        level=job.sources[0].level,
        sources=_sources(job, end_ms),
        resolution_ms=job.to_ms,
        edits=edits_of(job, tombstones),
        before_commit=lambda meta: check_written(bucket, meta),
    )


def range_of(job: Job) -> tuple[int, int]:
    """(start_ms, end_ms) of the windows that a job makes: of samples in (start_ms, end_ms]."""
    first_ms, last_ms = _instants(job.sources[0])
    return first_ms // job.to_ms * job.to_ms, -(-last_ms // job.to_ms) * job.to_ms


def downsampled(batches: Iterable[SeriesBatch], resolution_ms: int) -> Iterator[SeriesBatch]:
    """Each batch in windows of resolution_ms."""
    return (downsample(batch, resolution_ms) for batch in batches if len(batch))


def downsample(batch: SeriesBatch, resolution_ms: int) -> SeriesBatch:
    """The windows of a batch, raw or of windows that resolution_ms is a multiple of. Warnings stay."""
    if batch.histogram_at is None or batch.histograms is None or not np.any(batch.histogram_at >= 0):
        return _float_windows(batch, resolution_ms)
    ends = np.empty(batch.samples, np.int64)
    offsets = kernel.count_windows(batch.offsets, batch.t_ms, resolution_ms, ends)
    edges = np.concatenate([[0], ends[: offsets[-1]]]).astype(np.int64)
    window = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    native = batch.histogram_at >= 0
    with_native = np.bincount(window, native, len(edges) - 1) > 0
    floats = _without_histograms(batch.where(~with_native[window]))
    kept = _keep_natives(batch, resolution_ms, window, native) & with_native[window]
    return merge_batches([_float_windows(floats, resolution_ms), _natives(batch, kept, window, edges, resolution_ms)])


def _job(meta: BlockMeta, finer: Sequence[BlockMeta], resolution_ms: int) -> Job:
    start_ms, end_ms = range_of(Job(Kind.DOWNSAMPLE, (meta,), resolution_ms))
    near = [one for one in finer if one is not meta and one.min_ms <= end_ms and one.max_ms > start_ms + 1]
    return Job(Kind.DOWNSAMPLE, (meta, *near), resolution_ms)


def _sources(job: Job, end_ms: int) -> tuple[str, ...]:
    """The level 1 blocks of all sources but of those that only begin at end_ms, of which one instant was read."""
    inside = (sources_of(meta) for meta in job.sources if _instants(meta)[0] < end_ms)
    return tuple(sorted(frozenset[str]().union(*inside)))


def _instants(meta: BlockMeta) -> tuple[int, int]:
    """(start, end) of the samples that a block stands for; the times of windows lie one millisecond to the right."""
    shift = 1 if meta.resolution_ms else 0
    return meta.min_ms - shift, meta.max_ms - shift


def _covered(meta: BlockMeta, made: Sequence[BlockMeta]) -> bool:
    """Whether all that a block was made from is in blocks of windows over its range."""
    over = (sources_of(one) for one in made if one.min_ms < meta.max_ms and one.max_ms > meta.min_ms)
    return frozenset[str]().union(*over) >= sources_of(meta)


def _float_windows(batch: SeriesBatch, resolution_ms: int) -> SeriesBatch:
    values = np.require(batch.values, np.float64, ["C", "W"])
    t_ms, offsets = np.require(batch.t_ms, np.int64, ["C", "W"]), np.require(batch.offsets, np.int64, ["C", "W"])
    ends = np.empty(len(t_ms), np.int64)
    out_offsets = kernel.count_windows(offsets, t_ms, resolution_ms, ends)
    size = int(out_offsets[-1])
    ends = ends[:size]
    out_t, out_values, out = np.empty(size, np.int64), np.empty(size), np.empty((kernel.COLUMNS, size))
    bits = values.view(np.uint64)
    if batch.windows is None:
        kernel.reduce_samples(offsets[0], t_ms, values, bits, resolution_ms, ends, out_t, out_values, out)
    else:
        columns = np.require(batch.windows, np.float64, ["C", "W"])
        kernel.reduce_windows(offsets[0], t_ms, values, bits, columns, resolution_ms, ends, out_t, out_values, out)
    return SeriesBatch(
        batch.series, out_offsets, out_t, out_values, warnings=batch.warnings, windows=out, resolution_ms=resolution_ms
    )


def _without_histograms(batch: SeriesBatch) -> SeriesBatch:
    return replace(batch, histograms=None, histogram_at=None, start_ms=None)


def _keep_natives(batch: SeriesBatch, resolution_ms: int, window: I64, native: Bool) -> Bool:
    """bool[m]: the samples of windows with histograms to keep: first and last, both sides of a reset, and all that are floats."""
    keep: Bool = ~native
    edge = np.flatnonzero(np.diff(window, prepend=-1, append=-1))
    keep[edge[:-1]] = keep[edge[1:] - 1] = True
    pair = np.flatnonzero(native[1:] & native[:-1] & (window[1:] == window[:-1])) + 1
    assert batch.histograms is not None and batch.histogram_at is not None, "asked only of batches with histograms"
    broken = pair[_may_reset(batch.histograms, batch.histogram_at[pair - 1], batch.histogram_at[pair])]
    keep[broken] = keep[broken - 1] = True
    after_float = np.flatnonzero(native[1:] != native[:-1]) + 1
    keep[after_float] = keep[after_float - 1] = True
    return keep


def _natives(batch: SeriesBatch, kept: Bool, window: I64, edges: I64, resolution_ms: int) -> SeriesBatch:
    """The kept samples at their own times, each counted with those left out behind it."""
    columns = windows_of(batch)
    before = np.concatenate([[0.0], np.cumsum(columns[COUNT])])
    at = np.flatnonzero(kept)
    following = np.append(at[1:], len(kept))
    counts = before[np.minimum(following, edges[1:][window[at]])] - before[at]
    out = replace(batch.where(kept), start_ms=None, resolution_ms=resolution_ms)
    picked = columns[:, at]
    picked[COUNT] = counts
    assert batch.histograms is not None and out.histogram_at is not None, "asked only of batches with histograms"
    used = np.flatnonzero(out.histogram_at >= 0)
    histogram_at = np.full(out.samples, -1, np.int64)
    histogram_at[used] = np.arange(len(used))
    return replace(out, windows=picked, histograms=batch.histograms.take(out.histogram_at[used]), histogram_at=histogram_at)


def _may_reset(h: Histograms, a: I64, b: I64) -> Bool:
    """bool[r]: whether histogram b[i] may be a counter reset after a[i]: it says so, has other buckets, or any count fell."""
    fell = (h.count[b] < h.count[a]) | (h.zero_count[b] < h.zero_count[a]) | (h.schema[b] != h.schema[a])
    fell |= (h.hint[b] == COUNTER_RESET) | (h.zero_threshold[b] != h.zero_threshold[a])
    for offsets, index, counts in (
        (h.positive.offsets, h.positive.index, h.positive.counts),
        (h.negative.offsets, h.negative.index, h.negative.counts),
        (h.bounds_offsets, h.bounds, np.zeros(len(h.bounds))),
    ):
        fell |= _fell_in_rows(offsets, index, counts, a, b)
    return np.asarray(fell & (h.hint[b] != GAUGE))


def _fell_in_rows(offsets: I64, index: np.ndarray, counts: np.ndarray, a: I64, b: I64) -> Bool:
    """bool[r]: whether ragged row b[i] has another index than row a[i], or any smaller count."""
    sizes = np.diff(offsets)
    out: Bool = sizes[a] != sizes[b]
    same = np.flatnonzero(~out)
    ends, left = ragged(offsets, a[same])
    _, right = ragged(offsets, b[same])
    worse = np.concatenate([[0], np.cumsum((index[left] != index[right]) | (counts[right] < counts[left]))])
    out[same] = np.diff(worse[ends]) > 0
    return out

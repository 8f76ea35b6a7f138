"""Downsampling: which blocks need windows of 5 minutes and 1 hour (`plan_downsample`), and making them (`downsample_block`).

A block of windows made of the samples in (start_ms, end_ms] has the times (start_ms, end_ms] itself, for a window's time is its
end: its meta says [start_ms + 1, end_ms + 1). The sample at exactly end_ms may lie in the next block; a job names both.
What windows are is told in `tsdb.model.windows`. Start timestamps are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsdb.block_meta import BlockMeta
from tsdb.block_writer import write_block
from tsdb.bucket import Bucket
from tsdb.kernel import downsample as kernel
from tsdb.lineage import live_blocks, sources_of
from tsdb.merge import merge_batches
from tsdb.model.histogram import COUNTER_RESET, GAUGE, Histograms, ragged
from tsdb.model.series import I64, Bool, SeriesBatch
from tsdb.model.source import Selection, Source
from tsdb.model.windows import COUNT, RESOLUTIONS_MS, windows_of

HOUR_MS = 3_600_000
LEAST_RANGE_MS = {300_000: 40 * HOUR_MS, HOUR_MS: 240 * HOUR_MS}
"""How long a block must be for windows of each length to be made of it: Thanos's 40 h and 10 d."""


@dataclass(frozen=True, slots=True)
class DownsampleJob:
    """Windows of resolution_ms to be made of all that `inputs` hold in (start_ms, end_ms].

    `sources` are those of the blocks that lie in the range; one that only begins at end_ms is read, but not among them.
    """

    resolution_ms: int
    start_ms: int
    end_ms: int
    inputs: tuple[BlockMeta, ...]
    sources: tuple[str, ...]
    level: int

    @property
    def selection(self) -> Selection:
        """What to read of the inputs."""
        return Selection((), self.start_ms + 1, self.end_ms + 1, self.inputs[0].resolution_ms)


def plan_downsample(metas: Sequence[BlockMeta], *, now_ms: int, final_range_ms: int | None = None) -> list[DownsampleJob]:
    """The jobs that blocks need, oldest first: 5 m windows of raw blocks, then 1 h windows of 5 m ones.

    A block is due when it is as long as LEAST_RANGE_MS, or final_range_ms, beyond which nothing is compacted; when its end has
    passed; and when some of its sources are in no block of the next resolution, as after a late block was merged into it.
    """
    jobs = []
    for finer_ms, resolution_ms in zip((0, *RESOLUTIONS_MS), RESOLUTIONS_MS, strict=False):
        finer = live_blocks([meta for meta in metas if meta.resolution_ms == finer_ms])
        made = live_blocks([meta for meta in metas if meta.resolution_ms == resolution_ms])
        least_ms = min(LEAST_RANGE_MS[resolution_ms], final_range_ms or LEAST_RANGE_MS[resolution_ms])
        for meta in finer:
            if meta.max_ms - meta.min_ms >= least_ms and meta.max_ms <= now_ms and not _covered(meta, made):
                jobs.append(_job(meta, finer, made, resolution_ms))
    return jobs


def downsample_block(bucket: Bucket, source: Source, job: DownsampleJob, *, ulid: str) -> BlockMeta | None:
    """The meta of the new block, or None where there is no sample. `source` holds the inputs of the job, merged.

    Memory is bounded by what `write_block` holds and one batch. Costs about 10 ns a sample beside reading it.
    """
    return write_block(
        bucket, downsampled(source.select(job.selection), job.resolution_ms), ulid=ulid, min_ms=job.start_ms + 1,
        max_ms=job.end_ms + 1, level=job.level, sources=job.sources, resolution_ms=job.resolution_ms,
    )  # fmt: skip


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


def _job(meta: BlockMeta, finer: Sequence[BlockMeta], made: Sequence[BlockMeta], resolution_ms: int) -> DownsampleJob:
    first_ms, last_ms = _instants(meta)
    start_ms = first_ms // resolution_ms * resolution_ms
    end_ms = -(-last_ms // resolution_ms) * resolution_ms
    inputs = [one for one in finer if one.min_ms <= end_ms and one.max_ms > start_ms + 1]
    inside = [one for one in inputs if one.min_ms < end_ms]
    older = [one.level for one in made if one.min_ms <= end_ms and one.max_ms > start_ms + 1]
    sources = sorted(frozenset[str]().union(*(sources_of(one) for one in inside)))
    level = max([meta.level, *(level + 1 for level in older)])
    return DownsampleJob(resolution_ms, start_ms, end_ms, tuple(inputs), tuple(sources), level)


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

"""Planning and making blocks of windows: triggers, boundaries, late samples, native histograms."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.tsdb.batches import grid_batch, histogram_batch
from tests.tsdb.test_coverage import block
from tsdb.block.block import Block
from tsdb.block.meta import BlockMeta, list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.folder import FolderBucket
from tsdb.compaction.downsample import downsample, plan_downsample, range_of, run_downsample
from tsdb.kernel.downsample import COUNT, SUM
from tsdb.merge import merge_batches
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.windows import windows_of

H, D, M5 = 3_600_000, 86_400_000, 300_000
EVERYTHING = Selection((), MIN_MS, MAX_MS)


def ulid(number: int) -> str:
    return new_ulid(number, b"0123456789")


def put(bucket: FolderBucket, number: int, batch: SeriesBatch, start_ms: int, end_ms: int) -> BlockMeta:
    meta = write_block(bucket, [batch.clip(start_ms, end_ms)], ulid=ulid(number), min_ms=start_ms, max_ms=end_ms)
    assert meta is not None
    return meta


def run_all(bucket: FolderBucket, first: int, **options: int) -> list[BlockMeta]:
    """Run jobs until none is due."""
    made = []
    while jobs := plan_downsample(list_blocks(bucket), now_ms=1000 * D, final_range_ms=options.get("final_range_ms")):
        for job in jobs:
            meta = run_downsample(job, bucket, ulid=ulid(first + len(made)))
            assert meta is not None
            made.append(meta)
    return made


def windows(bucket: FolderBucket, metas: list[BlockMeta]) -> SeriesBatch:
    return merge_batches([batch for meta in metas for batch in Block(bucket, meta).select(EVERYTHING)])


def same_windows(a: SeriesBatch, b: SeriesBatch) -> None:
    assert a.series.rows() == b.series.rows() and np.array_equal(a.offsets, b.offsets) and np.array_equal(a.t_ms, b.t_ms)
    assert np.array_equal(a.values, b.values, equal_nan=True)
    assert a.windows is not None and b.windows is not None
    np.testing.assert_allclose(a.windows, b.windows, rtol=1e-12)


def test_blocks_are_due_by_their_length_and_once() -> None:
    short, long, month = block(0, 39 * H), block(0, 40 * H), block(0, 28 * D)
    assert plan_downsample([short], now_ms=100 * D) == []
    assert plan_downsample([long], now_ms=39 * H) == []
    (job,) = plan_downsample([long], now_ms=100 * D)
    assert (job.sources, job.to_ms, range_of(job)) == ((long,), M5, (0, 40 * H))
    five = block(0, 40 * H, *long.sources, resolution_ms=M5)
    assert plan_downsample([long, five], now_ms=100 * D) == []
    assert plan_downsample([short], now_ms=100 * D, final_range_ms=24 * H)[0].to_ms == M5
    of_month = block(0, 28 * D, *month.sources, resolution_ms=M5)
    (job,) = plan_downsample([month, of_month], now_ms=100 * D)
    assert (job.sources, job.to_ms, range_of(job)) == ((of_month,), H, (0, 28 * D))


def test_late_samples_and_skipped_blocks() -> None:
    week, five = block(0, 7 * D, "a"), block(0, 7 * D, "a", resolution_ms=M5)
    merged = block(0, 7 * D, "a", "late", level=2)
    assert [job.sources for job in plan_downsample([merged, five], now_ms=100 * D)] == [(merged,)]
    assert plan_downsample([week, block(D, D + 2 * H, "late"), five], now_ms=100 * D) == []
    assert plan_downsample([merged, five], now_ms=100 * D, skip=frozenset([merged.ulid])) == []


def test_the_sample_at_the_end_of_a_block_is_in_its_last_window(tmp_path: Path) -> None:
    bucket, whole = FolderBucket(tmp_path), grid_batch(5, 4 * 5760)
    for number in range(2):
        put(bucket, number, whole, number * 2 * D, (number + 1) * 2 * D)
    made = run_all(bucket, 10)
    assert [(meta.min_ms, meta.max_ms, meta.resolution_ms) for meta in made] == [(1, 2 * D + 1, M5), (2 * D + 1, 4 * D + 1, M5)]
    assert [meta.sources for meta in made] == [(ulid(0),), (ulid(1),)]
    same_windows(windows(bucket, made), downsample(whole.clip(1, MAX_MS), M5))


def test_hours_come_of_five_minutes(tmp_path: Path) -> None:
    bucket, whole = FolderBucket(tmp_path), grid_batch(3, 12 * 5760)
    put(bucket, 0, whole, 0, 11 * D)
    put(bucket, 1, whole, 11 * D, 12 * D)
    five, hour = run_all(bucket, 10)
    assert (five.resolution_ms, hour.resolution_ms, hour.sources) == (M5, H, five.sources)
    same_windows(windows(bucket, [hour]), downsample(whole.clip(1, 11 * D + 1), H))


def test_a_block_that_took_in_late_samples_is_made_anew(tmp_path: Path) -> None:
    bucket, whole = FolderBucket(tmp_path), grid_batch(4, 2 * 5760)
    missing = (whole.t_ms // H) % 5 == 2
    first = put(bucket, 0, whole.where(~missing), 0, 2 * D)
    before = run_all(bucket, 10)
    late = replace(first, ulid=ulid(1), sources=(ulid(0), "late"), level=2)
    write_block(bucket, [whole], ulid=late.ulid, min_ms=0, max_ms=2 * D, level=2, sources=late.sources)
    after = run_all(bucket, 20)
    assert len(after) == 1 and after[0].sources == late.sources
    same_windows(windows(bucket, after), downsample(whole.clip(1, MAX_MS), M5))
    both = windows(bucket, [*before, *after])
    same_windows(both, windows(bucket, [*after, *before]))
    same_windows(both, windows(bucket, after))


def test_histograms_keep_what_rates_need() -> None:
    batch = replace(histogram_batch(6, 400), start_ms=None)
    five = downsample(batch, M5)
    assert five.samples < batch.samples and five.resolution_ms == M5
    assert windows_of(five)[COUNT].sum() == batch.samples
    hour = downsample(five, H)
    assert windows_of(hour)[COUNT].sum() == batch.samples and hour.samples <= five.samples
    ends = -(-batch.t_ms // M5)
    for row in range(len(batch)):
        raw, kept = slice(*batch.offsets[row : row + 2]), slice(*five.offsets[row : row + 2])
        edges = np.flatnonzero(np.diff(ends[raw], prepend=-1, append=-1))
        wanted = set(batch.t_ms[raw][edges[:-1]].tolist()) | set(batch.t_ms[raw][edges[1:] - 1].tolist())
        assert wanted <= set(five.t_ms[kept].tolist())


def test_a_window_of_floats_and_histograms_keeps_its_floats_as_they_are() -> None:
    batch = replace(histogram_batch(2, 40), start_ms=None)
    five = downsample(batch, M5)
    assert five.histogram_at is not None and windows_of(five)[SUM][five.histogram_at < 0].tolist() == [7.0]


def test_no_samples_no_windows() -> None:
    assert downsample(SeriesBatch.empty(("a warning",)), M5).warnings == ("a warning",)

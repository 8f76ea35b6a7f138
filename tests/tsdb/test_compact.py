"""Which blocks are merged, and that the merge holds what they held."""

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import grid_batch, same_samples, samples_of
from tsdb.block.block import Block, verify_block, write_block
from tsdb.block.meta import META, BlockMeta, ObjectMeta, new_ulid
from tsdb.bucket.bucket import FolderBucket
from tsdb.compaction.compact import (
    DAY_MS,
    HOUR_MS,
    RANGES_MS,
    SMALL_BYTES,
    Job,
    Kind,
    SourceFailed,
    chains,
    check_ranges,
    plan,
    run,
)
from tsdb.compaction.lineage import live_blocks, sources_of
from tsdb.compaction.tombstones import Tombstone, touching
from tsdb.merge import MergeSource, concat_batches, merge_batches
from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection

ALL = Selection((), MIN_MS, MAX_MS)


def ulid(number: int) -> str:
    return new_ulid(1_000_000 + number, bytes([number % 256] * 10))


def block(number: int, start_h: float, end_h: float, *, size: int = 1000, level: int = 1, resolution_ms: int = 0) -> BlockMeta:
    """A block of these hours."""
    name = ulid(number)
    objects = (ObjectMeta("index", size, 0),)
    return BlockMeta(name, int(start_h * HOUR_MS), int(end_h * HOUR_MS), 10, 1, level, (name,), resolution_ms, objects)


def done(job: Job, number: int) -> BlockMeta:
    """The block that a job makes."""
    sources = frozenset[str]().union(*(sources_of(meta) for meta in job.sources))
    level = max(meta.level for meta in job.sources) + 1
    objects = (ObjectMeta("index", job.size_bytes, 0),)
    return BlockMeta(ulid(number), job.min_ms, job.max_ms, 10, 1, level, tuple(sorted(sources)), job.resolution_ms, objects)


def settle(metas: list[BlockMeta], now_h: float) -> tuple[list[BlockMeta], int]:
    """(what is left when no job is, how many there were)"""
    count = 0
    while jobs := plan(metas, now_ms=int(now_h * HOUR_MS)):
        for job in jobs:
            count += 1
            metas = [*metas, done(job, 10_000 + count)]
        assert count < 2000
    return live_blocks(metas), count


def hours(metas: list[BlockMeta]) -> list[tuple[int, int]]:
    return [(meta.min_ms // HOUR_MS, meta.max_ms // HOUR_MS) for meta in metas]


def test_two_hours_become_twelve_then_a_day_once_they_are_over() -> None:
    metas = [block(i, 2 * i, 2 * i + 2) for i in range(12)]
    assert plan(metas[:5], now_ms=10 * HOUR_MS) == []
    assert plan(metas[:6], now_ms=13 * HOUR_MS) == [], "the window may still get samples"
    assert [hours(list(job.sources)) for job in plan(metas[:6], now_ms=14 * HOUR_MS)] == [[(2 * i, 2 * i + 2) for i in range(6)]]
    assert hours(settle(metas, 26)[0]) == [(0, 24)] and settle(metas, 26)[1] == 1, "one pass, not two"


def test_a_month_of_blocks_becomes_one_in_few_passes() -> None:
    metas = [block(i, 2 * i, 2 * i + 2) for i in range(28 * 12)]
    left, count = settle(metas, 28 * 24 + 2)
    assert hours(left) == [(0, 28 * 24)]
    assert count == 28 + 4 + 1, "days, weeks, the month"


def test_replicas_and_late_blocks_are_merged_anywhere() -> None:
    replicas = [block(i, 2, 4) for i in range(3)]
    assert [len(job.sources) for job in plan(replicas, now_ms=6 * HOUR_MS)] == [3]
    month = block(1, 0, 28 * 24, level=4)
    late = block(2, 100, 102)
    assert [job.sources for job in plan([month, late], now_ms=40 * DAY_MS)] == [(month, late)]


def test_what_trickles_in_does_not_rewrite_a_month() -> None:
    month = block(1, 0, 28 * 24, level=4, size=100 * SMALL_BYTES)
    late = [block(2, 100, 102, size=1000), block(3, 400, 402, size=1000)]
    jobs = plan([month, *late], now_ms=40 * DAY_MS)
    assert [job.sources for job in jobs] == [tuple(late)]
    assert plan([month, done(jobs[0], 9)], now_ms=40 * DAY_MS) == []
    much = replace(late[0], objects=(ObjectMeta("index", 20 * SMALL_BYTES, 0),))
    assert len(plan([month, much], now_ms=40 * DAY_MS)) == 1


def test_resolutions_are_not_mixed_and_bad_blocks_left_out() -> None:
    raw, fine = (
        [block(i, 2 * i, 2 * i + 2) for i in range(6)],
        [
            replace(
                block(10 + i, 2 * i, 2 * i + 2, resolution_ms=300_000), min_ms=2 * i * HOUR_MS + 1, max_ms=(2 * i + 2) * HOUR_MS + 1
            )
            for i in range(6)
        ],
    )
    jobs = plan([*raw, *fine], now_ms=DAY_MS)
    assert sorted((job.resolution_ms, len(job.sources)) for job in jobs) == [(0, 6), (300_000, 6)]
    jobs = plan(raw, now_ms=DAY_MS, skip=frozenset([raw[2].ulid]))
    assert [len(job.sources) for job in jobs] == [5] and raw[2] not in jobs[0].sources
    overlapping = [fine[0], replace(fine[0], ulid=ulid(99), sources=(ulid(99),))]
    assert plan(overlapping, now_ms=DAY_MS) == [], "windows of half the samples do not add up"


def test_blocks_made_of_others_stand_for_them() -> None:
    metas = [block(i, 2 * i, 2 * i + 2) for i in range(6)]
    job = plan(metas, now_ms=DAY_MS)[0]
    first, again = done(job, 50), done(job, 51)
    assert live_blocks([*metas, first]) == [first]
    assert live_blocks([*metas, first, again]) == [again], "a second try of the same work"
    assert plan([*metas, first, again], now_ms=DAY_MS) == []
    partly = replace(first, sources=tuple(sorted(meta.ulid for meta in metas[:3])))
    assert live_blocks([*metas, partly]) == sorted([partly, *metas[3:]], key=lambda meta: (meta.min_ms, meta.ulid))


def test_ranges_must_be_multiples() -> None:
    check_ranges(RANGES_MS)
    for bad in [(2, 5), (2, 2), (4, 2), (0, 2)]:
        with pytest.raises(BadData, match="multiple"):
            check_ranges(bad)


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_plans_come_to_an_end_and_lose_nothing(seed: int) -> None:
    dice = random.Random(seed)
    metas = []
    for i in range(dice.randint(1, 60)):
        width = dice.choice([2, 2, 2, 2, 12, 24, 5])
        start = dice.randrange(60 * 12) * 2 // width * width
        metas.append(block(i, start, start + width, size=dice.choice([10, 1000, SMALL_BYTES, 20 * SMALL_BYTES])))
    left, _ = settle(metas, dice.choice([24, 24 * 30, 24 * 90]))
    assert frozenset[str]().union(*(sources_of(meta) for meta in left)) == {meta.ulid for meta in metas}
    assert sum(len(meta.sources) for meta in left) == len(metas), "no source is in two blocks"


def write(bucket: FolderBucket, number: int, batch: SeriesBatch) -> BlockMeta:
    low, high = int(batch.t_ms.min()), int(batch.t_ms.max()) + 1
    meta = write_block(bucket, [batch], ulid=ulid(number), min_ms=low, max_ms=high)
    assert meta is not None
    return meta


def read(bucket: FolderBucket, *metas: BlockMeta) -> SeriesBatch:
    batches = list(MergeSource([Block(bucket, meta) for meta in metas]).select(ALL))
    return concat_batches(batches) if batches else SeriesBatch.empty()


def test_a_merge_holds_what_its_sources_held(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    parts = [
        grid_batch(40, 50, start_ms=0, seed=1),
        grid_batch(60, 50, start_ms=50 * 15_000, seed=2),
        grid_batch(50, 30, start_ms=10 * 15_000, seed=3),
    ]
    metas = [write(bucket, i, part) for i, part in enumerate(parts)]
    meta = run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9))
    assert meta is not None and (meta.level, meta.sources) == (2, tuple(sorted(one.ulid for one in metas)))
    assert same_samples(read(bucket, meta), merge_batches(parts))
    assert live_blocks([*metas, meta]) == [meta]


def test_tombstones_and_expired_ranges_go(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    part = grid_batch(10, 100)
    old, new = write(bucket, 1, part), write(bucket, 2, grid_batch(10, 100, seed=5))
    host = Matcher("instance", "=", "host-000003")
    tomb = Tombstone(ulid(7), 0, 15_000, 30_001, ((host,),), (old.ulid,))
    other = Tombstone(ulid(8), 0, 0, 1, ((),), (ulid(200),))
    assert touching(old, [tomb, other]) == (tomb,) and touching(new, [tomb, other]) == ()
    meta = run(Job(Kind.REWRITE, (old,)), bucket, ulid=ulid(9), tombstones=[tomb, other])
    assert meta is not None and meta.edits == (tomb.ulid,) and meta.samples == 1000 - 2 and touching(meta, [tomb]) == ()
    merged = run(Job(Kind.MERGE, (old, new)), bucket, ulid=ulid(10), tombstones=[tomb])
    assert merged is not None and touching(merged, [tomb]) == ()
    row = next(row for labels, row in samples_of(read(bucket, merged)).items() if labels.get("instance") == "host-000003")
    assert {t for t, _ in row} >= {15_000, 30_000}, "what another block holds of the range is not deleted"
    expired = Tombstone("", 0, MIN_MS, 99 * 15_000, ((),), ())
    last = run(Job(Kind.MERGE, (old, new)), bucket, ulid=ulid(11), expired=[expired])
    assert last is not None and last.samples == 10
    assert run(Job(Kind.REWRITE, (old,)), bucket, ulid=ulid(12), expired=[replace(expired, end_ms=MAX_MS)]) is None
    assert not bucket.exists(f"{ulid(12)}/{META}")


def test_a_bad_source_is_named_and_no_block_made(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    metas = [write(bucket, i, grid_batch(10, 100, seed=i)) for i in range(3)]
    path = tmp_path / metas[1].ulid / "pages-000000"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SourceFailed) as failed:
        run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9))
    assert failed.value.ulid == metas[1].ulid
    assert not bucket.exists(f"{ulid(9)}/{META}")


class Swallowing(FolderBucket):
    """Loses the end of every index it is given."""

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data[:-7] if key.endswith("/index") else data)


def test_a_result_that_is_not_whole_is_not_committed(tmp_path: Path) -> None:
    metas = [write(FolderBucket(tmp_path), i, grid_batch(10, 100, seed=i)) for i in range(2)]
    with pytest.raises(Exception, match="bytes"):
        run(Job(Kind.MERGE, tuple(metas)), Swallowing(tmp_path), ulid=ulid(9))
    assert not (tmp_path / ulid(9) / META).exists()


def test_memory_does_not_grow_with_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six blocks of 2 h: what the merge holds is a batch, a row of pages, and a pages object and opened pages, here few of both."""
    monkeypatch.setattr("tsdb.block.writer.MAX_PART_BYTES", 1 << 20)
    monkeypatch.setattr("tsdb.compaction.compact.PAGE_CACHE_BYTES", 1 << 20)
    bucket = FolderBucket(tmp_path)
    peaks = []
    for series in (2000, 4000):
        metas = [write(bucket, series + i, grid_batch(series, 480, start_ms=i * 480 * 15_000, seed=i)) for i in range(6)]
        peaks.append(peak_of_merge(bucket, metas, series))
    assert peaks[1] < 1.2 * peaks[0], f"{peaks} bytes for 1 and 2 times the samples"
    assert peaks[1] < 48 << 20, np.array(peaks) / 2**20


def test_memory_of_long_rows_is_a_part_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks that follow one another, of 60 MiB of samples together, in rows of 62 pages of 1 MiB, of which 8 are held."""
    monkeypatch.setattr("tsdb.block.writer.PAGE_WORDS", 128 << 10)
    monkeypatch.setattr("tsdb.compaction.strips.STRIP_SLABS", 8)
    bucket = FolderBucket(tmp_path)
    metas = [write(bucket, i, grid_batch(60, 16_000, start_ms=i * 16_000 * 15_000, seed=i)) for i in range(4)]
    assert peak_of_merge(bucket, metas, 0) < 20 << 20


def test_rows_written_in_strips_hold_what_the_sources_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that come and go, and a gap between the blocks that is longer than a strip."""
    monkeypatch.setattr("tsdb.block.writer.PAGE_WORDS", 4000)
    monkeypatch.setattr("tsdb.block.writer.SLAB_SAMPLES", 20)
    monkeypatch.setattr("tsdb.compaction.strips.STRIP_SLABS", 3)
    bucket = FolderBucket(tmp_path)
    parts = [
        grid_batch(200, 50, start_ms=0, seed=1),
        grid_batch(300, 70, start_ms=50 * 15_000, seed=2),
        grid_batch(100, 60, start_ms=400 * 15_000, seed=3),
    ]
    metas = [write(bucket, i, part) for i, part in enumerate(parts)]
    meta = run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9))
    assert meta is not None and meta.samples == sum(part.samples for part in parts)
    assert same_samples(read(bucket, meta), merge_batches(parts))
    assert verify_block(bucket, meta) == []
    path = tmp_path / metas[1].ulid / "pages-000000"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SourceFailed) as failed:
        run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(10))
    assert failed.value.ulid == metas[1].ulid


def test_sources_are_read_in_as_few_runs_as_need_no_merging(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    parts = [grid_batch(30, 40, start_ms=start * 15_000, seed=start) for start in (0, 40, 80, 20, 60)]
    metas = [write(bucket, i, part) for i, part in enumerate(parts)]
    assert [[meta.ulid for meta in chain] for chain in chains(metas, apart=False)] == [
        [metas[0].ulid, metas[1].ulid, metas[2].ulid],
        [metas[3].ulid, metas[4].ulid],
    ]
    assert [len(chain) for chain in chains(metas, apart=True)] == [1] * 5
    meta = run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9))
    assert meta is not None and same_samples(read(bucket, meta), merge_batches(parts))


def peak_of_merge(bucket: FolderBucket, metas: list[BlockMeta], number: int) -> int:
    """The most bytes that a merge has allocated at once, after one that has compiled what it needs."""
    run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9000 + number))
    tracemalloc.start()
    meta = run(Job(Kind.MERGE, tuple(metas)), bucket, ulid=ulid(9001 + number))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert meta is not None and meta.samples == sum(one.samples for one in metas)
    return peak

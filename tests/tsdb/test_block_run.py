"""Runs of blocks: what comes is what merging the blocks one by one gives, damage is told, pages are read once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import grid_batch, histogram_batch, same_samples
from tests.tsdb.test_block import Memory
from tsdb.block import run as block_run
from tsdb.block import writer as block_writer
from tsdb.block.block import Block, BlockMeta, new_ulid, write_block
from tsdb.block.page_cache import PageCache
from tsdb.block.part_cache import PartCache
from tsdb.block.run import BlockPiece, BlockRun
from tsdb.compaction.downsample import downsample
from tsdb.merge import LEFT_OUT, MergeSource, merge_batches
from tsdb.model.errors import Corrupt
from tsdb.model.matcher import Matcher
from tsdb.model.series import STALE_NAN, SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Grid, Selection
from tsdb.model.windows import wanted_columns

EVERYTHING = Selection((), MIN_MS, MAX_MS)
SPAN_MS = 100 * 15_000


def ulid(number: int) -> str:
    return new_ulid(1_795_000_000_000 + number, b"0123456789")


def written(bucket: Memory, batches: Sequence[SeriesBatch]) -> list[BlockMeta]:
    metas = []
    for i, batch in enumerate(batches):
        meta = write_block(bucket, [batch], ulid=ulid(i), min_ms=i * SPAN_MS, max_ms=(i + 1) * SPAN_MS)
        assert meta is not None
        metas.append(meta)
    return metas


def run_of(bucket: Memory, metas: Sequence[BlockMeta], **options) -> BlockRun:
    cache, pages = PartCache(), PageCache(1 << 20)
    pieces = tuple(BlockPiece(Block(bucket, meta, cache, page_cache=pages), meta.min_ms, meta.max_ms) for meta in metas)
    return BlockRun(pieces, cache, **options)


def part(batch: SeriesBatch, number: int, keep: Sequence[int]) -> SeriesBatch:
    """Some of the series, their times moved into the span of block `number`."""
    chosen = batch.take(np.array(sorted(keep), np.int64))
    return replace(chosen, t_ms=chosen.t_ms % SPAN_MS + number * SPAN_MS)


@given(
    st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=4),
    st.integers(0, 4 * SPAN_MS),
    st.integers(0, 4 * SPAN_MS),
    st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_gives_what_merging_gives(
    monkeypatch: pytest.MonkeyPatch, kept: list[set[int]], start_ms: int, size_ms: int, threads: bool
) -> None:
    monkeypatch.setattr(block_writer, "PAGE_WORDS", 256)
    bucket = Memory()
    metas = written(bucket, [part(grid_batch(12, 100, seed=i), i, keep) for i, keep in enumerate(kept)])
    pool = ThreadPoolExecutor(2) if threads else None
    run = run_of(bucket, metas, executor=pool, batch_words=150)
    for selection in (EVERYTHING, Selection((), start_ms, start_ms + size_ms)):
        wanted = merge_batches(list(MergeSource([Block(bucket, meta) for meta in metas]).select(selection)))
        found = list(run.select(selection))
        assert same_samples(merge_batches(found), wanted)
        assert [row for batch in found for row in batch.series.rows()] == wanted.series.rows()
        assert set(wanted.series.rows()) <= set(run.series(selection).rows())
    if pool is not None:
        pool.shutdown()


@given(
    st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=3),
    st.integers(0, 3 * SPAN_MS),
    st.integers(0, 3 * SPAN_MS),
    st.sampled_from([1, 15_000, 40_000, 1 << 50]),
    st.sampled_from([0, 1, 14_000, 39_000]),
    st.booleans(),
)
@settings(max_examples=60)
def test_at_least_what_is_seen_from_a_grid_comes(
    kept: list[set[int]], start_ms: int, size_ms: int, every_ms: int, range_ms: int, late: bool
) -> None:
    bucket = Memory()
    batches = [part(grid_batch(12, 100, seed=i), i, keep) for i, keep in enumerate(kept)]
    if late:  # a block that overlaps the first, with samples between its own
        batches.append(replace(batches[0], t_ms=batches[0].t_ms + 7_000))
    metas = [write_block(bucket, [batch], ulid=ulid(i), min_ms=0, max_ms=4 * SPAN_MS) for i, batch in enumerate(batches)]
    run = run_of(bucket, [meta for meta in metas if meta])
    selection = Selection((), start_ms, start_ms + size_ms)
    whole = samples_of(run.select(selection))
    grid = Grid(start_ms + 5_000, every_ms, range_ms)
    for _ in range(3):  # from the second time on values are kept
        found = samples_of(run.select(replace(selection, grid=grid)))
        for labels, samples in whole.items():
            came = found.get(labels, [])
            if range_ms:
                seen = {(t_ms, bits) for t_ms, bits in samples if (grid.at_ms - t_ms) % every_ms < range_ms}
            else:  # later ones win
                seen = set({-((grid.at_ms - t_ms) // every_ms): (t_ms, bits) for t_ms, bits in samples}.values())
            assert seen <= set(came) <= set(samples) and came == sorted(came)
            assert late or len(came) <= len(seen) + (0 if range_ms else len(kept) - 1)  # no page knows of the one behind it


def samples_of(batches: Iterator[SeriesBatch]) -> dict[tuple[tuple[str, str], ...], list[tuple[int, int]]]:
    """By labels the times and the bits of the values."""
    out = {}
    for batch in batches:
        for i, row in enumerate(batch.series.rows()):
            own = slice(batch.offsets[i], batch.offsets[i + 1])
            out[row] = list(zip(batch.t_ms[own].tolist(), batch.values[own].view(np.int64).tolist(), strict=True))
    return out


def test_matchers_and_labels_of_many_blocks() -> None:
    bucket = Memory()
    batches = [part(grid_batch(12, 100, seed=i), i, range(i, 12)) for i in range(3)]
    run = run_of(bucket, written(bucket, batches))
    selection = Selection((Matcher("instance", "=~", ".*[12]"),), MIN_MS, MAX_MS)
    wanted = merge_batches([batch.take(np.flatnonzero(selection.matchers[0].select(batch.series))) for batch in batches])
    assert len(wanted) and same_samples(merge_batches(list(run.select(selection))), wanted)


def test_beyond_the_union_labels_are_merged_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_run, "MAX_UNION_SERIES", 5)
    bucket = Memory()
    batches = [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(2)]
    run = run_of(bucket, written(bucket, batches))
    assert same_samples(merge_batches(list(run.select(EVERYTHING))), merge_batches(batches))


def test_histograms_are_joined_too() -> None:
    bucket = Memory()
    batches = [part(histogram_batch(12, 100), i, range(12)) for i in range(2)]
    run = run_of(bucket, written(bucket, batches))
    assert same_samples(merge_batches(list(run.select(EVERYTHING))), merge_batches(batches))


def test_a_batch_holds_no_histograms_but_its_own() -> None:
    bucket, whole = Memory(), histogram_batch(30, 100)
    run = run_of(bucket, written(bucket, [whole]), batch_words=4_000, long_words=8_000)
    wanted = Selection((), 20 * 15_000, 70 * 15_000)
    found = list(run.select(wanted))
    assert len(found) > 3 and same_samples(merge_batches(found), whole.clip(wanted.start_ms, wanted.end_ms))
    for batch in found:
        assert batch.histograms is not None and len(batch.histograms) == np.count_nonzero(batch.histogram_at >= 0)


def test_what_would_be_two_batches_is_one() -> None:
    bucket, whole = Memory(), grid_batch(40, 100)
    metas = written(bucket, [whole])
    words = 2 * whole.samples
    sizes = [
        len(list(run_of(bucket, metas, batch_words=size, long_words=size).select(EVERYTHING))) for size in (words // 2, words // 3)
    ]
    assert sizes[0] == 1 and sizes[1] >= 3


@pytest.mark.parametrize("threads", [False, True])
def test_windows_come_as_they_are_and_of_their_columns_those_that_are_asked_for(threads: bool) -> None:
    bucket, span_ms = Memory(), 20 * 300_000
    whole = downsample(grid_batch(40, 1600, start_ms=1), 300_000)
    metas = []
    for i in range(4):
        part = whole.clip(i * span_ms + 1, (i + 1) * span_ms + 1)
        bounds = {"min_ms": i * span_ms + 1, "max_ms": (i + 1) * span_ms + 1}
        metas.append(write_block(bucket, [part], ulid=ulid(i), resolution_ms=300_000, **bounds))
    with ThreadPoolExecutor(2) as pool:
        run = run_of(bucket, [meta for meta in metas if meta], executor=pool if threads else None)
        found = list(run.select(EVERYTHING))
        asked = merge_batches(list(run.select(replace(EVERYTHING, columns=("count", "first")))))
    assert all(batch.resolution_ms == 300_000 for batch in found)
    joined = merge_batches(found)
    assert same_samples(joined, whole) and np.array_equal(joined.windows, whole.windows)
    wanted = wanted_columns(("count", "first"))
    assert same_samples(asked, whole) and np.array_equal(asked.windows[wanted], whole.windows[wanted])


@pytest.mark.parametrize("columns", [None, ("count", "first", "first_ms")])
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_raw_samples_behind_windows_become_windows_of_one_and_those_inside_are_left_out(
    late: bool, stale: bool, columns: tuple[str, ...] | None
) -> None:
    bucket, cut_ms = Memory(), 20 * 300_000
    whole = grid_batch(40, 600, start_ms=1)
    if stale:
        whole = replace(whole, values=np.where(np.arange(whole.samples) % 7 == 3, STALE_NAN, whole.values))
    windows = downsample(whole.clip(1, cut_ms + 1), 300_000)
    raw = whole.clip(cut_ms + 1 - 900_000 * late, MAX_MS).take(np.arange(5, 40))
    one, other = (
        write_block(bucket, [batch], ulid=ulid(i), min_ms=0, max_ms=MAX_MS, resolution_ms=resolution_ms)
        for i, (batch, resolution_ms) in enumerate([(windows, 300_000), (raw, 0)])
    )
    assert one is not None and other is not None
    selection = replace(EVERYTHING, resolution_ms=300_000, columns=columns)
    found = list(run_of(bucket, [one, other]).select(selection))
    joined, wanted = merge_batches(found), merge_batches([windows, raw], columns)
    rows = wanted_columns(columns)
    assert same_samples(joined, wanted) and np.array_equal(joined.windows[rows], wanted.windows[rows], equal_nan=True)
    assert joined.warnings == wanted.warnings == ((LEFT_OUT,) if late else ())
    assert late or joined.samples == windows.samples + 35 * 200
    assert {batch.resolution_ms for batch in found} == {300_000}
    only_raw = list(run_of(bucket, [other]).select(selection))
    assert all(batch.windows is None and batch.resolution_ms == 0 for batch in only_raw)


def test_pages_that_several_batches_share_are_read_once() -> None:
    bucket = Memory()
    metas = written(bucket, [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(3)])
    bucket.reads.clear()
    with ThreadPoolExecutor(2) as pool:
        assert len(list(run_of(bucket, metas, executor=pool, batch_words=400, long_words=400).select(EVERYTHING))) > 3
    read = [(key, start) for key, start, _ in bucket.reads if "pages" in key]
    assert len(read) == len(set(read)) == 3


def test_values_of_a_page_are_looked_for_once_a_query_and_kept_from_its_second_on() -> None:
    bucket = Memory()
    metas = written(bucket, [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(3)])
    run = run_of(bucket, metas, batch_words=400, long_words=400)
    pages = run.pieces[0].block.page_cache
    assert pages is not None
    answers, looked = [], []
    for _ in range(3):
        batches = list(run.select(EVERYTHING))
        assert len(batches) > 3
        answers.append(merge_batches(batches))
        looked.append((pages.values.hits, pages.values.misses))
    assert looked == [(0, 0), (0, 3), (3, 3)]
    assert all(same_samples(answer, answers[0]) for answer in answers)


def test_what_was_read_in_part_is_not_kept_as_the_whole() -> None:
    """A column of an index that cannot be read once is read by the next query."""
    bucket = Memory()
    batches = [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(3)]
    metas = written(bucket, batches)
    run = run_of(bucket, metas, damage=lambda ulid, error: f"{ulid} is damaged")
    selection = Selection((Matcher("instance", "=~", ".*[12]"),), MIN_MS, MAX_MS)
    key, sound = metas[1].key("index"), bucket.objects[metas[1].key("index")]
    run.pieces[1].block.index().directory()
    bucket.objects[key] = bytes(len(sound))
    damaged = list(run.select(selection))
    assert [text for batch in damaged for text in batch.warnings] == [f"{metas[1].ulid} is damaged"]
    bucket.objects[key] = sound
    wanted = merge_batches([batch.take(np.flatnonzero(selection.matchers[0].select(batch.series))) for batch in batches])
    for _ in range(2):
        assert same_samples(merge_batches(list(run.select(selection))), wanted)


def test_pages_are_read_once() -> None:
    bucket = Memory()
    run = run_of(bucket, written(bucket, [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(3)]))
    first = merge_batches(list(run.select(EVERYTHING)))
    bucket.reads.clear()
    assert same_samples(merge_batches(list(run.select(EVERYTHING))), first)
    assert bucket.reads == []


@pytest.mark.parametrize("object_name", ["index", "pages-000000"])
def test_a_damaged_block_is_left_out_and_told_of(object_name: str) -> None:
    bucket = Memory()
    batches = [part(grid_batch(12, 100, seed=i), i, range(12)) for i in range(3)]
    metas = written(bucket, batches)
    key = metas[1].key(object_name)
    bucket.objects[key] = bytes(len(bucket.objects[key]))
    found = list(run_of(bucket, metas, damage=lambda ulid, error: f"{ulid} is damaged").select(EVERYTHING))
    assert same_samples(merge_batches([replace(batch, warnings=()) for batch in found]), merge_batches([batches[0], batches[2]]))
    assert [text for batch in found for text in batch.warnings] == [f"{metas[1].ulid} is damaged"]
    with pytest.raises(Corrupt):
        list(run_of(bucket, metas).select(EVERYTHING))


@pytest.mark.parametrize("late", [0, 40, 99])
def test_blocks_that_overlap_are_merged_where_their_samples_do(late: int) -> None:
    """Of a window cut twice the second block has what came later; `late` of its samples are older than the newest of the first."""
    bucket = Memory()
    whole = part(grid_batch(12, 100, seed=1), 0, range(12))
    at = whole.t_ms // 15_000 % 100
    batches = [whole.where(at < 50), whole.where(at >= 50 - late), part(grid_batch(12, 100, seed=2), 1, range(5, 12))]
    metas = [
        write_block(bucket, [batch], ulid=ulid(i), min_ms=start_ms, max_ms=start_ms + SPAN_MS)
        for i, (batch, start_ms) in enumerate(zip(batches, (0, 0, SPAN_MS), strict=True))
    ]
    run = run_of(bucket, [meta for meta in metas if meta is not None])
    for selection in (EVERYTHING, Selection((), 30 * 15_000, 120 * 15_000)):
        wanted = merge_batches([batch.clip(selection.start_ms, selection.end_ms) for batch in (whole, batches[2])])
        assert same_samples(merge_batches(list(run.select(selection))), wanted)

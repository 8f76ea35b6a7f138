"""Blocks: written and read whole and in part, over a folder; damage anywhere is found; the order of writes is the commit."""

import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import batches, grid_batch, histogram_batch, same_samples
from tsdb.block import block as block_file
from tsdb.block import writer as block_writer
from tsdb.block.block import Block, BlockMeta, list_blocks, list_ulids, new_ulid, read_meta, verify_block, write_block
from tsdb.block.meta import decode_meta, encode_meta, is_ulid
from tsdb.bucket.bucket import Bucket, FolderBucket
from tsdb.compaction.downsample import downsample
from tsdb.merge import merge_batches
from tsdb.model.errors import BadData, Corrupt, NotFound, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.windows import COLUMNS

ULID = new_ulid(1_795_000_000_000, b"0123456789")
EVERYTHING = Selection((), MIN_MS, MAX_MS)


@dataclass(frozen=True)
class Memory:
    """A bucket in memory that counts requests, and fails from the k-th put on if told to."""

    objects: dict[str, bytes] = field(default_factory=dict)
    reads: list[tuple[str, int, int | None]] = field(default_factory=list)
    puts_left: list[int] = field(default_factory=list)

    def put(self, key: str, data: bytes) -> None:
        if self.puts_left:
            if self.puts_left[0] == 0:
                raise Unavailable("the bucket is away")
            self.puts_left[0] -= 1
        self.objects[key] = data

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        self.reads.append((key, start, size))
        if key not in self.objects:
            raise NotFound(f"no object {key!r}")
        if size is not None and start + size > len(self.objects[key]):
            raise BadData(f"range leaves {key!r}")
        return self.objects[key][start : None if size is None else start + size]


def write(bucket: Bucket, *parts: SeriesBatch, **options) -> BlockMeta:
    meta = write_block(bucket, parts, ulid=ULID, min_ms=-(1 << 50), max_ms=1 << 50, **options)
    assert meta is not None
    return meta


def read(bucket: Bucket, meta: BlockMeta, selection: Selection = EVERYTHING) -> SeriesBatch:
    return merge_batches(list(Block(bucket, meta).select(selection)))


@given(
    batches(max_series=8, max_samples=30, max_ms=1000), st.integers(-5, 1005), st.integers(0, 1005), st.sampled_from(["", "x", "y"])
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_selection_is_what_the_batch_holds(
    monkeypatch: pytest.MonkeyPatch, batch: SeriesBatch, start_ms: int, size_ms: int, value: str
) -> None:
    monkeypatch.setattr(block_writer, "PAGE_WORDS", 64)
    monkeypatch.setattr(block_writer, "SLAB_SAMPLES", 8)
    monkeypatch.setattr(block_file, "BATCH_WORDS", 50)
    bucket = Memory()
    meta = write_block(bucket, [batch], ulid=ULID, min_ms=0, max_ms=2000)
    if meta is None:
        assert batch.samples == 0 and not bucket.objects
        return
    assert same_samples(read(bucket, meta), batch)
    selection = Selection((Matcher("a", "=", value),), start_ms, start_ms + size_ms)
    wanted = batch.take(np.flatnonzero(select_rows(batch.series, selection.matchers))).clip(selection.start_ms, selection.end_ms)
    found = list(Block(bucket, meta).select(selection))
    assert same_samples(merge_batches(found), wanted)
    assert [row for part in found for row in part.series.rows()] == wanted.series.rows()
    assert set(wanted.series.rows()) <= set(Block(bucket, meta).series(selection).rows())


@pytest.mark.parametrize("make", [lambda: grid_batch(300, 700), lambda: grid_batch(3, 20_000), lambda: histogram_batch(40, 60)])
def test_real_sizes_come_back_through_a_folder(tmp_path: Path, make: Callable[[], SeriesBatch]) -> None:
    batch = make()
    bucket = FolderBucket(tmp_path)
    meta = write(bucket, batch)
    assert (meta.samples, meta.series) == (batch.samples, len(batch))
    assert meta.histograms == (0 if batch.histogram_at is None else np.count_nonzero(batch.histogram_at >= 0))
    assert same_samples(read(bucket, meta), batch)
    selection = Selection((Matcher("instance", "=~", "host-0000.*"),), 100_000, 400_000)
    rows = np.flatnonzero(select_rows(batch.series, selection.matchers))
    assert same_samples(read(bucket, meta, selection), batch.take(rows).clip(100_000, 400_000))
    assert verify_block(bucket, meta) == [] and read_meta(bucket, ULID) == meta and list_blocks(bucket) == [meta]


def test_start_times_come_back_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_writer, "PAGE_WORDS", 200)
    a, b = grid_batch(10, 30, metric="a"), grid_batch(10, 30, metric="b")
    b = replace(b, start_ms=b.t_ms - 5)
    bucket = Memory()
    assert same_samples(read(bucket, write(bucket, a, b)), merge_batches([a, b]))


def test_many_batches_are_one_block_and_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_writer, "MAX_PART_BYTES", 20_000)
    monkeypatch.setattr(block_writer, "GATHER_WORDS", 2000)
    monkeypatch.setattr(block_writer, "PAGE_WORDS", 2000)
    parts = [grid_batch(50, 100, metric=f"m{i:02d}", seed=i) for i in range(20)]
    bucket = Memory()
    meta = write(bucket, *parts)
    pages = [part for part in meta.objects if part.name.startswith("pages")]
    assert len(pages) > 3 and all(part.size_bytes <= 20_000 for part in pages)
    assert same_samples(read(bucket, meta), merge_batches(parts))
    assert verify_block(bucket, meta) == []


def test_batches_of_a_selection_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_writer, "PAGE_WORDS", 4000)
    monkeypatch.setattr(block_file, "BATCH_WORDS", 10_000)
    monkeypatch.setattr(block_file, "BATCH_SERIES", 60)
    bucket = Memory()
    meta = write(bucket, grid_batch(400, 100))
    sizes = [(len(batch), batch.samples) for batch in Block(bucket, meta).select(EVERYTHING)]
    assert sum(n for n, _ in sizes) == 400 and max(n for n, _ in sizes) <= 80 and max(m for _, m in sizes) <= 8000


def test_one_metric_costs_few_requests_and_bytes() -> None:
    bucket = Memory()
    meta = write(bucket, *(grid_batch(200, 240, metric=f"m{i:02d}", seed=i) for i in range(30)))
    bucket.reads.clear()
    found = read(bucket, meta, Selection((Matcher("__name__", "=", "m17"),), 0, 300_000))
    assert found.samples == 200 * 20
    assert len(bucket.reads) <= 6
    page_bytes = sum(size or 0 for key, _, size in bucket.reads if "pages" in key)
    assert page_bytes < meta.size_bytes / 10


def test_reads_of_a_batch_can_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_file, "REQUEST_BYTES", 1)
    bucket = Memory()
    batch = grid_batch(300, 700)
    meta = write(bucket, batch)
    with ThreadPoolExecutor(4) as executor:
        assert same_samples(merge_batches(list(Block(bucket, meta, executor=executor).select(EVERYTHING))), batch)


def test_samples_outside_the_block_are_refused() -> None:
    bucket = Memory()
    for bounds in ((1, 1 << 40), (0, 1)):
        with pytest.raises(BadData, match="samples from 0 to"):
            write_block(bucket, [grid_batch(1, 2)], ulid=ULID, min_ms=bounds[0], max_ms=bounds[1])
    assert not bucket.objects


def test_nothing_makes_no_block() -> None:
    bucket = Memory()
    hollow = SeriesBatch(SeriesTable.of([Labels.of({"a": "b"})]), np.zeros(2, np.int64), np.empty(0, np.int64), np.empty(0))
    assert write_block(bucket, [hollow, SeriesBatch.empty()], ulid=ULID, min_ms=0, max_ms=10) is None
    assert not bucket.objects


def test_windows_come_back_whole() -> None:
    bucket = Memory()
    batch = downsample(grid_batch(50, 8000), 300_000)
    meta = write(bucket, batch, resolution_ms=300_000, level=2, sources=("a", "b"))
    assert (meta.resolution_ms, meta.level, meta.sources, meta.aggregates) == (300_000, 2, ("a", "b"), COLUMNS)
    back = read(bucket, meta)
    assert np.array_equal(back.values, batch.values) and np.array_equal(back.windows, batch.windows)
    assert back.resolution_ms == 300_000
    few = read(bucket, meta, Selection((Matcher("instance", "=~", "host-00000[3-5]"),), 600_001, 1_200_001))
    assert few.t_ms.tolist() == [900_000, 1_200_000] * 3 and few.windows is not None
    assert np.array_equal(few.windows, batch.take(np.array([3, 4, 5])).clip(600_001, 1_200_001).windows)


@pytest.mark.parametrize("part", ["meta.json", "index", "pages-000000"])
@pytest.mark.parametrize("make", [lambda: grid_batch(60, 300), lambda: histogram_batch(10, 20)])
def test_any_flipped_bit_is_found_when_read(part: str, make: Callable[[], SeriesBatch]) -> None:
    bucket = Memory()
    meta = write(bucket, make())
    key = f"{ULID}/{part}"
    good = bucket.objects[key]
    rng = np.random.default_rng(5)
    bits = [*rng.choice(8 * len(good), min(200, 8 * len(good)), replace=False).tolist(), 0, 8 * len(good) - 1]
    for bit in bits:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        bucket.objects[key] = bytes(bad)
        with pytest.raises(Corrupt, match=f"{ULID}/{part}.* byte "):
            read(bucket, read_meta(bucket, ULID), replace(EVERYTHING, matchers=(Matcher("__name__", "!=", "x"),)))
        if part != "meta.json":
            assert any(key in problem for problem in verify_block(bucket, meta))
        bucket.objects[key] = good
    assert verify_block(bucket, meta) == []


def test_cut_and_missing_objects_are_told() -> None:
    bucket = Memory()
    meta = write(bucket, grid_batch(10, 100))
    for name in ("index", "pages-000000"):
        key = meta.key(name)
        good = bucket.objects[key]
        bucket.objects[key] = good[: len(good) // 2]
        with pytest.raises(Corrupt, match=name):
            read(bucket, meta)
        assert verify_block(bucket, meta) == [f"{key}: has {len(good) // 2} bytes, the block promises {len(good)}"]
        del bucket.objects[key]
        with pytest.raises(NotFound):
            read(bucket, meta)
        assert verify_block(bucket, meta) == [f"{key}: is missing"]
        bucket.objects[key] = good


def test_a_meta_that_counts_wrongly_is_told() -> None:
    bucket = Memory()
    meta = write(bucket, grid_batch(10, 100))
    assert "holds 10 series and 1000 samples, its meta says 10 and 999" in verify_block(bucket, replace(meta, samples=999))[0]


def test_the_block_exists_only_once_its_meta_does(tmp_path: Path) -> None:
    for puts in range(3):
        bucket = Memory(puts_left=[puts])
        with pytest.raises(Unavailable):
            write(bucket, grid_batch(5, 5))
        assert not any(key.endswith("meta.json") for key in bucket.objects)
    folder = FolderBucket(tmp_path)
    folder.put(f"{ULID}/index", b"")
    folder.put("not-a-block/meta.json", b"")
    assert list_ulids(folder) == [] and list_blocks(folder) == []


def test_foreign_metas_are_refused() -> None:
    bucket = Memory()
    meta = write(bucket, grid_batch(1, 1))
    body = json.dumps({"version": 1, "ulid": ULID}).encode()
    for data in (
        b"",
        b"{}",
        encode_meta(meta)[:-1],
        body,
        b'{"crc32":"%08x","meta":%b}\n' % (zlib.crc32(body), body),
        encode_meta(replace(meta, format=2)),
    ):
        with pytest.raises(Corrupt):
            decode_meta(data, key=f"{ULID}/meta.json")
    with pytest.raises(Corrupt):
        decode_meta(encode_meta(meta), key="01ARZ3NDEKTSV4RRFFQ69G5FAV/meta.json")


def test_ulids_sort_by_time() -> None:
    ulids = [new_ulid(t, bytes([r]) * 10) for t in (0, 1, 1_795_000_000_000, (1 << 48) - 1) for r in (0, 255)]
    assert ulids == sorted(ulids) and all(is_ulid(ulid) for ulid in ulids) and not is_ulid("x" * 26)
    assert new_ulid(1_469_918_176_385, bytes(10))[:10] == "01ARYZ6S41"  # the example of the ULID specification
    for bad in ((-1, bytes(10)), (1 << 48, bytes(10)), (0, b"")):
        with pytest.raises(BadData):
            new_ulid(*bad)

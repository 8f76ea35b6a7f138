"""Queries over a bucket of raw blocks and windows, through the store gateway: which blocks answer, and what is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promql.answer import Answer, QueryOptions
from promql.engine import query_range
from promql.matrix import Matrix, Steps
from promql.resolution import AUTO
from remote.store_gateway import StoreGateway
from tests.tsdb.batches import grid_batch
from tsdb.block.meta import BlockMeta, list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, PrefixBucket
from tsdb.compaction.bucket_index import Inventory, scan_bucket, write_index
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.compaction.reclaim import delete_block
from tsdb.model.source import MAX_MS, MIN_MS, Selection

M5, H, D = 300_000, 3_600_000, 86_400_000
NOW_MS = 100 * D
STEPS = Steps(2 * H, 4 * D - H, H)
QUERY = "sum by (job) (rate(m[2h]))"


class Place:
    """A bucket with one tenant's blocks of four days: raw, 5 m, and 1 h."""

    def __init__(self, folder: Path) -> None:
        self.whole = FolderBucket(folder)
        self.bucket = PrefixBucket(self.whole, "t")
        self.batch = grid_batch(6, 4 * 5760)
        for i in range(2):
            self.write(self.batch.clip(2 * i * D, 2 * (i + 1) * D), 2 * i * D, 2 * (i + 1) * D)
        while jobs := plan_downsample(list_blocks(self.bucket), now_ms=NOW_MS, final_range_ms=2 * D):
            for job in jobs:
                run_downsample(job, self.bucket, ulid=self.ulid())

    def write(self, batch: object, start_ms: int, end_ms: int) -> None:
        assert write_block(self.bucket, [batch], ulid=self.ulid(), min_ms=start_ms, max_ms=end_ms)  # type: ignore[list-item]

    def ulid(self) -> str:
        return new_ulid(len(list_blocks(self.bucket)), b"0123456789")

    def delete(self, resolution_ms: int, before_ms: int = NOW_MS) -> None:
        for meta in list_blocks(self.bucket):
            if meta.resolution_ms == resolution_ms and meta.max_ms <= before_ms:
                delete_block(self.bucket, meta.ulid)

    def gateway(self) -> StoreGateway:
        write_index(self.bucket, scan_bucket(self.bucket, Inventory()).inventory, scanned_ms=NOW_MS)
        gateway = StoreGateway(self.whole)
        gateway.refresh(NOW_MS)
        return gateway

    def ask(self, query: str = QUERY, steps: Steps = STEPS, resolution_ms: int = 0) -> Answer:
        return query_range(self.gateway().source("t"), query, steps, QueryOptions(resolution_ms=resolution_ms))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def same(a: Answer, b: Answer) -> None:
    assert isinstance(a.value, Matrix) and isinstance(b.value, Matrix)
    assert a.value.series.rows() == b.value.series.rows() and np.array_equal(a.value.present, b.value.present)
    np.testing.assert_allclose(a.value.values, b.value.values, rtol=1e-9)


def samples(answer: Answer) -> int:
    assert answer.stats is not None
    return answer.stats.samples


def test_each_resolution_gives_the_same_answer_from_fewer_samples(place: Place) -> None:
    metas: list[BlockMeta] = list_blocks(place.bucket)
    assert sorted(meta.resolution_ms for meta in metas) == [0, 0, M5, M5, H, H]
    raw, five, hour, auto = (place.ask(resolution_ms=ms) for ms in (0, M5, H, AUTO))
    for other in (five, hour, auto):
        same(raw, other)
        assert not other.warnings and not [info for info in other.infos if "approximated" in info]
    assert samples(raw) > 15 * samples(five) and samples(five) > 10 * samples(hour) and samples(auto) == samples(hour)


def test_a_gap_is_filled_by_a_finer_resolution(place: Place) -> None:
    raw = place.ask()
    place.delete(H, before_ms=3 * D)
    place.delete(M5, before_ms=3 * D)
    same(raw, place.ask(resolution_ms=H))
    place.delete(H)
    same(raw, place.ask(resolution_ms=AUTO))


def test_where_raw_samples_are_gone_windows_answer_or_the_gap_is_told(place: Place) -> None:
    raw, cut = place.ask(), replace(STEPS, step_ms=7 * 60_000)
    rough = place.ask(steps=cut)
    place.delete(0, before_ms=3 * D)
    same(raw, place.ask(resolution_ms=AUTO))
    told = place.ask()
    assert len(told.warnings) == 1 and "max_source_resolution=5m" in told.warnings[0] and "1970-01-01T00:00" in told.warnings[0]
    assert isinstance(told.value, Matrix) and isinstance(raw.value, Matrix) and told.value.present.sum() < raw.value.present.sum()
    assert place.ask(steps=cut, resolution_ms=AUTO).warnings, "a fifth of the step is less than 5 m"
    long_steps = Steps(2 * H + 60_000, 4 * D - H, H)
    answer = place.ask(steps=long_steps, resolution_ms=AUTO)
    assert not answer.warnings and any("rate() over samples downsampled to 5m is approximated" in info for info in answer.infos)
    answer = place.ask(steps=cut, resolution_ms=M5)
    assert isinstance(answer.value, Matrix) and isinstance(rough.value, Matrix) and not answer.warnings
    np.testing.assert_allclose(answer.value.values, rough.value.values, rtol=0.2)


def test_series_are_known_by_their_windows(place: Place) -> None:
    place.delete(0)
    assert len(place.gateway().source("t").series(Selection((), MIN_MS, MAX_MS))) == 6


def test_late_samples_are_in_the_answer_before_they_are_in_windows(place: Place) -> None:
    late = grid_batch(6, 5760, start_ms=D + 7_000, seed=1)
    place.write(late.clip(D, D + 2 * H), D, D + 2 * H)
    same(place.ask("sum(count_over_time(m[2h]))"), place.ask("sum(count_over_time(m[2h]))", resolution_ms=H))

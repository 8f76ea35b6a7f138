"""Samples that come after their time was downsampled: in memory, in raw blocks, with and without the raw samples of old.

Each is counted once at most, whatever the resolution, and takes nothing from others. Where raw samples are there all are counted.
"""

from pathlib import Path

import numpy as np
import pytest

from promql.answer import Answer, QueryOptions
from promql.engine import query_range
from promql.matrix import Matrix, Steps
from promql.resolution import AUTO
from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions
from remote.limits import Limits, LimitsTable
from remote.querier import Querier
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import StoreGateway
from tests.remote.writes import write_batch
from tsdb.block.meta import BlockMeta, list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, PrefixBucket
from tsdb.compaction.bucket_index import Inventory, scan_bucket, write_index
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.compaction.reclaim import delete_block
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

M5, H, D = 300_000, 3_600_000, 86_400_000
NOW_MS = 100 * D
STEPS = Steps(2 * H, 2 * D - 2 * H, H)
SCRAPE_MS = 15_000
OLD, NEW = Labels.of({"__name__": "m", "job": "old"}), Labels.of({"__name__": "m", "job": "new"})
QUERIES = ["sum by (job) (count_over_time(m[2h]))", "sum by (job) (rate(m[2h]))", "sum by (job) (sum_over_time(m[1h]))", "m"]
LATE_MS = 20 * H + 7_000


class Place:
    """Two days of a counter in a raw block and its windows, an ingester, and a reader of both."""

    def __init__(self, folder: Path, *, with_raw: bool) -> None:
        self.bucket = FolderBucket(folder / "bucket")
        mine = PrefixBucket(self.bucket, "t")
        times = np.arange(SCRAPE_MS, 2 * D, SCRAPE_MS, dtype=np.int64)
        batch = SeriesBatch(SeriesTable.of([OLD]), np.array([0, len(times)]), times, counter(times))
        write_block(mine, [batch], ulid=new_ulid(1, b"0123456789"), min_ms=0, max_ms=2 * D)
        for at in (2, 3):
            (job,) = plan_downsample(list_blocks(mine), now_ms=NOW_MS, final_range_ms=2 * D)
            run_downsample(job, mine, ulid=new_ulid(at, b"0123456789"))
        for meta in list_blocks(mine):
            if meta.resolution_ms == 0 and not with_raw:
                delete_block(mine, meta.ulid)
        write_index(mine, scan_bucket(mine, Inventory()).inventory, scanned_ms=NOW_MS)
        self.gateway = StoreGateway(self.bucket)
        self.gateway.refresh(NOW_MS)
        self.ingester = Ingester(
            "i", folder / "wal", self.bucket, LimitsTable(Limits()), IngesterOptions(wal_sync="os", keep_flushed_ms=0),
            now_ms=NOW_MS, announce=self.told,
        )  # fmt: skip
        self.membership = MemoryMembership(replication_factor=1)
        self.membership.join(Instance("i", "", State.ACTIVE, "", instance_tokens("i"), NOW_MS, NOW_MS))

    def told(self, tenant: str, meta: BlockMeta) -> None:
        self.gateway.add(tenant, meta)

    def write(self, labels: Labels, times: list[int]) -> None:
        values = counter(np.array(times)).tolist()
        batch = write_batch({labels: list(zip(times, values, strict=True))})
        Distributor(self.membership, lambda _: self.ingester, LimitsTable(Limits())).push("t", batch, now_ms=NOW_MS)

    def ask(self, query: str, resolution_ms: int) -> Answer:
        source = Querier(self.membership, lambda _: self.ingester, self.gateway).source("t")
        return query_range(source, query, STEPS, QueryOptions(resolution_ms=resolution_ms))


def counter(times: np.ndarray) -> np.ndarray:
    return times / 1000.0


def of_job(answer: Answer, job: str) -> np.ndarray:
    """The values of one job at all steps, NaN where there is none."""
    assert isinstance(answer.value, Matrix)
    for i, labels in enumerate(answer.value.series.rows()):
        if labels.get("job") == job:
            return np.where(answer.value.present[i], answer.value.values[i], np.nan)
    return np.full(len(STEPS), np.nan)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("resolution_ms", [AUTO, M5, H])
@pytest.mark.parametrize("query", QUERIES)
def test_where_raw_samples_are_there_late_ones_count_as_any_other(
    tmp_path: Path, query: str, resolution_ms: int, flushed: bool
) -> None:
    place = Place(tmp_path, with_raw=True)
    place.write(OLD, [LATE_MS, LATE_MS + 8_000])  # 20:00:07, and once more what is there at 20:00:15
    place.write(NEW, [LATE_MS + i * 60_000 for i in range(300)])
    if flushed:
        place.ingester.flush(NOW_MS)
    raw, answer = place.ask(query, 0), place.ask(query, resolution_ms)
    for job in ("old", "new"):
        np.testing.assert_allclose(of_job(answer, job), of_job(raw, job), rtol=1e-9)
    assert not answer.warnings and not raw.warnings


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("resolution_ms", [AUTO, M5, H])
@pytest.mark.parametrize("query", QUERIES)
def test_where_raw_samples_are_gone_windows_stay_whole_and_other_series_are_added(
    tmp_path: Path, query: str, resolution_ms: int, flushed: bool
) -> None:
    place = Place(tmp_path, with_raw=False)
    before = place.ask(query, resolution_ms)
    place.write(OLD, [LATE_MS + 8_000, LATE_MS + 15_000, LATE_MS + 60_000])  # the first is in a window, the others are not
    place.write(NEW, [LATE_MS + i * 60_000 for i in range(300)])
    if flushed:
        place.ingester.flush(NOW_MS)
    answer = place.ask(query, resolution_ms)
    np.testing.assert_allclose(of_job(answer, "old"), of_job(before, "old"), rtol=1e-9)
    alone = Place(tmp_path / "alone", with_raw=False)
    for meta in list_blocks(PrefixBucket(alone.bucket, "t")):
        delete_block(PrefixBucket(alone.bucket, "t"), meta.ulid)
    write_index(PrefixBucket(alone.bucket, "t"), Inventory(), scanned_ms=NOW_MS)
    alone.gateway.reload("t", NOW_MS)
    alone.write(NEW, [LATE_MS + i * 60_000 for i in range(300)])
    np.testing.assert_allclose(of_job(answer, "new"), of_job(alone.ask(query, 0), "new"), rtol=1e-9)
    assert any("left out" in warning for warning in answer.warnings)

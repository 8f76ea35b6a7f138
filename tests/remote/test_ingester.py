from pathlib import Path

import pytest

from remote.ingester import Ingester, IngesterOptions, TickReport, head_options
from remote.limits import Limits, LimitsTable
from tests.remote.test_store_gateway import read
from tests.remote.writes import write_batch
from tsdb.block.meta import BlockMeta
from tsdb.bucket.bucket import FolderBucket
from tsdb.model.errors import BadData, LimitExceeded, Unavailable
from tsdb.model.labels import Labels

HOUR_MS = 3_600_000
NOW_MS = 500_000 * HOUR_MS
UP = Labels.of({"__name__": "up", "job": "a"})
FAST = IngesterOptions(wal_sync="os")


def ingester(path: Path, *, limits: Limits | None = None, options: IngesterOptions = FAST, now_ms: int = NOW_MS) -> Ingester:
    bucket = FolderBucket(path / "bucket")
    return Ingester("i", path / "wal", bucket, LimitsTable(limits or Limits()), options, now_ms=now_ms)


def push(one: Ingester, tenant: str, *times: int, now_ms: int = NOW_MS) -> int:
    return one.push(tenant, write_batch({UP: [(t, float(t % 1000)) for t in times]}), now_ms=now_ms).samples


def times(one: Ingester, tenant: str) -> list[int]:
    found, warnings = read(one.source(tenant))
    assert warnings == ()
    return [t for t, _ in found.get(str(UP), [])]


def windows(report: TickReport) -> list[tuple[str, int, int]]:
    """(tenant, start, end) of the blocks written, in hours after NOW_MS."""
    assert report.failed == {}
    return [(tenant, (m.min_ms - NOW_MS) // HOUR_MS, (m.max_ms - NOW_MS) // HOUR_MS) for tenant, m in report.written]


def test_tenants_are_apart_and_survive_a_restart(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    assert push(one, "a", NOW_MS) == 1 and push(one, "b", NOW_MS + 1, NOW_MS + 2) == 2
    assert times(one, "a") == [NOW_MS] and times(one, "b") == [NOW_MS + 1, NOW_MS + 2] and times(one, "c") == []
    one.shutdown(NOW_MS, flush=False)
    again = ingester(tmp_path)
    assert again.tenants() == ["a", "b"]
    assert times(again, "a") == [NOW_MS] and times(again, "b") == [NOW_MS + 1, NOW_MS + 2]


def test_a_folder_that_no_tenant_can_have_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "wal" / "__lost+found__").mkdir(parents=True)
    (tmp_path / "wal" / "a file").write_text("")
    assert ingester(tmp_path).tenants() == []
    with pytest.raises(BadData):
        push(ingester(tmp_path), "../a", NOW_MS)


def test_blocks_are_cut_at_two_hours(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    for minute in range(0, 178, 5):
        push(one, "a", NOW_MS + minute * 60_000, now_ms=NOW_MS + minute * 60_000)
    assert windows(one.tick(NOW_MS + 179 * 60_000)) == []
    push(one, "a", NOW_MS + 3 * HOUR_MS, now_ms=NOW_MS + 3 * HOUR_MS)
    before = times(one, "a")
    assert windows(one.tick(NOW_MS + 3 * HOUR_MS)) == [("a", 0, 2)]
    assert times(one, "a") == before
    assert windows(one.tick(NOW_MS + 3 * HOUR_MS)) == []
    later = ingester(tmp_path)
    assert min(times(later, "a")) >= NOW_MS + 2 * HOUR_MS  # the log was cut, too


def test_late_samples_get_blocks_of_their_own_time(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    push(one, "a", NOW_MS - 49 * HOUR_MS, NOW_MS - 4 * HOUR_MS, NOW_MS - 3 * HOUR_MS, NOW_MS)
    assert windows(one.flush(NOW_MS)) == [("a", -50, -48), ("a", -4, -2), ("a", 0, 2)]


def test_a_tenant_that_stopped_is_flushed_by_the_clock(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    push(one, "a", NOW_MS)
    assert windows(one.tick(NOW_MS + 2 * HOUR_MS)) == []
    assert windows(one.tick(NOW_MS + 3 * HOUR_MS)) == [("a", 0, 2)]
    assert times(one, "a") == [NOW_MS]


def test_a_flushed_block_stays_readable_for_a_while(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    push(one, "a", NOW_MS)
    one.flush(NOW_MS)
    one.tick(NOW_MS + 14 * 60_000)
    assert times(one, "a") == [NOW_MS]
    one.tick(NOW_MS + 15 * 60_000)
    assert times(one, "a") == []


def test_a_block_is_told_before_the_head_forgets_it(tmp_path: Path) -> None:
    told: list[tuple[str, BlockMeta, bool]] = []

    def announce(tenant: str, meta: BlockMeta) -> None:
        told.append((tenant, meta, len(one.stores()[tenant].head.cuts) == 1))

    one = Ingester("i", tmp_path / "wal", FolderBucket(tmp_path / "b"), LimitsTable(), FAST, now_ms=NOW_MS, announce=announce)
    push(one, "a", NOW_MS)
    one.flush(NOW_MS)
    assert [(tenant, meta.samples, held) for tenant, meta, held in told] == [("a", 1, True)]


def test_one_broken_tenant_stops_no_other(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    push(one, "a", NOW_MS), push(one, "b", NOW_MS)
    one.shutdown(NOW_MS, flush=False)
    moved = tmp_path / "wal" / "moved-away"
    (tmp_path / "wal" / "a").rename(tmp_path / "kept")
    (tmp_path / "wal" / "a").mkdir()
    for entry in sorted((tmp_path / "kept").iterdir()):
        (tmp_path / "wal" / "a" / entry.name).symlink_to(moved)  # whatever it opens cannot be opened
    again = ingester(tmp_path)
    with pytest.raises(Unavailable, match="the data of tenant 'a' cannot be opened"):
        push(again, "a", NOW_MS + 1)
    with pytest.raises(Unavailable, match="tenant 'a'"):
        again.source("a")
    assert push(again, "b", NOW_MS + 1) == 1 and times(again, "b") == [NOW_MS, NOW_MS + 1]
    report = again.flush(NOW_MS)
    assert set(report.failed) == {"a"} and [tenant for tenant, _ in report.written] == ["b"]
    for entry in (tmp_path / "wal" / "a").iterdir():
        entry.unlink()
    (tmp_path / "wal" / "a").rmdir()
    (tmp_path / "kept").rename(tmp_path / "wal" / "a")
    assert again.tick(NOW_MS).failed == {}
    assert times(again, "a") == [NOW_MS]


def test_a_defect_that_one_tenant_brings_out_stops_no_other(tmp_path: Path) -> None:
    class Trapped:
        """A bucket with a bug for one tenant."""

        def put(self, key: str, data: bytes) -> None:
            if key.startswith("a/"):
                raise ZeroDivisionError("division by zero")
            bucket.put(key, data)

    bucket = FolderBucket(tmp_path / "bucket")
    one = Ingester("i", tmp_path / "wal", Trapped(), LimitsTable(), FAST, now_ms=NOW_MS)  # type: ignore[arg-type]
    push(one, "a", NOW_MS), push(one, "b", NOW_MS)
    report = one.flush(NOW_MS)
    assert report.failed == {"a": "ZeroDivisionError: division by zero"}
    assert [tenant for tenant, _ in report.written] == ["b"]
    assert times(one, "a") == [NOW_MS]


def test_an_idle_tenant_is_forgotten_and_comes_back(tmp_path: Path) -> None:
    one = ingester(tmp_path, options=IngesterOptions(wal_sync="os", keep_flushed_ms=0))
    push(one, "a", NOW_MS), push(one, "b", NOW_MS)
    one.flush(NOW_MS, "a")
    one.tick(NOW_MS + HOUR_MS - 1)
    assert one.tenants() == ["a", "b"]
    one.tick(NOW_MS + HOUR_MS)
    assert one.tenants() == ["b"] and not (tmp_path / "wal" / "a").exists() and times(one, "a") == []
    push(one, "a", NOW_MS + 1)
    assert times(one, "a") == [NOW_MS + 1] and times(one, "b") == [NOW_MS]
    again = ingester(tmp_path)
    assert times(again, "a") == [NOW_MS + 1] and times(again, "b") == [NOW_MS]


def test_a_block_that_readers_were_told_of_is_not_kept(tmp_path: Path) -> None:
    one = ingester(tmp_path, options=IngesterOptions(wal_sync="os", keep_flushed_ms=0))
    push(one, "a", NOW_MS)
    one.flush(NOW_MS)
    assert times(one, "a") == []


def test_tenants_are_bounded(tmp_path: Path) -> None:
    one = ingester(tmp_path, options=IngesterOptions(wal_sync="os", max_tenants=2))
    push(one, "a", NOW_MS), push(one, "b", NOW_MS)
    with pytest.raises(LimitExceeded, match="tenant 'c' is new, and ingester i has 2 tenants, its limit"):
        push(one, "c", NOW_MS)
    assert push(one, "a", NOW_MS + 1) == 1
    assert one.source("d").series is not None and one.tenants() == ["a", "b"]


def test_limits_reach_the_head(tmp_path: Path) -> None:
    limits = Limits(max_global_series_per_user=30, out_of_order_time_window_ms=5, creation_grace_period_ms=7)
    options = head_options(limits, IngesterOptions(series_share=1 / 3))
    assert (options.max_series, options.out_of_order_window_ms, options.future_limit_ms) == (10, 5, 7)
    one = ingester(tmp_path, limits=Limits(max_global_series_per_user=1))
    push(one, "a", NOW_MS)
    other = Labels.of({"__name__": "up", "job": "b"})
    result = one.push("a", write_batch({UP: [(NOW_MS + 1, 1.0)], other: [(NOW_MS, 1.0)]}), now_ms=NOW_MS)
    assert (result.samples, sum(result.rejected.values())) == (1, 1)


def test_shutdown_flushes_and_takes_no_more(tmp_path: Path) -> None:
    one = ingester(tmp_path)
    push(one, "a", NOW_MS)
    assert windows(one.shutdown(NOW_MS)) == [("a", 0, 2)]
    with pytest.raises(Unavailable, match="ingester i is shutting down"):
        push(one, "a", NOW_MS + 1)
    assert times(ingester(tmp_path), "a") == []

"""The compactor over whole buckets: what it makes, marks, deletes, and that it may be cut off anywhere."""

import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from remote.compaction import CompactorOptions, Report
from remote.compactor import Compactor
from remote.deletion import Deletion, count, delete
from remote.limits import Limits, LimitsTable, RetentionRule
from remote.store_gateway import GatewayOptions, StoreGateway
from tests.remote.batches import series_batch
from tests.remote.test_store_gateway import flip, read
from tsdb.block.meta import META, BlockMeta, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import Bucket, FolderBucket, ObjectInfo, PrefixBucket
from tsdb.compaction.bucket_index import BLOCKS, Inventory, add_news, condemn, scan_bucket
from tsdb.compaction.marks import DELETION_MARK
from tsdb.model.errors import BadData, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 20_000 * DAY_MS
"""2024: later than this the folder's own times are, so that what is there is never old."""
SERIES = [Labels.of({"__name__": name, "job": job}) for name in ("errors", "up") for job in ("a", "b", "debug")]
OPTIONS = CompactorOptions(scan_every_ms=0, delete_after_ms=12 * HOUR_MS, ignore_after_ms=HOUR_MS)
Model = dict[str, dict[int, float]]


def put(
    bucket: Bucket, start_ms: int, number: int, *, tenant: str = "a", model: Model | None = None, step_ms: int = HOUR_MS // 2
) -> BlockMeta:
    """A block of two hours of all series."""
    points = [(t, float((t // 1000 + number) % 997)) for t in range(start_ms, start_ms + 2 * HOUR_MS, step_ms)]
    batch = series_batch(dict.fromkeys(SERIES, points))
    ulid = new_ulid(start_ms + number, bytes([number] * 10))
    meta = write_block(PrefixBucket(bucket, tenant), [batch], ulid=ulid, min_ms=start_ms, max_ms=start_ms + 2 * HOUR_MS)
    assert meta is not None
    if model is not None:
        for labels in SERIES:
            for t, value in points:
                known = model.setdefault(str(labels), {})
                known[t] = max(value, known.get(t, value))
    return meta


def content(bucket: Bucket, tenant: str = "a", now_ms: int = NOW_MS) -> Model:
    """What a reader that has just started finds; every warning fails."""
    gateway = StoreGateway(bucket, GatewayOptions(ignore_after_ms=OPTIONS.ignore_after_ms))
    gateway.refresh(now_ms)
    found, warnings = read(gateway.source(tenant))
    assert warnings == ()
    for points in found.values():
        assert len({t for t, _ in points}) == len(points)
    return {series: dict(points) for series, points in found.items()}


def compactor(bucket: Bucket, *, limits: Limits | None = None, options: CompactorOptions = OPTIONS, seed: int = 1) -> Compactor:
    return Compactor(bucket, LimitsTable(limits or Limits()), options, entropy=random.Random(seed).randbytes)


def settle(bucket: Bucket, now_ms: int, *, limits: Limits | None = None) -> list[Report]:
    """Ticks until a day has passed and nothing happens any more."""
    one, reports = compactor(bucket, limits=limits, seed=now_ms), []
    for i in range(40):
        report = one.tick(now_ms + i * HOUR_MS)
        assert report.failed == [] and report.doubtful == []
        reports.append(report)
    assert reports[-1] == Report(), reports[-1]
    return reports


def ulids(bucket: Bucket, tenant: str = "a") -> set[str]:
    return {info.key.split("/")[1] for info in bucket.list(f"{tenant}/") if info.key.endswith(META)}


def test_a_day_becomes_one_block_and_the_old_ones_go_when_every_reader_knows(tmp_path: Path) -> None:
    bucket, model = FolderBucket(tmp_path), Model()
    old = {put(bucket, NOW_MS - DAY_MS + 2 * HOUR_MS * i, i, model=model).ulid for i in range(12)}
    one, now_ms = compactor(bucket), NOW_MS + 2 * HOUR_MS
    report = one.tick(now_ms)
    assert len(report.made) == 1 and len(report.marked) == 12
    new = ulids(bucket) - old
    assert len(new) == 1 and content(bucket, now_ms=now_ms) == model
    assert old < ulids(bucket)
    assert one.tick(now_ms + 11 * HOUR_MS) == Report()
    assert {ulid for _, ulid in one.tick(now_ms + 12 * HOUR_MS + 1).deleted} == old
    assert ulids(bucket) == new and content(bucket, now_ms=now_ms + 13 * HOUR_MS) == model
    assert {info.key.split("/")[1] for info in bucket.list("a/")} == {*new, "index"}


def test_the_order_of_delays_is_checked() -> None:
    for wrong in (
        {"ignore_after_ms": 90_000},
        {"delete_after_ms": HOUR_MS},
        {"delete_after_ms": 2 * HOUR_MS, "stale_ms": 3 * HOUR_MS},
    ):
        with pytest.raises(BadData, match="want"):
            replace(OPTIONS, **wrong)


def test_a_bad_block_is_marked_and_halts_nothing(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    metas = [put(bucket, NOW_MS - DAY_MS + 2 * HOUR_MS * i, i) for i in range(6)]
    put(bucket, NOW_MS - DAY_MS, 1, tenant="b"), put(bucket, NOW_MS - DAY_MS, 2, tenant="b")
    path = tmp_path / "a" / metas[2].ulid / "pages-000000"
    flip(path, path.stat().st_size // 2)
    one = compactor(bucket)
    reports = [one.tick(NOW_MS + i) for i in range(3)]
    assert [(tenant, ulid) for report in reports for tenant, ulid, _ in report.uncompactable] == [("a", metas[2].ulid)]
    assert sorted(tenant for report in reports for tenant, _, _ in report.made) == ["a", "b"]
    again = compactor(bucket).tick(NOW_MS + 10)
    assert again.uncompactable == [] and again.made == [] and metas[2].ulid in ulids(bucket)


def test_a_tenant_whose_bucket_fails_does_not_stop_another(tmp_path: Path) -> None:
    class Failing(FolderBucket):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            if prefix.startswith("a/"):
                raise Unavailable("503 Slow Down")
            return super().list(prefix)

    for tenant in "ab":
        (
            put(FolderBucket(tmp_path), NOW_MS - DAY_MS, 1, tenant=tenant),
            put(FolderBucket(tmp_path), NOW_MS - DAY_MS, 2, tenant=tenant),
        )
    report = compactor(Failing(tmp_path)).tick(NOW_MS)
    assert report.failed == [("a", "503 Slow Down")] and [tenant for tenant, _, _ in report.made] == ["b"]


def test_work_per_tick_is_bounded_and_tenants_take_turns(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    for tenant in "abc":
        for day in (10, 20, 30, 40):
            put(bucket, NOW_MS - day * DAY_MS, 1, tenant=tenant), put(bucket, NOW_MS - day * DAY_MS, 2, tenant=tenant)
    one = compactor(bucket, options=replace(OPTIONS, jobs_per_tick=2, scan_every_ms=HOUR_MS))
    reports = [one.tick(NOW_MS + i) for i in range(12)]
    assert all(len(report.made) <= 2 for report in reports) and sum(len(report.made) for report in reports) >= 6
    assert {tenant for report in reports[:3] for tenant, _, _ in report.made} == {"a", "b", "c"}
    assert reports[0].waiting > 0 and reports[-1].waiting == 0


def test_uploads_that_never_ended_go_by_age(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    meta = put(bucket, NOW_MS - DAY_MS, 1)
    half = new_ulid(NOW_MS, bytes(10))
    bucket.put(f"a/{half}/pages-000000", b"half")
    (tmp_path / "a" / meta.ulid / "index~123").write_bytes(b"cut off")
    written_ms = (tmp_path / "a" / half / "pages-000000").stat().st_mtime_ns // 10**6
    one = compactor(bucket)
    assert one.tick(written_ms + 23 * HOUR_MS).deleted == [] and bucket.exists(f"a/{half}/pages-000000")
    assert one.tick(written_ms + 25 * HOUR_MS).deleted == [("a", half)] and not (tmp_path / "a" / half).exists()
    assert not (tmp_path / "a" / meta.ulid / "index~123").exists() and meta.ulid in ulids(bucket)


def test_nothing_is_deleted_on_doubt(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    metas = [put(bucket, NOW_MS - DAY_MS, i) for i in range(2)]
    one = compactor(bucket)
    one.tick(NOW_MS)
    (new,) = ulids(bucket) - {meta.ulid for meta in metas}
    path = tmp_path / "a" / new / META
    flip(path, path.stat().st_size // 2)
    report = compactor(bucket).tick(NOW_MS + 13 * HOUR_MS)
    assert report.deleted == [] and sorted(ulid for _, ulid in report.doubtful) == sorted(meta.ulid for meta in metas)
    flip(path, path.stat().st_size // 2)
    mark = tmp_path / "a" / metas[0].ulid / DELETION_MARK
    flip(mark, mark.stat().st_size // 2)
    report = compactor(bucket).tick(NOW_MS + 13 * HOUR_MS)
    assert [ulid for _, ulid in report.deleted] == [metas[1].ulid] and metas[0].ulid in ulids(bucket)


def test_retention_by_age_resolution_and_matchers(tmp_path: Path) -> None:
    bucket, model = FolderBucket(tmp_path), Model()
    put(bucket, NOW_MS - 60 * DAY_MS, 1)
    put(bucket, NOW_MS - 10 * DAY_MS, 2, model=model)
    for series in [series for series in model if "debug" in series]:
        del model[series]
    put(bucket, NOW_MS - DAY_MS, 3, model=model)
    limits = Limits(retention_ms=30 * DAY_MS, retention=(RetentionRule('{job="debug"}', "7d"),))
    settle(bucket, NOW_MS, limits=limits)
    assert content(bucket, now_ms=NOW_MS + 3 * DAY_MS) == model and len(ulids(bucket)) == 2


def test_raw_samples_are_kept_until_they_are_downsampled(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    raw = put(bucket, NOW_MS - 60 * DAY_MS, 1)
    limits = Limits(retention_raw_ms=30 * DAY_MS)
    settle(bucket, NOW_MS, limits=limits)
    assert ulids(bucket) == {raw.ulid}
    coarse = new_ulid(NOW_MS, bytes(10))
    batch = series_batch({labels: [(raw.min_ms + 300_000, 1.0)] for labels in SERIES})
    for resolution_ms in (300_000,):
        write_block(
            PrefixBucket(bucket, "a"), [batch], ulid=coarse, min_ms=raw.min_ms + 1, max_ms=raw.max_ms + 1, level=1,
            sources=raw.sources, resolution_ms=resolution_ms,
        )  # fmt: skip
    settle(bucket, NOW_MS, limits=limits)
    assert ulids(bucket) == {coarse}


def test_bad_rules_are_told() -> None:
    for rule in (
        RetentionRule("{job=", "7d"),
        RetentionRule('{job="a"}', "week"),
        RetentionRule('{job="a"}', "0s"),
        RetentionRule("", "7d"),
    ):
        with pytest.raises(BadData, match="retention"):
            compactor_for = Compactor(FolderBucket(Path("/nonexistent")), LimitsTable(Limits(retention=(rule,))), OPTIONS)
            compactor_for.rewrite_deleted("a", NOW_MS)


def test_deletion_is_seen_at_once_and_reclaimed_later(tmp_path: Path) -> None:
    bucket, model = FolderBucket(tmp_path), Model()
    for i in range(3):
        put(bucket, NOW_MS - DAY_MS + 2 * HOUR_MS * i, i, model=model)
    start_ms = NOW_MS - DAY_MS + HOUR_MS
    deletion = Deletion(
        ((Matcher("job", "=", "a"),), (Matcher("__name__", "=", "up"), Matcher("job", "=~", "a|b"))),
        start_ms,
        start_ms + 2 * HOUR_MS,
    )
    gateway = StoreGateway(bucket)
    gateway.refresh(NOW_MS)
    hit = count(gateway.source("a"), deletion)
    assert (hit.series, hit.samples) == (3, 12)
    tombstone = delete(PrefixBucket(bucket, "a"), deletion, now_ms=NOW_MS, entropy=bytes)
    assert tombstone is not None and len(tombstone.blocks) == 2
    for series in model:
        if 'job="a"' in series or ("up" in series and 'job="b"' in series):
            model[series] = {t: value for t, value in model[series].items() if not start_ms <= t < deletion.end_ms}
    gateway.bury("a", tombstone)
    assert {series: dict(points) for series, points in read(gateway.source("a"))[0].items()} == model
    assert content(bucket) == model, "a reader that starts now"
    later = put(bucket, NOW_MS - DAY_MS, 9, model=model)
    assert content(bucket) == model and later.ulid not in tombstone.blocks, "what is written later is not deleted"
    settle(bucket, NOW_MS)
    assert content(bucket, now_ms=NOW_MS + 3 * DAY_MS) == model
    assert list(bucket.list("a/index/tombstone")) == [], "no block holds what it hides"
    assert (
        delete(PrefixBucket(bucket, "a"), replace(deletion, sets=((Matcher("job", "=", "a"),),)), now_ms=NOW_MS, entropy=bytes)
        is not None
    )
    assert (
        delete(PrefixBucket(bucket, "a"), replace(deletion, sets=((Matcher("job", "=", "zz"),),)), now_ms=NOW_MS, entropy=bytes)
        is None
    )


def test_deleted_samples_are_rewritten_when_asked(tmp_path: Path) -> None:
    bucket, model = FolderBucket(tmp_path), Model()
    put(bucket, NOW_MS - DAY_MS, 1, model=model)
    everything = Deletion(((Matcher("job", "=", "a"),),), 0, 2 * NOW_MS)
    delete(PrefixBucket(bucket, "a"), everything, now_ms=NOW_MS, entropy=bytes)
    report = compactor(bucket).rewrite_deleted("a", NOW_MS)
    meta = report.made[0][2]
    assert meta is not None and meta.series == 4
    delete(PrefixBucket(bucket, "a"), replace(everything, sets=((),)), now_ms=NOW_MS + 1, entropy=bytes)
    assert compactor(bucket).rewrite_deleted("a", NOW_MS + 2).made[0][2] is None
    assert content(bucket) == {}
    settle(bucket, NOW_MS)
    assert ulids(bucket) == set()


def test_a_condemned_bucket_answers_nothing_and_goes(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    put(bucket, NOW_MS - DAY_MS, 1), put(bucket, NOW_MS - DAY_MS, 1, tenant="b")
    condemn(PrefixBucket(bucket, "a"), now_ms=NOW_MS)
    one = compactor(bucket)
    assert content(bucket) == {} and content(bucket, "b") != {}
    one.tick(NOW_MS + HOUR_MS)
    assert one.condemned == {"a"} and ulids(bucket) != set()
    assert one.tick(NOW_MS + 12 * HOUR_MS).removed == ["a"]
    assert list(bucket.list("a/")) == [] and len(ulids(bucket, "b")) == 1
    one.tick(NOW_MS + 13 * HOUR_MS)
    assert one.condemned == frozenset()


def test_readers_believe_the_index_and_the_news(tmp_path: Path) -> None:
    bucket, model = FolderBucket(tmp_path), Model()
    put(bucket, NOW_MS - 4 * HOUR_MS, 1, model=model)
    compactor(bucket).tick(NOW_MS)
    unknown = put(bucket, NOW_MS - 2 * HOUR_MS, 2)
    assert content(bucket) == model, "the index does not name it"
    add_news(PrefixBucket(bucket, "a"), [unknown], writer="ingester-0", now_ms=NOW_MS + 1)
    put(FolderBucket(tmp_path / "copy"), NOW_MS - 2 * HOUR_MS, 2, model=model)
    assert content(bucket) == model
    path = tmp_path / "a" / BLOCKS
    flip(path, path.stat().st_size // 2)
    hidden = put(bucket, NOW_MS - 6 * HOUR_MS, 3, model=model)
    assert content(bucket) == model, "a damaged index is not believed: the bucket is listed"
    flip(path, path.stat().st_size // 2)
    assert len(content(bucket)[str(SERIES[0])]) == 8
    assert content(bucket, now_ms=NOW_MS + 2 * HOUR_MS) == model, "nor is a stale one"
    assert hidden.ulid in scan_bucket(PrefixBucket(bucket, "a"), Inventory()).inventory.metas


class Dying(FolderBucket):
    """Is cut off at its k-th change: just before it is done, or just after. Nothing is done from then on."""

    left: int
    after: bool

    def __init__(self, path: Path, left: int, *, after: bool) -> None:
        super().__init__(path)
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "after", after)

    def put(self, key: str, data: bytes) -> None:
        if self._lives():
            super().put(key, data)
        self._die(key)

    def delete(self, key: str) -> None:
        if self._lives():
            super().delete(key)
        self._die(key)

    def _lives(self) -> bool:
        object.__setattr__(self, "left", self.left - 1)
        return self.left > 0 or (self.left == 0 and self.after)

    def _die(self, key: str) -> None:
        if self.left <= 0:
            raise Unavailable(f"the process was killed at {key}")


def history(bucket: Bucket) -> Model:
    """Two replicas of six blocks, a late one, a deletion, a debug series that is past its time."""
    model = Model()
    for i in range(3):
        put(bucket, NOW_MS - DAY_MS + 2 * HOUR_MS * i, i, model=model)
        put(bucket, NOW_MS - DAY_MS + 2 * HOUR_MS * i, 100 + i, model=model)
    put(bucket, NOW_MS - 9 * DAY_MS, 20, model=model)
    start_ms = NOW_MS - DAY_MS + HOUR_MS
    deletion = Deletion(((Matcher("job", "=", "a"),),), start_ms, start_ms + 3 * HOUR_MS)
    delete(PrefixBucket(bucket, "a"), deletion, now_ms=NOW_MS - HOUR_MS, entropy=bytes)
    for series, points in model.items():
        if 'job="a"' in series:
            model[series] = {t: value for t, value in points.items() if not start_ms <= t < deletion.end_ms}
    return model


CRASH_LIMITS = Limits(retention=(RetentionRule('{job="debug"}', "8d"),))


def expected(model: Model, found: Model) -> Model:
    """The model, with the expired samples either all there or all gone."""
    old = {
        series: {t: v for t, v in points.items() if t < NOW_MS - 8 * DAY_MS}
        for series, points in model.items()
        if "debug" in series
    }
    if all(set(found.get(series, {})) & set(points) == set() for series, points in old.items()):
        return {series: {t: v for t, v in points.items() if t not in old.get(series, {})} for series, points in model.items()}
    return model


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is such a place: a sync of each object would take most of the time."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as path:
        yield Path(path)


def test_killed_between_any_two_writes(memory: Path) -> None:
    """A compactor that dies at its k-th change to the bucket, for all k; a reader that starts then; and the next one."""
    points = 0
    for after in (False, True):
        for k in range(1, 200):
            path = memory / f"{after}-{k}"
            model = history(FolderBucket(path))
            dying = Dying(path, k, after=after)
            one = compactor(dying, limits=CRASH_LIMITS)
            ticks = [one.tick(NOW_MS + i * HOUR_MS) for i in (0, 1, 2, 14, 15, 30)]
            if dying.left > 0:
                assert ticks[-1] == Report()
                break
            points += 1
            for hours in (0, 2, 16, 30):
                found = content(FolderBucket(path), now_ms=NOW_MS + hours * HOUR_MS)
                assert found == expected(model, found), (after, k, hours)
            settle(FolderBucket(path), NOW_MS + 30 * HOUR_MS, limits=CRASH_LIMITS)
            found = content(FolderBucket(path), now_ms=NOW_MS + 72 * HOUR_MS)
            assert found == expected(model, found) and len(ulids(FolderBucket(path))) == 2, (after, k)
    print(f"{points} crash points")
    assert points >= 60


def test_two_compactors_at_once_do_no_harm(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    model = history(bucket)
    first, second = compactor(bucket, seed=1), compactor(bucket, seed=2)
    first.tick(NOW_MS)
    second.tick(NOW_MS)
    found = content(bucket)
    assert found == expected(model, found)
    settle(bucket, NOW_MS)
    assert len(ulids(bucket)) == 2

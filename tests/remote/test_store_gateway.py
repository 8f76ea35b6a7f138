import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from remote.store_gateway import IDLE_MS, GatewayOptions, StoreGateway
from tests.remote.batches import series_batch
from tsdb.block.meta import BlockMeta, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, ObjectInfo, PrefixBucket
from tsdb.bucket.disk_cache import DiskCache
from tsdb.compaction.bucket_index import STALE_MS, Inventory, scan_bucket, write_index
from tsdb.model.errors import Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source

UP = Labels.of({"__name__": "up", "job": "a"})
DOWN = Labels.of({"__name__": "down", "job": "a"})
ALL = Selection((), MIN_MS, MAX_MS)


def put(bucket: FolderBucket, tenant: str, start_ms: int, number: int, *, sources: tuple[str, ...] = ()) -> BlockMeta:
    batch = series_batch({DOWN: [(start_ms, 1.0)], UP: [(start_ms, 2.0), (start_ms + 1, 3.0)]})
    ulid = new_ulid(1_000_000 + number, bytes([number] * 10))
    meta = write_block(
        PrefixBucket(bucket, tenant),
        [batch],
        ulid=ulid,
        min_ms=start_ms,
        max_ms=start_ms + 100,
        sources=sources,
        level=2 if sources else 1,
    )
    assert meta is not None
    return meta


def read(source: Source, selection: Selection = ALL) -> tuple[dict[str, list[tuple[int, float]]], tuple[str, ...]]:
    """({series: [(time, value)]}, warnings) of a selection."""
    found: dict[str, list[tuple[int, float]]] = {}
    warnings: tuple[str, ...] = ()
    for batch in source.select(selection):
        warnings += batch.warnings
        found |= points(batch)
    return found, warnings


def points(batch: SeriesBatch) -> dict[str, list[tuple[int, float]]]:
    pairs = list(zip(batch.t_ms.tolist(), batch.values.tolist(), strict=True))
    return {str(labels): pairs[batch.offsets[i] : batch.offsets[i + 1]] for i, labels in enumerate(batch.series.rows())}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_blocks_of_each_tenant_are_its_own(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    gateway = StoreGateway(bucket)
    put(bucket, "a", 0, 1), put(bucket, "a", 100, 2), put(bucket, "b", 0, 3)
    assert read(gateway.source("a")) == ({}, ())
    gateway.refresh(0)
    assert gateway.tenants() == ["a", "b"]
    up, down = str(UP), str(DOWN)
    assert read(gateway.source("a"))[0] == {down: [(0, 1.0), (100, 1.0)], up: [(0, 2.0), (1, 3.0), (100, 2.0), (101, 3.0)]}
    assert read(gateway.source("b"))[0] == {down: [(0, 1.0)], up: [(0, 2.0), (1, 3.0)]}
    assert read(gateway.source("c")) == ({}, ())
    assert gateway.source("a").series(Selection((Matcher("job", "=", "a"),), 0, 1)).rows() == [DOWN, UP]


def test_only_blocks_in_the_range_are_opened(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    first, second = put(bucket, "a", 0, 1), put(bucket, "a", 100, 2)
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    (tmp_path / "a" / first.ulid / "index").unlink()
    assert read(gateway.source("a"), Selection((), 100, 200)) == ({str(DOWN): [(100, 1.0)], str(UP): [(100, 2.0), (101, 3.0)]}, ())
    assert second.ulid in gateway.blocks("a").metas


def test_a_damaged_meta_is_named_in_every_answer_and_read_again(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    put(bucket, "a", 0, 1)
    bad = put(bucket, "a", 100, 2)
    meta = tmp_path / "a" / bad.ulid / "meta.json"
    flip(meta, meta.stat().st_size // 2)
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    found, warnings = read(gateway.source("a"))
    assert found[str(DOWN)] == [(0, 1.0)]
    assert len(warnings) == 1 and bad.ulid in warnings[0]
    flip(meta, meta.stat().st_size // 2)
    gateway.refresh(0)
    assert read(gateway.source("a"))[1] == () and len(read(gateway.source("a"))[0][str(DOWN)]) == 2


def test_a_meta_that_cannot_be_read_now_stops_no_other_and_is_told(tmp_path: Path) -> None:
    class Shy(FolderBucket):
        """A bucket that does not answer for one object."""

        def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
            if shy and key == f"a/{bad.ulid}/meta.json":
                raise Unavailable(f"get {key}: 503 Slow Down")
            return super().get(key, start, size)

    bucket = Shy(tmp_path)
    bad, shy = put(bucket, "a", 0, 1), True
    put(bucket, "a", 100, 2), put(bucket, "b", 0, 3)
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    found, warnings = read(gateway.source("a"))
    assert found[str(DOWN)] == [(100, 1.0)] and bad.ulid in warnings[0] and "503 Slow Down" in warnings[0]
    assert read(gateway.source("b"))[1] == ()
    shy = False
    gateway.refresh(0)
    assert read(gateway.source("a"))[0][str(DOWN)] == [(0, 1.0), (100, 1.0)]


@pytest.mark.parametrize("part", ["pages-000000", "index"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_block_does_not_fail_the_others(part: str, gone: bool, tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    put(bucket, "a", 0, 1)
    bad = put(bucket, "a", 100, 2)
    path = tmp_path / "a" / bad.ulid / part
    if gone:
        path.unlink()
    else:
        path.write_bytes(bytes(path.stat().st_size))
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    found, warnings = read(gateway.source("a"))
    assert found == {str(DOWN): [(0, 1.0)], str(UP): [(0, 2.0), (1, 3.0)]}
    assert len(warnings) == 1 and bad.ulid in warnings[0]
    assert gateway.source("a").series(ALL).rows() == [DOWN, UP]


def test_what_is_no_block_is_no_matter(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    meta = put(bucket, "a", 0, 1)
    half = new_ulid(5, bytes(10))
    bucket.put(f"a/{half}/pages", b"half")
    bucket.put("a/rules/group", b"x")
    bucket.put("__markers__/x/meta.json", b"{}")
    bucket.put("top", b"x")
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    assert gateway.tenants() == ["a"] and set(gateway.blocks("a").metas) == {meta.ulid}
    assert read(gateway.source("a"))[1] == ()


def test_foreign_meta_is_told(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.put("a/01ARZ3NDEKTSV4RRFFQ69G5FAV/meta.json", b'{"version": 1, "thanos": {}}')
    bucket.put("a/not-a-ulid/meta.json", b"{}")
    put(bucket, "a", 0, 1)
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    found, warnings = read(gateway.source("a"))
    assert len(found) == 2 and any("01ARZ3NDEKTSV4RRFFQ69G5FAV" in warning for warning in warnings)


def test_blocks_that_another_replaces_are_not_read(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    old = put(bucket, "a", 0, 1)
    put(bucket, "a", 0, 2, sources=(old.ulid,))
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    (tmp_path / "a" / old.ulid / "pages-000000").unlink()
    assert read(gateway.source("a")) == ({str(DOWN): [(0, 1.0)], str(UP): [(0, 2.0), (1, 3.0)]}, ())


def test_a_deleted_block_is_forgotten_and_a_told_one_kept(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    gateway = StoreGateway(bucket)
    meta = put(bucket, "a", 0, 1)
    gateway.add("a", meta)
    assert len(read(gateway.source("a"))[0]) == 2
    gateway.refresh(0)
    assert set(gateway.blocks("a").metas) == {meta.ulid}
    bucket.delete(f"a/{meta.ulid}/meta.json")
    gateway.refresh(0)
    assert gateway.blocks("a").live == () and read(gateway.source("a")) == ({}, ())


def test_open_blocks_are_bounded(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    for i in range(10):
        put(bucket, "a", 100 * i, i)
    gateway = StoreGateway(bucket, GatewayOptions(max_open_blocks=3))
    gateway.refresh(0)
    assert len(read(gateway.source("a"))[0][str(DOWN)]) == 10
    assert len(gateway._open) == 3


class Meeting(FolderBucket):
    """Answers reads of indexes only when three wait together."""

    barrier: ClassVar[threading.Barrier] = threading.Barrier(3)
    reads: ClassVar[list[str]] = []

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        if key.endswith("/index"):
            self.reads.append(key)
            self.barrier.wait(timeout=30)
        return super().get(key, start, size)


def test_blocks_are_opened_side_by_side_each_by_one_read(tmp_path: Path) -> None:
    bucket = Meeting(tmp_path)
    for i in range(6):
        put(bucket, "a", 100 * i, i)
    with ThreadPoolExecutor(3) as pool:
        gateway = StoreGateway(bucket, executor=pool)
        gateway.refresh(0)
        matchers = (Matcher("job", "=~", "a|b"), Matcher("__name__", "!=", ""))
        assert len(read(gateway.source("a"), Selection(matchers, MIN_MS, MAX_MS))[0][str(DOWN)]) == 6
        assert len(gateway.source("a").series(ALL)) == 2
    assert len(Meeting.reads) == len(set(Meeting.reads)) == 6


class Gathering(FolderBucket):
    """Lists only when three wait together, if there is a barrier, and never what `refused` says."""

    barrier: ClassVar[threading.Barrier | None] = None
    refused: ClassVar[str] = "none"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if self.barrier is not None and prefix.endswith("/index/"):
            self.barrier.wait(timeout=30)
        if prefix.startswith(self.refused):
            raise Unavailable(f"bucket: list {prefix!r}: 503 SlowDown")
        return super().list(prefix)


def test_a_refresh_reads_all_tenants_side_by_side_and_one_that_fails_keeps_what_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Gathering(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        gateway = StoreGateway(bucket, executor=pool)
        tenants = list({id(gateway._stripe(name)): name for name in map(str, range(100))}.values())[:3]
        for i, tenant in enumerate(tenants):
            put(bucket, tenant, 0, i)
        gateway.refresh(0)
        for i, tenant in enumerate(tenants):
            assert len(gateway.blocks(tenant).live) == 1
            put(bucket, tenant, 100, 10 + i)
        monkeypatch.setattr(Gathering, "barrier", threading.Barrier(3))
        monkeypatch.setattr(Gathering, "refused", f"{tenants[1]}/")
        with pytest.raises(Unavailable, match="503 SlowDown"):
            gateway.refresh(1)
    assert [len(gateway.blocks(tenant).live) for tenant in tenants] == [2, 1, 2]


class Flipping(FolderBucket):
    """Flips a bit in the first reading of each range of a block's objects, as a bad cable does."""

    seen: ClassVar[set[tuple[str, int]]] = set()
    flipped: ClassVar[int] = 0

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        data = super().get(key, start, size)
        if ("pages-" in key or key.endswith("/index")) and (key, start) not in self.seen:
            self.seen.add((key, start))
            at = self.flipped % len(data)
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("at", range(-60, 400, 20))
def test_a_bit_that_flips_on_the_way_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, threads: bool) -> None:
    put(FolderBucket(tmp_path), "a", 0, 1)
    monkeypatch.setattr(Flipping, "seen", set())
    monkeypatch.setattr(Flipping, "flipped", at)
    cache = DiskCache(tmp_path / "cache", 1 << 20, clock=lambda: 0.0, tell=pytest.fail)
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            gateway = StoreGateway(Flipping(tmp_path), executor=pool if threads else None, ranges=cache)
            gateway.refresh(0)
            found, warnings = read(gateway.source("a"))
        assert warnings == () and found == {str(DOWN): [(0, 1.0)], str(UP): [(0, 2.0), (1, 3.0)]}
    assert len(Flipping.seen) >= 2


class Refusing(FolderBucket):
    """Does not answer for keys that end so."""

    ending: ClassVar[str] = ""

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        if self.ending and key.endswith(self.ending):
            raise Unavailable(f"bucket: get {key!r}: 503 SlowDown")
        return super().get(key, start, size)


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("ending", ["index", "pages-000000"])
def test_a_bucket_that_does_not_answer_fails_the_query_and_nothing_is_remembered_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, threads: bool
) -> None:
    bucket = Refusing(tmp_path)
    for i in range(4):
        put(bucket, "a", 100 * i, i)
    with ThreadPoolExecutor(2) as pool:
        gateway = StoreGateway(bucket, executor=pool if threads else None)
        gateway.refresh(0)
        monkeypatch.setattr(Refusing, "ending", ending)
        with pytest.raises(Unavailable, match="503 SlowDown"):
            read(gateway.source("a"))
        monkeypatch.setattr(Refusing, "ending", "")
        found, warnings = read(gateway.source("a"))
    assert warnings == () and len(found[str(DOWN)]) == 4


def test_a_tenant_is_known_when_it_is_asked_for_and_forgotten_when_it_is_not(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    for i, tenant in enumerate("abc"):
        put(bucket, tenant, 0, i)
    gateway = StoreGateway(bucket, GatewayOptions(max_tenants=2))
    gateway.refresh(0)
    assert gateway.asked() == {}
    for tenant in "abc":
        assert len(read(gateway.source(tenant))[0]) == 2
    assert set(gateway.asked()) == {"b", "c"}
    gateway.refresh(IDLE_MS + 1)
    assert gateway.asked() == {}


def test_who_is_looked_ahead_for_is_known_before_the_first_query(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    for i, tenant in enumerate("ab"):
        put(bucket, tenant, 0, i)
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    gateway.look_ahead(["a", "z"])
    assert {tenant: len(known.live) for tenant, known in gateway.asked().items()} == {"a": 1, "z": 0}
    gateway.refresh(IDLE_MS + 1)
    assert gateway.asked() == {}


def test_caches_are_bounded_and_count(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    for i in range(10):
        put(bucket, "a", 100 * i, i)
    gateway = StoreGateway(bucket, GatewayOptions(index_cache_bytes=4000, page_cache_bytes=2000))
    gateway.refresh(0)
    for _ in range(3):
        assert len(read(gateway.source("a"))[0][str(DOWN)]) == 10
        assert gateway.index_cache.size_bytes <= 4000 and gateway.page_cache.size_bytes <= 2000
    large = StoreGateway(bucket)
    large.refresh(0)
    for _ in range(2):
        read(large.source("a"))
    assert large.index_cache.hits > 0 and large.page_cache.opened.hits >= 10


def test_what_is_told_is_seen_at_once_and_not_lost_to_an_older_reading(tmp_path: Path) -> None:
    class Slow(FolderBucket):
        """Tells of a block while the index is being read."""

        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix))
            if told:
                gateway.add("a", told.pop())
            return iter(found)

    first = put(FolderBucket(tmp_path), "a", 0, 1)
    late = put(FolderBucket(tmp_path / "elsewhere"), "a", 100, 2)
    told = [late]
    gateway = StoreGateway(Slow(tmp_path))
    gateway.refresh(0)
    assert set(gateway.blocks("a").metas) == {first.ulid, late.ulid}
    gateway.refresh(1)
    assert set(gateway.blocks("a").metas) == {first.ulid}, "a reading that begins later knows better"


class _Gathering(FolderBucket):
    """Answers reads of metas only when so many are asked for at once."""

    gate: ClassVar[threading.Barrier]

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        if key.endswith("meta.json"):
            _Gathering.gate.wait(20)
        return super().get(key, start, size)


def test_metas_are_read_side_by_side_and_once(tmp_path: Path) -> None:
    """Whoever reads one after another waits at the barrier until it breaks; so does who reads any a second time."""
    bucket = FolderBucket(tmp_path)
    metas = [put(bucket, "a", i * 100, i) for i in range(1, 5)]
    _Gathering.gate = threading.Barrier(4)
    with ThreadPoolExecutor(1) as executor, ThreadPoolExecutor(4) as scan_executor:
        gateway = StoreGateway(_Gathering(tmp_path), executor=executor, scan_executor=scan_executor)
        gateway.refresh(0)
        assert list(gateway.blocks("a").metas.values()) == metas
        gateway.refresh(1)
        assert list(gateway.blocks("a").metas.values()) == metas


def test_a_stale_index_spares_the_metas_that_it_has(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    own = PrefixBucket(bucket, "a")
    old = put(bucket, "a", 0, 1)
    write_index(own, scan_bucket(own, Inventory()).inventory, scanned_ms=0)
    new = put(bucket, "a", 100, 2)
    _Gathering.gate = threading.Barrier(1)
    flip(tmp_path / "a" / old.key("meta.json"), 200)  # who read it would find it damaged
    gateway = StoreGateway(_Gathering(tmp_path))
    gateway.refresh(STALE_MS + 1)
    assert gateway.blocks("a").metas == {old.ulid: old, new.ulid: new} and not gateway.blocks("a").damaged

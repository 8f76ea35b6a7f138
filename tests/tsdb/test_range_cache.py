"""Caches of ranges: on disk and in a real memcached what is kept comes back, damage and failing caches never become an answer."""

import shutil
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tsdb.batches import grid_batch, same_samples
from tests.tsdb.test_block import Memory
from tsdb.block.block import Block, new_ulid, write_block
from tsdb.block.meta import BlockMeta
from tsdb.bucket.disk_cache import FILE_BYTES, TOUCH_S, DiskCache
from tsdb.bucket.memcached import CHUNK_BYTES, MAX_CHUNKS, OFF_S, MemcachedCache
from tsdb.bucket.range_cache import RangeCache, RangeKey, TieredCache, find_sound, read_range
from tsdb.merge import merge_batches
from tsdb.model.errors import Corrupt
from tsdb.model.source import MAX_MS, MIN_MS, Selection

MIB = 1 << 20


def key_of(data: bytes, name: str = "ulid/pages-000000", start: int = 0) -> RangeKey:
    return RangeKey(name, start, len(data), zlib.crc32(data))


def disk(path: Path, limit_bytes: int = 64 * MIB, *, at_s: float = 0.0, told: list[str] | None = None) -> DiskCache:
    return DiskCache(path, limit_bytes, clock=lambda: at_s, tell=(told if told is not None else []).append)


@contextmanager
def memcached() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A real server on a free port: (its address, its process)."""
    program = shutil.which("memcached")
    if program is None:
        pytest.skip("memcached is not installed")
    pytest.importorskip("pymemcache")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64", "-u", "nobody"])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["disk", "memcached", "both"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RangeCache]:
    if request.param == "disk":
        yield disk(tmp_path)
        return
    with memcached() as (address, _):
        remote = MemcachedCache([address], clock=lambda: 0.0, tell=pytest.fail)
        yield remote if request.param == "memcached" else TieredCache((disk(tmp_path), remote))
        remote.close()


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * MIB])
def test_what_is_kept_comes_back_until_it_is_dropped(cache: RangeCache, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    key, other = key_of(data), key_of(data, "ulid/pages-000001")
    assert cache.find([key, other]) == [None, None]
    cache.keep(key, data)
    assert cache.find([other, key]) == [None, data]
    cache.drop(key)
    assert cache.find([key]) == [None]


def test_many_threads_keep_find_and_drop(cache: RangeCache) -> None:
    bodies = [bytes([i]) * 5000 for i in range(40)]

    def work(turn: int) -> None:
        for body in bodies[turn % 7 :]:
            cache.keep(key_of(body), body)
            assert find_sound(cache, [key_of(body)])[0] in (body, None)
            if turn % 3 == 0:
                cache.drop(key_of(body))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    for body in bodies:
        cache.keep(key_of(body), body)
    assert cache.find([key_of(body) for body in bodies]) == bodies


def test_the_disk_cache_is_bounded_and_the_least_recently_used_go_first_also_after_a_restart(tmp_path: Path) -> None:
    bodies = [bytes([i]) * FILE_BYTES for i in range(10)]
    keys = [key_of(body) for body in bodies]
    first = disk(tmp_path, 9 * FILE_BYTES, at_s=1000.0)
    for key, body in zip(keys[:9], bodies, strict=False):
        first.keep(key, body)
    first.close()
    later = disk(tmp_path, 9 * FILE_BYTES, at_s=4e9 + TOUCH_S)
    assert later.size_bytes == 9 * FILE_BYTES and later.find(keys[:1]) == bodies[:1]
    later.close()
    again = disk(tmp_path, 9 * FILE_BYTES, at_s=5e9)
    again.keep(keys[9], bodies[9])
    found = again.find(keys)
    assert found[0] == bodies[0] and found[9] == bodies[9] and found.count(None) == 1
    assert again.size_bytes == 9 * FILE_BYTES == sum(file.stat().st_size for file in tmp_path.glob("??/*"))
    assert (again.counts.hits, again.counts.misses) == (9, 1)
    again.keep(key_of(bytes(2 * FILE_BYTES)), bytes(2 * FILE_BYTES))
    assert again.find([key_of(bytes(2 * FILE_BYTES))]) == [None], "over an eighth of the limit"
    again.close()
    assert disk(tmp_path, 2 * FILE_BYTES).size_bytes == 2 * FILE_BYTES, "a smaller limit holds at once"


@pytest.mark.parametrize("damage", ["flipped", "torn", "emptied", "grown", "gone"])
def test_a_damaged_file_is_never_an_answer_and_is_dropped(tmp_path: Path, damage: str) -> None:
    data = b"bytes of a page" * 100
    key, cache = key_of(data), disk(tmp_path)
    cache.keep(key, data)
    file = next(tmp_path.glob("??/*"))
    if damage == "gone":
        file.unlink()
    else:
        bad = {"flipped": b"B" + data[1:], "torn": data[:-1], "emptied": b"", "grown": data + b"x"}[damage]
        file.write_bytes(bad)
    asked: list[int] = []

    def get(start: int, size: int) -> bytes:
        asked.append(start)
        return data

    assert read_range(key, cache, get) == data and asked == [0]
    assert cache.find([key]) == [data] and cache.counts.errors == (damage != "gone")


def test_what_never_fits_is_not_kept(tmp_path: Path) -> None:
    cache = disk(tmp_path)
    with pytest.raises(Corrupt, match="ulid/pages-000000: the 4 bytes at byte 8 do not have the checksum"):
        read_range(RangeKey("ulid/pages-000000", 8, 4, 1), cache, lambda start, size: b"abcd")
    assert cache.size_bytes == 0
    replies = [b"abcX", b"abcd"]
    assert read_range(key_of(b"abcd"), cache, lambda start, size: replies.pop(0)) == b"abcd" and cache.size_bytes


def test_a_crash_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abcd~123").write_bytes(bytes(10_000))
    assert disk(tmp_path).size_bytes == 0 and not list(tmp_path.glob("ab/*"))


def test_a_folder_that_cannot_be_written_is_told_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    cache = disk(tmp_path, told=told)

    def full(file: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for i in range(3):
            cache.keep(key_of(bytes([i])), bytes([i]))
    assert len(told) == 1 and "No space left" in told[0] and cache.counts.errors == 3 and cache.size_bytes == 0
    cache.keep(key_of(b"x"), b"x")
    assert cache.find([key_of(b"x")]) == [b"x"]
    (tmp_path / "file").write_bytes(b"")
    none = disk(tmp_path / "file" / "below", told=told)
    none.keep(key_of(b"x"), b"x")
    assert none.find([key_of(b"x")]) == [None] and len(told) == 2 and none.counts.errors == 1


def test_a_second_process_goes_on_without(tmp_path: Path) -> None:
    told: list[str] = []
    first, second = disk(tmp_path), disk(tmp_path, told=told)
    first.keep(key_of(b"x"), b"x")
    second.keep(key_of(b"y"), b"y")
    assert second.find([key_of(b"x"), key_of(b"y")]) == [None, None] and len(told) == 1
    first.close()
    assert disk(tmp_path).find([key_of(b"x")]) == [b"x"]


def test_a_dead_memcached_costs_one_request_and_comes_back() -> None:
    told: list[str] = []
    now_s = 0.0
    with memcached() as (address, process):
        cache = MemcachedCache([address], clock=lambda: now_s, tell=told.append)
        cache.keep(key_of(b"x"), b"x")
        assert cache.find([key_of(b"x")]) == [b"x"]
        process.kill()
        process.wait()
        for _ in range(20):
            assert cache.find([key_of(b"x")]) == [None]
            cache.keep(key_of(b"x"), b"x")
        assert len(told) == 1 and address in told[0] and cache.counts.errors == 1
        now_s += OFF_S
        assert cache.find([key_of(b"x")]) == [None] and cache.counts.errors == 2 and len(told) == 1
        host, port = address.split(":")
        again = subprocess.Popen(["memcached", "-l", host, "-p", port, "-U", "0", "-u", "nobody"])
        try:
            for _ in range(200):
                now_s += OFF_S
                cache.keep(key_of(b"x"), b"x")
                if cache.find([key_of(b"x")]) == [b"x"]:
                    break
                time.sleep(0.05)
            assert cache.find([key_of(b"x")]) == [b"x"]
        finally:
            again.kill()
            again.wait()


def test_a_memcached_that_does_not_answer_is_asked_once() -> None:
    pytest.importorskip("pymemcache")
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = MemcachedCache([f"127.0.0.1:{silent.getsockname()[1]}"], clock=lambda: 0.0, tell=told.append)
        for _ in range(50):
            assert cache.find([key_of(b"x")]) == [None]
    assert cache.counts.errors == 1 and cache.counts.misses == 50 and "timed out" in told[0]


@pytest.mark.parametrize("reply", [b"ERROR\r\n", b"VALUE x 0 99999999999\r\n", b"\x00" * 100, b"SERVER_ERROR out of memory\r\n"])
def test_a_server_that_is_no_memcached_is_a_miss(reply: bytes) -> None:
    pytest.importorskip("pymemcache")
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        cache = MemcachedCache([f"127.0.0.1:{server.getsockname()[1]}"], clock=lambda: 0.0, tell=told.append)
        assert cache.find([key_of(b"x")]) == [None] and cache.counts.errors == 1 and len(told) == 1
        thread.join()


def test_ranges_are_spread_over_servers_and_one_that_dies_takes_only_its_share() -> None:
    with memcached() as (one, process), memcached() as (two, _):
        cache = MemcachedCache([one, two], clock=lambda: 0.0, tell=lambda text: None)
        bodies = [b"%d" % i for i in range(100)]
        keys = [key_of(body) for body in bodies]
        for key, body in zip(keys, bodies, strict=True):
            cache.keep(key, body)
        assert cache.find(keys) == bodies
        process.kill()
        process.wait()
        left = [body for body in cache.find(keys) if body is not None]
        assert 20 < len(left) < 80
        other = MemcachedCache([two], clock=lambda: 0.0, tell=pytest.fail)
        assert [body for body in other.find(keys) if body is not None] == left


def test_what_is_too_large_for_memcached_is_not_sent() -> None:
    with memcached() as (address, _):
        cache = MemcachedCache([address], clock=lambda: 0.0, tell=pytest.fail)
        data = bytes(CHUNK_BYTES * MAX_CHUNKS + 1)
        cache.keep(key_of(data), data)
        assert cache.find([key_of(data)]) == [None] and cache.counts.errors == 0


def block_in(bucket: Memory) -> BlockMeta:
    meta = write_block(bucket, [grid_batch(200, 480)], ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=7_200_000)
    assert meta is not None
    return meta


def test_a_block_is_read_from_the_cache_by_the_next_process(cache: RangeCache) -> None:
    bucket = Memory()
    meta = block_in(bucket)
    everything = Selection((), MIN_MS, MAX_MS)
    first = merge_batches(list(Block(bucket, meta, ranges=cache).select(everything)))
    bucket.reads.clear()
    for selection in (everything, Selection((), 1_000_000, 2_000_000)):  # another selection coalesces others
        found = merge_batches(list(Block(bucket, meta, ranges=cache).select(selection)))
        assert same_samples(found, first.clip(selection.start_ms, selection.end_ms))
    assert bucket.reads == []


def test_of_a_request_only_what_the_cache_lacks_is_read(tmp_path: Path) -> None:
    bucket, cache = Memory(), disk(tmp_path)
    meta = block_in(bucket)
    everything = Selection((), MIN_MS, MAX_MS)
    first = merge_batches(list(Block(bucket, meta, ranges=cache).select(everything)))
    directory = Block(bucket, meta, ranges=cache).index().directory()
    gone = [RangeKey(meta.key("pages-000000"), *map(int, (directory.offset[i], directory.size[i], directory.crc[i]))) for i in (0,)]
    for key in gone:
        cache.drop(key)
    bucket.reads.clear()
    assert same_samples(merge_batches(list(Block(bucket, meta, ranges=cache).select(everything))), first)
    assert bucket.reads == [(key.name, key.start, key.size) for key in gone]

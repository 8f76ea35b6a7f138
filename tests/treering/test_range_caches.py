"""A node with a disk cache and memcached: the second process reads the same ranges from them, and metrics say so."""

import shutil
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from promql.matrix import Matrix
from tests.tsdb.batches import grid_batch
from tests.tsdb.test_range_cache import memcached
from treering.config import Config
from treering.node import Node, Query
from tsdb.block.meta import new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, PrefixBucket


def ask(config: Config) -> tuple[int, dict[str, float]]:
    """(series of an answer, the gauges about caches) of a node that is then closed."""
    with Node(config) as node:
        answer = node.query(["anonymous"], Query("sum by (instance) (m)", 0, 7_200_000, 60_000))
        assert isinstance(answer.value, Matrix) and answer.warnings == ()
        lines = generate_latest(node.telemetry.registry).decode().splitlines()
    gauges = (line.split() for line in lines if line.startswith(("treering_store_disk", "treering_store_memcached")))
    return len(answer.value), {name.removeprefix("treering_store_"): float(value) for name, value in gauges}


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    own = PrefixBucket(FolderBucket(tmp_path / "bucket"), "anonymous")
    assert write_block(own, [grid_batch(200, 480)], ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=7_200_000)
    return str(tmp_path / "bucket")


def test_the_next_process_reads_from_the_disk_cache(tmp_path: Path, bucket: str) -> None:
    config = Config(data=str(tmp_path / "data"), bucket=bucket, target=("querier",), cache_path=str(tmp_path / "cache"))
    series, first = ask(config)
    assert series == 200 and first["disk_cache_hits"] == 0 < first["disk_cache_misses"] and first["disk_cache_bytes"] > 10_000
    series, second = ask(config)
    assert series == 200 and second["disk_cache_misses"] == 0 < second["disk_cache_hits"] and second["disk_cache_errors"] == 0
    assert "memcached_cache_hits" not in second


def test_memcached_stands_behind_the_disk(tmp_path: Path, bucket: str) -> None:
    with memcached() as (address, process):
        config = Config(
            data=str(tmp_path / "data"),
            bucket=bucket,
            target=("querier",),
            cache_path=str(tmp_path / "cache"),
            memcached=(address,),
        )
        assert ask(config)[1]["memcached_cache_hits"] == 0
        assert ask(config)[1]["memcached_cache_misses"] == 0, "the disk has all"
        shutil.rmtree(tmp_path / "cache")
        found = ask(config)[1]
        assert found["memcached_cache_hits"] > 0 and found["memcached_cache_misses"] == 0
        assert ask(config)[1]["disk_cache_misses"] == 0, "what memcached had is on disk again"
        process.kill()
        process.wait()
        shutil.rmtree(tmp_path / "cache")
        series, found = ask(config)
        assert series == 200 and found["memcached_cache_errors"] == 1


def test_without_caches_there_are_no_gauges_of_them(tmp_path: Path, bucket: str) -> None:
    assert ask(Config(data=str(tmp_path / "data"), bucket=bucket, target=("querier",))) == (200, {})

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from remote.ingester import Ingester
from remote.limits import LimitsTable
from remote.peer import Peer
from remote.querier import Querier
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import StoreGateway
from tests.remote.test_ingester import FAST, NOW_MS, UP, push
from tests.remote.test_store_gateway import read
from tests.remote.writes import write_batch
from tsdb.bucket.bucket import FolderBucket
from tsdb.model.errors import BadData, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source
from tsdb.model.write import Exemplar, Metadata

OTHER = Labels.of({"__name__": "other"})
ALL = Selection((), MIN_MS, MAX_MS)


class Cluster:
    def __init__(self, path: Path, size: int, *, factor: int = 3) -> None:
        self.bucket = FolderBucket(path / "bucket")
        self.ingesters = [Ingester(f"i-{i}", path / str(i), self.bucket, LimitsTable(), FAST, now_ms=NOW_MS) for i in range(size)]
        self.peers: dict[str, Peer] = {one.id: one for one in self.ingesters}
        self.membership = MemoryMembership(replication_factor=factor)
        for name in self.peers:
            self.membership.join(Instance(name, "", State.ACTIVE, "", instance_tokens(name), NOW_MS, NOW_MS))
        self.gateway = StoreGateway(self.bucket)
        self.querier = Querier(self.membership, lambda instance: self.peers[instance.id], self.gateway)


class Broken:
    """An ingester that fails in the middle of what it streams."""

    def __init__(self, ingester: Ingester, error: Exception) -> None:
        self.ingester, self.error = ingester, error

    def source(self, tenant: str) -> Source:
        return self

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        batch = next(self.ingester.source("a").select(selection))
        yield batch.take(range(1))  # type: ignore[arg-type]
        raise self.error

    def series(self, selection: Selection) -> SeriesTable:
        raise self.error


def test_replicas_memory_and_blocks_are_one(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    push(cluster.ingesters[0], "a", 1, 2, now_ms=NOW_MS), push(cluster.ingesters[1], "a", 2, 3, now_ms=NOW_MS)
    push(cluster.ingesters[1], "b", 9, now_ms=NOW_MS)
    cluster.ingesters[0].flush(NOW_MS)
    push(cluster.ingesters[2], "a", 3, 4, now_ms=NOW_MS)
    cluster.gateway.refresh(NOW_MS)
    want = {str(UP): [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]}
    assert read(cluster.querier.source("a")) == (want, ())
    assert cluster.querier.source("a").series(ALL).rows() == [UP]
    assert read(cluster.querier.source("b")) == ({str(UP): [(9, 9.0)]}, ())
    assert read(cluster.querier.source("c")) == ({}, ())
    with ThreadPoolExecutor(3) as executor:
        parallel = Querier(cluster.membership, lambda instance: cluster.peers[instance.id], cluster.gateway, executor=executor)
        assert read(parallel.source("a")) == (want, ())


def test_federated(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, factor=1)
    push(cluster.ingesters[0], "a", 1), push(cluster.ingesters[0], "b", 2)
    found, _ = read(cluster.querier.source("a", "b"))
    assert found == {'up{__tenant_id__="a", job="a"}': [(1, 1.0)], 'up{__tenant_id__="b", job="a"}': [(2, 2.0)]}


def test_one_of_three_may_fail_anywhere_two_may_not(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    for one in cluster.ingesters:
        one.push("a", write_batch({OTHER: [(5, 5.0)], UP: [(1, 1.0)]}), now_ms=NOW_MS)
    want = {str(OTHER): [(5, 5.0)], str(UP): [(1, 1.0)]}
    for error in (Unavailable("gone"), OSError(5, "Input/output error")):
        cluster.peers["i-0"] = Broken(cluster.ingesters[0], error)  # type: ignore[assignment]
        assert read(cluster.querier.source("a")) == (want, ())
        assert cluster.querier.source("a").series(ALL).rows() == [OTHER, UP]
    cluster.peers["i-2"] = Broken(cluster.ingesters[2], Unavailable("gone too"))  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="2 ingesters failed, and 1 may; the last is i-2: gone too"):
        read(cluster.querier.source("a"))
    with pytest.raises(Unavailable):
        cluster.querier.source("a").series(ALL)


def test_a_mistake_of_the_asker_is_not_a_failed_ingester(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    push(cluster.ingesters[0], "a", 1)
    cluster.peers["i-0"] = Broken(cluster.ingesters[0], BadData("no such matcher"))  # type: ignore[assignment]
    with pytest.raises(BadData, match="no such matcher"):
        read(cluster.querier.source("a"))


def test_instances_that_are_not_heard_from_are_not_asked(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    push(cluster.ingesters[1], "a", 1)
    del cluster.peers["i-0"]
    for name in ("i-1", "i-2"):
        cluster.membership.heartbeat(name, NOW_MS + 100_000)
    assert read(cluster.querier.source("a"))[0] == {str(UP): [(1, 1.0)]}
    cluster.membership.heartbeat("i-1", NOW_MS + 200_000)
    with pytest.raises(Unavailable, match="too many unhealthy instances in the ring"):
        read(cluster.querier.source("a"))


def test_exemplars_and_metadata_of_all_replicas_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    trace = [Exemplar(0, Labels.of({"trace_id": f"t{i}"}), float("nan") if i == 1 else float(i), 100 + i) for i in range(3)]
    help_text = Metadata("up", "gauge", "Whether the target answered.", "")
    plain = write_batch({UP: [(1, 1.0)]})
    for i, one in enumerate(cluster.ingesters):
        one.push("a", replace(plain, exemplars=tuple(trace[:2] if i else trace[1:]), metadata=(help_text,)), now_ms=NOW_MS)
    selectors = [(Matcher("__name__", "=", "up"),), (Matcher("job", "=", "a"),)]
    found = cluster.querier.exemplars(["a", "b"], selectors, start_ms=100, end_ms=102)
    assert [(one.labels, [o.t_ms for o in one.exemplars]) for one in found] == [(UP, [100, 101, 102])]
    assert cluster.querier.exemplars(["a"], [(Matcher("job", "=", "x"),)], start_ms=0, end_ms=1000) == []
    assert cluster.querier.metadata(["a"]) == [help_text]


def test_a_bucket_can_be_read_without_ingesters(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1, factor=1)
    push(cluster.ingesters[0], "a", 1)
    cluster.ingesters[0].flush(NOW_MS)
    cluster.gateway.refresh(NOW_MS)
    reader = Querier(None, lambda instance: cluster.peers[instance.id], cluster.gateway)
    assert read(reader.source("a")) == ({str(UP): [(1, 1.0)]}, ())
    assert reader.source("a").series(ALL).rows() == [UP] and reader.metadata(["a"]) == []
    nobody = Querier(MemoryMembership(), lambda instance: cluster.peers[instance.id], cluster.gateway)
    with pytest.raises(Unavailable, match="empty ring"):
        read(nobody.source("a"))

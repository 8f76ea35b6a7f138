from dataclasses import replace
from pathlib import Path

import pytest

from remote.distributor import Distributor
from remote.limits import Limits, LimitsTable
from remote.peer import Peer
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from tests.remote.test_ingester import NOW_MS, UP, ingester, times
from tests.remote.test_store_gateway import read
from tests.remote.writes import write_batch
from tsdb.model.errors import LimitExceeded, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.write import Metadata, WriteBatch

SERIES = [Labels.of({"__name__": "up", "i": str(i)}) for i in range(200)]


def cluster(path: Path, size: int, *, factor: int, limits: LimitsTable | None = None) -> tuple[Distributor, dict[str, Peer]]:
    """A distributor before `size` ingesters, and those."""
    peers: dict[str, Peer] = {f"i-{i}": ingester(path / str(i)) for i in range(size)}
    membership = MemoryMembership(replication_factor=factor)
    for name in peers:
        membership.join(Instance(name, "", State.ACTIVE, "", instance_tokens(name), NOW_MS, NOW_MS))
    return Distributor(membership, lambda instance: peers[instance.id], limits or LimitsTable()), peers


def held(peers: dict[str, Peer], tenant: str = "a") -> list[int]:
    """How many series of the tenant each ingester has."""
    return [len(read(peer.source(tenant))[0]) for peer in peers.values()]


def batch() -> WriteBatch:
    return write_batch({labels: [(NOW_MS, 1.0)] for labels in SERIES})


def test_one_ingester_gets_all(tmp_path: Path) -> None:
    distributor, peers = cluster(tmp_path, 1, factor=1)
    assert distributor.push("a", batch(), now_ms=NOW_MS).samples == 200
    assert held(peers) == [200]


def test_three_of_three_get_all(tmp_path: Path) -> None:
    distributor, peers = cluster(tmp_path, 3, factor=3)
    assert distributor.push("a", batch(), now_ms=NOW_MS).samples == 200
    assert sorted(held(peers))[1:] == [200, 200]


def test_series_spread_over_five_and_tenants_spread_otherwise(tmp_path: Path) -> None:
    distributor, peers = cluster(tmp_path, 5, factor=1)
    assert distributor.push("a", batch(), now_ms=NOW_MS).samples == 200
    assert sum(held(peers)) == 200 and min(held(peers)) > 10
    distributor.push("b", batch(), now_ms=NOW_MS)
    assert sum(held(peers, "b")) == 200 and held(peers, "b") != held(peers)


def test_metadata_alone_has_a_place(tmp_path: Path) -> None:
    distributor, peers = cluster(tmp_path, 5, factor=1)
    help_text = Metadata("up", "gauge", "Whether the target answered.", "")
    result = distributor.push("a", replace(write_batch({}), metadata=(help_text,)), now_ms=NOW_MS)
    assert result.rejected == {}
    assert [one for peer in peers.values() for one in peer.metadata("a")] == [help_text]


def test_an_empty_ring_and_a_limit_are_told(tmp_path: Path) -> None:
    nobody = Distributor(MemoryMembership(), lambda instance: ingester(tmp_path), LimitsTable())
    with pytest.raises(Unavailable, match="empty ring"):
        nobody.push("a", batch(), now_ms=NOW_MS)
    slow = LimitsTable(Limits(), {"a": Limits(ingestion_rate=10, ingestion_burst_size=200)})
    distributor, _ = cluster(tmp_path, 1, factor=1, limits=slow)
    distributor.push("a", batch(), now_ms=NOW_MS)
    with pytest.raises(LimitExceeded, match=r"ingestion rate limit \(10\) exceeded while adding 200 samples and 0 metadata"):
        distributor.push("a", batch(), now_ms=NOW_MS)
    assert distributor.push("b", batch(), now_ms=NOW_MS).samples == 200


def test_writes_under_way_are_bounded(tmp_path: Path) -> None:
    membership = MemoryMembership()
    membership.join(Instance("i", "", State.ACTIVE, "", instance_tokens("i"), NOW_MS, NOW_MS))
    one = ingester(tmp_path)

    class Reentrant:
        """An ingester during whose push another write arrives."""

        def push(self, tenant: str, part: WriteBatch, *, now_ms: int) -> object:
            with pytest.raises(Unavailable, match="too many inflight push requests in distributor"):
                distributor.push("b", part, now_ms=now_ms)
            return one.push(tenant, part, now_ms=now_ms)

    distributor = Distributor(membership, lambda instance: Reentrant(), LimitsTable(), max_writes=1)  # type: ignore[arg-type, return-value]
    for _ in range(3):
        assert distributor.push("a", write_batch({UP: [(NOW_MS, 1.0)]}), now_ms=NOW_MS).samples == 1
    assert times(one, "a") == [NOW_MS]

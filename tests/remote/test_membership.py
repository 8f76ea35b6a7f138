import threading

import pytest

from remote.ring.membership import MemoryMembership
from remote.ring.ring import WRITE, Instance, State, instance_tokens
from tsdb.model.errors import BadData, NotFound


def instance(i: int) -> Instance:
    return Instance(f"i-{i}", f"host-{i}", State.ACTIVE, "", instance_tokens(f"i-{i}"), 0, 0)


def test_join_change_leave() -> None:
    members = MemoryMembership(replication_factor=2)
    members.join(instance(1))
    members.join(instance(0))
    members.join(instance(1))
    assert [i.id for i in members.snapshot().instances] == ["i-0", "i-1"]
    members.set_state("i-1", State.LEAVING)
    assert members.snapshot().healthy(WRITE).tolist() == [True, False]
    members.leave("i-0")
    members.leave("i-0")
    assert [i.id for i in members.snapshot().instances] == ["i-1"]


def test_a_snapshot_stays_the_same_until_something_changes() -> None:
    members = MemoryMembership()
    members.join(instance(0))
    before = members.snapshot()
    assert members.snapshot() is before
    members.heartbeat("i-0", 5)
    after = members.snapshot()
    assert after is not before and after.topology is before.topology
    assert (before.instances[0].heartbeat_ms, after.instances[0].heartbeat_ms, after.updated_ms) == (0, 5, 5)


def test_the_forgotten_are_told() -> None:
    members = MemoryMembership()
    with pytest.raises(NotFound, match="'i-0' is not in the ring"):
        members.heartbeat("i-0", 1)
    with pytest.raises(NotFound):
        members.set_state("i-0", State.ACTIVE)
    with pytest.raises(BadData, match="replication factor 0"):
        MemoryMembership(replication_factor=0)


def test_many_join_at_once() -> None:
    members = MemoryMembership(replication_factor=3)
    threads = [threading.Thread(target=members.join, args=(instance(i),)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(members.snapshot()) == 20

from dataclasses import replace

import pytest

from remote.ring.replication import quorum, read_set, write_placement
from remote.ring.ring import Instance, Ring, State, instance_tokens, make_ring
from tsdb.model.errors import Unavailable


def ring_of(*states: State, factor: int = 3, zones: str = "", silent: tuple[int, ...] = ()) -> Ring:
    """A ring with the states given; `zones` has a letter for each instance; `silent` ones have not been heard from."""
    instances = [
        Instance(f"i-{i}", "", state, zones[i] if zones else "", instance_tokens(f"i-{i}", 16), 0 if i in silent else 100_000, 0)
        for i, state in enumerate(states)
    ]
    return make_ring(instances, replication_factor=factor, zone_aware=bool(zones))


A, L, P, J, R = State.ACTIVE, State.LEAVING, State.PENDING, State.JOINING, State.READONLY


@pytest.mark.parametrize(("size", "factor", "want"), [(1, 1, 1), (2, 2, 2), (3, 3, 2), (2, 3, 2), (4, 3, 3), (5, 5, 3), (1, 3, 2)])
def test_quorum(size: int, factor: int, want: int) -> None:
    assert quorum(size, factor) == want


@pytest.mark.parametrize(
    ("ring", "sent", "needed"),
    [
        (ring_of(A, factor=1), 1, 1),
        (ring_of(A, A, A), 3, 2),
        (ring_of(A, A, A, silent=(1,)), 2, 2),
        (ring_of(A, A, A, L), 3, 3),
        (ring_of(A, A, A, A, zones="abca", silent=(1,)), 2, 2),
    ],
)
def test_writes(ring: Ring, sent: int, needed: int) -> None:
    placement = write_placement(ring)
    with_all = placement.members.sum(axis=1).argmin() if sent < 3 else placement.needed.argmax()
    assert int(placement.members[with_all].sum()) == sent
    assert int(placement.needed[with_all]) == needed
    assert int(placement.spare[with_all]) == sent - needed
    assert placement.problems[with_all] == ""


def test_too_few_for_a_write() -> None:
    placement = write_placement(ring_of(A, A, A, silent=(0, 2)))
    assert placement.problems == ("at least 2 live replicas required, could only find 1 - unhealthy instances: i-0, i-2",)
    placement = write_placement(ring_of(A, A, A, zones="abc", silent=(0, 2)))
    assert "required across different availability zones" in placement.problems[0]
    assert "could only find 1 - unhealthy instances: none" in write_placement(ring_of(A)).problems[0]


@pytest.mark.parametrize(
    ("ring", "asked", "may_fail"),
    [
        (ring_of(A, factor=1), 1, 0),
        (ring_of(A, A, factor=2), 2, 1),
        (ring_of(A, A, A), 3, 1),
        (ring_of(A, A, A, silent=(1,)), 2, 0),
        (ring_of(A, L, J, P, R), 5, 1),
        (ring_of(A, A, A, A, A, factor=5), 5, 2),
        (ring_of(A, A, A, A, A, A, zones="abcabc"), 6, 1),
        (ring_of(A, A, A, A, A, A, zones="abcabc", silent=(0,)), 4, 0),
        (ring_of(A, A, A, A, A, A, zones="abcabc", silent=(0, 3)), 4, 0),
    ],
)
def test_reads(ring: Ring, asked: int, may_fail: int) -> None:
    assert (len(read_set(ring).instances), read_set(ring).max_errors) == (asked, may_fail)


@pytest.mark.parametrize(
    "ring",
    [
        ring_of(A, factor=1, silent=()).beat("i-9", 200_000),
        ring_of(A, A, A, silent=(0, 1)),
        ring_of(A, A, A, A, zones="abca", silent=(0, 1)),
        replace(ring_of(A), instances=()),
    ],
)
def test_too_few_for_a_read(ring: Ring) -> None:
    with pytest.raises(Unavailable, match=r"too many unhealthy instances in the ring|empty ring"):
        read_set(ring)

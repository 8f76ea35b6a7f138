import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.ring.ring import READ, WRITE, Instance, Operation, Ring, State, instance_tokens, make_ring, replica_table, tenant_salt
from tsdb.kernel.hash import ring_tokens

KEYS = np.random.default_rng(1).integers(0, 1 << 32, 500, np.uint32)


def member(i: int, *, state: State = State.ACTIVE, zone: str = "", tokens: int = 32) -> Instance:
    return Instance(f"i-{i}", f"host-{i}:9009", state, zone, instance_tokens(f"i-{i}", tokens), 0, 0)


def walk(ring: Ring, key: int, operation: Operation) -> list[int]:
    """One key's replicas by the letter of Cortex's loop; the oracle for the walk over all tokens at once."""
    tokens, owner = ring.topology.tokens.tolist(), ring.topology.owner.tolist()
    start = next((i for i, token in enumerate(tokens) if token > key), 0)
    zones = {i.zone for i in ring.instances if i.zone} if ring.zone_aware else set()
    chosen: list[int] = []
    in_zone: Counter[str] = Counter()
    need = ring.replication_factor
    for i in [*owner[start:], *owner[:start]]:
        if len(chosen) >= min(len(ring), need):
            break
        instance = ring.instances[i]
        zoned = ring.zone_aware and instance.zone
        if i in chosen:
            continue
        if zoned:
            each, extra = divmod(ring.replication_factor, len(zones))
            have = in_zone[instance.zone]
            if have > each or (have == each and sum(n > each for n in in_zone.values()) >= extra):
                continue
        chosen.append(i)
        if instance.state in operation.extend:
            need += 1
        elif zoned:
            in_zone[instance.zone] += 1
    return chosen


@given(
    st.lists(st.tuples(st.sampled_from(list(State)), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=9),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([WRITE, READ]),
)
def test_walk_is_cortex_s(members: list[tuple[State, str]], factor: int, zone_aware: bool, operation: Operation) -> None:
    instances = [member(i, state=state, zone=zone, tokens=4) for i, (state, zone) in enumerate(members)]
    ring = make_ring(instances, replication_factor=factor, zone_aware=zone_aware)
    keys = np.array([0, 1 << 31, (1 << 32) - 1, *ring.topology.tokens[:9]], np.uint32)
    table = ring.replicas(keys, operation)
    for key, row in zip(keys.tolist(), table.tolist(), strict=True):
        assert [i for i in row if i >= 0] == walk(ring, key, operation)


def test_a_key_equal_to_a_token_belongs_to_the_next() -> None:
    ring = make_ring([replace(member(i), tokens=(100 * (i + 1),)) for i in range(3)], replication_factor=1)
    keys = np.array([0, 99, 100, 250, 300, 1 << 31], np.uint32)
    assert ring.replicas(keys, WRITE)[:, 0].tolist() == [0, 0, 1, 2, 0, 0]


@pytest.mark.parametrize(("zones", "factor"), [(3, 3), (2, 3), (3, 5), (5, 3)])
def test_zones_share_the_replicas_evenly(zones: int, factor: int) -> None:
    ring = make_ring([member(i, zone=f"z{i % zones}") for i in range(15)], replication_factor=factor, zone_aware=True)
    zone = np.array([int(instance.zone[1:]) for instance in ring.instances])
    for row in ring.replicas(KEYS, WRITE):
        counts = np.bincount(zone[row], minlength=zones)
        assert len(set(row.tolist())) == factor
        assert counts.max() - counts.min() <= 1


def test_one_that_leaves_is_replaced_in_its_zone() -> None:
    instances = [member(i, zone=f"z{i % 3}") for i in range(9)]
    instances[4] = replace(instances[4], state=State.LEAVING)
    ring = make_ring(instances, replication_factor=3, zone_aware=True)
    extended = [row[row >= 0] for row in ring.replicas(KEYS, WRITE) if 4 in row]
    assert extended
    assert all(sorted(i % 3 for i in row) == [0, 1, 1, 2] for row in extended)


@given(st.integers(2, 12), st.integers(1, 3))
def test_a_new_member_takes_from_others_and_moves_nothing_between_them(size: int, factor: int) -> None:
    instances = [member(i) for i in range(size + 1)]
    before = make_ring(instances[:-1], replication_factor=factor)
    after = make_ring(instances, replication_factor=factor)
    old = [{before.instances[i].id for i in row if i >= 0} for row in before.replicas(KEYS, WRITE).tolist()]
    new = [{after.instances[i].id for i in row if i >= 0} for row in after.replicas(KEYS, WRITE).tolist()]
    assert all(now - {f"i-{size}"} <= then for then, now in zip(old, new, strict=True))


def test_load_is_even() -> None:
    ring = make_ring([member(i, tokens=128) for i in range(10)], replication_factor=3)
    keys = ring_tokens(np.arange(20_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), tenant_salt("a"))
    share = np.bincount(ring.replicas(keys, WRITE).ravel()) / (3 * len(keys))
    assert share.max() < 0.14 and share.min() > 0.07


def test_token_conflicts_and_order_of_joining_change_nothing() -> None:
    instances = [replace(member(0), tokens=(5, 10)), replace(member(1), tokens=(10, 20))]
    one, two = make_ring(instances, replication_factor=1), make_ring(instances[::-1], replication_factor=1)
    assert one.topology.tokens.tolist() == two.topology.tokens.tolist() == [5, 10, 20]
    assert one.topology.owner.tolist() == two.topology.owner.tolist() == [0, 0, 1]


def test_the_same_in_every_process() -> None:
    code = (
        "import numpy as np\nfrom remote.ring.ring import *\nfrom tsdb.kernel.hash import ring_tokens\n"
        "m = [Instance(f'i-{i}', '', State.ACTIVE, '', instance_tokens(f'i-{i}'), 0, 0) for i in range(7)]\n"
        "r = make_ring(m, replication_factor=3)\n"
        "k = ring_tokens(np.arange(50, dtype=np.uint64), tenant_salt('team-a'))\n"
        "print(r.replicas(k, WRITE).tolist())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    ring = make_ring([member(i, tokens=128) for i in range(7)], replication_factor=3)
    here = ring.replicas(ring_tokens(np.arange(50, dtype=np.uint64), tenant_salt("team-a")), WRITE).tolist()
    assert runs == {f"{here}\n"}


def test_health_is_judged_by_what_was_heard_last() -> None:
    ring = make_ring([member(i) for i in range(3)], replication_factor=3, heartbeat_timeout_ms=1000)
    assert ring.beat("i-1", 900).healthy(WRITE).tolist() == [True, True, True]
    assert ring.beat("i-1", 1001).healthy(WRITE).tolist() == [False, True, False]
    assert ring.beat("i-1", 900).topology is ring.topology


def test_instances_have_their_own_tokens() -> None:
    tokens = [instance_tokens(f"i-{i}") for i in range(100)]
    assert {len(set(t)) for t in tokens} == {128}
    assert len(set().union(*tokens)) > 12_795


def test_a_large_ring_is_made_quickly_and_has_few_sets() -> None:
    ring = make_ring([member(i, zone=f"z{i % 3}", tokens=128) for i in range(60)], replication_factor=3, zone_aware=True)
    table = replica_table(ring.topology, WRITE)
    assert (table.sets >= 0).all()
    assert np.array_equal(np.sort(table.order, axis=1), table.sets[table.set_of])

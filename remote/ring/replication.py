"""The arithmetic of replication: how many of which instances must answer. Pure functions over a ring, as Cortex has them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from remote.ring.ring import I32, I64, READ, WRITE, Bool, Ring, replica_table
from tsdb.model.errors import Unavailable


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """How writes spread over one ring, by set of replicas.

    members bool[s, n]: the healthy instances of each set; needed i64[s] of them must store a row for it to be written, so
    spare i64[s] may fail. `set_of` i32[t] is the set of each token; problems[i] is why set i cannot be written at all, or "".
    """

    ring: Ring
    set_of: I32
    members: Bool
    needed: I64
    spare: I64
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadSet:
    """The instances a read must ask (numbers into the ring), and how many of them may fail: single ones, or, if the ring
    is zone aware, all of so many zones."""

    instances: tuple[int, ...]
    max_errors: int
    by_zone: bool


def quorum(size: int, replication_factor: int) -> int:
    """How many of `size` replicas, the unhealthy included, must store a row: the majority of max(size, factor)."""
    return max(size, replication_factor) // 2 + 1


@lru_cache(maxsize=8)
def write_placement(ring: Ring) -> Placement:
    """The placement of writes, made once for a ring (compared by identity)."""
    table = replica_table(ring.topology, WRITE)
    healthy = ring.healthy(WRITE)
    all_members = np.zeros((len(table.sets), len(ring) + 1), bool)
    np.put_along_axis(all_members, table.sets, True, axis=1)  # -1 lands on the spare last column
    all_members = all_members[:, : len(ring)]
    members = all_members & healthy
    needed = np.maximum(all_members.sum(axis=1), ring.replication_factor) // 2 + 1
    spare = members.sum(axis=1) - needed
    problems = tuple(
        too_few_replicas(ring, np.flatnonzero(all_members[i] & ~healthy), int(needed[i]), int(members[i].sum())) if lacks else ""
        for i, lacks in enumerate((spare < 0).tolist())
    )
    return Placement(ring, table.set_of, members, needed, spare, problems)


def too_few_replicas(ring: Ring, unhealthy: I64, needed: int, found: int) -> str:
    """Cortex's sentence for a set that cannot reach its quorum."""
    across = " across different availability zones" if ring.zone_aware else ""
    names = ", ".join(ring.instances[i].id for i in unhealthy)
    return f"at least {needed} live replicas required{across}, could only find {found} - unhealthy instances: {names or 'none'}"


@lru_cache(maxsize=8)
def read_set(ring: Ring) -> ReadSet:
    """Whom a read of all series asks. Unavailable if so many are unhealthy that a written sample could be missed.

    A sample is on a majority of its replicas, so as many as a majority less one may be missing from the answer.
    """
    if len(ring) == 0:
        raise Unavailable("empty ring: no ingester has joined")
    return _read_zones(ring) if ring.zone_aware else _read_instances(ring)


def _read_instances(ring: Ring) -> ReadSet:
    healthy = np.flatnonzero(ring.healthy(READ)).tolist()
    required = max(len(ring), ring.replication_factor) - ring.replication_factor // 2
    if len(healthy) < required:
        raise _too_unhealthy(ring, f"{len(healthy)} of {len(ring)} are healthy, {required} required")
    return ReadSet(tuple(healthy), len(healthy) - required, False)


def _read_zones(ring: Ring) -> ReadSet:
    healthy = ring.healthy(READ)
    zones = sorted({instance.zone for instance in ring.instances})
    broken = {instance.zone for i, instance in enumerate(ring.instances) if not healthy[i]}
    allowed = min(len(zones), ring.replication_factor) // 2
    if len(broken) > allowed:
        raise _too_unhealthy(ring, f"{len(broken)} of {len(zones)} zones are, {allowed} allowed: {', '.join(sorted(broken))}")
    sound = tuple(i for i, instance in enumerate(ring.instances) if instance.zone not in broken)
    return ReadSet(sound, allowed - len(broken), True)


def _too_unhealthy(ring: Ring, why: str) -> Unavailable:
    names = ", ".join(i.id for i, ok in zip(ring.instances, ring.healthy(READ), strict=True) if not ok)
    return Unavailable(f"too many unhealthy instances in the ring: {why} - unhealthy instances: {names or 'none'}")

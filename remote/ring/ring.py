"""The ring: which instances hold a series. Pure values and arithmetic with Cortex's semantics; nothing here waits or asks.

Every instance owns tokens, points on a circle of 2^32. A key belongs to the instances met first on the way clockwise from
it: each once, spread over zones, and one more for every one met that may not be written to now. The walk from each token
is made once when the ring changes, for all tokens together; afterwards the replicas of a whole request are one
`searchsorted` and one lookup.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tsdb.kernel.hash import hash_bytes

TOKENS_PER_INSTANCE = 128
"""Cortex's; the busiest of 3 instances then owns about 10 % more than the mean."""
HEARTBEAT_TIMEOUT_MS = 60_000

U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class State(IntEnum):
    """Where an instance is in its life, numbered as in Cortex's ring.proto."""

    ACTIVE = 0
    LEAVING = 1
    PENDING = 2
    JOINING = 3
    LEFT = 4
    READONLY = 5


@dataclass(frozen=True, slots=True)
class Operation:
    """What a lookup is for: the states that can serve it, and those that call for one more replica."""

    healthy: frozenset[State]
    extend: frozenset[State]


WRITE = Operation(frozenset({State.ACTIVE}), frozenset(State) - {State.ACTIVE})
WRITE_NO_EXTEND = Operation(frozenset({State.ACTIVE}), frozenset({State.READONLY}))
READ = Operation(frozenset(State) - {State.LEFT}, frozenset({State.PENDING, State.LEFT}))
REPORTING = Operation(frozenset(State), frozenset())


@dataclass(frozen=True, slots=True)
class Instance:
    """One member of the ring."""

    id: str
    address: str
    state: State
    zone: str
    tokens: tuple[int, ...]
    heartbeat_ms: int
    registered_ms: int


@dataclass(frozen=True, slots=True)
class ReplicaTable:
    """The walks from all t tokens: order i32[t, w] of instances, -1 past the last; and the same as sets, for grouping.

    The walk from token i has the members sets[set_of[i]], i32[s, w], ascending with -1 first.
    """

    order: I32
    set_of: I32
    sets: I32


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """What a walk depends on, and nothing that changes with every heartbeat. Instances ascend by id.

    tokens u32[t] ascending and unique; owner i32[t]; zone_of i32[n], -1 = no zone; states of the instances.
    """

    tokens: U32
    owner: I32
    zone_of: I32
    states: tuple[State, ...]
    replication_factor: int


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """A ring at one moment. `updated_ms` is when it was last heard from at all: heartbeats are judged against that, not
    against the clock, so that a membership store that stands still does not make every instance unhealthy."""

    instances: tuple[Instance, ...]
    topology: Topology
    zone_aware: bool
    heartbeat_timeout_ms: int
    updated_ms: int

    @property
    def replication_factor(self) -> int:
        return self.topology.replication_factor

    def __len__(self) -> int:
        return len(self.instances)

    def positions(self, keys: U32) -> I64:
        """i64[n] the token each key meets first: the first strictly greater, past the last the first."""
        at = np.searchsorted(self.topology.tokens, keys, side="right")
        at[at == len(self.topology.tokens)] = 0
        return at

    def replicas(self, keys: U32, operation: Operation) -> I32:
        """i32[n, r] instances of each key in the order of the walk, -1 where there are fewer. Not filtered by health."""
        return np.asarray(replica_table(self.topology, operation).order[self.positions(keys)])

    def healthy(self, operation: Operation) -> Bool:
        """bool[n] which instances can serve: state allowed and heard from within the timeout."""
        since_ms = self.updated_ms - self.heartbeat_timeout_ms
        return np.array([i.state in operation.healthy and i.heartbeat_ms >= since_ms for i in self.instances], bool)

    def beat(self, instance_id: str, now_ms: int) -> "Ring":
        """The ring after a heartbeat; shares the walks."""
        changed = tuple(replace(i, heartbeat_ms=now_ms) if i.id == instance_id else i for i in self.instances)
        return replace(self, instances=changed, updated_ms=max(self.updated_ms, now_ms))


def make_ring(
    instances: Sequence[Instance],
    *,
    replication_factor: int,
    zone_aware: bool = False,
    heartbeat_timeout_ms: int = HEARTBEAT_TIMEOUT_MS,
    updated_ms: int = 0,
) -> Ring:
    """The ring of these instances, the same whatever their order. A token that two claim is the one's with the lesser id."""
    ordered = tuple(sorted(instances, key=lambda instance: instance.id))
    owner = np.repeat(np.arange(len(ordered), dtype=np.int32), [len(i.tokens) for i in ordered])
    tokens = np.array([token for i in ordered for token in i.tokens], np.uint32)
    by_token = np.lexsort((owner, tokens))
    tokens, owner = tokens[by_token], owner[by_token]
    first = np.concatenate([[True], tokens[1:] != tokens[:-1]])[: len(tokens)]
    zones = sorted({i.zone for i in ordered if i.zone})
    zone_of = [zones.index(i.zone) if zone_aware and i.zone else -1 for i in ordered]
    topology = Topology(
        tokens[first], owner[first], np.array(zone_of, np.int32), tuple(i.state for i in ordered), replication_factor
    )
    heard_ms = max([updated_ms, *(i.heartbeat_ms for i in ordered)])
    return Ring(ordered, topology, zone_aware, heartbeat_timeout_ms, heard_ms)


def instance_tokens(instance_id: str, count: int = TOKENS_PER_INSTANCE) -> tuple[int, ...]:
    """The tokens of an instance: a function of its id, so that it finds its place again without keeping a file."""
    digest = hashlib.shake_128(b"treering ring tokens\x00" + instance_id.encode()).digest(8 * count)
    return tuple(dict.fromkeys(np.frombuffer(digest, "<u4").tolist()))[:count]


@lru_cache(maxsize=4096)
def tenant_salt(tenant: str) -> np.uint64:
    """What makes the tokens of equal label sets of different tenants differ (`tsdb.kernel.hash.ring_tokens`)."""
    data = np.frombuffer(tenant.encode(), np.uint8)
    return np.uint64(hash_bytes(data, 0, len(data)))


@lru_cache(maxsize=16)
def replica_table(topology: Topology, operation: Operation) -> ReplicaTable:
    """The walks from all tokens, made once for a topology (compared by identity) and an operation."""
    order = _walk(topology, np.array([state in operation.extend for state in topology.states], bool))
    members = np.sort(order, axis=1)
    sets, set_of = np.unique(members, axis=0, return_inverse=True)
    return ReplicaTable(order, set_of.reshape(-1).astype(np.int32), sets)


def _walk(topology: Topology, extends: Bool) -> I32:
    """i32[t, w]: from every token at once, step by step clockwise, until each has met as many instances as it needs."""
    t, n = len(topology.tokens), len(topology.states)
    width = min(n, topology.replication_factor + int(extends.sum()))
    order = np.full((t, width), -1, np.int32)
    met, need = np.zeros(t, np.int64), np.full(t, topology.replication_factor)
    seen = np.zeros((t, n), bool)
    in_zone = np.zeros((t, int(topology.zone_of.max(initial=-1)) + 1), np.int64)
    active = np.arange(t)
    for step in range(t):
        who = topology.owner[(active + step) % t]
        fresh = ~seen[active, who]
        rows, who = active[fresh], who[fresh]
        seen[rows, who] = True
        room = _zone_has_room(in_zone[rows], topology.zone_of[who], topology.replication_factor)
        rows, who = rows[room], who[room]
        order[rows, met[rows]] = who
        met[rows] += 1
        need[rows[extends[who]]] += 1
        counts = ~extends[who] & (topology.zone_of[who] >= 0)  # one that is not written to keeps its zone's place free
        in_zone[rows[counts], topology.zone_of[who[counts]]] += 1
        active = active[(met[active] < need[active]) & (met[active] < width) & ~seen[active].all(axis=1)]
        if len(active) == 0:
            break
    return order


def _zone_has_room(in_zone: I64, zone: I32, replication_factor: int) -> Bool:
    """bool[r]: a zone takes replication_factor // zones instances, and replication_factor % zones of them one more."""
    zones = in_zone.shape[1]
    if zones == 0:
        return np.ones(len(zone), bool)
    each, extra = divmod(replication_factor, zones)
    have = in_zone[np.arange(len(zone)), zone]
    return np.asarray((zone < 0) | (have < each) | ((have == each) & ((in_zone > each).sum(axis=1) < extra)))

"""The distributor: takes a tenant's write to the ingesters that must hold it."""

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from remote.limits import LimitsTable, RateLimiter
from remote.peer import Peer
from remote.ring.membership import Membership
from remote.ring.quorum import Gate, push_quorum
from remote.ring.replication import Placement, write_placement
from remote.ring.ring import I32, Instance, tenant_salt
from tsdb.kernel.hash import ring_tokens
from tsdb.model.errors import Unavailable
from tsdb.model.write import PushResult, WriteBatch

MAX_WRITES = 512
"""Writes under way at once; more wait at the sender, whose queue is made for it."""

_ONE_SET = np.zeros(1, np.int32)


class Distributor:
    """Rate limit, ring, quorum. `executor` runs the calls to several ingesters in parallel; None makes them in turn."""

    def __init__(
        self,
        membership: Membership,
        peer_of: Callable[[Instance], Peer],
        limits: LimitsTable,
        *,
        executor: Executor | None = None,
        max_writes: int = MAX_WRITES,
    ) -> None:
        self._membership, self._peer_of, self._limits, self._executor = membership, peer_of, limits, executor
        self._rates, self._gate, self._writes = RateLimiter(), Gate(), Gate(max_writes)

    def push(self, tenant: str, batch: WriteBatch, *, now_ms: int) -> PushResult:
        """What a quorum of ingesters has made of the write; when this returns, they have it on disk.

        LimitExceeded over the tenant's rate, Unavailable without a quorum, else what the ingesters raise.
        """
        self._rates.take(tenant, self._limits.of(tenant), samples=_samples(batch), metadata=len(batch.metadata), now_ms=now_ms)
        if not self._writes.enter(""):
            raise Unavailable("too many inflight push requests in distributor")
        try:
            return self._push(tenant, batch, now_ms)
        finally:
            self._writes.leave("")

    def _push(self, tenant: str, batch: WriteBatch, now_ms: int) -> PushResult:
        ring = self._membership.snapshot()
        if len(ring.topology.tokens) == 0:
            raise Unavailable("empty ring: no ingester has joined")
        placement = write_placement(ring)

        def send(instance: Instance, part: WriteBatch) -> PushResult:
            return self._peer_of(instance).push(tenant, part, now_ms=now_ms)

        return push_quorum(placement, batch, _sets(placement, tenant, batch), send, executor=self._executor, gate=self._gate)


def _sets(placement: Placement, tenant: str, batch: WriteBatch) -> I32:
    """The set of replicas of each series; a write without series (metadata alone) has the set of the tenant's own token."""
    if len(placement.problems) == 1:
        return _ONE_SET
    hashes = batch.hash if len(batch) else np.zeros(1, np.uint64)
    return placement.set_of[placement.ring.positions(ring_tokens(hashes, tenant_salt(tenant)))]


def _samples(batch: WriteBatch) -> int:
    histograms = 0 if batch.histograms is None else len(batch.histograms.row)
    return len(batch.t_ms) + histograms + len(batch.exemplars)

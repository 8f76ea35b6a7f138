"""A whole cluster in one process, with a clock that only it moves and faults that a seed decides.

The model is what has been sent: of each sample whether it was acknowledged. A sample's value is a function of its series and
its time, so that a write that is repeated is the same write.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions
from remote.limits import LimitsTable
from remote.peer import Peer
from remote.querier import Querier
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import StoreGateway
from tests.remote.writes import write_batch
from tsdb.bucket.bucket import Bucket, FolderBucket, ObjectInfo
from tsdb.head.exemplars import ExemplarSeries
from tsdb.model.errors import TreeringError, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source
from tsdb.model.write import Metadata, PushResult, WriteBatch

HOUR_MS = 3_600_000


class FaultyBucket:
    """A bucket that fails when its dice say so: before it has done what it was asked, or after."""

    def __init__(self, bucket: Bucket, dice: random.Random) -> None:
        self.bucket, self.dice, self.rate = bucket, dice, 0.0
        self.operations, self.fail_at = 0, -1

    def put(self, key: str, data: bytes) -> None:
        fails = self._fails()
        if not fails or self.dice.random() < 0.5:
            self.bucket.put(key, data)
        self._tell(fails, f"put {key}")

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        self._tell(self._fails(), f"get {key}")
        return self.bucket.get(key, start, size)

    def size(self, key: str) -> int:
        self._tell(self._fails(), f"size {key}")
        return self.bucket.size(key)

    def exists(self, key: str) -> bool:
        self._tell(self._fails(), f"exists {key}")
        return self.bucket.exists(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._tell(self._fails(), f"list {prefix}")
        return self.bucket.list(prefix)

    def folders(self, prefix: str = "") -> Iterator[str]:
        self._tell(self._fails(), f"folders {prefix}")
        return self.bucket.folders(prefix)

    def sweep(self, before_ms: int) -> int:
        return self.bucket.sweep(before_ms)

    def delete(self, key: str) -> None:
        self.bucket.delete(key)
        self._tell(self._fails(), f"delete {key}")

    def _fails(self) -> bool:
        self.operations += 1
        return self.operations == self.fail_at or self.dice.random() < self.rate

    def _tell(self, fails: bool, what: str) -> None:
        if fails:
            raise Unavailable(f"bucket: {what}: 503 Slow Down")


class FaultyPeer:
    """An ingester behind a network that loses requests and answers."""

    def __init__(self, ingester: Ingester, dice: random.Random) -> None:
        self.ingester, self.dice, self.rate, self.up = ingester, dice, 0.0, True

    def push(self, tenant: str, batch: WriteBatch, *, now_ms: int) -> PushResult:
        fault = self.dice.random() < self.rate
        if not self.up or (fault and self.dice.random() < 0.5):
            raise Unavailable(f"{self.ingester.id}: connection refused")
        result = self.ingester.push(tenant, batch, now_ms=now_ms)
        if fault:
            raise Unavailable(f"{self.ingester.id}: connection reset")
        return result

    def source(self, tenant: str) -> Source:
        self._answer()
        return self.ingester.source(tenant)

    def oldest_ms(self, tenant: str) -> int | None:
        self._answer()
        return self.ingester.oldest_ms(tenant)

    def exemplars(self, tenant: str, selectors: list[tuple[Matcher, ...]], *, start_ms: int, end_ms: int) -> list[ExemplarSeries]:
        self._answer()
        return self.ingester.exemplars(tenant, selectors, start_ms=start_ms, end_ms=end_ms)

    def metadata(self, tenant: str) -> list[Metadata]:
        self._answer()
        return self.ingester.metadata(tenant)

    def _answer(self) -> None:
        if not self.up:
            raise Unavailable(f"{self.ingester.id}: connection refused")


@dataclass(slots=True)
class Sent:
    """The samples of one tenant: (labels, time) of all that were sent, and of those that were acknowledged."""

    attempted: set[tuple[Labels, int]] = field(default_factory=set)
    acknowledged: set[tuple[Labels, int]] = field(default_factory=set)


class Cluster:
    """Some ingesters over one bucket, a distributor and a querier."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        ingesters: int = 3,
        replication_factor: int = 3,
        zones: int = 0,
        announce: bool = False,
    ) -> None:
        self.zones, self.dice, self.replication_factor = zones, random.Random(seed), replication_factor
        self.directory, self.now_ms = directory, 500_000 * HOUR_MS
        self.bucket = FaultyBucket(FolderBucket(directory / "bucket"), self.dice)
        self.gateway = StoreGateway(self.bucket)
        self.membership = MemoryMembership(replication_factor=replication_factor, zone_aware=zones > 0)
        self._announce = self.gateway.add if announce else None
        self.peers: dict[str, FaultyPeer] = {}
        for i in range(ingesters):
            self._start(f"ingester-{i}")
        self.distributor = Distributor(self.membership, self._peer, LimitsTable())
        self.querier = Querier(self.membership, self._peer, self.gateway)
        self.sent: dict[str, Sent] = {}

    def push(self, tenant: str, samples: dict[Labels, list[int]]) -> bool:
        """Sends samples of the series at these times; whether they were acknowledged."""
        sent = self.sent.setdefault(tenant, Sent())
        keys = {(labels, t) for labels, times in samples.items() for t in times}
        sent.attempted |= keys
        batch = write_batch({labels: [(t, value_of(labels, t)) for t in times] for labels, times in samples.items()})
        try:
            result = self.distributor.push(tenant, batch, now_ms=self.now_ms)
        except TreeringError:
            return False
        assert result.rejected == {}, result
        assert result.samples == len(batch.t_ms)
        sent.acknowledged |= keys
        return True

    def advance(self, duration_ms: int) -> None:
        """Moves the clock; who is up sends a heartbeat."""
        self.now_ms += duration_ms
        for name, peer in self.peers.items():
            if peer.up:
                self.membership.heartbeat(name, self.now_ms)

    def tick(self) -> None:
        """One round of everything that works by itself."""
        for peer in self.peers.values():
            if peer.up:
                peer.ingester.tick(self.now_ms)
        self.refresh()

    def refresh(self) -> None:
        try:
            self.gateway.refresh(self.now_ms)
        except Unavailable:
            return

    def crash(self, name: str) -> None:
        """The process is gone; its disk stays."""
        self.peers[name].up = False

    def restart(self, name: str) -> None:
        """A new process on the old disk."""
        self._start(name)

    def check(self) -> None:
        """Every acknowledged sample is read exactly once with its value, and nothing that was not sent."""
        for tenant in self.sent:
            self.check_tenant(tenant)

    def check_tenant(self, tenant: str, *, start_ms: int = MIN_MS, end_ms: int = MAX_MS) -> None:
        sent = self.sent[tenant]
        read: set[tuple[Labels, int]] = set()
        series: list[Labels] = []
        for batch in self.querier.source(tenant).select(Selection((), start_ms, end_ms)):
            assert batch.warnings == ()
            rows = batch.series.rows()
            series += rows
            for i, labels in enumerate(rows):
                at = slice(int(batch.offsets[i]), int(batch.offsets[i + 1]))
                times = batch.t_ms[at]
                assert (np.diff(times) > 0).all() and start_ms <= times[0] and times[-1] < end_ms
                assert batch.values[at].tolist() == [value_of(labels, t) for t in times.tolist()]
                read |= {(labels, t) for t in times.tolist()}
        assert len(set(series)) == len(series)
        inside = {key for key in sent.acknowledged if start_ms <= key[1] < end_ms}
        assert inside - read == set(), f"{len(inside - read)} acknowledged samples are not read"
        assert read - sent.attempted == set()
        known = self.querier.source(tenant).series(Selection((), start_ms, end_ms)).rows()
        assert set(series) <= set(known) and len(set(known)) == len(known)

    def _peer(self, instance: Instance) -> Peer:
        return self.peers[instance.id]

    def _start(self, name: str) -> None:
        ingester = Ingester(
            name,
            self.directory / name,
            self.bucket,
            LimitsTable(),
            IngesterOptions(wal_sync="os", keep_flushed_ms=0 if self._announce else 15 * 60_000),
            now_ms=self.now_ms,
            entropy=self.dice.randbytes,
            announce=self._announce,
        )
        self.peers[name] = FaultyPeer(ingester, self.dice)
        tokens = instance_tokens(name)
        zone = f"zone-{int(name.split('-')[1]) % self.zones}" if self.zones else ""
        self.membership.join(Instance(name, name, State.ACTIVE, zone, tokens, self.now_ms, self.now_ms))


def value_of(labels: Labels, t_ms: int) -> float:
    return float((hash_of(labels) ^ t_ms * 2654435761) % 1_000_003) / 8


def hash_of(labels: Labels) -> int:
    return labels.stable_hash() & 0xFFFF_FFFF

"""The life of one tenant's samples: written, flushed, compacted, downsampled, deleted, expired, with crashes, beside a model.

The model has for every (series, time) whether it must be read, and whether it may be: what was not acknowledged, a deletion that
failed half way, and what is past its time leave it open. A sample's value is a function of its series and time.
"""

import random
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from promql.answer import QueryOptions
from promql.engine import query_range
from promql.matrix import Matrix, Steps
from promql.resolution import AUTO
from remote.compaction import CompactorOptions
from remote.compactor import Compactor
from remote.deletion import Deletion, delete
from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions
from remote.limits import Limits, LimitsTable, RetentionRule
from remote.querier import Querier
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import GatewayOptions, StoreGateway
from tests.remote.writes import write_batch
from tests.sim.cluster import FaultyBucket, value_of
from tsdb.block.meta import BlockMeta
from tsdb.bucket.bucket import FolderBucket, PrefixBucket
from tsdb.compaction.bucket_index import add_news
from tsdb.model.errors import TreeringError
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.source import MAX_MS, MIN_MS, Selection

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TENANT = "team"
SERIES = [Labels.of({"__name__": f"m{i % 2}", "job": job, "host": str(i)}) for i in range(4) for job in ("api", "debug")]
LIMITS = Limits(retention_ms=90 * DAY_MS, retention=(RetentionRule('{job="debug"}', "10d"),))
WINDOWS_ONLY = replace(LIMITS, retention_raw_ms=12 * DAY_MS)
"""Raw samples go long before their windows."""
ASIDE_MS = 1_000
SURE_MS = 9 * DAY_MS
"""So long before its raw samples go a sample must have come, to be in the windows for sure."""
COMPACTOR = CompactorOptions(scan_every_ms=0, delete_after_ms=6 * HOUR_MS, ignore_after_ms=2 * HOUR_MS, jobs_per_tick=4)

Key = tuple[Labels, int]


@dataclass(slots=True)
class Model:
    """must: read by every query; may: allowed to be read; must is a part of may. late: those that windows need not take in."""

    must: set[Key] = field(default_factory=set)
    may: set[Key] = field(default_factory=set)
    late: set[Key] = field(default_factory=set)

    def expire(self, now_ms: int) -> None:
        self.must = {key for key in self.must if key[1] >= now_ms - keep_ms(key[0])}


class Lifetime:
    """Ingester, compactor and reader over one bucket, each of which may die at any operation on it."""

    def __init__(self, directory: Path, seed: int, limits: Limits = LIMITS) -> None:
        self.dice, self.directory = random.Random(seed), directory
        self.now_ms = 20_000 * DAY_MS + self.dice.randrange(28 * DAY_MS)
        self.bucket = FaultyBucket(FolderBucket(directory / "bucket"), self.dice)
        self.raw_ms = limits.retention_raw_ms or limits.retention_ms
        self.limits = LimitsTable(limits)
        self.model = Model()
        self.counts: dict[str, int] = {}
        self.restart_reader()
        self.restart_ingester()
        self.restart_compactor()

    def restart_ingester(self) -> None:
        options = IngesterOptions(wal_sync="os", keep_flushed_ms=0)
        self.ingester = Ingester(
            "i", self.directory / "wal", self.bucket, self.limits, options, now_ms=self.now_ms, entropy=self.dice.randbytes,
            announce=self.announce,
        )  # fmt: skip
        membership = MemoryMembership(replication_factor=1)
        membership.join(Instance("i", "", State.ACTIVE, "", instance_tokens("i"), self.now_ms, self.now_ms))
        self.membership = membership
        self.distributor = Distributor(membership, lambda _: self.ingester, self.limits)

    def restart_reader(self) -> None:
        self.gateway = StoreGateway(self.bucket, GatewayOptions(ignore_after_ms=COMPACTOR.ignore_after_ms))
        self.gateway.refresh(self.now_ms)

    def restart_compactor(self) -> None:
        self.compactor = Compactor(self.bucket, self.limits, COMPACTOR, entropy=self.dice.randbytes, told=self.reload)

    def announce(self, tenant: str, meta: BlockMeta) -> None:
        add_news(PrefixBucket(self.bucket, tenant), [meta], writer="i", now_ms=self.now_ms)
        self.gateway.add(tenant, meta)

    def reload(self, tenant: str) -> None:
        try:
            self.gateway.reload(tenant, self.now_ms)
        except TreeringError:
            return

    def write(self, samples: dict[Labels, list[int]]) -> None:
        keys = {(labels, t) for labels, times in samples.items() for t in times}
        self.model.may |= keys
        batch = write_batch({labels: [(t, value_of(labels, t)) for t in times] for labels, times in samples.items()})
        result = self.distributor.push(TENANT, batch, now_ms=self.now_ms)
        assert result.rejected == {}
        self.model.must |= keys
        if self.raw_ms < LIMITS.retention_ms:
            self.model.late |= {key for key in keys if key[1] < self.now_ms - self.raw_ms + SURE_MS}
        self.model.expire(self.now_ms)

    def write_again(self, count: int) -> None:
        """Samples that were written before, as an import does that is repeated."""
        samples: dict[Labels, list[int]] = {}
        for labels, t in self.dice.sample(sorted(self.model.must, key=str), min(count, len(self.model.must))):
            samples.setdefault(labels, []).append(t)
        if samples:
            self.write({labels: sorted(times) for labels, times in samples.items()})

    def flush(self) -> bool:
        return not self.ingester.flush(self.now_ms).failed

    def delete(self, matchers: tuple[Matcher, ...], start_ms: int, end_ms: int) -> None:
        hit = {
            key for key in self.model.may if start_ms <= key[1] < end_ms and all(m.matches(key[0].get(m.name)) for m in matchers)
        }
        self.model.must -= hit
        if not self.flush():
            return
        try:
            deletion = Deletion((matchers,), start_ms, end_ms)
            tombstone = delete(PrefixBucket(self.bucket, TENANT), deletion, now_ms=self.now_ms, entropy=self.dice.randbytes)
        except TreeringError:
            return
        if tombstone is not None:
            self.gateway.bury(TENANT, tombstone)
            self.ingester.bury(TENANT, tombstone)
        self.model.may -= hit

    def compact(self) -> None:
        for _, job, _ in self.compactor.tick(self.now_ms).made:
            kind = f"{job.kind} {job.resolution_ms // 60_000}m" if job.resolution_ms else str(job.kind)
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def advance(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.model.expire(self.now_ms)

    def refresh(self) -> None:
        try:
            self.gateway.refresh(self.now_ms)
        except TreeringError:
            return

    def source(self) -> object:
        return Querier(self.membership, lambda _: self.ingester, self.gateway).source(TENANT)

    def check(self, matchers: tuple[Matcher, ...] = (), start_ms: int = MIN_MS, end_ms: int = MAX_MS) -> None:
        """A selection reads what it must, nothing that it may not, each sample once and with its value."""
        read: set[Key] = set()
        for batch in self.source().select(Selection(matchers, start_ms, end_ms)):
            assert all(map(self.may_warn, batch.warnings)), batch.warnings
            for i, labels in enumerate(batch.series.rows()):
                at = slice(int(batch.offsets[i]), int(batch.offsets[i + 1]))
                times = batch.t_ms[at].tolist()
                assert (np.diff(batch.t_ms[at]) > 0).all()
                assert batch.values[at].tolist() == [value_of(labels, t) for t in times]
                keys = {(labels, t) for t in times}
                assert len(keys & read) == 0
                read |= keys
        must, may = (self.inside(keys, matchers, start_ms, end_ms) for keys in (self.model.must, self.model.may))
        must = {key for key in must if key[1] >= self.now_ms - self.raw_ms}
        assert must - read == set(), f"{len(must - read)} samples are missing, such as {min(must - read, key=str)}"
        assert read - may == set(), f"{len(read - may)} samples are read that are not there, such as {min(read - may, key=str)}"

    def may_warn(self, warning: str) -> bool:
        """Only that raw samples are gone before their windows: by the limits, or since what was left past its time was rewritten
        first among them, as a merge does, and not yet among the windows."""
        stretch = re.match(r"samples from \S+ to (\S+) are kept only downsampled", warning)
        if stretch is None:
            return False
        past_ms = self.now_ms - min(map(keep_ms, SERIES))
        return self.raw_ms < LIMITS.retention_ms or datetime.fromisoformat(stretch[1]).timestamp() * 1000 <= past_ms

    def check_counts(self) -> None:
        """A query over windows of an hour counts what the model has, where the model is sure: chosen, and as a last resort."""
        self.check_count(0, HOUR_MS)
        self.check_count(ASIDE_MS, AUTO)

    def check_count(self, aside_ms: int, resolution_ms: int) -> None:
        """Ask so long after full hours; windows count when they end, raw samples when they are taken."""
        now_ms = self.now_ms // (6 * HOUR_MS) * 6 * HOUR_MS + aside_ms
        steps = Steps(now_ms - 80 * DAY_MS, now_ms + 2 * DAY_MS, 6 * HOUR_MS)
        text = 'sum(count_over_time({job="api"}[6h]))'
        answer = query_range(self.source(), text, steps, QueryOptions(resolution_ms=resolution_ms))
        assert isinstance(answer.value, Matrix)
        found = np.where(answer.value.present[0], answer.value.values[0], 0) if len(answer.value) else np.zeros(len(steps))
        most, least = (
            np.array(sorted(t for labels, t in keys if labels.get("job") == "api"), np.int64)
            for keys in (self.model.may, self.model.must - self.model.late)
        )
        for end_ms, count in zip(steps.ms.tolist(), found.tolist(), strict=True):
            start_ms = end_ms - 6 * HOUR_MS
            low = np.diff(np.searchsorted(least, [start_ms, end_ms - aside_ms], side="right"))[0]
            high = np.diff(np.searchsorted(most, [start_ms - aside_ms, end_ms], side="right"))[0]
            assert low <= count <= high, (end_ms, resolution_ms, low, count, high)

    @staticmethod
    def inside(keys: set[Key], matchers: tuple[Matcher, ...], start_ms: int, end_ms: int) -> set[Key]:
        return {key for key in keys if start_ms <= key[1] < end_ms and all(m.matches(key[0].get(m.name)) for m in matchers)}


def keep_ms(labels: Labels) -> int:
    return (10 if labels.get("job") == "debug" else 90) * DAY_MS

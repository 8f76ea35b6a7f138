"""The compactor: keeps every tenant's part of the bucket in order, a bounded piece of work at each tick.

For each tenant it lists what is there, marks what is expired or replaced, runs the jobs of `tsdb.compaction.compact.plan`, writes
the bucket index, and deletes what was marked long ago. Each step can be cut off anywhere: what is there is always readable, and the
next tick goes on from it. What fails with one job, block or tenant is told and passed over.
"""

import os
from bisect import bisect
from collections.abc import Callable
from concurrent.futures import Executor

from remote.compaction import CompactorOptions, Duty, Place, Report, Stopped, TenantWork
from remote.limits import LimitsTable
from remote.retention import retention_of
from remote.store_gateway import is_tenant
from tsdb.bucket.bucket import Bucket, PrefixBucket
from tsdb.compaction.bucket_index import condemn
from tsdb.compaction.compact import Job
from tsdb.model.errors import TreeringError

HOUR_MS = 3_600_000


class Compactor:
    """Works on the buckets of all tenants. `tick` is called by one thread; other methods by any.

    `owns(tenant, job)` says whether this compactor does a job, and with None whether the tenant is its to keep in order. `told` is
    called with the tenant when its index has changed. `executor` reads metas side by side.
    """

    def __init__(
        self,
        bucket: Bucket,
        limits: LimitsTable,
        options: CompactorOptions | None = None,
        *,
        owns: Callable[[str, Job | None], bool] = lambda tenant, job: True,
        told: Callable[[str], None] = lambda tenant: None,
        entropy: Callable[[int], bytes] = os.urandom,
        executor: Executor | None = None,
    ) -> None:
        self.options = options or CompactorOptions()
        self.condemned: frozenset[str] = frozenset()
        """Tenants that are being deleted."""
        self._not_found_yet: frozenset[str] = frozenset()
        self._bucket, self._limits, self._owns, self._told, self._entropy = bucket, limits, owns, told, entropy
        self._executor = executor
        self._places: dict[str, Place] = {}
        self._swept_ms: int | None = None
        self._last = ""

    def tick(self, now_ms: int, stop: Callable[[], bool] = lambda: False) -> Report:
        """One round over all tenants, with at most `jobs_per_tick` jobs in all. Raises nothing that one tenant brings about."""
        report = Report()
        try:
            tenants = [name for name in self._bucket.folders() if is_tenant(name) and self._owns(name, None)]
            self._sweep(now_ms)
        except (TreeringError, OSError) as error:
            report.failed.append(("", str(error)))
            return report
        for tenant in [name for name in self._places if name not in tenants]:
            del self._places[tenant]
        turn = bisect(tenants, self._last)  # whom the last tick had no jobs left for comes first
        for tenant in tenants[turn:] + tenants[:turn]:
            if stop():
                break
            done = len(report.made)
            self._guarded(tenant, now_ms, report, stop)
            self._last = tenant if len(report.made) > done else self._last
        found = frozenset(name for name, place in self._places.items() if place.inventory.condemned_ms is not None)
        self._not_found_yet -= found
        self.condemned = found | self._not_found_yet
        return report

    def rewrite_deleted(self, tenant: str, now_ms: int, stop: Callable[[], bool] = lambda: False) -> Report:
        """Rewrites all blocks of a tenant that hold deleted samples, now. Raises what the bucket raises."""
        place = self._places.setdefault(tenant, Place())
        report = Report()
        with place.lock:
            self._work(tenant, place, now_ms, report, stop).rewrite_deleted()
        return report

    def condemn(self, tenant: str, now_ms: int) -> None:
        """Marks all that a tenant has as to be deleted; the next tick goes on from there. Raises what the bucket raises."""
        self._not_found_yet |= {tenant}
        self.condemned |= {tenant}
        condemn(PrefixBucket(self._bucket, tenant), now_ms=now_ms)
        place = self._places.get(tenant)
        if place is not None:
            place.unfinished = True

    def _guarded(self, tenant: str, now_ms: int, report: Report, stop: Callable[[], bool]) -> None:
        place = self._places.setdefault(tenant, Place())
        with place.lock:
            if place.scanned_ms is not None and now_ms - place.scanned_ms < self.options.scan_every_ms and not place.unfinished:
                return
            try:
                self._work(tenant, place, now_ms, report, stop).tick()
            except Stopped:
                return
            except (TreeringError, OSError) as error:
                report.failed.append((tenant, str(error)))
            except Exception as error:  # a defect that one tenant's data brings out must not halt the others
                report.failed.append((tenant, f"{type(error).__name__}: {error}"))

    def _work(self, tenant: str, place: Place, now_ms: int, report: Report, stop: Callable[[], bool]) -> TenantWork:
        duty = Duty(
            self.options, retention_of(self._limits.of(tenant)), lambda job: self._owns(tenant, job), self._entropy, self._executor
        )
        return TenantWork(
            tenant, PrefixBucket(self._bucket, tenant), place, duty, report, now_ms=now_ms, stop=stop, told=self._told
        )

    def _sweep(self, now_ms: int) -> None:
        if self._swept_ms is None or now_ms - self._swept_ms >= HOUR_MS:
            self._swept_ms = now_ms
            self._bucket.sweep(now_ms - self.options.incomplete_after_ms)

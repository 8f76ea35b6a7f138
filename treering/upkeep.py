"""What keeps the bucket of this process in order: the compactor's rounds, deletion of series and of tenants, and telling of it."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from remote.compaction import CompactorOptions, Report
from remote.compactor import Compactor
from remote.deletion import Counted, Deletion, count, delete
from remote.ingester import Ingester
from remote.limits import LimitsTable
from remote.store_gateway import StoreGateway
from remote.tenants import check_tenant
from treering.config import Config
from treering.telemetry import Gauge, Telemetry
from tsdb.block.meta import BlockMeta
from tsdb.bucket.bucket import Bucket, PrefixBucket
from tsdb.compaction.bucket_index import add_news
from tsdb.model.errors import BadData, Unavailable
from tsdb.model.source import Source

log = logging.getLogger("treering.compactor")


class Upkeep:
    """The compactor of this process, if it has that role, and the acts of an operator."""

    def __init__(
        self,
        config: Config,
        bucket: Bucket,
        limits: LimitsTable,
        gateway: StoreGateway,
        telemetry: Telemetry,
        now_ms: Callable[[], int],
        executor: Executor,
    ) -> None:
        self._bucket, self._gateway, self._telemetry, self._now_ms = bucket, gateway, telemetry, now_ms
        self._executor = executor
        self._waiting = 0
        self.compactor: Compactor | None = None
        if {"all", "compactor"} & set(config.target):
            self.compactor = Compactor(bucket, limits, compactor_options(config), told=self._reload, executor=executor)

    def refuses(self, tenant: str) -> bool:
        """Whether the tenant is being deleted."""
        return self.compactor is not None and tenant in self.compactor.condemned

    def announce(self, writer: str, tenant: str, meta: BlockMeta) -> None:
        """Makes a block that was just flushed known to every reader: in the bucket, and here."""
        add_news(PrefixBucket(self._bucket, tenant), [meta], writer=writer, now_ms=self._now_ms())
        self._gateway.add(tenant, meta)

    def compact(self, ingesters: Sequence[Ingester], stop: Callable[[], bool] = lambda: False) -> Report:
        """One round of the compactor, told in log and metrics. Nothing without the role."""
        if self.compactor is None:
            return Report()
        before = self.compactor.condemned
        report = self.compactor.tick(self._now_ms(), stop)
        for tenant in self.compactor.condemned | before:
            for ingester in ingesters:
                ingester.forget(tenant)
        self._waiting = report.waiting
        self._tell(report)
        return report

    def count(self, source: Source, deletion: Deletion) -> Counted:
        """What a deletion would hide of a tenant's series."""
        return count(source, deletion)

    def delete_series(self, tenant: str, deletion: Deletion, ingesters: Sequence[Ingester], flush: Callable[[str], None]) -> None:
        """Deletes what there is of the series now: when this returns no reader in this process finds it, and others at their next
        refresh. Memory goes into blocks first, which alone can carry a tombstone."""
        flush(tenant)
        bucket = PrefixBucket(self._bucket, tenant)
        tombstone = delete(bucket, deletion, now_ms=self._now_ms(), entropy=os.urandom, executor=self._executor)
        if tombstone is None:
            return
        self._gateway.bury(tenant, tombstone)
        for ingester in ingesters:
            ingester.bury(tenant, tombstone)
        log.info(
            "series deleted", extra={"fields": {"tenant": tenant, "tombstone": tombstone.ulid, "blocks": len(tombstone.blocks)}}
        )

    def clean_tombstones(self, tenant: str) -> None:
        """Rewrites the tenant's blocks without what was deleted."""
        if self.compactor is None:
            raise BadData("this node has no compactor (target: all or compactor)")
        self._tell(self.compactor.rewrite_deleted(tenant, self._now_ms()))

    def delete_tenant(self, tenant: str, ingesters: Sequence[Ingester]) -> None:
        """Deletes all that the tenant has: hidden when this returns, gone from the bucket after the deletion delay."""
        check_tenant(tenant)
        if self.compactor is None:
            raise BadData("this node has no compactor (target: all or compactor)")
        self.compactor.condemn(tenant, self._now_ms())  # from here on its writes are refused
        for ingester in ingesters:
            ingester.forget(tenant)
        self._gateway.reload(tenant, self._now_ms())
        log.info("tenant deleted", extra={"fields": {"tenant": tenant}})

    def gauges(self) -> Iterator[Gauge]:
        asked = list(self._gateway.asked().values())
        yield Gauge(
            "treering_store_blocks", "Blocks that answer queries, of tenants asked for lately.", sum(len(b.live) for b in asked)
        )
        yield Gauge(
            "treering_store_blocks_damaged", "Blocks whose meta.json is unreadable.", sum(len(b.inventory.damaged) for b in asked)
        )
        yield Gauge("treering_compactor_jobs_waiting", "Compaction jobs left for later rounds.", self._waiting)
        pages = self._gateway.page_cache
        for name, cache in (("index", self._gateway.index_cache), ("page", pages.opened), ("value", pages.values)):
            yield Gauge(f"treering_store_{name}_cache_bytes", f"Bytes in the {name} cache.", cache.size_bytes)
            yield Gauge(f"treering_store_{name}_cache_hits", f"Hits of the {name} cache.", cache.hits)
            yield Gauge(f"treering_store_{name}_cache_misses", f"Misses of the {name} cache.", cache.misses)

    def _reload(self, tenant: str) -> None:
        try:
            self._gateway.reload(tenant, self._now_ms())
        except Unavailable:
            return  # the next refresh reads it

    def _tell(self, report: Report) -> None:
        events = self._telemetry.compactor_blocks
        for tenant, job, meta in report.made:
            events.labels(str(job.kind)).inc()
            fields = {
                "tenant": tenant,
                "kind": job.kind,
                "sources": len(job.sources),
                "block": meta.ulid if meta else "nothing left",
            }
            log.info("compacted", extra={"fields": fields})
        events.labels("marked").inc(len(report.marked))
        events.labels("deleted").inc(len(report.deleted))
        for tenant, ulid, reason in report.uncompactable:
            events.labels("uncompactable").inc()
            log.error("block left out of compaction", extra={"fields": {"tenant": tenant, "block": ulid, "reason": reason}})
        for tenant, ulid in report.doubtful:
            log.warning("block not deleted: what replaces it cannot be seen", extra={"fields": {"tenant": tenant, "block": ulid}})
        for tenant, text in report.failed:
            self._telemetry.ticks_failed.labels("compactor").inc()
            log.error("compaction failed", extra={"fields": {"tenant": tenant, "error": text}})
        for tenant in report.removed:
            log.info("tenant removed", extra={"fields": {"tenant": tenant}})


def compactor_options(config: Config) -> CompactorOptions:
    """The compactor's options of a configuration. BadData where the delays contradict one another."""
    return CompactorOptions(
        ranges_ms=tuple(round(seconds * 1000) for seconds in config.compaction_ranges_s),
        scan_every_ms=round(config.compaction_scan_s * 1000),
        refresh_ms=round(config.block_refresh_s * 1000),
        ignore_after_ms=round(config.ignore_deleted_s * 1000),
        delete_after_ms=round(config.deletion_delay_s * 1000),
        incomplete_after_ms=round(config.incomplete_upload_s * 1000),
    )

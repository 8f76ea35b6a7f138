"""The ingester: takes writes for any tenant, keeps what is recent, and puts it into blocks.

Each tenant has a head of its own in `<directory>/<tenant>`, and its blocks under `<tenant>/` in the bucket. What goes wrong
with one tenant (a log that cannot be read, a bucket that refuses) is told with its name and stops no other.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from remote.flush import BLOCK_RANGE_MS
from remote.limits import Limits, LimitsTable
from remote.tenant_store import KEEP_FLUSHED_MS, TenantStore
from remote.tenants import check_tenant
from tsdb.block.meta import BlockMeta
from tsdb.block.page_cache import PageCache
from tsdb.bucket.bucket import Bucket, PrefixBucket
from tsdb.compaction.tombstones import Tombstone
from tsdb.head.exemplars import ExemplarSeries
from tsdb.head.head import Head, HeadOptions
from tsdb.merge import MergeSource
from tsdb.model.errors import BadData, LimitExceeded, TreeringError, Unavailable
from tsdb.model.matcher import Matcher
from tsdb.model.source import Source
from tsdb.model.write import NO_SERIES, KnownSeries, Metadata, PushResult, WriteBatch

Announce = Callable[[str, BlockMeta], None]


@dataclass(frozen=True, slots=True)
class IngesterOptions:
    """How an ingester works. `series_share` is its part of a tenant's global limits: replication factor / ingesters.

    Each tenant that is written to costs about 100 KB and an open file, so `max_tenants` must stay below `ulimit -n`.
    """

    wal_sync: str = "commit"
    block_range_ms: int = BLOCK_RANGE_MS
    keep_flushed_ms: int = KEEP_FLUSHED_MS
    max_tenants: int = 1_000
    series_share: float = 1.0


@dataclass(slots=True)
class TickReport:
    """What a round over all tenants has done: blocks written, and what failed, by tenant."""

    written: list[tuple[str, BlockMeta]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Tenant:
    """A tenant's place: its store once it is open, and the last reason why it could not be opened. `gone` once forgotten."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    store: TenantStore | None = None
    broken: str = ""
    gone: bool = False


class Ingester:
    """A `Peer` that keeps data itself. Thread-safe; `tick` must be called every few seconds."""

    def __init__(
        self,
        id: str,
        directory: Path,
        bucket: Bucket,
        limits: LimitsTable,
        options: IngesterOptions | None = None,
        *,
        now_ms: int,
        entropy: Callable[[int], bytes] = os.urandom,
        announce: Announce | None = None,
        page_cache: PageCache | None = None,
    ) -> None:
        """Replays the logs of all tenants found in `directory`. `announce` is told of each block before the head forgets it."""
        self.id = id
        self._directory, self._bucket, self._limits = directory, bucket, limits
        self._options = options or IngesterOptions()
        self._entropy, self._announce, self._page_cache = entropy, announce, page_cache
        self._lock = threading.Lock()
        self._tenants: dict[str, _Tenant] = {}
        self._closed = False
        directory.mkdir(parents=True, exist_ok=True)
        for tenant in _tenants_in(directory):
            place = self._tenants[tenant] = _Tenant()
            try:
                self._opened(tenant, place, now_ms)
            except Unavailable:
                continue  # told by `broken`, and tried again

    def push(self, tenant: str, batch: WriteBatch, *, now_ms: int) -> PushResult:
        """What became of the write; it is on disk. Unavailable while the tenant's log cannot be written or read."""
        return self._open(tenant, now_ms).push(batch, now_ms=now_ms)

    def known_series(self, tenant: str) -> KnownSeries:
        """Series that the tenant has written here since this process began."""
        place = self._tenants.get(tenant)
        return NO_SERIES if place is None or place.store is None else place.store.head.known_series

    def source(self, tenant: str) -> Source:
        """What this ingester holds of the tenant: the head and the blocks just written. Unavailable if it cannot be read."""
        store = self._known(tenant)
        return MergeSource([]) if store is None else store

    def oldest_ms(self, tenant: str) -> int | None:
        """The time of the oldest sample that `source` has; None without any. Unavailable if it cannot be read."""
        store = self._known(tenant)
        return None if store is None else store.oldest_ms()

    def exemplars(
        self, tenant: str, selectors: Sequence[tuple[Matcher, ...]], *, start_ms: int, end_ms: int
    ) -> list[ExemplarSeries]:
        """Exemplars in [start_ms, end_ms] of the series that match any of the selectors, in the order of series."""
        store = self._known(tenant)
        return [] if store is None else store.head.exemplars(selectors, start_ms=start_ms, end_ms=end_ms)

    def metadata(self, tenant: str) -> list[Metadata]:
        """What is known of the tenant's metric families, by metric name."""
        store = self._known(tenant)
        return [] if store is None else store.head.metadata()

    def tenants(self) -> list[str]:
        """All tenants that this ingester has something of, the broken ones included."""
        return sorted(self._tenants.copy())

    def stores(self) -> dict[str, TenantStore]:
        """The stores that are open, by tenant: for metrics and for what their logs' replay has told (`store.head.replayed`)."""
        return {tenant: place.store for tenant, place in list(self._tenants.items()) if place.store is not None}

    def tick(self, now_ms: int) -> TickReport:
        """Cuts heads whose time it is, writes blocks, and tries again what failed before."""
        report = self._each(self.tenants(), now_ms, lambda store: store.tick(now_ms))
        for tenant, store in self.stores().items():
            if store.is_idle(now_ms):
                try:
                    self._forget(tenant, now_ms)
                except (TreeringError, OSError) as error:
                    report.failed[tenant] = str(error)
        return report

    def flush(self, now_ms: int, tenant: str | None = None) -> TickReport:
        """Puts everything in memory into blocks, of one tenant or of all."""
        return self._each(self.tenants() if tenant is None else [tenant], now_ms, lambda store: store.flush(now_ms))

    def bury(self, tenant: str, tombstone: Tombstone) -> None:
        """Hides what a tombstone deletes of the blocks that were just flushed; memory must have been flushed before."""
        store = self._known(tenant)
        if store is not None:
            store.bury(tombstone)

    def forget(self, tenant: str) -> None:
        """Deletes all that is here of a tenant, its log included."""
        place = self._tenants.get(tenant)
        if place is None:
            return
        with place.lock:
            if place.store is not None:
                place.store.close()
            place.store, place.broken = None, ""
            shutil.rmtree(self._directory / tenant, ignore_errors=True)
            with self._lock:
                self._tenants.pop(tenant, None)

    def shutdown(self, now_ms: int, *, flush: bool = True) -> TickReport:
        """Takes no more writes, flushes if asked, and closes all heads. What the bucket refused is in the logs."""
        self._closed = True
        report = self.flush(now_ms) if flush else TickReport()
        for place in self._tenants.values():
            with place.lock:
                if place.store is not None:
                    place.store.close()
        return report

    def _each(self, tenants: Sequence[str], now_ms: int, do: Callable[[TenantStore], list[BlockMeta]]) -> TickReport:
        report = TickReport()
        for tenant in tenants:
            place = self._tenants.get(tenant)
            if place is None:
                continue
            try:
                report.written += [(tenant, meta) for meta in do(self._opened(tenant, place, now_ms))]
            except (TreeringError, OSError) as error:
                report.failed[tenant] = str(error)
            except Exception as error:  # a defect that one tenant's data brings out must not keep the others from being flushed
                report.failed[tenant] = f"{type(error).__name__}: {error}"
        return report

    def _open(self, tenant: str, now_ms: int) -> TenantStore:
        """The tenant's store, made if this is its first write here."""
        if self._closed:
            raise Unavailable(f"ingester {self.id} is shutting down")
        place = self._tenants.get(tenant)
        if place is not None and place.store is not None:
            return place.store
        check_tenant(tenant)
        with self._lock:
            if tenant not in self._tenants and len(self._tenants) >= self._options.max_tenants:
                raise LimitExceeded(
                    f"tenant {tenant!r} is new, and ingester {self.id} has {self._options.max_tenants} tenants, its limit",
                    retry_after_s=60.0,
                )
            place = self._tenants.setdefault(tenant, _Tenant())
        return self._opened(tenant, place, now_ms)

    def _forget(self, tenant: str, now_ms: int) -> None:
        """Closes an idle tenant's head and removes its folder. A write that comes just now finds the head closed and is sent
        again by its sender; if it was the faster one, the head is opened again."""
        place = self._tenants[tenant]
        with place.lock, self._lock:
            store = place.store
            if store is None or self._closed:
                return
            store.close()
            place.store = None
            if store.is_empty():
                rmtree(self._directory / tenant)
                place.gone = True
                del self._tenants[tenant]
            else:
                place.store = self._make(tenant, place, now_ms)

    def _opened(self, tenant: str, place: _Tenant, now_ms: int) -> TenantStore:
        with place.lock:
            if place.gone:
                raise Unavailable(f"ingester {self.id}: tenant {tenant!r} was idle and is being closed")
            if place.store is None:
                place.store = self._make(tenant, place, now_ms)
            return place.store

    def _make(self, tenant: str, place: _Tenant, now_ms: int) -> TenantStore:
        try:
            options = head_options(self._limits.of(tenant), self._options)
            head = Head.open(self._directory / tenant, options=options, now_ms=now_ms, page_cache=self._page_cache)
        except (TreeringError, OSError) as error:
            place.broken = f"ingester {self.id}: the data of tenant {tenant!r} cannot be opened: {error}"
            raise Unavailable(place.broken) from error
        place.broken = ""
        announce = self._announce
        return TenantStore(
            head,
            PrefixBucket(self._bucket, tenant),
            now_ms=now_ms,
            entropy=self._entropy,
            announce=None if announce is None else lambda meta: announce(tenant, meta),
            block_range_ms=self._options.block_range_ms,
            keep_flushed_ms=self._options.keep_flushed_ms,
        )

    def _known(self, tenant: str) -> TenantStore | None:
        """The tenant's store if it has one. Unavailable if it could not be opened."""
        place = self._tenants.get(tenant)
        if place is not None and place.broken:
            raise Unavailable(place.broken)
        return None if place is None else place.store


def head_options(limits: Limits, options: IngesterOptions) -> HeadOptions:
    """A tenant's limits as its head knows them; global limits on series are cut to this ingester's share."""
    return HeadOptions(
        wal_sync=options.wal_sync,
        out_of_order_window_ms=limits.out_of_order_time_window_ms,
        future_limit_ms=limits.creation_grace_period_ms,
        max_series=int(limits.max_global_series_per_user * options.series_share),
        max_series_per_metric=int(limits.max_global_series_per_metric * options.series_share),
        max_exemplars=limits.max_exemplars,
        max_metadata=limits.max_metadata_per_user,
    )


def _tenants_in(directory: Path) -> Iterator[str]:
    """The tenants that have a folder; a folder whose name no tenant can have is someone else's."""
    for folder in sorted(directory.iterdir()):
        try:
            check_tenant(folder.name)
        except BadData:
            continue
        if folder.is_dir():
            yield folder.name

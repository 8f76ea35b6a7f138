"""One process's parts, wired: buckets, ingesters, ring, distributor, store gateway, querier, engine.

The HTTP API, the embedded Python store and the command line all stand on this one object. It starts no thread of its own
but the pools it hands down; `tick` is called by whoever owns the process.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from promql.engine import Answer, QueryOptions, query_instant, query_range
from promql.explain import Explanation, analyze, explain
from promql.matrix import Steps
from promql.resolution import AUTO
from promql.syntax.ast import Definition
from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions, TickReport
from remote.limits import LimitsTable
from remote.querier import Querier
from remote.query_limits import BoundedSource, QueryLimits, least, query_limits
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import GatewayOptions, StoreGateway
from remote.tenant_store import TenantStore
from remote.tenants import ANONYMOUS, resolve_tenant, resolve_tenants
from treering.config import Config
from treering.limits import limits_table
from treering.python_functions import added, load_functions
from treering.range_caches import RangeCaches
from treering.telemetry import Gauge, Telemetry
from treering.upkeep import Upkeep
from tsdb.bucket.bucket import Bucket, open_bucket
from tsdb.bucket.counted import CountedBucket
from tsdb.bucket.folder import FolderBucket
from tsdb.merge import MergeSource
from tsdb.model.errors import BadData, QueryCanceled, QueryTimeout, TreeringError, Unavailable
from tsdb.model.source import Source
from tsdb.model.write import NO_SERIES, KnownSeries, Metadata, PushResult, WriteBatch

log = logging.getLogger("treering.node")

READ_THREADS = 16
"""Range reads in flight at once, of all queries, where they wait for the network; `_read_threads` has those of a folder."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question: an instant query where step_ms is 0. None = the configured value."""

    text: str
    start_ms: int
    end_ms: int
    step_ms: int = 0
    lookback_ms: int | None = None
    timeout_s: float | None = None
    stats: str = ""
    resolution_ms: int = AUTO
    """The coarsest downsampled data that may answer; see `QueryOptions.resolution_ms`."""


class Node:
    """All roles in one process. Close it: that flushes and gives the data folder free."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.features = config.features()
        self.functions = load_functions(config.python_functions)
        self.telemetry = Telemetry()
        self._floats_received = self.telemetry.samples_received.labels("float")
        self._clock = clock
        self.started_ms = self.now_ms()
        self.queried_ms = 0  # when the last query came
        ingesting = bool({"all", "ingester"} & set(config.target))
        self._lock = _lock_folder(Path(config.data)) if ingesting else None
        with ExitStack() as undo:
            if self._lock is not None:
                undo.callback(os.close, self._lock)  # a node that cannot start leaves the folder free
            self._wire(config, ingesting=ingesting)
            undo.pop_all()

    def _wire(self, config: Config, *, ingesting: bool) -> None:
        self.limits: LimitsTable = limits_table(config.limits, config.tenant_limits)
        bucket = open_bucket(config.bucket or str(Path(config.data) / "bucket"))
        self.bucket = CountedBucket(bucket, _tell_bucket)
        self._quorum_pool = ThreadPoolExecutor(max(1, config.ingesters * 4), "quorum") if config.ingesters > 1 else None
        self._query_pool = ThreadPoolExecutor(config.query_threads, "batch")
        self._read_pool = ThreadPoolExecutor(_read_threads(bucket, config), "read")
        self._scan_pool = ThreadPoolExecutor(READ_THREADS, "scan")
        self._caches = RangeCaches(config, self._clock)
        self.store_gateway = StoreGateway(
            self.bucket,
            _gateway_options(config),
            executor=self._read_pool,
            scan_executor=self._scan_pool,
            ranges=self._caches.ranges,
        )
        self.upkeep = Upkeep(
            config, self.bucket, self.limits, self.store_gateway, self.telemetry, self.now_ms, executor=self._scan_pool
        )
        self.ingesters = [self._open_ingester(i) for i in range(config.ingesters if ingesting else 0)]
        self.membership = self._join_all()
        members = {ingester.id: ingester for ingester in self.ingesters}
        self.distributor = Distributor(self.membership, lambda i: members[i.id], self.limits, executor=self._quorum_pool)
        ring = self.membership if self.ingesters else None  # a node that only reads asks the bucket and nobody else
        self.querier = Querier(ring, lambda i: members[i.id], self.store_gateway, executor=self._quorum_pool)
        self.telemetry.watch(self._gauges)
        self.store_gateway.refresh(self.started_ms)
        self._refreshed_ms = self.started_ms

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    def tenant_of(self, headers: dict[str, list[str]]) -> str:
        """The tenant that a write is for."""
        return resolve_tenant(headers.get("x-scope-orgid", []), multitenancy=self.config.multitenancy)

    def tenants_of(self, headers: dict[str, list[str]]) -> tuple[str, ...]:
        """The tenant, or the several, that a read is for."""
        return resolve_tenants(headers.get("x-scope-orgid", []), multitenancy=self.config.multitenancy)

    def known_series(self, tenant: str) -> KnownSeries:
        """Series that the tenant has written before, for the scan of its next request."""
        return self.ingesters[0].known_series(tenant) if self.ingesters else NO_SERIES

    def push(self, tenant: str, batch: WriteBatch) -> PushResult:
        """Store a write; returns when a quorum has it on disk."""
        if not self.ingesters:
            raise BadData(f"this node only reads (target: {', '.join(self.config.target)}); write to a data folder or a server")
        if self.upkeep.refuses(tenant):
            raise BadData(f"tenant {tenant!r} is being deleted; it takes writes again when nothing of it is left")
        result = self.distributor.push(tenant, batch, now_ms=self.now_ms())
        self._floats_received.inc(result.samples)
        if result.histograms:
            self.telemetry.samples_received.labels("histogram").inc(result.histograms)
        for reason, count in result.rejected.items():
            self.telemetry.samples_rejected.labels(reason).inc(count)
        return result

    def source(self, tenants: Sequence[str]) -> Source:
        """Everything the tenants have, memory and blocks merged."""
        return self.querier.source(*tenants)

    def bounded_source(self, tenants: Sequence[str], limits: QueryLimits | None = None) -> Source:
        """The same for who asks over the API: as far back, and over as much time, as the tenants' limits allow."""
        limits = limits or self.query_limits(tenants)
        bounded = limits.max_query_length_ms or limits.max_query_lookback_ms
        return BoundedSource(self.source(tenants), limits, self.now_ms()) if bounded else self.source(tenants)

    def query_limits(self, tenants: Sequence[str]) -> QueryLimits:
        """What queries of these tenants may take; 0 = what the configuration allows."""
        return query_limits(tuple(self.limits.of(tenant) for tenant in tenants))

    def query(self, tenants: Sequence[str], query: Query, *, canceled: Callable[[], bool] = lambda: False) -> Answer:
        """The answer of an instant or range query. BadData, QueryFailed, LimitExceeded, QueryTimeout or QueryCanceled."""
        options, check, source = self._prepared(tenants, query, canceled)
        pool, clock = self._query_pool, time.perf_counter if query.stats else None
        if query.step_ms == 0:
            answer = query_instant(source, query.text, query.start_ms, options, deadline=check, executor=pool, clock=clock)
        else:
            steps = Steps(query.start_ms, query.end_ms, query.step_ms)
            answer = query_range(source, query.text, steps, options, deadline=check, executor=pool, clock=clock)
        if answer.stats is not None:
            self.telemetry.query_samples.inc(answer.stats.samples)
        return answer

    def explain(
        self, tenants: Sequence[str], query: Query, *, run: bool = False, canceled: Callable[[], bool] = lambda: False
    ) -> Explanation:
        """How a query will be evaluated, or, having run it, how it was. Errors are those of `query`."""
        options, check, source = self._prepared(tenants, query, canceled)
        steps = query.start_ms if query.step_ms == 0 else Steps(query.start_ms, query.end_ms, query.step_ms)
        if not run:
            return explain(source, query.text, steps, options)
        clock, pool = time.perf_counter, self._query_pool
        return analyze(source, query.text, steps, options, clock=clock, deadline=check, executor=pool)

    def register(self, definition: Definition, *, replace: bool = False) -> None:
        """Let queries call a user's function. BadData where its name is taken and not to be replaced."""
        self.functions = added(self.functions, definition, replace=replace)

    def metadata(self, tenants: Sequence[str], metric: str = "") -> list[Metadata]:
        """What is known of metric families (of one, if named)."""
        return [entry for entry in self.querier.metadata(tenants) if not metric or entry.metric == metric]

    def head_bounds(self, tenants: Sequence[str]) -> tuple[int, int] | None:
        """Times of the first and last sample in memory."""
        found = [bounds for store in self._stores(tenants) if (bounds := store.head.bounds()) is not None]
        return (min(b[0] for b in found), max(b[1] for b in found)) if found else None

    def newest_ms(self, tenant: str) -> int | None:
        """Until when there are samples of a tenant, in memory or in blocks; None if there are none."""
        bounds = self.head_bounds((tenant,))
        ends = [block.meta.max_ms - 1 for block in self.store_gateway.blocks(tenant).live]
        return max([*ends, *([bounds[1]] if bounds else [])], default=None)

    def head_source(self, tenants: Sequence[str]) -> Source:
        """What is in memory only."""
        return MergeSource([store.head for store in self._stores(tenants)])

    def active_series(self) -> int:
        """Series in memory, of all tenants and ingesters."""
        return sum(store.head.active_series for ingester in self.ingesters for store in ingester.stores().values())

    def flush(self, tenant: str | None = None) -> None:
        """Everything in memory into blocks in the bucket, which queries see at once."""
        failed: dict[str, str] = {}
        for ingester in self.ingesters:
            failed |= ingester.flush(self.now_ms(), tenant).failed
        if failed:
            raise Unavailable("; ".join(f"tenant {name}: {text}" for name, text in sorted(failed.items())))

    def tick(self) -> int:
        """One round of background work: cut blocks that are due, see new blocks. One part's failure does not stop the others.

        How many blocks were cut.
        """
        now_ms, cut = self.now_ms(), 0
        for ingester in self.ingesters:
            self.membership.heartbeat(ingester.id, now_ms)
            report = ingester.tick(now_ms)
            self._tell_failures(report)
            cut += len(report.written)
        if now_ms - self._refreshed_ms >= self.config.block_refresh_s * 1000:
            self._refreshed_ms = now_ms
            self._guard("store-gateway", lambda: self.store_gateway.refresh(now_ms))
        return cut

    def own_tenants(self) -> list[str]:
        """Those who write here, and the only one where there is but one."""
        own = {tenant for ingester in self.ingesters for tenant in ingester.tenants()}
        return sorted(own if self.config.multitenancy else own | {ANONYMOUS})

    def compact(self, stop: Callable[[], bool] = lambda: False) -> None:
        """One round of the compactor, which may take minutes; `stop` ends it early."""
        self.upkeep.compact(self.ingesters, stop)

    def has_objects(self, tenant: str) -> bool:
        """Whether anything of a tenant is in the bucket."""
        return next(self.bucket.list(f"{tenant}/"), None) is not None

    def _prepared(
        self, tenants: Sequence[str], query: Query, canceled: Callable[[], bool]
    ) -> tuple[QueryOptions, Callable[[], None], Source]:
        """What a query may take, what ends it early, and what it reads."""
        self.queried_ms = self.now_ms()
        self.check_query_size(query.text)
        limits = self.query_limits(tenants)
        return self._options(query, limits), self._deadline(query, limits, canceled), self.bounded_source(tenants, limits)

    def _options(self, query: Query, limits: QueryLimits) -> QueryOptions:
        return QueryOptions(
            lookback_ms=query.lookback_ms or round(self.config.query_lookback_s * 1000),
            features=self.features,
            max_samples=least(self.config.max_samples, limits.max_samples),
            max_memory_bytes=self.config.max_query_memory_bytes,
            max_series=least(self.config.max_series, limits.max_fetched_series),
            max_points=least(self.config.max_points, limits.max_query_points),
            parallel_batches=self.config.query_threads,
            functions=self.functions,
            resolution_ms=query.resolution_ms,
        )

    def _deadline(self, query: Query, limits: QueryLimits, canceled: Callable[[], bool]) -> Callable[[], None]:
        own_s, allowed_s = limits.query_timeout_ms / 1000, self.config.query_timeout_s
        key = "query_timeout_ms" if 0 < own_s < allowed_s else "query_timeout_s"
        allowed_s = min(own_s or allowed_s, allowed_s)
        asked_s = query.timeout_s or allowed_s
        return _deadline(min(asked_s, allowed_s), f" ({key})" if asked_s >= allowed_s else "", canceled)

    def check_query_size(self, text: str) -> None:
        size_bytes = len(text.encode())
        if size_bytes > self.config.max_query_bytes:
            raise BadData(f"query of {size_bytes} bytes is over the limit of {self.config.max_query_bytes} bytes (max_query_bytes)")

    def close(self, *, flush: bool = True) -> dict[str, str]:
        """Flush into the bucket, close the logs, release the folder. What could not be flushed, by tenant: the log keeps it."""
        failed: dict[str, str] = {}
        try:
            for ingester in self.ingesters:
                report = ingester.shutdown(self.now_ms(), flush=flush)
                self._tell_failures(report)
                failed |= report.failed
        finally:
            for pool in (self._quorum_pool, self._query_pool, self._read_pool, self._scan_pool):
                if pool is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
            self._caches.close()
            if self._lock is not None:
                os.close(self._lock)
        return failed

    def _open_ingester(self, number: int) -> Ingester:
        config = self.config
        options = IngesterOptions(
            wal_sync=config.wal_sync,
            block_range_ms=round(config.block_range_s * 1000),
            keep_flushed_ms=round(config.keep_flushed_s * 1000),
            series_share=config.replication_factor / config.ingesters,
        )
        name, now_ms = f"ingester-{number}", self.now_ms()
        ingester = Ingester(
            name,
            Path(config.data) / name,
            self.bucket,
            self.limits,
            options,
            now_ms=now_ms,
            announce=partial(self.upkeep.announce, name),
            page_cache=self.store_gateway.page_cache,
        )
        for tenant, store in ingester.stores().items():
            for damage in store.head.replayed.damage:
                log.error("log damaged", extra={"fields": {"ingester": name, "tenant": tenant, "damage": damage}})
        return ingester

    def _join_all(self) -> MemoryMembership:
        membership = MemoryMembership(replication_factor=self.config.replication_factor)
        for ingester in self.ingesters:
            tokens = instance_tokens(ingester.id)
            membership.join(
                Instance(ingester.id, "", State.ACTIVE, "", tokens, heartbeat_ms=self.started_ms, registered_ms=self.started_ms)
            )
        return membership

    def _stores(self, tenants: Sequence[str]) -> Iterator[TenantStore]:
        for ingester in self.ingesters:
            stores = ingester.stores()
            yield from (stores[tenant] for tenant in tenants if tenant in stores)

    def _tell_failures(self, report: TickReport) -> None:
        for tenant, text in report.failed.items():
            self.telemetry.ticks_failed.labels("ingester").inc()
            log.error("tenant failed", extra={"fields": {"tenant": tenant, "error": text}})

    def _guard(self, role: str, work: Callable[[], object]) -> None:
        try:
            work()
        except (TreeringError, OSError) as error:
            self.telemetry.ticks_failed.labels(role).inc()
            log.error("background work failed", extra={"fields": {"role": role, "error": error}})

    def _gauges(self) -> Iterator[Gauge]:
        stores = [store for ingester in self.ingesters for store in ingester.stores().values()]
        yield Gauge("treering_ingester_series", "Series in memory.", self.active_series())
        yield Gauge("treering_ingester_tenants", "Tenants with data in memory.", len(stores))
        yield from self.upkeep.gauges()
        yield from self._caches.gauges()
        yield Gauge("treering_bucket_requests", "Requests to the bucket.", self.bucket.requests)
        yield Gauge("treering_bucket_failed_requests", "Requests that failed, however often repeated.", self.bucket.failures)
        yield Gauge("treering_bucket_read_bytes", "Bytes read from the bucket.", self.bucket.read_bytes)
        yield Gauge("treering_bucket_written_bytes", "Bytes written to the bucket.", self.bucket.written_bytes)


def _tell_bucket(text: str) -> None:
    log.error("bucket fails", extra={"fields": {"error": text}})


def _read_threads(bucket: Bucket, config: Config) -> int:
    """How many threads read blocks and decode their pages. What a folder has is mostly in memory, so that they work, not wait: with
    more of them than this, a first query over raw samples takes a fifth longer."""
    return config.query_threads + 1 if isinstance(bucket, FolderBucket) else READ_THREADS


def _gateway_options(config: Config) -> GatewayOptions:
    return GatewayOptions(
        ignore_after_ms=round(config.ignore_deleted_s * 1000),
        index_cache_bytes=config.index_cache_bytes,
        page_cache_bytes=config.page_cache_bytes,
        ahead=config.query_threads,
    )


def _deadline(timeout_s: float, key: str, canceled: Callable[[], bool]) -> Callable[[], None]:
    """The check that raises once time is up; `key` says which limit it was, if the client did not ask for it."""
    end = time.monotonic() + timeout_s

    def check() -> None:
        if canceled():
            raise QueryCanceled("query was canceled in query execution")
        if time.monotonic() > end:
            raise QueryTimeout(f"query timed out in query execution (timeout: {timeout_s:g}s){key}")

    return check


def _lock_folder(folder: Path) -> int:
    """A held lock on the data folder. Unavailable if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise Unavailable(
            f"data folder {folder} is in use by process {owner or '?'}; ask that server over HTTP, or choose another with --data"
        ) from None
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle

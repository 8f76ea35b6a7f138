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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from promql.engine import Answer, QueryOptions, query_instant, query_range
from tsdb.exemplars import ExemplarSeries

from promql.matrix import Steps
from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions
from remote.limits import LimitsTable, limits_table
from remote.membership import Membership
from remote.querier import Querier
from remote.store_gateway import StoreGateway
from remote.tenants import resolve_tenant, resolve_tenants
from treering.config import Config
from treering.telemetry import Gauge, Telemetry
from tsdb.bucket import Bucket, open_bucket
from tsdb.model.errors import BadData, QueryCanceled, QueryTimeout, TreeringError, Unavailable
from tsdb.model.matcher import Matcher
from tsdb.model.source import Source
from tsdb.model.write import Metadata, PushResult, WriteBatch

log = logging.getLogger("treering.node")


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


class Node:
    """All roles in one process. Close it: that flushes and gives the data folder free."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.features = config.features()
        self.telemetry = Telemetry()
        self._clock = clock
        self.started_ms = self.now_ms()
        ingesting = bool({"all", "ingester"} & set(config.target))
        self._lock = _lock_folder(Path(config.data)) if ingesting else None
        self.limits: LimitsTable = limits_table(config.limits, config.tenant_limits)
        self.bucket: Bucket = open_bucket(config.bucket or str(Path(config.data) / "bucket"))
        self._quorum_pool = ThreadPoolExecutor(max(1, config.ingesters * 4), "quorum") if config.ingesters > 1 else None
        self._query_pool = ThreadPoolExecutor(config.query_threads, "batch")
        self.ingesters = [self._open_ingester(i) for i in range(config.ingesters if ingesting else 0)]
        self.membership = Membership(replication_factor=config.replication_factor)
        for ingester in self.ingesters:
            self.membership.join(ingester.id, now_ms=self.started_ms)
        members = {ingester.id: ingester for ingester in self.ingesters}
        self.distributor = Distributor(self.membership, members, self.limits, executor=self._quorum_pool)
        self.store_gateway = StoreGateway(self.bucket)
        self.store_gateway.refresh(self.started_ms)
        self.querier = Querier(self.membership, members, self.store_gateway)
        self.telemetry.watch(self._gauges)
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

    def tenants_of(self, headers: dict[str, list[str]]) -> str:
        """The tenant, or several joined by `|`, that a read is for."""
        return resolve_tenants(headers.get("x-scope-orgid", []), multitenancy=self.config.multitenancy)

    def push(self, tenant: str, batch: WriteBatch) -> PushResult:
        """Store a write; returns when a quorum has it on disk."""
        if not self.ingesters:
            raise BadData(f"this node only reads (target: {', '.join(self.config.target)}); write to a data folder or a server")
        result = self.distributor.push(tenant, batch, now_ms=self.now_ms())
        self.telemetry.samples_received.labels("float").inc(result.samples)
        if result.histograms:
            self.telemetry.samples_received.labels("histogram").inc(result.histograms)
        for reason, count in result.rejected.items():
            self.telemetry.samples_rejected.labels(reason).inc(count)
        return result

    def source(self, tenant: str) -> Source:
        """Everything a tenant has, memory and blocks merged."""
        return self.querier.source(tenant)

    def query(self, tenant: str, query: Query, *, canceled: Callable[[], bool] = lambda: False) -> Answer:
        """The answer of an instant or range query. BadData, QueryFailed, LimitExceeded, QueryTimeout or QueryCanceled."""
        self.check_query_size(query.text)
        timeout_s = min(query.timeout_s or self.config.query_timeout_s, self.config.query_timeout_s)
        check = _deadline(timeout_s, canceled)
        options = QueryOptions(
            lookback_ms=query.lookback_ms or round(self.config.query_lookback_s * 1000),
            features=self.features,
            max_samples=self.config.max_samples,
            max_series=self.config.max_series,
            max_points=self.config.max_points,
        )
        source = self.source(tenant)
        if query.step_ms == 0:
            answer = query_instant(source, query.text, query.start_ms, options, deadline=check, executor=self._query_pool)
        else:
            steps = Steps(query.start_ms, query.end_ms, query.step_ms)
            answer = query_range(source, query.text, steps, options, deadline=check, executor=self._query_pool)
        if answer.stats is not None:
            self.telemetry.query_samples.inc(answer.stats.samples)
        return answer

    def metadata(self, tenant: str, metric: str = "") -> list[Metadata]:
        """What is known of metric families (of one, if named)."""
        return self.querier.metadata(tenant, metric)

    def exemplars(self, tenant: str, sets: Sequence[tuple[Matcher, ...]], *, start_ms: int, end_ms: int) -> list[ExemplarSeries]:
        """Exemplars of the series that match any of the matcher sets, in [start_ms, end_ms]."""
        return self.querier.exemplars(tenant, sets, start_ms=start_ms, end_ms=end_ms)

    def head_source(self, tenant: str) -> Source:
        """What is in memory only."""
        return self.querier.head_source(tenant)

    def head_bounds(self, tenant: str) -> tuple[int, int] | None:
        """Times of the first and last sample in memory."""
        found = [bounds for ingester in self.ingesters if (bounds := ingester.bounds(tenant)) is not None]
        return (min(b[0] for b in found), max(b[1] for b in found)) if found else None

    def flush(self, tenant: str | None = None) -> None:
        """Everything in memory into blocks in the bucket, which queries see at once."""
        for ingester in self.ingesters:
            ingester.flush(self.now_ms(), tenant)
        self.store_gateway.refresh(self.now_ms())

    def tick(self) -> None:
        """One round of background work: cut blocks that are due, see new blocks. One part's failure does not stop the others."""
        now_ms = self.now_ms()
        for ingester in self.ingesters:
            self._guard("ingester", lambda ingester=ingester: ingester.tick(now_ms))  # type: ignore[misc]
        if now_ms - self._refreshed_ms >= self.config.block_refresh_s * 1000:
            self._refreshed_ms = now_ms
            self._guard("store-gateway", lambda: self.store_gateway.refresh(now_ms))

    def waiting_for(self) -> str:
        """What must still happen before the node is ready, "" if nothing."""
        return ""

    def check_query_size(self, text: str) -> None:
        size_bytes = len(text.encode())
        if size_bytes > self.config.max_query_bytes:
            raise BadData(f"query of {size_bytes} bytes is over the limit of {self.config.max_query_bytes} bytes (max_query_bytes)")

    def close(self, *, flush: bool = True) -> None:
        """Flush into the bucket (a bucket that fails keeps the log for the next start), close the logs, release the folder."""
        try:
            for ingester in self.ingesters:
                self._guard("ingester", lambda ingester=ingester: ingester.shutdown(self.now_ms(), flush=flush))  # type: ignore[misc]
        finally:
            for pool in (self._quorum_pool, self._query_pool):
                if pool is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
            if self._lock is not None:
                os.close(self._lock)

    def _open_ingester(self, number: int) -> Ingester:
        config = self.config
        options = IngesterOptions(
            wal_sync=config.wal_sync,
            block_range_ms=round(config.block_range_s * 1000),
            keep_flushed_ms=round(config.keep_flushed_s * 1000),
        )
        name = f"ingester-{number}"
        return Ingester(name, Path(config.data) / name, self.bucket, self.limits, options, now_ms=self.now_ms())

    def _guard(self, role: str, work: Callable[[], object]) -> None:
        try:
            work()
        except (TreeringError, OSError) as error:
            self.telemetry.ticks_failed.labels(role).inc()
            log.error("background work failed", extra={"fields": {"role": role, "error": error}})

    def _gauges(self) -> Iterator[Gauge]:
        yield Gauge("treering_ingester_series", "Series in memory.", sum(i.active_series for i in self.ingesters))
        yield Gauge(
            "treering_ingester_tenants", "Tenants with data in memory.", len({t for i in self.ingesters for t in i.tenants()})
        )
        yield Gauge("treering_store_blocks", "Blocks in the bucket that queries see.", self.store_gateway.block_count)


def _deadline(timeout_s: float, canceled: Callable[[], bool]) -> Callable[[], None]:
    end = time.monotonic() + timeout_s

    def check() -> None:
        if canceled():
            raise QueryCanceled("query was canceled in query execution")
        if time.monotonic() > end:
            raise QueryTimeout(f"query timed out in query execution (timeout: {timeout_s:g}s)")

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
            f"data folder {folder} is in use by process {owner or '?'}; ask that server over HTTP, or choose another folder with --data"
        ) from None
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle

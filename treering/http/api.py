"""The table of HTTP routes: every path that Treering answers, on one page."""

from collections.abc import Hashable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from treering.http.api_admin import AdminApi
from treering.http.api_explain import ExplainApi
from treering.http.api_query import QueryApi
from treering.http.api_series import SeriesApi
from treering.http.api_status import StatusApi
from treering.http.api_write import WriteApi
from treering.http.asgi import App, Gate, Handler, Request, Route, threaded
from treering.http.query_pool import QueryPool
from treering.http.write_pool import WritePool
from treering.node import Node

PREFIXES = ("/api/v1", "/prometheus/api/v1", "/api/prom/api/v1")
"""Prometheus's own path, Mimir's and Cortex's; all the same."""

READ = frozenset({"GET", "POST"})
GET = frozenset({"GET"})
CHANGE = frozenset({"POST", "PUT"})
POST = frozenset({"POST"})


def make_app(node: Node) -> App:
    """The HTTP application over one node."""
    config = node.config
    queries = QueryPool(
        threads=config.max_concurrent_queries,
        max_waiting=max(1, config.max_queued_queries // 2 if config.multitenancy else config.max_queued_queries),
        tenant_of=lambda request: "|".join(node.tenants_of(request.headers)),
        limit_of=lambda tenants: node.query_limits(tenants.split("|")).max_concurrent_queries,
        question_of=_question,
        note_shared=node.telemetry.shared_queries.inc,
    )
    admin = ThreadPoolExecutor(4, "admin")
    routes = [
        *_write_routes(node, admin),
        *_read_routes(node, queries, admin),
        *_status_routes(node, admin),
        *_admin_routes(node, admin),
    ]
    return App(routes, node.telemetry)


def _question(request: Request) -> Hashable:
    """What a request asks of its tenant: equal ones have equal answers at one time."""
    return request.path, request.header("accept"), tuple(sorted((name, tuple(values)) for name, values in request.params.items()))


def _write_routes(node: Node, admin: Executor) -> Iterator[Route]:
    api, gate = WriteApi(node), Gate(node.config.max_queued_writes)
    pool = WritePool(api, node.config.write_threads)
    paths = [f"{prefix}/{verb}" for prefix in PREFIXES for verb in ("write", "push")]
    for path in (*paths, "/api/prom/push"):
        yield Route(path, POST, pool.submit, gate, node.config.max_body_bytes, plain_errors=True, takes_forms=False)
    yield Route("/ingester/flush", READ, threaded(admin, api.flush), Gate(8), plain_errors=True)


def _read_routes(node: Node, queries: QueryPool, admin: Executor) -> Iterator[Route]:
    query, series, gate = QueryApi(node), SeriesApi(node), Gate(node.config.max_queued_queries)
    explain = ExplainApi(query)
    handlers: dict[str, Handler] = {
        "query": query.query,
        "query_range": query.query_range,
        "query_explain": explain.query_explain,
        "query_range_explain": explain.query_range_explain,
        "series": series.series,
        "labels": series.labels,
        "label/{name}/values": series.label_values,
        "metadata": series.metadata,
        "query_exemplars": series.query_exemplars,
    }
    for prefix in PREFIXES:
        for path, handler in handlers.items():
            yield Route(f"{prefix}/{path}", READ, queries.serving(handler), gate)
        for path, handler in {"format_query": query.format_query, "parse_query": query.parse_query}.items():
            yield Route(f"{prefix}/{path}", READ, threaded(admin, handler), gate)


def _admin_routes(node: Node, admin: Executor) -> Iterator[Route]:
    api, gate = AdminApi(node), Gate(16)
    for prefix in PREFIXES:
        for path, methods, handler in (
            ("admin/tsdb/delete_series", CHANGE, api.delete_series),
            ("admin/tsdb/clean_tombstones", CHANGE, api.clean_tombstones),
            ("admin/delete_tenant", POST, api.delete_tenant),
            ("admin/delete_tenant_status", GET, api.delete_tenant_status),
            ("blocks", GET, api.blocks),
        ):
            yield Route(f"{prefix}/{path}", methods, threaded(admin, handler), gate)


def _status_routes(node: Node, admin: Executor) -> Iterator[Route]:
    api, gate = StatusApi(node), Gate(64)
    for prefix in PREFIXES:
        for path, handler in {
            "status/buildinfo": api.build_info,
            "status/tsdb": api.tsdb,
            "status/runtimeinfo": api.runtime_info,
            "status/flags": api.flags,
        }.items():
            yield Route(f"{prefix}/{path}", READ, threaded(admin, handler), gate)
    plain = {"/-/healthy": api.healthy, "/-/ready": api.ready, "/ready": api.ready, "/metrics": api.metrics, "/config": api.config}
    for path, handler in plain.items():
        yield Route(path, GET, threaded(admin, handler), gate)

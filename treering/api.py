"""The table of HTTP routes: every path that Treering answers, on one page."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from treering.api_query import QueryApi
from treering.api_series import SeriesApi
from treering.api_status import StatusApi
from treering.api_write import WriteApi
from treering.asgi import App, Gate, Handler, Route
from treering.node import Node

PREFIXES = ("/api/v1", "/prometheus/api/v1", "/api/prom/api/v1")
"""Prometheus's own path, Mimir's and Cortex's; all the same."""

READ = frozenset({"GET", "POST"})
GET = frozenset({"GET"})
POST = frozenset({"POST"})


def make_app(node: Node) -> App:
    """The HTTP application over one node."""
    config = node.config
    writes = Gate(ThreadPoolExecutor(config.max_write_threads, "write"), config.max_write_threads * 16)
    queries = Gate(ThreadPoolExecutor(config.max_concurrent_queries, "query"), config.max_queued_queries)
    admin = Gate(ThreadPoolExecutor(4, "admin"), 64)
    return App([*_write_routes(node, writes, admin), *_read_routes(node, queries), *_status_routes(node, admin)], node.telemetry)


def _write_routes(node: Node, writes: Gate, admin: Gate) -> Iterator[Route]:
    api = WriteApi(node)
    paths = [f"{prefix}/{verb}" for prefix in PREFIXES for verb in ("write", "push")]
    for path in (*paths, "/api/prom/push"):
        yield Route(path, POST, api.write, writes, node.config.max_body_bytes, plain_errors=True)
    yield Route("/ingester/flush", READ, api.flush, admin, plain_errors=True)


def _read_routes(node: Node, queries: Gate) -> Iterator[Route]:
    query, series = QueryApi(node), SeriesApi(node)
    handlers: dict[str, Handler] = {
        "query": query.query,
        "query_range": query.query_range,
        "format_query": query.format_query,
        "parse_query": query.parse_query,
        "series": series.series,
        "labels": series.labels,
        "label/{name}/values": series.label_values,
        "metadata": series.metadata,
        "query_exemplars": series.query_exemplars,
    }
    for prefix in PREFIXES:
        for path, handler in handlers.items():
            yield Route(f"{prefix}/{path}", READ, handler, queries)


def _status_routes(node: Node, admin: Gate) -> Iterator[Route]:
    api = StatusApi(node)
    for prefix in PREFIXES:
        for path, handler in {
            "status/buildinfo": api.build_info,
            "status/tsdb": api.tsdb,
            "status/runtimeinfo": api.runtime_info,
            "status/flags": api.flags,
        }.items():
            yield Route(f"{prefix}/{path}", READ, handler, admin)
    plain = {"/-/healthy": api.healthy, "/-/ready": api.ready, "/ready": api.ready, "/metrics": api.metrics, "/config": api.config}
    for path, handler in plain.items():
        yield Route(path, GET, handler, admin)

"""What an operator and Grafana ask of the process itself: build, health, readiness, metrics, cardinality, configuration."""

from dataclasses import dataclass

import numpy as np
import orjson
from prometheus_client import generate_latest

from treering.config import show_config
from treering.http.api_query import limit_of
from treering.http.asgi import Request, Response
from treering.node import Node
from treering.version import VERSION
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection

PROMETHEUS_VERSION = "3.14.0"
"""The version whose API and language we speak; Grafana chooses editor features by it."""

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class StatusApi:
    """Handlers over one node."""

    node: Node

    def build_info(self, request: Request) -> Response:
        """GET status/buildinfo. Without `features` Grafana takes us for a Prometheus without a ruler, which is true."""
        data = {"version": PROMETHEUS_VERSION, "application": "Treering", "revision": VERSION, "branch": "", "goVersion": ""}
        return _success(data)

    def tsdb(self, request: Request) -> Response:
        """GET status/tsdb: what the head holds and where its cardinality comes from."""
        limit = limit_of(request) or (10 if request.param("limit") is None else 0)
        if not 1 <= limit <= 10_000:
            raise BadData(f'invalid parameter "limit": {limit} is not between 1 and 10000')
        tenants = self.node.tenants_of(request.headers)
        series = self.node.head_source(tenants).series(Selection((), MIN_MS, MAX_MS))
        bounds = self.node.head_bounds(tenants)
        return _success(
            {
                "headStats": {
                    "numSeries": len(series),
                    "numLabelPairs": sum(len(np.unique(ids[ids >= 0])) for ids in series.ids),
                    "chunkCount": 0,
                    "minTime": bounds[0] if bounds else 0,
                    "maxTime": bounds[1] if bounds else 0,
                },
                **_cardinality(series, limit),
            }
        )

    def metrics(self, request: Request) -> Response:
        """GET /metrics: our own, in Prometheus's text format."""
        return Response(body=generate_latest(self.node.telemetry.registry), content_type=EXPOSITION)

    def healthy(self, request: Request) -> Response:
        """GET /-/healthy: the process answers."""
        return Response(body=b"Treering is healthy.\n", content_type=TEXT)

    def ready(self, request: Request) -> Response:
        """GET /-/ready and /ready: the logs are replayed and writes and queries are served; before that nothing is."""
        return Response(body=b"Treering is ready.\n", content_type=TEXT)

    def config(self, request: Request) -> Response:
        """GET /config: the effective configuration."""
        return Response(body=show_config(self.node.config).encode(), content_type="text/yaml; charset=utf-8")

    def runtime_info(self, request: Request) -> Response:
        """GET status/runtimeinfo."""
        return _success({"startTime": self.node.started_ms / 1000, "storageRetention": "", "CWD": self.node.config.data})

    def flags(self, request: Request) -> Response:
        """GET status/flags: as Prometheus shows them, text by name."""
        names = self.node.config.__struct_fields__
        return _success({name.replace("_", "-"): str(getattr(self.node.config, name)) for name in names})


def _cardinality(series: SeriesTable, limit: int) -> dict[str, list[dict[str, object]]]:
    pairs = []
    for name, ids in zip(series.names, series.ids, strict=True):
        used, counts = np.unique(ids[ids >= 0], return_counts=True)
        texts = series.texts(used)
        size_bytes = sum(len(text.encode()) for text in texts)
        pairs.append((name, texts, counts, size_bytes))
    metrics = next(((texts, counts) for name, texts, counts, _ in pairs if name == METRIC_NAME), None)
    by_pair = [(f"{name}={text}", int(count)) for name, texts, counts, _ in pairs for text, count in _top(texts, counts, limit)]
    return {
        "seriesCountByMetricName": _rows(_top(*metrics, limit) if metrics else [], limit),
        "labelValueCountByLabelName": _rows([(name, len(texts)) for name, texts, _, _ in pairs], limit),
        "memoryInBytesByLabelName": _rows([(name, size_bytes) for name, _, _, size_bytes in pairs], limit),
        "seriesCountByLabelValuePair": _rows(by_pair, limit),
    }


def _top(texts: np.ndarray, counts: np.ndarray, limit: int) -> list[tuple[str, int]]:
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(texts[i], int(counts[i])) for i in order]


def _rows(pairs: list[tuple[str, int]], limit: int) -> list[dict[str, object]]:
    return [{"name": name, "value": value} for name, value in sorted(pairs, key=lambda pair: -pair[1])[:limit]]


def _success(data: object) -> Response:
    return Response(body=orjson.dumps({"status": "success", "data": data}))

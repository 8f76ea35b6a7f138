"""What Treering says of itself: metrics in one registry, log lines in logfmt or JSON.

Names follow Prometheus's rules; every label is bounded (routes, reasons, roles; a tenant never is one).
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

MAX_LOGGED_TEXT = 1024
"""Longer values are cut: a label of 50 MB must not fill the disk with log lines."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Gauge:
    """One value read at scrape time."""

    name: str
    help: str
    value: float


class Telemetry:
    """The process's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = self._counter("treering_http_requests_total", "HTTP requests by route and status.", "route", "code")
        self.request_seconds = Histogram(
            "treering_http_request_duration_seconds",
            "Seconds from request to answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.samples_received = self._counter("treering_samples_received_total", "Samples stored, by kind.", "kind")
        self.samples_rejected = self._counter("treering_samples_rejected_total", "Samples refused, by reason.", "reason")
        self.query_samples = self._counter("treering_query_samples_total", "Samples that queries read.")
        self.shared_queries = self._counter(
            "treering_shared_queries_total", "Queries that waited together with an equal one and were answered by its evaluation."
        )
        self.slow_queries = self._counter("treering_slow_queries_total", "Queries that took longer than slow_query_s.")
        self.compactor_blocks = self._counter("treering_compactor_blocks_total", "What became of blocks, by event.", "event")
        self.ticks_failed = self._counter("treering_ticks_failed_total", "Failed rounds of background work, by role.", "role")

    def note_request(self, route: str, status: int, seconds: float) -> None:
        """One answered request. The children are kept: looking them up by labels costs more than counting."""
        known = self._requests.get((route, status))
        if known is None:
            known = self.requests.labels(route, str(status)), self.request_seconds.labels(route)
            self._requests[route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def watch(self, read: Callable[[], Iterable[Gauge]]) -> None:
        """Register gauges that `read` makes anew at each scrape."""
        self.registry.register(_Gauges(read))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class _Gauges:
    """prometheus_client's collector protocol over a function."""

    def __init__(self, read: Callable[[], Iterable[Gauge]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for gauge in self._read():
            yield GaugeMetricFamily(gauge.name, gauge.help, gauge.value)


class LineFormatter(logging.Formatter):
    """`ts=… level=… msg=… key=value`, or the same as JSON; fields come in `extra={"fields": {...}}`."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {"ts": self.formatTime(record, self.datefmt), "level": record.levelname.lower(), "msg": record.getMessage()}
        fields |= {key: str(value) for key, value in getattr(record, "fields", {}).items()}
        fields = {key: value[:MAX_LOGGED_TEXT] for key, value in fields.items()}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)[-MAX_LOGGED_TEXT:]  # its end says what went wrong
        if self._as_json:
            return json.dumps(fields)
        return " ".join(f"{key}={_logfmt(value)}" for key, value in fields.items())


def start_logging(*, level: str, as_json: bool) -> None:
    """Send all log lines to stderr in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(as_json=as_json))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.basicConfig(level={"warn": "WARNING"}.get(level, level.upper()), handlers=[handler], force=True)


def _logfmt(value: str) -> str:
    if value.isprintable():
        plain = value and not any(c in ' ="\\' for c in value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)  # nothing that could steer a terminal

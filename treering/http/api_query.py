"""The query half of the HTTP API: `query`, `query_range`, `format_query`, `parse_query`."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import orjson

from promql.engine import Answer
from promql.syntax.ast import Expr
from promql.syntax.errors import ParseError
from promql.syntax.parser import parse
from promql.syntax.printer import pretty, to_json
from treering.http.asgi import Request, Response
from treering.http.json_text import query_parts
from treering.library.listing import truncate
from treering.node import Node, Query
from treering.times import parse_duration_ms, parse_resolution_ms, parse_time_ms
from tsdb.model.errors import BadData, LimitExceeded, TreeringError

log = logging.getLogger("treering.query")

ARROW = "application/vnd.apache.arrow.stream"

GRAFANA_HEADERS = {
    "x-dashboard-uid": "dashboard",
    "x-dashboard-title": "dashboard_title",
    "x-panel-id": "panel",
    "x-panel-title": "panel_title",
    "x-panel-plugin-id": "panel_plugin",
    "x-query-group-id": "query_group",
    "x-grafana-org-id": "grafana_org",
    "x-grafana-user": "user",
    "x-rule-uid": "rule",
    "x-rule-name": "rule_name",
    "x-rule-folder": "rule_folder",
    "fromalert": "from_alert",
}
"""Where a query came from, for the slow-query log: Grafana says it with every request."""


@dataclass(frozen=True, slots=True)
class QueryApi:
    """Handlers over one node."""

    node: Node

    def query(self, request: Request) -> Response:
        """GET/POST query: an instant query."""
        return self._run(request, self.instant_of(request))

    def query_range(self, request: Request) -> Response:
        """GET/POST query_range."""
        return self._run(request, self.range_of(request))

    def instant_of(self, request: Request) -> Query:
        """The instant query that the parameters tell."""
        at = request.param("time")
        at_ms = self.node.now_ms() if not at else parse_time_ms(at)
        return self._query(request, start_ms=at_ms, end_ms=at_ms, step_ms=0)

    def range_of(self, request: Request) -> Query:
        """The range query that the parameters tell."""
        start_ms, end_ms = (parse_time_ms(_need(request, name), name=name) for name in ("start", "end"))
        step_ms = parse_duration_ms(_need(request, "step"))
        if end_ms < start_ms:
            raise BadData('invalid parameter "end": end timestamp must not be before start time')
        if step_ms <= 0:
            raise BadData(
                'invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer'
            )
        return self._query(request, start_ms=start_ms, end_ms=end_ms, step_ms=step_ms)

    def format_query(self, request: Request) -> Response:
        """GET/POST format_query: the query, laid out."""
        return _success(pretty(self._parse(request)))

    def parse_query(self, request: Request) -> Response:
        """GET/POST parse_query: the syntax tree as JSON."""
        try:
            return _success(to_json(self._parse(request)))
        except orjson.JSONEncodeError:
            raise LimitExceeded(
                "the tree is nested too deeply for JSON: the limit is 254 levels, arguments counted apart"
            ) from None

    def _parse(self, request: Request) -> Expr:
        text = request.param("query") or ""
        self.node.check_query_size(text)
        with query_errors():
            return parse(text, features=self.node.features, functions=self.node.functions)

    def _query(self, request: Request, *, start_ms: int, end_ms: int, step_ms: int) -> Query:
        lookback, timeout = request.param("lookback_delta"), request.param("timeout")
        return Query(
            text=request.param("query") or "",
            start_ms=start_ms,
            end_ms=end_ms,
            step_ms=step_ms,
            lookback_ms=parse_duration_ms(lookback, name="lookback_delta") if lookback else None,
            timeout_s=parse_duration_ms(timeout, name="timeout") / 1000 if timeout else None,
            stats=request.param("stats") or "",
            resolution_ms=parse_resolution_ms(request.param("max_source_resolution") or ""),
        )

    def _run(self, request: Request, query: Query) -> Response:
        tenants = self.node.tenants_of(request.headers)
        began = time.perf_counter()
        problem = ""
        if _wants_arrow(request) and find_spec("pyarrow") is None:
            return _no_arrow()
        try:
            with query_errors():
                answer = self.node.query(tenants, query, canceled=request.canceled.is_set)
            if answer.stats is not None:
                answer.stats.queue_s = began - request.received_s
            return _respond(request, truncate(answer, limit_of(request)), query)
        except TreeringError as error:
            problem = str(error)
            raise
        finally:
            self._log_if_slow(request, query, tenants, seconds=time.perf_counter() - began, problem=problem)

    def _log_if_slow(self, request: Request, query: Query, tenants: Sequence[str], *, seconds: float, problem: str) -> None:
        if seconds < self.node.config.slow_query_s:
            return
        self.node.telemetry.slow_queries.inc()
        fields: dict[str, object] = {"seconds": f"{seconds:.3f}", "tenant": "|".join(tenants), "query": query.text}
        fields |= {"start_ms": query.start_ms, "end_ms": query.end_ms, "step_ms": query.step_ms}
        fields |= {name: _utf8(text) for header, name in GRAFANA_HEADERS.items() if (text := request.header(header))}
        if problem:
            fields["error"] = problem
        log.warning("slow query", extra={"fields": fields})


def _utf8(header: str) -> str:
    """A header's text as it was meant: Go sends UTF-8, and headers are read as latin-1."""
    return header.encode("latin-1").decode(errors="replace")


def _respond(request: Request, answer: Answer, query: Query) -> Response:
    if _wants_arrow(request):
        from treering.library.result import Result

        return Response(body=Result.of(answer).to_ipc(), content_type=ARROW)
    return Response(parts=query_parts(answer, at_ms=query.start_ms, stats=query.stats, deadline=request.check_canceled))


def _wants_arrow(request: Request) -> bool:
    return ARROW in (request.header("accept") or "")


def _no_arrow() -> Response:
    message = f"{ARROW} needs pyarrow on the server: pip install 'treering[arrow]'; without that Accept header the answer is JSON"
    return Response(406, orjson.dumps({"status": "error", "errorType": "not_acceptable", "error": message}))


@contextmanager
def query_errors() -> Iterator[None]:
    """What is wrong with a query's text, told as a wrong parameter."""
    try:
        yield
    except ParseError as error:
        raise BadData(f'invalid parameter "query": {error}') from None


def limit_of(request: Request) -> int:
    """The `limit` parameter, 0 = unlimited. BadData if it is no such number."""
    text = request.param("limit") or "0"
    if not (text.isdecimal() and len(text) < 20):
        raise BadData(f'invalid parameter "limit": {text[:50]!r} is not a non-negative number of at most 19 digits')
    return int(text)


def _need(request: Request, name: str) -> str:
    value = request.param(name)
    if not value:
        raise BadData(f'invalid parameter "{name}": cannot parse "" to a valid {"duration" if name == "step" else "timestamp"}')
    return value


def _success(data: object) -> Response:
    return Response(body=orjson.dumps({"status": "success", "data": data}))

"""The metadata half of the HTTP API: which series, labels, metrics and exemplars there are."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from promql.syntax.ast import VectorSelector
from promql.syntax.errors import ParseError
from promql.syntax.parser import parse, parse_selector
from promql.syntax.typecheck import walk
from treering.http.api_query import limit_of
from treering.http.asgi import Request, Response
from treering.library.listing import TRUNCATED, names_of, union_of, values_of
from treering.node import Node
from treering.times import parse_time_ms
from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS

MAX_MATCHER_SETS = 128
"""`match[]` parameters of one request; each is one pass over the series."""


@dataclass(frozen=True, slots=True)
class SeriesApi:
    """Handlers over one node."""

    node: Node

    def series(self, request: Request) -> Response:
        """GET/POST series: the label sets that match."""
        sets = matcher_sets(request)
        if not sets:
            raise BadData("no match[] parameter provided")
        rows = self._table(request, sets).rows()
        return _listing([row.as_dict() for row in rows], limit_of(request))

    def labels(self, request: Request) -> Response:
        """GET/POST labels: the names in use."""
        table = self._table(request, matcher_sets(request))
        return _listing(names_of(table), limit_of(request))

    def label_values(self, request: Request) -> Response:
        """GET/POST label/{name}/values."""
        name = unescape_name(request.captures["name"])
        if not name:
            raise BadData('invalid label name: ""')
        table = self._table(request, matcher_sets(request))
        return _listing(values_of(table, name), limit_of(request))

    def metadata(self, request: Request) -> Response:
        """GET metadata: type, help and unit by metric family."""
        limit, metric = limit_of(request), request.param("metric") or ""
        families: dict[str, list[dict[str, str]]] = {}
        for entry in self.node.metadata(self.node.tenants_of(request.headers), metric):
            row = {"type": entry.kind, "help": entry.help, "unit": entry.unit}
            if row not in families.setdefault(entry.metric, []):
                families[entry.metric].append(row)
        kept = dict(list(families.items())[: limit or None])
        return Response(body=orjson.dumps({"status": "success", "data": kept}))

    def query_exemplars(self, request: Request) -> Response:
        """GET/POST query_exemplars: the exemplars of the selectors in a query."""
        text = request.param("query") or ""
        self.node.check_query_size(text)
        start_ms, end_ms = time_range(request)
        tree = parse(text, features=self.node.features)
        sets = [node.matchers for node in walk(tree) if isinstance(node, VectorSelector)]
        tenants = self.node.tenants_of(request.headers)
        found = self.node.querier.exemplars(tenants, sets, start_ms=start_ms, end_ms=end_ms)
        data = [
            {
                "seriesLabels": entry.labels.as_dict(),
                "exemplars": [
                    {"labels": one.labels.as_dict(), "value": _text(one.value), "timestamp": one.t_ms / 1000}
                    for one in entry.exemplars
                ],
            }
            for entry in found
        ]
        return Response(body=orjson.dumps({"status": "success", "data": data}))

    def _table(self, request: Request, sets: list[tuple[Matcher, ...]]) -> SeriesTable:
        """The series that match any of the sets, each once."""
        start_ms, end_ms = time_range(request)
        source = self.node.bounded_source(self.node.tenants_of(request.headers))
        return union_of(source, sets or [()], start_ms=start_ms, end_ms=end_ms)


def unescape_name(name: str) -> str:
    """A label name sent in Prometheus's `U__` escaping (`_2e_` for a dot, `__` for an underscore), or as it is."""
    if not name.startswith("U__"):
        return name
    out, rest = [], name[3:]
    while rest:
        if rest.startswith("__"):
            out.append("_")
            rest = rest[2:]
        elif rest[0] == "_":
            code, closed, rest = rest[1:].partition("_")
            if not closed or len(code) > 6 or not all(c in "0123456789abcdefABCDEF" for c in code):
                return name
            out.append(chr(int(code, 16)))
        else:
            out.append(rest[0])
            rest = rest[1:]
    return "".join(out)


def matcher_sets(request: Request) -> list[tuple[Matcher, ...]]:
    """The `match[]` parameters. BadData names the one that is no selector."""
    texts = request.params.get("match[]", [])
    if len(texts) > MAX_MATCHER_SETS:
        raise BadData(f'invalid parameter "match[]": {len(texts)} selectors, over the limit of {MAX_MATCHER_SETS}')
    try:
        return [parse_selector(text) for text in texts]
    except ParseError as error:
        raise BadData(f'invalid parameter "match[]": {error}') from None


def time_range(request: Request) -> tuple[int, int]:
    """(start_ms, end_ms), both inside; all of time where a side was not sent."""
    start, end = request.param("start"), request.param("end")
    start_ms = parse_time_ms(start, name="start") if start else MIN_MS
    end_ms = parse_time_ms(end, name="end") if end else MAX_MS
    if end_ms < start_ms:
        raise BadData('invalid parameter "end": end timestamp must not be before start timestamp')
    return start_ms, end_ms


def _listing(rows: Sequence[object], limit: int) -> Response:
    body: dict[str, object] = {"status": "success", "data": rows[: limit or None]}
    if limit and len(rows) > limit:
        body["warnings"] = [TRUNCATED]
    return Response(body=orjson.dumps(body))


def _text(value: float) -> str:
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(str(value), repr(value).removesuffix(".0"))

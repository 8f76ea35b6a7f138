"""The explaining half of the query API: how a query will be evaluated, and with `analyze` how it was.

`query_explain` and `query_range_explain` take the parameters of `query` and `query_range`. The tree comes as JSON, or with
`format=text` as the text that a terminal shows.
"""

from dataclasses import dataclass

from treering.http.api_query import QueryApi, query_errors
from treering.http.asgi import Request, Response
from treering.http.explanation_json import explanation_json
from treering.node import Query
from tsdb.model.errors import BadData

TRUE, FALSE = ("true", "1"), ("", "false", "0")


@dataclass(frozen=True, slots=True)
class ExplainApi:
    """Handlers over the query API, whose parameters they read."""

    queries: QueryApi

    def query_explain(self, request: Request) -> Response:
        """GET/POST query_explain: of an instant query."""
        return self._explain(request, self.queries.instant_of(request))

    def query_range_explain(self, request: Request) -> Response:
        """GET/POST query_range_explain."""
        return self._explain(request, self.queries.range_of(request))

    def _explain(self, request: Request, query: Query) -> Response:
        node = self.queries.node
        tenants, run = node.tenants_of(request.headers), _flag(request, "analyze")
        with query_errors():
            told = node.explain(tenants, query, run=run, canceled=request.canceled.is_set)
        if request.param("format") == "text":
            return Response(body=f"{told}\n".encode(), content_type="text/plain; charset=utf-8")
        return Response(body=explanation_json(told))


def _flag(request: Request, name: str) -> bool:
    text = (request.param(name) or "").lower()
    if text not in (*TRUE, *FALSE):
        raise BadData(f'invalid parameter "{name}": {text[:50]!r} is neither true nor false')
    return text in TRUE

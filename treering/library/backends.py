"""What a `Store` can stand on: a node in this process (over a data folder or a bucket), or a server over HTTP."""

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import orjson

from promql.explain import Explanation
from promql.syntax.ast import Definition
from remote.wire.client import PostAnswer, encode_v1, encode_v2, post_write
from treering.http.explanation_json import parse_explanation
from treering.library.listing import Sets, names_of, select_all, truncate, union_of, values_of
from treering.library.result import Result
from treering.node import Node, Query
from tsdb.model.errors import BadData, LimitExceeded, NotFound, QueryFailed, TreeringError, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, is_stale
from tsdb.model.write import PushResult, WriteBatch

PUSH_SAMPLES = 50_000
"""Samples in one remote-write request of `Store.write`: a few megabytes."""

_REJECTED = re.compile(r"(.*) \(rejected: (.*)\)", re.DOTALL)
"""What `api_write.describe` says."""


@dataclass(frozen=True, slots=True)
class NodeBackend:
    """A node in this process: over a data folder, which nobody else may have open, or reading a bucket."""

    node: Node
    tenant: str

    def query(self, query: Query, *, limit: int) -> Result:
        return Result.of(truncate(self.node.query((self.tenant,), query), limit), expr=query.text)

    def explain(self, query: Query, *, analyze: bool) -> Explanation:
        return self.node.explain((self.tenant,), query, run=analyze)

    def register(self, definition: Definition, *, replace: bool) -> None:
        self.node.register(definition, replace=replace)

    def functions(self) -> tuple[Definition, ...]:
        return self.node.functions

    def select(self, matchers: tuple[Matcher, ...], *, start_ms: int, end_ms: int) -> SeriesBatch:
        batch = select_all(self.node.source((self.tenant,)), matchers, start_ms=start_ms, end_ms=end_ms)
        stale = is_stale(batch.values)
        return batch.where(~stale) if stale.any() else batch

    def series(self, sets: Sets, *, start_ms: int, end_ms: int, limit: int) -> list[Labels]:
        return (
            union_of(self.node.source((self.tenant,)), sets, start_ms=start_ms, end_ms=end_ms).take(slice(0, limit or None)).rows()
        )

    def label_values(self, name: str, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]:
        return values_of(union_of(self.node.source((self.tenant,)), sets, start_ms=start_ms, end_ms=end_ms), name)

    def labels(self, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]:
        return names_of(union_of(self.node.source((self.tenant,)), sets, start_ms=start_ms, end_ms=end_ms))

    def push(self, batch: WriteBatch) -> PushResult:
        return self.node.push(self.tenant, batch)

    def flush(self) -> None:
        self.node.flush()

    def close(self) -> None:
        self.node.close()


class HttpBackend:
    """A Treering, Prometheus, Mimir or Thanos server; one connection a call, which is safe in any thread."""

    def __init__(self, url: str, tenant: str | None, headers: Mapping[str, str], timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._headers = {**headers, **({"X-Scope-OrgID": tenant} if tenant else {})}
        self._timeout_s = timeout_s

    def query(self, query: Query, *, limit: int) -> Result:
        path = "query_range" if query.step_ms else "query"
        return Result.from_json(self._post(path, _query_form(query) | {"limit": limit or None}), expr=query.text)

    def explain(self, query: Query, *, analyze: bool) -> Explanation:
        path = "query_range_explain" if query.step_ms else "query_explain"
        return parse_explanation(self._post(path, _query_form(query) | {"analyze": "true" if analyze else None}))

    def register(self, definition: Definition, *, replace: bool) -> None:
        raise BadData(
            f"function {definition.name}: {self._url} is a server; its configuration lists the functions that it allows "
            "(python_functions: module:function)"
        )

    def functions(self) -> tuple[Definition, ...]:
        return ()

    def select(self, matchers: tuple[Matcher, ...], *, start_ms: int, end_ms: int) -> SeriesBatch:
        selector = "{" + ",".join(map(str, matchers)) + "}"
        form = {"query": f"{selector}[{end_ms - start_ms}ms]", "time": (end_ms - 1) / 1000}
        return Result.from_json(self._post("query", form), expr=selector).to_batch()

    def series(self, sets: Sets, *, start_ms: int, end_ms: int, limit: int) -> list[Labels]:
        form = {**_match_form(sets, start_ms, end_ms), "limit": limit or None}
        return [Labels.of(row) for row in orjson.loads(self._post("series", form))["data"]]

    def label_values(self, name: str, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]:
        form = _match_form(sets, start_ms, end_ms)
        path = f"label/{urllib.parse.quote(name, safe='')}/values?{_encode(form)}"
        return list(orjson.loads(self._send(path, None, {}))["data"])

    def labels(self, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]:
        return list(orjson.loads(self._post("labels", _match_form(sets, start_ms, end_ms)))["data"])

    def push(self, batch: WriteBatch) -> PushResult:
        """As 2.0, which tells what was refused; as 1.0 where the server knows no other, and then any refusal is an error."""
        result = PushResult()
        for piece in _pieces(batch):
            answer = self._write(encode_v2(piece), version=2)
            if answer.status == 415:
                answer = self._write(encode_v1(piece), version=1)
            _note(answer, len(piece.row), result)
        return result

    def flush(self) -> None:
        raise BadData(f"{self._url}: flushing a server is an operator's act; POST /ingester/flush there")

    def close(self) -> None:
        """No connection is kept."""

    def _write(self, body: bytes, *, version: int) -> PostAnswer:
        url = f"{self._url}/api/v1/write"
        try:
            return post_write(url, body, version=version, headers=self._headers, timeout_s=self._timeout_s)
        except OSError as error:
            raise Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None

    def _post(self, path: str, form: Mapping[str, object]) -> bytes:
        return self._send(path, _encode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"})

    def _send(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        url = f"{self._url}/api/v1/{path}"
        request = urllib.request.Request(url, data=body, headers={**self._headers, **headers})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            raise _error(error.code, error.read()) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None


def _pieces(batch: WriteBatch) -> Iterator[WriteBatch]:
    """The float samples of a batch in requests of a bounded size."""
    for at in range(0, len(batch.row), PUSH_SAMPLES):
        part = slice(at, at + PUSH_SAMPLES)
        rows, row = np.unique(batch.row[part], return_inverse=True)
        yield replace(
            batch,
            start=batch.start[rows],
            end=batch.end[rows],
            hash=batch.hash[rows],
            row=row.astype(np.int32),
            t_ms=batch.t_ms[part],
            values=batch.values[part],
        )


def _note(answer: PostAnswer, samples: int, result: PushResult) -> None:
    """Adds what became of a request of so many samples. The error that the server meant, where it took none."""
    if answer.status < 300:
        result.samples += samples
        return
    written = answer.headers.get("x-prometheus-remote-write-samples-written", "")
    if answer.status != 400 or not written.isdecimal():
        raise _error(answer.status, answer.body)
    result.samples += int(written)
    text = answer.body.decode(errors="replace").strip()
    found = _REJECTED.fullmatch(text)
    if found is None:  # another server's words
        result.reject("rejected", samples - int(written), text)
        return
    for part in found[2].split(", "):
        count, _, reason = part.partition(" ")
        result.reject(reason, int(count) if count.isdecimal() else 0, found[1])


def _query_form(query: Query) -> dict[str, object]:
    form: dict[str, object] = {"query": query.text, "stats": query.stats or None, "timeout": query.timeout_s}
    form["lookback_delta"] = query.lookback_ms / 1000 if query.lookback_ms else None
    form["max_source_resolution"] = query.resolution_ms / 1000 if query.resolution_ms >= 0 else None
    if query.step_ms:
        return form | {"start": query.start_ms / 1000, "end": query.end_ms / 1000, "step": query.step_ms / 1000}
    return form | {"time": query.start_ms / 1000}


def _match_form(sets: Sets, start_ms: int, end_ms: int) -> dict[str, object]:
    match = ["{" + ",".join(map(str, matchers)) + "}" for matchers in sets if matchers]
    return {"match[]": match, "start": start_ms / 1000, "end": end_ms / 1000}


def _encode(form: Mapping[str, object]) -> str:
    return urllib.parse.urlencode({name: value for name, value in form.items() if value is not None}, doseq=True)


def _error(status: int, body: bytes) -> TreeringError:
    """The error that the server meant, by its status."""
    try:
        text = str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = body.decode(errors="replace")[:1000].strip()
    text = f"{text} (status {status})"
    if status == 429 or (status == 422 and "limit" in text):
        return LimitExceeded(text, retry_after_s=1 if status == 429 else None)
    kinds: dict[int, type[TreeringError]] = {400: BadData, 404: NotFound, 422: QueryFailed, 503: Unavailable}
    return kinds.get(status, Unavailable if status >= 500 else BadData)(text)

"""The HTTP border alone: an `App` over small handlers, driven as an ASGI server drives it."""

import asyncio
import gzip
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from remote.tenants import Unauthorized
from remote.wire.decode import TooLarge, UnsupportedMedia
from treering.http import asgi
from treering.http.asgi import App, Gate, Handler, Request, Response, Route, error_response, threaded
from treering.telemetry import Telemetry
from tsdb.model.errors import (
    BadData,
    Corrupt,
    LimitExceeded,
    NotFound,
    QueryCanceled,
    QueryFailed,
    QueryTimeout,
    TreeringError,
    Unavailable,
)

READ = frozenset({"GET", "POST"})
POOL = ThreadPoolExecutor(4)
Message = dict[str, Any]


def app(handler: Handler, path: str = "/x", *, limit: int = 10, **options: Any) -> App:
    return App([Route(path, READ, threaded(POOL, handler), Gate(limit), **options)], Telemetry())


async def exchange(application: App, method: str, path: str, headers: dict[str, str], incoming: Sequence[Message]) -> list[Message]:
    """What the application sends in answer to these messages; afterwards the client waits."""
    queue = list(incoming)
    sent: list[Message] = []

    async def receive() -> Message:
        if queue:
            return queue.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": raw.replace("%2F", "/"), "raw_path": raw.encode(), "query_string": query.encode(),
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
    }  # fmt: skip
    await application(scope, receive, send)
    return sent


def ask(
    application: App, method: str = "GET", path: str = "/x", body: bytes = b"", *, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    message = {"type": "http.request", "body": body, "more_body": False}
    sent = asyncio.run(exchange(application, method, path, headers or {}, [message]))
    found = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(part["body"] for part in sent[1:])


def echo(request: Request) -> Response:
    return Response(body=orjson.dumps([request.method, request.params, request.captures, len(request.body)]))


FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def test_form_and_url_are_merged_the_form_first() -> None:
    _, _, body = ask(app(echo), "POST", "/x?a=1&b=2&empty=", b"a=3&c=%C3%BC+x", headers=FORM)
    assert orjson.loads(body)[1] == {"a": ["3", "1"], "b": ["2"], "c": ["ü x"], "empty": [""]}
    _, _, body = ask(app(echo, takes_forms=False), "POST", "/x?a=1", b"a=3", headers=FORM)
    assert orjson.loads(body)[1] == {"a": ["1"]}


def test_captures_are_one_segment_each() -> None:
    application = app(echo, "/label/{name}/values")
    for path, name in (("/label/job/values", "job"), ("/label/a%2Fb/values", "a/b"), ("/label/%C3%BC/values", "ü")):
        assert orjson.loads(ask(application, path=path)[2])[2] == {"name": name}
    assert ask(application, path="/label/a/b/values")[0] == 404


def test_paths_and_methods() -> None:
    status, headers, body = ask(app(echo), "DELETE")
    assert (status, headers["allow"], body) == (405, "GET, POST", b"405 method DELETE not allowed, use GET, POST\n")
    status, headers, body = ask(app(echo), "HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0
    status, _, body = ask(app(echo), path="/" + "y" * 5000)
    assert status == 404 and len(body) < 300


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry_after"),
    [
        (BadData("m"), 400, "bad_data", None),
        (QueryFailed("m"), 422, "execution", None),
        (LimitExceeded("m"), 422, "execution", None),
        (LimitExceeded("m", retry_after_s=0.01), 429, "too_many_requests", "1"),
        (LimitExceeded("m", retry_after_s=7.4), 429, "too_many_requests", "7"),
        (Unauthorized("m"), 401, "unauthorized", None),
        (UnsupportedMedia("m"), 415, "unsupported_media_type", None),
        (TooLarge("m"), 413, "too_large", None),
        (NotFound("m"), 404, "not_found", None),
        (QueryTimeout("m"), 503, "timeout", "1"),
        (Unavailable("m", retry_after_s=30), 503, "unavailable", "30"),
        (QueryCanceled("m"), 499, "canceled", None),
        (Corrupt("m"), 500, "internal", None),
        (TreeringError("m"), 500, "internal", None),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_errors_become_statuses(error: TreeringError, status: int, kind: str, retry_after: str | None) -> None:
    for plain in (False, True):
        response = error_response(error, plain=plain)
        assert (response.status, dict(response.headers).get("retry-after")) == (status, retry_after)
        assert response.body == b"m\n" if plain else orjson.loads(response.body)["errorType"] == kind


def test_a_defect_is_a_500_that_tells_nothing() -> None:
    def broken(request: Request) -> Response:
        raise KeyError("a secret")

    status, _, body = ask(app(broken))
    assert (status, orjson.loads(body)["error"]) == (500, "internal error; the log has the details")


def test_the_gate_sends_away_who_is_too_many() -> None:
    held, inside = threading.Event(), threading.Event()

    def wait(request: Request) -> Response:
        inside.set()
        held.wait(10)
        return Response()

    application = app(wait, limit=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, application)
        assert inside.wait(10)
        status, headers, body = ask(application)
        held.set()
        assert first.result()[0] == 200
    assert (status, headers["retry-after"]) == (503, "1") and b"1 requests of this kind are being served, the limit" in body
    assert ask(application)[0] == 200, "the place is free again"


def chunks(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": i < last} for i, part in enumerate(parts)]


def answer(application: App, incoming: Sequence[Message], headers: dict[str, str] | None = None) -> list[Message]:
    return asyncio.run(exchange(application, "POST", "/x", headers or {}, incoming))


def test_bodies_are_bounded_before_and_while_they_are_read() -> None:
    application = app(echo, max_body_bytes=10)
    assert answer(application, chunks(b"12345", b"67890"))[0]["status"] == 200
    assert answer(application, chunks(b"12345", b"678901"))[0]["status"] == 413
    assert answer(application, [], {"Content-Length": "11"})[0]["status"] == 413, "nothing is read of a body that says it is large"
    assert answer(application, chunks(b"1"), {"Content-Length": "²"})[0]["status"] == 200


def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    ran: list[Request] = []

    def note(request: Request) -> Response:
        ran.append(request)
        return Response()

    incoming = [{"type": "http.request", "body": b"12", "more_body": True}, {"type": "http.disconnect"}]
    assert answer(app(note), incoming)[0]["status"] == 499
    assert ran == []


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_WAIT_S", 0.05)
    application = app(echo, limit=1)
    sent = answer(application, [{"type": "http.request", "body": b"12", "more_body": True}])
    assert sent[0]["status"] == 400 and b"0.05 s, the limit" in sent[1]["body"]
    assert ask(application)[0] == 200, "it has given its place back"


def test_a_handler_learns_that_its_client_has_left() -> None:
    def long(request: Request) -> Response:
        assert request.canceled.wait(10)
        request.check_canceled()
        raise AssertionError

    incoming = [*chunks(b""), {"type": "http.disconnect"}]
    assert answer(app(long), incoming)[0]["status"] == 499


def test_a_write_goes_on_when_its_client_has_left() -> None:
    def write(request: Request) -> Response:
        assert not request.canceled.wait(0.1)
        return Response(204)

    incoming = [*chunks(b""), {"type": "http.disconnect"}]
    assert answer(app(write, plain_errors=True), incoming)[0]["status"] == 204


@pytest.mark.parametrize(
    ("size", "accept", "content_type", "packed"),
    [
        (2000, "gzip", "application/json", True),
        (2000, "br;q=1.0, gzip;q=0.8", "text/plain", True),
        (1400, "gzip", "application/json", False),
        (2000, "", "application/json", False),
        (2000, "zstd, br", "application/json", False),
        (2000, "gzip", "application/vnd.apache.arrow.stream", False),
        (2000, "gzip;q=0", "application/json", False),
        (2000, "identity, gzip; q=0.0", "application/json", False),
    ],
)
def test_gzip(size: int, accept: str, content_type: str, packed: bool) -> None:
    text = b"[" + b"1" * (size - 2) + b"]"
    _, headers, body = ask(app(lambda _: Response(body=text, content_type=content_type)), headers={"Accept-Encoding": accept})
    assert (headers.get("content-encoding") == "gzip") == packed
    assert headers["content-length"] == str(len(body)) and headers["x-content-type-options"] == "nosniff"
    assert (gzip.decompress(body) if packed else body) == text


@pytest.mark.parametrize(("size", "messages"), [(100, 1), (asgi.TOGETHER_BYTES // 3, 1), (asgi.TOGETHER_BYTES, 3)])
def test_parts_of_a_large_body_are_sent_one_by_one(size: int, messages: int) -> None:
    parts = [b"a" * size, memoryview(b"b" * size), b"c" * size]
    application = app(lambda _: Response(parts=parts))
    sent = asyncio.run(exchange(application, "GET", "/x", {}, [{"type": "http.request", "body": b"", "more_body": False}]))
    assert len(sent) == 1 + messages and [part["more_body"] for part in sent[1:]] == [True] * (messages - 1) + [False]
    status, headers, body = ask(application)
    assert (status, headers["content-length"], body) == (200, str(3 * size), b"".join(parts))
    _, headers, body = ask(application, headers={"Accept-Encoding": "gzip"})
    assert headers["content-length"] == str(len(body))
    assert (gzip.decompress(body) if "content-encoding" in headers else body) == b"".join(parts)
    assert ask(application, "HEAD")[2] == b""


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (b"a=%ff", "parameters cannot be read"),
        (b"a=\xff", "not UTF-8"),
        (b"&".join([b"a=1"] * 1001), "1001 parameters, over the limit"),
    ],
)
def test_forms_that_cannot_be_read(form: bytes, words: str) -> None:
    status, _, body = ask(app(echo), "POST", "/x", form, headers=FORM)
    assert status == 400 and words in orjson.loads(body)["error"]


def test_requests_are_counted_by_route_and_status() -> None:
    telemetry = Telemetry()
    routes = [Route("/label/{name}/values", READ, threaded(POOL, echo), Gate(1))]
    for path in ("/label/a/values", "/label/b/values", "/nothing"):
        ask(App(routes, telemetry), path=path)

    def count(route: str, code: str) -> float | None:
        return telemetry.registry.get_sample_value("treering_http_requests_total", {"route": route, "code": code})

    assert count("/label/{name}/values", "200") == 2.0
    assert count("unknown", "404") == 1.0


def test_an_error_keeps_nothing_of_the_handler_alive() -> None:
    def refuse(request: Request) -> Response:
        held = bytearray(1000)
        raise BadData(f"{len(held)} bytes")

    with pytest.raises(BadData) as caught:
        threaded(POOL, refuse)(Request("GET", "/x", {}, "")).result()
    trace, frames = caught.value.__traceback__, []
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "refuse" not in frames

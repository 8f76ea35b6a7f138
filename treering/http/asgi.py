"""The HTTP border: bytes of a request in, bytes of an answer out, errors to statuses. The one asynchronous file.

Handlers are plain functions of a `Request`, run in a thread; a client that leaves sets `request.canceled`, which long
handlers look at. Request bodies are bounded before they are read.
"""

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from remote.tenants import Unauthorized
from remote.wire.decode import TooLarge, UnsupportedMedia
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

log = logging.getLogger("treering.http")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
GZIP_FROM_BYTES = 1400
"""Smaller bodies fit one packet anyway."""
TOGETHER_BYTES = 1 << 18
"""The parts of a smaller body are sent as one: copying them takes less time than another call of the system."""
MAX_FORM_BYTES = 4 << 20
MAX_PARAMETERS = 1000
MAX_SHOWN_CHARS = 200
"""Of what a client sent, in a message about it."""
WATCH_AFTER_S = 0.01
"""From when on it is watched whether a request's client leaves: most are answered before."""
BODY_WAIT_S = 30.0
"""How long the next piece of a body may take: who waits for it holds a place of the gate."""


@dataclass(slots=True)
class Request:
    """One request, whole. `headers` has lower-case names; `params` merges URL and form, as Go's FormValue does."""

    method: str
    path: str
    headers: dict[str, list[str]]
    query_string: str
    body: bytes = b""
    captures: dict[str, str] = field(default_factory=dict)
    canceled: threading.Event = field(default_factory=threading.Event)
    params: dict[str, list[str]] = field(default_factory=dict)
    received_s: float = field(default_factory=time.perf_counter)
    """When it came, on `time.perf_counter`."""

    def header(self, name: str) -> str | None:
        values = self.headers.get(name)
        return values[0] if values else None

    def check_canceled(self) -> None:
        """Raises QueryCanceled once the client has left."""
        if self.canceled.is_set():
            raise QueryCanceled("the client left before its answer was ready")

    def param(self, name: str) -> str | None:
        """The first value of a parameter, None if it was not sent."""
        values = self.params.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Response:
    """One answer: its body, or the parts of one that is too large to be copied together for nothing."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    parts: Sequence[bytes | memoryview] = ()


Handler = Callable[[Request], Response]
Start = Callable[[Request], "Future[Response]"]
"""Begins to serve a request in some thread."""


def threaded(executor: Executor, handler: Handler) -> Start:
    """Serves each request by a handler in one of the executor's threads."""
    return lambda request: executor.submit(serve, handler, request)


def serve(handler: Handler, request: Request) -> Response:
    """The handler's response. Its errors leave their frames behind: those hold all that a refused query had in memory."""
    try:
        return handler(request)
    except TreeringError as error:
        error.__context__ = None
        raise error.with_traceback(None) from None


@dataclass(slots=True)
class Gate:
    """How many requests of one kind may be in the process at once; the next is told to come back."""

    limit: int
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A path such as `/api/v1/label/{name}/values`, what serves it, behind which gate, and how large a body it takes."""

    path: str
    methods: frozenset[str]
    start: Start
    gate: Gate
    max_body_bytes: int = MAX_FORM_BYTES
    plain_errors: bool = False
    """Errors as text, as write endpoints tell them, instead of the query API's JSON."""
    takes_forms: bool = True
    """A body that says it is a form is merged into the parameters."""


class App:
    """The ASGI application over a table of routes."""

    def __init__(self, routes: Iterable[Route], telemetry: Telemetry) -> None:
        self._exact = {route.path: route for route in routes if "{" not in route.path}
        self._patterns = [(route.path.split("/"), route) for route in routes if "{" in route.path]
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        request = _request(scope)
        route, request.captures = self._match(scope)
        response = await self._answer(route, request, receive)
        await _send(send, request, response)
        self._telemetry.note_request(route.path if route else "unknown", response.status, time.perf_counter() - began)

    def _match(self, scope: Scope) -> tuple[Route | None, dict[str, str]]:
        route = self._exact.get(scope["path"])
        if route is not None:
            return route, {}
        parts = scope.get("raw_path", scope["path"].encode()).split(b"?")[0].decode("latin-1").split("/")
        for pattern, candidate in self._patterns:
            captures = _capture(pattern, parts)
            if captures is not None:
                return candidate, captures
        return None, {}

    async def _answer(self, route: Route | None, request: Request, receive: Receive) -> Response:
        if route is None:
            return Response(404, f"404 page not found: {request.path[:MAX_SHOWN_CHARS]}\n".encode(), "text/plain; charset=utf-8")
        if request.method not in route.methods and not (request.method == "HEAD" and "GET" in route.methods):
            allow = ", ".join(sorted(route.methods))
            return Response(
                405, f"405 method {request.method} not allowed, use {allow}\n".encode(), "text/plain", (("allow", allow),)
            )
        route.gate.in_flight += 1
        try:
            if route.gate.in_flight > route.gate.limit:
                raise Unavailable(f"{route.gate.limit} requests of this kind are being served, the limit; try again")
            request.body = await _read_body(request, receive, route.max_body_bytes)
            request.params = _merge_params(request, takes_forms=route.takes_forms)
            return await _run(route, request, receive)
        except TreeringError as error:
            return error_response(error, plain=route.plain_errors)
        except Exception:
            log.exception("request failed", extra={"fields": {"path": request.path}})
            return error_response(Corrupt("internal error; the log has the details"), plain=route.plain_errors)
        finally:
            route.gate.in_flight -= 1


def error_response(error: TreeringError, *, plain: bool) -> Response:
    """The status and body of an error, by who must act (see `tsdb.model.errors`)."""
    status, kind = next((status, kind) for known, status, kind in _STATUSES if isinstance(error, known))
    retry_after_s = getattr(error, "retry_after_s", None)
    if isinstance(error, LimitExceeded) and retry_after_s is None:
        status, kind = 422, "execution"
    headers = (("retry-after", str(max(1, round(retry_after_s)))),) if retry_after_s is not None and status in (429, 503) else ()
    if plain:
        return Response(status, f"{error}\n".encode(), "text/plain; charset=utf-8", headers)
    body = orjson.dumps({"status": "error", "errorType": kind, "error": str(error)})
    return Response(status, body, headers=headers)


_STATUSES: tuple[tuple[type[TreeringError], int, str], ...] = (
    (Unauthorized, 401, "unauthorized"),
    (UnsupportedMedia, 415, "unsupported_media_type"),
    (TooLarge, 413, "too_large"),
    (QueryFailed, 422, "execution"),
    (BadData, 400, "bad_data"),
    (LimitExceeded, 429, "too_many_requests"),
    (NotFound, 404, "not_found"),
    (QueryTimeout, 503, "timeout"),
    (Unavailable, 503, "unavailable"),
    (QueryCanceled, 499, "canceled"),
    (TreeringError, 500, "internal"),
)
"""First match wins: special ones before their parents."""


def _request(scope: Scope) -> Request:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return Request(scope["method"], scope["path"], headers, scope.get("query_string", b"").decode("latin-1"))


def _capture(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    captures = {}
    for want, part in zip(pattern, parts, strict=True):
        if want.startswith("{"):
            captures[want.strip("{}")] = unquote(part)
        elif want != part:
            return None
    return captures


async def _read_body(request: Request, receive: Receive, limit_bytes: int) -> bytes:
    """The body. TooLarge before a byte over the limit is kept."""
    declared = request.header("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit_bytes:
        raise TooLarge(f"request body of {declared} bytes is over the limit of {limit_bytes} bytes")
    message = await _next_piece(receive)
    if message["type"] == "http.request" and not message.get("more_body", False):
        return message.get("body", b"")  # type: ignore[no-any-return]
    parts, size_bytes = [message.get("body", b"")], len(message.get("body", b""))
    while message.get("more_body", False):
        message = await _next_piece(receive)
        if message["type"] == "http.disconnect":
            raise QueryCanceled("the client left before its request was whole")
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > limit_bytes:
            raise TooLarge(f"request body of over {limit_bytes} bytes, the limit")
    return b"".join(parts)


def _merge_params(request: Request, *, takes_forms: bool) -> dict[str, list[str]]:
    params = _parse_form(request.query_string)
    if (
        takes_forms
        and request.method in ("POST", "PUT")
        and (request.header("content-type") or "").startswith("application/x-www-form-urlencoded")
    ):
        try:
            form = _parse_form(request.body.decode())
        except UnicodeDecodeError:
            raise BadData("the request's form is not UTF-8") from None
        for name, values in params.items():
            form.setdefault(name, []).extend(values)
        return form
    return params


def _parse_form(text: str) -> dict[str, list[str]]:
    count = text.count("&") + 1
    if count > MAX_PARAMETERS:
        raise BadData(f"{count} parameters, over the limit of {MAX_PARAMETERS}")
    try:
        return parse_qs(text, keep_blank_values=True, errors="strict") if text else {}
    except (UnicodeDecodeError, ValueError) as error:
        raise BadData(f"parameters cannot be read: {error}") from None


async def _run(route: Route, request: Request, receive: Receive) -> Response:
    """The handler's response; the handler is told when the client leaves first."""
    work = asyncio.wrap_future(route.start(request))
    if route.plain_errors:
        return await work  # a write is finished whether or not its sender waits
    watching: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    watch = loop.call_later(WATCH_AFTER_S, lambda: watching.append(loop.create_task(_disconnect(receive, request))))
    try:
        return await work
    finally:
        watch.cancel()
        for task in watching:
            task.cancel()


async def _next_piece(receive: Receive) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            return await receive()
    except TimeoutError:
        raise BadData(f"no more of the request's body came for {BODY_WAIT_S:g} s, the limit") from None


async def _disconnect(receive: Receive, request: Request) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    request.canceled.set()


async def _send(send: Send, request: Request, response: Response) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
    parts = response.parts or [response.body]
    size_bytes = sum(map(len, parts))
    if (
        size_bytes > GZIP_FROM_BYTES
        and _takes_gzip(request.header("accept-encoding") or "")
        and response.content_type.startswith(("application/json", "text/"))
    ):
        parts = [await asyncio.get_running_loop().run_in_executor(None, _gzip, parts)]
        size_bytes = len(parts[0])
        headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
    elif size_bytes <= TOGETHER_BYTES:
        parts = [b"".join(parts)]
    if size_bytes or response.status not in (204, 304):
        headers.append((b"content-type", response.content_type.encode()))
        headers.append((b"content-length", str(size_bytes).encode()))
    headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if request.method == "HEAD":
        parts = [b""]
    for number, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})


def _takes_gzip(accept_encoding: str) -> bool:
    for item in accept_encoding.lower().replace(" ", "").split(","):
        name, _, weight = item.partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False


def _gzip(parts: Sequence[bytes | memoryview]) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*map(packer.compress, parts), packer.flush()])

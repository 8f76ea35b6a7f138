"""A connection that never ends the head of its request is answered and closed; answers leave whole and in order."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from treering.http import connection
from treering.http.asgi import Receive, Scope, Send
from treering.http.connection import MAX_HEAD_BYTES, SMALL_BYTES, BoundedConnection, TogetherTransport

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"
PARTS = [b"a" * 10, b"b" * 5000, b"c", b"d", b"e" * 2000, b"", b"f" * 1023, b"g" * 1024, b"h"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`ok`, in other paths after a wait, in parts, or the body that was sent."""
    path = scope["path"]
    parts = PARTS if path == "/parts" else [(await receive())["body"] if path == "/echo" else b"ok"]
    size = str(sum(map(len, parts))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
    if path == "/late":
        await asyncio.sleep(0.2)
    for number, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(connection, "HEAD_WAIT_S", 0.3)
    server = uvicorn.Server(uvicorn.Config(app, http=BoundedConnection, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=10) as one:
            yield one
        server.should_exit = True
        thread.join()


def test_requests_one_after_another(client: socket.socket) -> None:
    for _ in range(3):
        client.sendall(GET + b"\r\n")
        assert client.recv(1000).endswith(b"ok")
        time.sleep(0.4)  # between requests nothing is late


def test_many_small_heads_are_no_large_one(client: socket.socket) -> None:
    head = GET + b"A: " + b"b" * (MAX_HEAD_BYTES // 3) + b"\r\n\r\n"
    for _ in range(5):
        client.sendall(head)
        assert client.recv(1000).endswith(b"ok")


def test_a_large_head(client: socket.socket) -> None:
    client.sendall(GET + b"A: " + b"b" * (MAX_HEAD_BYTES + 70_000))
    answer = client.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400") and str(MAX_HEAD_BYTES).encode() in answer


@pytest.mark.parametrize("sent", [b"", b"GET", GET], ids=["nothing", "a word", "half"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_late_head(client: socket.socket, before: int, sent: bytes) -> None:
    for _ in range(before):
        client.sendall(GET + b"\r\n")
        assert client.recv(1000).endswith(b"ok")
        sent = sent or b"G"  # without a byte it is idle, not late
    client.sendall(sent)
    answer = b""
    while part := client.recv(1000):
        answer += part
    assert answer.endswith(b"The request's head took over 0.3 s, the limit.")


class Writes(asyncio.Transport):
    """What a connection sends, and that it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        self.calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append(b"closed")


def test_head_and_body_leave_together() -> None:
    async def answer() -> list[bytes]:
        sent = Writes()
        transport = TogetherTransport(sent, asyncio.get_running_loop())
        transport.write(b"head ")
        transport.write(memoryview(b"body"))
        transport.write(b"alone")
        await asyncio.sleep(0)
        transport.write(b"x" * SMALL_BYTES)
        transport.write(b"last")
        transport.close()
        await asyncio.sleep(0)
        return sent.calls

    assert asyncio.run(answer()) == [b"head body", b"alone", b"x" * SMALL_BYTES, b"last", b"closed"]


def test_a_head_does_not_wait_for_a_late_body(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/x", b"/late") + b"\r\n")
    assert client.recv(1000).endswith(b"\r\n\r\n")
    assert client.recv(1000) == b"ok"


def test_small_and_large_parts_keep_their_order(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/x", b"/parts") + b"Connection: close\r\n\r\n")
    answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(PARTS)


def test_a_client_that_waits_before_it_sends_its_body(client: socket.socket) -> None:
    client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
    client.sendall(b"body")
    assert client.recv(1000).endswith(b"\r\n\r\nbody")

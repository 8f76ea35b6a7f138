"""A connection that never ends the head of its request, by size or by time, is answered and closed."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from treering.http import connection
from treering.http.asgi import Receive, Scope, Send
from treering.http.connection import MAX_HEAD_BYTES, BoundedConnection

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


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

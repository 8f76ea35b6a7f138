"""An S3 that misbehaves: slow, 503, short bodies, refused keys. Requests are repeated a few times, and then the caller is told."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tsdb.bucket import obstore as obstore_file
from tsdb.bucket import s3 as s3_file
from tsdb.bucket.bucket import Bucket, S3Bucket, S3Options
from tsdb.bucket.counted import CountedBucket
from tsdb.bucket.obstore import ObstoreBucket
from tsdb.model.errors import NotFound, Unavailable

BODY = bytes(range(256)) * 8
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NO_SUCH_USER = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>"

Fault = Callable[[Any], None]
"""Answers one request, whose handler it is given, wrongly."""


@dataclass
class Server:
    """A server of one object, BODY, that first answers by its faults, or always by the last of them."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    forever: bool = False
    requests: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)


def status(code: int, body: bytes) -> Fault:
    def answer(handler: Any) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"e"')
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def broken_off(handler: Any) -> None:
    """Half of the body that the head promises, and the end."""
    send(handler, promised=None, keep=0.5)
    handler.close_connection = True


def short(handler: Any) -> None:
    """A sound answer with half of what was asked for."""
    send(handler, promised=0.5 if handler.command == "GET" else None, keep=0.5)


def reset(handler: Any) -> None:
    """No answer."""
    handler.close_connection = True


def send(handler: Any, *, promised: float | None = None, keep: float = 1.0) -> None:
    start, end = 0, len(BODY)
    ranged = handler.headers.get("Range")
    if ranged and handler.command == "GET":
        first, last = ranged.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last) + 1, len(BODY))
    body = BODY[start:end]
    told = len(body) if promised is None else int(len(body) * promised)
    handler.send_response(206 if ranged else 200)
    handler.send_header("Content-Length", str(told))
    handler.send_header("ETag", '"e"')
    handler.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    if ranged:
        handler.send_header("Content-Range", f"bytes {start}-{start + told - 1}/{len(BODY)}")
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body[: int(len(body) * keep)])


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known.requests.append(self.command)
            if not known.faults:
                send(self)
            elif known.forever and len(known.faults) == 1:
                known.faults[0](self)
            else:
                known.faults.pop(0)(self)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not known.faults:
                known.faults = [status(200, b"")]
            self.do_GET()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    known = Server(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield known
    known.hold.set()
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture(params=[S3Bucket, ObstoreBucket], ids=["boto3", "obstore"])
def bucket(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for file in (s3_file, obstore_file):
        monkeypatch.setattr(file, "READ_TIMEOUT_S", 0.3)
    made: Bucket = request.param("bucket", S3Options(server.endpoint, "us-east-1", True, "key", "secret"))
    return made


@pytest.mark.parametrize(
    "fault", [status(503, SLOW_DOWN), status(500, b""), broken_off, reset], ids=["503", "500", "half", "reset"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_what_passes_is_not_noticed(server: Server, bucket: Bucket, fault: Fault, times: int) -> None:
    server.faults = [fault] * times
    assert bucket.get("key", 100, 1000) == BODY[100:1100]
    assert len(server.requests) == times + 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [(status(503, SLOW_DOWN), "SlowDown"), (status(500, b""), "500|Internal"), (broken_off, "body|broke|Content"), (reset, "")],
    ids=["503", "500", "half", "reset"],
)
def test_what_stays_is_told_after_a_few_requests(server: Server, bucket: Bucket, fault: Fault, told: str) -> None:
    server.faults, server.forever = [fault], True
    with pytest.raises(Unavailable, match=f"(?s)s3 bucket 'bucket': get 'key'.*({told})"):
        bucket.get("key", 100, 1000)
    assert 2 <= len(server.requests) <= s3_file.ATTEMPTS + 1


def test_a_put_that_is_refused_for_a_while_arrives(server: Server, bucket: Bucket) -> None:
    server.faults = [status(503, SLOW_DOWN)] * 2
    bucket.put("key", b"x")
    assert server.requests == ["PUT"] * 3


def test_a_range_that_comes_short_is_never_taken_for_whole(server: Server, bucket: Bucket) -> None:
    server.faults, server.forever = [short], True
    with pytest.raises(Unavailable, match=r"get 'key'"):
        bucket.get("key", 100, 1000)


def test_refused_credentials_are_told_at_once(server: Server, bucket: Bucket) -> None:
    server.faults, server.forever = [status(403, NO_SUCH_USER)], True
    with pytest.raises(Unavailable, match=r"(?s)InvalidAccessKeyId"):
        bucket.get("key", 0, 10)
    assert len(server.requests) <= 2
    with pytest.raises(Unavailable, match=r"put 'key'"):
        bucket.put("key", b"x")


@pytest.mark.parametrize("kind", [S3Bucket, ObstoreBucket])
def test_a_server_that_does_not_answer_is_asked_twice(
    server: Server, kind: type[S3Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert obstore_file.RETRIED_S == 2 * s3_file.READ_TIMEOUT_S
    for file in (s3_file, obstore_file):
        monkeypatch.setattr(file, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(obstore_file, "RETRIED_S", 0.6)
    bucket = kind("bucket", S3Options(server.endpoint, "us-east-1", True, "key", "secret"))
    server.faults, server.forever = [lambda handler: (server.hold.wait(20), reset(handler))[1]], True
    with pytest.raises(Unavailable, match=r"get 'key'"):
        bucket.get("key", 0, 10)
    assert len(server.requests) == s3_file.HUNG_ATTEMPTS
    with pytest.raises(Unavailable, match=r"list ''"):
        list(bucket.list())
    assert len(server.requests) == 2 * s3_file.HUNG_ATTEMPTS


def test_a_body_that_stalls_is_asked_for_twice(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_file, "READ_TIMEOUT_S", 0.3)
    bucket = S3Bucket("bucket", S3Options(server.endpoint, "us-east-1", True, "key", "secret"))
    server.faults, server.forever = (
        [lambda handler: (send(handler, keep=0.5), handler.wfile.flush(), server.hold.wait(20))[1]],
        True,
    )
    with pytest.raises(Unavailable, match=r"get 'key'"):
        bucket.get("key", 0, 1000)
    assert len(server.requests) == s3_file.HUNG_ATTEMPTS


def test_an_object_that_is_not_there_is_asked_for_once(server: Server, bucket: Bucket) -> None:
    server.faults, server.forever = [status(404, b"<Error><Code>NoSuchKey</Code></Error>")], True
    with pytest.raises(NotFound, match="key"):
        bucket.get("key", 0, 10)
    assert len(server.requests) == 1


def test_failures_are_counted_and_told_when_they_begin(server: Server, bucket: Bucket) -> None:
    told: list[str] = []
    counted = CountedBucket(bucket, told.append)
    assert counted.get("key", 0, 10) == BODY[:10]
    server.faults, server.forever = [status(403, NO_SUCH_USER)], True
    for _ in range(3):
        with pytest.raises(Unavailable):
            counted.get("key", 0, 10)
    assert (counted.requests, counted.failures, counted.read_bytes) == (4, 3, 10)
    assert len(told) == 1 and "InvalidAccessKeyId" in told[0]
    server.faults = []
    counted.put("key", b"abc")
    server.faults = [status(404, b"<Error><Code>NoSuchKey</Code></Error>")]
    assert not counted.exists("key") and counted.written_bytes == 3 and counted.failures == 3
    server.faults = [status(403, NO_SUCH_USER)]
    with pytest.raises(Unavailable):
        list(counted.list())
    assert len(told) == 2


def test_without_credentials_there_is_a_sentence(
    server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    for kind in (S3Bucket, ObstoreBucket):
        with pytest.raises(Unavailable, match=r"(?i)s3 bucket 'bucket'.*credentials"):
            kind("bucket", S3Options(server.endpoint, "us-east-1", True)).get("key")

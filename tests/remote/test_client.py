"""Posting a write: what goes out, and that every answer comes back as a value."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from remote.wire.client import HEADERS, encode_v1, encode_v2, post_write
from remote.wire.decode import WireLimits, decode_write
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a request of one series, 400 to any other."""

    seen: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.append((headers, body))
        decoded = decode_write(
            body, content_type=headers["content-type"], content_encoding=headers["content-encoding"], limits=WireLimits()
        )
        good = len(decoded.batch) == 1
        self.send_response(204 if good else 400)
        self.send_header("X-Prometheus-Remote-Write-Samples-Written", str(len(decoded.batch.row)))
        self.end_headers()
        if not good:
            self.wfile.write(b"too bad")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    Receiver.seen = []
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1/write"
    server.shutdown()
    server.server_close()


def batch(series: int) -> WriteBatch:
    rows = [Labels.of({"__name__": "m", "i": str(i)}) for i in range(series)]
    return WriteBatch.of(rows, row=np.arange(series, dtype=np.int32), t_ms=np.arange(series), values=np.ones(series))


def test_both_versions_arrive(url: str) -> None:
    for version, body in ((1, encode_v1(batch(1))), (2, encode_v2(batch(1)))):
        answer = post_write(url, body, version=version, tenant="team-a")
        assert answer.status == 204
        assert answer.headers["x-prometheus-remote-write-samples-written"] == "1"
    (first, _), (second, _) = Receiver.seen
    assert (first["x-scope-orgid"], first["x-prometheus-remote-write-version"]) == ("team-a", "0.1.0")
    assert second["content-type"].endswith("proto=io.prometheus.write.v2.Request")


def test_a_refusal_is_a_value(url: str) -> None:
    answer = post_write(url, encode_v1(batch(2)))
    assert (answer.status, answer.body) == (400, b"too bad")
    assert "x-scope-orgid" not in Receiver.seen[0][0]


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(OSError):
        post_write("http://127.0.0.1:9/", b"", timeout_s=2)


def test_an_empty_batch_is_an_empty_request() -> None:
    for version, body in ((1, encode_v1(batch(0))), (2, encode_v2(batch(0)))):
        kind = HEADERS[version]["Content-Type"]
        assert len(decode_write(body, content_type=kind, content_encoding="snappy", limits=WireLimits()).batch) == 0

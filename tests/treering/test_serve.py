"""The process around a node: what it prints, how it stops, and that the next start has everything."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.peers import Program, free_port, treering
from remote.wire.client import encode_v1
from tests.remote.writes import write_batch
from tests.treering.server import call
from treering import serve
from treering.config import Config
from treering.node import Node, Query
from treering.serve import BUSY_RELEASE_S, RELEASE_S, banner, releasing
from tsdb.model.errors import Unavailable
from tsdb.model.labels import Labels

NOW_MS = int(time.time() * 1000)
V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}


@pytest.fixture(autouse=True)
def no_own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")


def write(url: str, value: float = 7.0) -> None:
    body = encode_v1(write_batch({Labels.of({"__name__": "kept"}): [(NOW_MS, value)]}))
    assert call(url, "POST", "/api/v1/write", body, V1).status == 204


def value(url: str) -> str:
    return call(url, "POST", "/api/v1/query", {"query": "kept", "time": NOW_MS / 1000}).json()["data"]["result"][0]["value"][1]


def ended(program: Program, sent: signal.Signals) -> str:
    """What the program has printed when it has ended, with status 0, at a signal."""
    program.process.send_signal(sent)
    assert program.process.wait(20) == 0, program.log.read_text()
    return program.log.read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_signal_flushes_and_says_so_and_the_next_start_has_the_data(tmp_path: Path, sent: signal.Signals) -> None:
    store = tmp_path / "store"
    with treering(store) as program:
        write(program.url)
        text = ended(program, sent)
    assert "is ready after" in text and f"url: {program.url}/api/v1/write" in text
    assert "Stopping: writing what is in memory into blocks ..." in text
    assert "Stopped: 1 series flushed in" in text and "All acknowledged samples are on disk." in text
    assert "Traceback" not in text
    assert len(list((store / "bucket" / "anonymous").rglob("meta.json"))) == 1
    with treering(store) as program:
        assert value(program.url) == "7"
        assert "treering_ingester_series 0.0" in call(program.url, "GET", "/metrics").body.decode()


def test_a_server_opens_its_newest_blocks_before_it_is_asked(tmp_path: Path) -> None:
    with treering(tmp_path / "store") as program:
        write(program.url)
        ended(program, signal.SIGTERM)
    with treering(tmp_path / "store") as program:
        deadline = time.monotonic() + 20
        while "treering_store_index_cache_bytes 0.0" in call(program.url, "GET", "/metrics").body.decode():
            assert time.monotonic() < deadline, program.log.read_text()
            time.sleep(0.05)


def test_a_second_signal_is_no_crash(tmp_path: Path) -> None:
    with treering(tmp_path / "store") as program:
        write(program.url)
        program.process.send_signal(signal.SIGINT)
        program.process.send_signal(signal.SIGTERM)
        text = ended(program, signal.SIGINT)
    assert "Stopped: 1 series flushed" in text and "Traceback" not in text


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    body = encode_v1(write_batch({Labels.of({"__name__": "kept"}): [(NOW_MS, 7.0)]}))
    with treering(tmp_path / "store") as program:
        sender = http.client.HTTPConnection(urlsplit(program.url).netloc, timeout=20)
        sender.putrequest("POST", "/api/v1/write")
        for name, text in (V1 | {"Content-Length": str(len(body)), "Expect": "100-continue"}).items():
            sender.putheader(name, text)
        sender.endheaders(body[:5])
        assert sender.sock.recv(100).startswith(b"HTTP/1.1 100"), "the server has begun with it"
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        sender.send(body[5:])
        assert sender.getresponse().status == 204
        assert program.process.wait(20) == 0
    assert "Stopped: 1 series flushed" in program.log.read_text()


def test_a_full_stdout_does_not_keep_it_from_flushing(tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    command = [sys.executable, "-m", "treering", "--data", str(store), "--listen", f"127.0.0.1:{port}"]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full, env={**os.environ, "PYTHONPATH": "."})
        try:
            url, end_s = f"http://127.0.0.1:{port}", time.monotonic() + 30
            while time.monotonic() < end_s:
                try:
                    if call(url, "GET", "/-/ready").status == 200:
                        break
                except ConnectionError:
                    time.sleep(0.05)
            write(url)
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        finally:
            process.kill()
            process.wait()
    assert len(list((store / "bucket").rglob("meta.json"))) == 1


def test_background_work_outlives_a_bucket_that_is_gone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK_S", "SELF_SCRAPE_S", "BLOCK_REFRESH_S", "COMPACT_S"):
        monkeypatch.setenv(f"TREERING_{name}", "0.1")
    monkeypatch.setenv("TREERING_IGNORE_DELETED_S", "10")
    bucket = tmp_path / "store" / "bucket"
    with treering(tmp_path / "store") as program:
        write(program.url)
        assert call(program.url, "POST", "/ingester/flush").status == 204
        bucket.rename(tmp_path / "elsewhere")
        bucket.write_text("no folder")
        time.sleep(0.5)
        assert call(program.url, "POST", "/ingester/flush").status == 503
        assert call(program.url, "GET", "/-/healthy").status == 200
        bucket.unlink()
        (tmp_path / "elsewhere").rename(bucket)
        since_s = time.time()
        query = {"query": 'timestamp(up{job="treering"})'}
        while float(call(program.url, "POST", "/api/v1/query", query).json()["data"]["result"][0]["value"][1]) <= since_s:
            time.sleep(0.05)  # until it scrapes itself again; the suite's timeout ends a wait in vain
        assert call(program.url, "POST", "/ingester/flush").status == 204
        assert value(program.url) == "7"
    assert "Traceback" not in program.log.read_text()


def test_memory_goes_back_when_nobody_asks_and_now_and_then_when_somebody_always_does(tmp_path: Path) -> None:
    at_s, released = [1000.0], []
    with Node(Config(data=str(tmp_path)), clock=lambda: at_s[0]) as node:
        look = releasing(node, lambda: released.append(at_s[0]))
        for ask in [False, True, True, False, False]:
            at_s[0] += RELEASE_S
            if ask:
                node.query(("anonymous",), Query("up", node.now_ms(), node.now_ms()))
            look()
        assert released == [1000 + RELEASE_S, 1000 + 5 * RELEASE_S]
        for _ in range(2 * BUSY_RELEASE_S // RELEASE_S):
            at_s[0] += RELEASE_S
            node.query(("anonymous",), Query("up", node.now_ms(), node.now_ms()))
            look()
    assert [b - a for a, b in pairwise(released[1:])] == [BUSY_RELEASE_S, BUSY_RELEASE_S]


def test_neither_a_failure_nor_a_defect_ends_background_work(caplog: pytest.LogCaptureFixture) -> None:
    stop, rounds = threading.Event(), iter([Unavailable("the bucket is away"), ValueError("a defect"), None])

    def work() -> None:
        failure = next(rounds)
        if failure is not None:
            raise failure
        stop.set()

    serve._repeat(work, "tidying", every_s=0.01, stop=stop).join(10)
    assert stop.is_set()
    assert "background work failed" in caplog.text and "ValueError: a defect" in caplog.text
    assert [record.fields["work"] for record in caplog.records] == ["tidying", "tidying"]  # type: ignore[attr-defined]
    assert serve._repeat(work, "never", every_s=0, stop=threading.Event()).join(10) is None


def test_own_metrics_are_there_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "1")
    with treering(tmp_path / "store") as program:
        end_s = time.monotonic() + 30
        rows: list[object] = []
        while not rows and time.monotonic() < end_s:
            reply = call(program.url, "POST", "/api/v1/query", {"query": 'up{job="treering"}'}).json()
            rows = reply["data"]["result"]
            time.sleep(0.05)
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(), ("single tenant (anonymous), no header needed", "http://127.0.0.1:9009/api/v1/write", "./treering-data/bucket")),
        (Config(multitenancy=True, bucket="s3://metrics"), ("every request needs X-Scope-OrgID", "Blocks s3://metrics")),
    ],
)
def test_the_banner(config: Config, words: tuple[str, ...]) -> None:
    text = banner(config, seconds=1.25)
    assert "is ready after 1.2 s" in text and all(word in text for word in words), text

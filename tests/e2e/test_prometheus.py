"""A real Prometheus scrapes and remote-writes to Treering; then both are asked the same questions, before and after a flush,
a restart, and with the blocks on an S3 server. The answers must be equal."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.peers import NODE_EXPORTER, PROMETHEUS, Program, free_port, installed, node_exporter, prometheus, treering
from tests.e2e.answers import ask, difference
from tests.e2e.queries import QUERIES

pytestmark = pytest.mark.skipif(
    not (installed(PROMETHEUS) and installed(NODE_EXPORTER)), reason="prometheus or prometheus-node-exporter is not installed"
)

SCRAPE_CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
- {{job_name: prometheus, static_configs: [{{targets: ["{own}"]}}]}}
- {{job_name: node, static_configs: [{{targets: ["{node}"]}}]}}
remote_write:
- url: {write}/api/v1/write
  queue_config: {{batch_send_deadline: 1s, min_shards: 2}}
"""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="metrics")
    yield f"s3://metrics/blocks?endpoint={endpoint}&region=us-east-1&path_style=true"
    server.stop()


@pytest.mark.parametrize("seconds", [36, pytest.param(120, marks=pytest.mark.slow)])
def test_every_answer_equals_prometheus(
    tmp_path: Path, s3: str, seconds: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")
    with node_exporter(tmp_path) as node, treering(tmp_path / "own", "--bucket", s3) as own:
        config = SCRAPE_CONFIG.format(own="127.0.0.1:1", node=node.url.removeprefix("http://"), write=own.url)
        with prometheus(tmp_path / "prometheus", config=config) as peer:
            config = config.replace("127.0.0.1:1", peer.url.removeprefix("http://"))
            (tmp_path / "prometheus.yml").write_text(config)
            peer.process.send_signal(1)  # SIGHUP: read the configuration again
            time.sleep(seconds)
            at_ms = quiet_moment(peer)
            wait_for_samples(own, peer, at_ms)
            counts = {"memory": compare(own, peer, at_ms, seconds)}
            urllib.request.urlopen(own.url + "/ingester/flush", timeout=60).close()
            counts["blocks on S3"] = compare(own, peer, at_ms, seconds)
            own.stop()
            port = int(own.url.rpartition(":")[2])
            with treering(tmp_path / "own", "--bucket", s3, port=port) as again:
                counts["after a restart"] = compare(again, peer, at_ms, seconds)
    with capsys.disabled():
        print(f"\nanswers equal to Prometheus's after {seconds} s of scrapes: {counts}")
    assert all(count >= 100 for count in counts.values())


def compare(own: Program, peer: Program, at_ms: int, seconds: int) -> int:
    """Ask everything of both; how many answers were compared. Instant at one time, range over the last sixth."""
    differences, compared = [], 0
    start = (at_ms - seconds * 1000 // 6) / 1000
    for query in QUERIES:
        for path, params in {
            "query": {"query": query, "time": at_ms / 1000},
            "query_range": {"query": query, "start": start, "end": at_ms / 1000, "step": 3},
        }.items():
            if path == "query_range" and query.startswith("sort"):
                continue
            text = difference(ask(own.url, path, **params), ask(peer.url, path, **params))
            compared += 1
            if text:
                differences.append(f"{path} {query}: {text}")
    assert not differences, f"{len(differences)} of {compared} differ:\n" + "\n".join(differences[:20])
    return compared


def quiet_moment(peer: Program) -> int:
    """A time of the near past, in ms, off the phases of scrapes and off whole seconds, at which subqueries take their steps:
    Prometheus 2 closes windows on the left, Prometheus 3 opens them, and a sample exactly on the edge would show that."""
    rows = ask(peer.url, "query", query="timestamp(up)")["data"]["result"]
    phases = {round(float(row["value"][1]) * 1000) % 1000 for row in rows}
    now_ms = int(time.time() * 1000) - 4000
    phase = next(p for p in range(20, 980) if all(min((p - q) % 1000, (q - p) % 1000) > 20 for q in phases))
    return now_ms - now_ms % 1000 + phase


def wait_for_samples(own: Program, peer: Program, at_ms: int) -> None:
    query = "count({job!='treering'}) or vector(0)"
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not difference(*(ask(server.url, "query", query=query, time=at_ms / 1000) for server in (own, peer))):
            return
        time.sleep(0.5)
    raise AssertionError("Treering did not receive all samples within 30 s")

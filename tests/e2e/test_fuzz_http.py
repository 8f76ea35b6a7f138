"""Mutated writes and queries, into the parts themselves and over HTTP: each is answered or refused with a 4xx by a sentence;
nothing else is ever raised, nothing crashes, and memory does not grow."""

import gc
import http.client
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.peers import treering
from promql.engine import QueryOptions, query_instant, query_range
from promql.matrix import Steps
from remote.wire.client import HEADERS
from remote.wire.decode import TooLarge, UnsupportedMedia, decode_write
from remote.wire.limits import WireLimits
from tests.e2e.mutations import mutated_queries, mutated_writes
from treering.config import FEATURES, Config
from treering.node import Node
from tsdb.model.errors import BadData, LimitExceeded, QueryFailed, QueryTimeout
from tsdb.model.labels import Labels
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.write import WriteBatch

AT_MS = 1_700_000_000_000
TENANT = "anonymous"
LIMITS = {"max_global_series_per_user": 2000, "max_exemplars": 1000, "max_metadata_per_user": 1000}
"""Every mutated name would be a series of its own; a tenant's limit is what bounds that."""
MAX_GROWTH_BYTES = 64 << 20
QUERY_S = 10.0


@pytest.mark.parametrize("count", [8_000, pytest.param(190_000, marks=pytest.mark.slow)])
def test_mutated_writes(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    kinds: Counter[str] = Counter()
    config = Config(data=str(tmp_path / "node"), limits=LIMITS, wal_sync="os", self_scrape_s=0)
    node = Node(config)
    try:
        before = 0
        for i, (version, body) in enumerate(mutated_writes(count, at_ms=AT_MS, seed=3)):
            if i == count // 10:
                before = _rss_bytes()
            kinds[_write(node, version, body)] += 1
        grown, series = _rss_bytes() - before, _series(node)
    finally:
        node.close(flush=False)
    with Node(config) as again:
        assert _series(again) == series
    with capsys.disabled():
        print(f"\n{count} mutated writes: {dict(kinds)}; {len(series)} series, the same after a replay; grown by {grown >> 20} MiB")
    assert grown <= MAX_GROWTH_BYTES
    assert kinds["stored"] > count // 50 and kinds["BadData"] > count // 10


@pytest.mark.parametrize("count", [1_500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_queries(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    kinds: Counter[str] = Counter()
    with Node(Config(data=str(tmp_path / "node"), self_scrape_s=0)) as node, ThreadPoolExecutor(2) as pool:
        node.push(TENANT, _samples())
        before, worst_s, worst = 0, 0.0, ""
        for i, text in enumerate(mutated_queries(count, seed=4)):
            if i == count // 10:
                before = _rss_bytes()
            began = time.monotonic()
            kinds[_query(node, text, pool, instant=bool(i % 2))] += 1
            if time.monotonic() - began > worst_s:
                worst_s, worst = time.monotonic() - began, text
        grown = _rss_bytes() - before
    with capsys.disabled():
        print(
            f"\n{count} mutated queries: {dict(kinds)}; grown by {grown >> 20} MiB; the slowest took {worst_s:.2f} s: {worst[:200]}"
        )
    assert grown <= MAX_GROWTH_BYTES
    assert kinds["answered"] > count // 50 and kinds["ParseError"] > count // 10


@pytest.mark.parametrize("scale", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_mutations_over_http(
    tmp_path: Path, scale: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")
    config = tmp_path / "config.yml"
    config.write_text("limits: {" + ", ".join(f"{name}: {value}" for name, value in LIMITS.items()) + "}\nenable_feature: [all]\n")
    writes = list(mutated_writes(1000 * scale, at_ms=AT_MS, seed=5))
    queries = list(mutated_queries(200 * scale, seed=6))
    with treering(tmp_path / "store", "--config", str(config)) as program:
        warm = [_post_all(program.url, writes[: len(writes) // 10]), _ask_all(program.url, queries[: len(queries) // 10])]
        before = program.memory_bytes("VmRSS")
        with ThreadPoolExecutor(2) as pool:
            parts = [
                pool.submit(_post_all, program.url, writes[len(writes) // 10 :]),
                pool.submit(_ask_all, program.url, queries[len(queries) // 10 :]),
            ]
            (written, asked) = (part.result() for part in parts)
        grown = program.memory_bytes("VmRSS") - before
        assert program.process.poll() is None
    written, asked = written + warm[0], asked + warm[1]
    with capsys.disabled():
        print(f"\nover HTTP: writes {dict(written)}, queries {dict(asked)}; grown by {grown >> 20} MiB")
    assert set(written) <= {204, 400} and set(asked) <= {200, 400, 422}
    assert grown <= MAX_GROWTH_BYTES


def _write(node: Node, version: int, body: bytes) -> str:
    """What became of a body; whatever is no refusal raises."""
    try:
        decoded = decode_write(body, content_type=HEADERS[version]["Content-Type"], content_encoding="snappy", limits=WireLimits())
    except (BadData, TooLarge, UnsupportedMedia) as error:
        assert 10 < len(str(error)) < 2000
        return type(error).__name__
    result = node.push(TENANT, decoded.batch)
    assert len(result.message) < 2000
    return "told in part" if result.rejected or decoded.rejected.rejected else "stored"


def _query(node: Node, text: str, pool: ThreadPoolExecutor, *, instant: bool) -> str:
    end = time.monotonic() + QUERY_S

    def deadline() -> None:
        if time.monotonic() > end:
            raise QueryTimeout("too slow")

    source, options = node.source((TENANT,)), QueryOptions(features=frozenset(FEATURES), max_samples=5_000_000)
    try:
        if instant:
            query_instant(source, text, AT_MS + 600_000, options, deadline=deadline, executor=pool)
        else:
            query_range(source, text, Steps(AT_MS, AT_MS + 900_000, 30_000), options, deadline=deadline, executor=pool)
    except (QueryFailed, LimitExceeded, BadData) as error:
        assert 5 < len(str(error)) < 5000
        return type(error).__name__
    return "answered"


def _post_all(url: str, bodies: list[tuple[int, bytes]]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    for version, body in bodies:
        connection.request("POST", "/api/v1/write", body, {**HEADERS[version], "Content-Encoding": "snappy"})
        response = connection.getresponse()
        text = response.read()
        assert response.status < 500, (response.status, text, body)
        statuses[response.status] += 1
    connection.close()
    return statuses


def _ask_all(url: str, queries: list[str]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for text in queries:
        body = urllib.parse.urlencode({"query": text, "start": AT_MS / 1000, "end": AT_MS / 1000 + 900, "step": 30})
        connection.request("POST", "/api/v1/query_range", body, {"Content-Type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status < 500, (response.status, answer, text)
        statuses[response.status] += 1
    connection.close()
    return statuses


def _samples() -> WriteBatch:
    """Sixty samples of a few series that the queries speak of."""
    names = ("up", "node_load1", "temp", "req_total", "flat", "quota", "node_cpu_seconds_total", "lat_bucket", "mem_bytes")
    rows = [Labels.of({"__name__": name, "job": job, "le": le}) for name in names for job in ("api", "db") for le in ("1", "+Inf")]
    row = np.tile(np.arange(len(rows), dtype=np.int32), 60)
    t_ms = np.repeat(AT_MS + np.arange(60, dtype=np.int64) * 15_000, len(rows))
    return WriteBatch.of(rows, row=row, t_ms=t_ms, values=np.arange(len(row)) / 8)


def _series(node: Node) -> set[Labels]:
    return set(node.source((TENANT,)).series(Selection((), MIN_MS, MAX_MS)).rows())


def _rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024

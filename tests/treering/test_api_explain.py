"""Explain, statistics, Python functions, Arrow, limits and cancellation through a real server."""

import http.client
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from click.testing import CliRunner

import treering as front_door
from benchmarks.peers import Program, treering
from promql.syntax.errors import ParseError
from remote.wire.client import encode_v1
from tests.treering.server import Reply, call
from treering.cli import main
from tsdb.model.errors import BadData, LimitExceeded, QueryFailed
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch

SERIES, STEP_MS, SAMPLES = 2000, 15_000, 240
NOW_MS = int(time.time() * 1000) // 60_000 * 60_000
START_MS = NOW_MS - SAMPLES * STEP_MS
V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
ARROW = "application/vnd.apache.arrow.stream"
CONFIG = """
self_scrape_s: 0
slow_query_s: 0
max_series: 100000
max_points: 11000
max_query_bytes: 10000
max_query_memory_bytes: 80000000
query_timeout_s: 20
enable_feature: [promql-per-step-stats]
python_functions: ["doubled=tests.treering.test_api_explain:twice", "slow=tests.treering.test_api_explain:slowly"]
"""


def twice(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Twice the values."""
    return values * 2


def slowly(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values, a quarter of a second later."""
    time.sleep(0.25)
    return values


def load(url: str) -> None:
    for first in range(0, SERIES, 500):
        rows = [Labels.of({"__name__": "m_total", "i": f"{i:05d}", "job": f"j{i % 7}"}) for i in range(first, first + 500)]
        row = np.tile(np.arange(500, dtype=np.int32), SAMPLES)
        t_ms = np.repeat(NOW_MS - np.arange(SAMPLES)[::-1] * STEP_MS, 500)
        batch = WriteBatch.of(rows, row=row, t_ms=t_ms, values=np.repeat(np.arange(float(SAMPLES)), 500))
        assert call(url, "POST", "/api/v1/push", encode_v1(batch), V1).status == 204


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "config.yml").write_text(CONFIG)
    with treering(folder / "store", "--config", str(folder / "config.yml")) as running:
        load(running.url)
        assert call(running.url, "POST", "/ingester/flush").status == 204
        yield running


@pytest.fixture
def url(program: Program) -> str:
    return program.url


def get(url: str, path: str, headers: dict[str, str] | None = None, **params: object) -> Reply:
    return call(url, "POST", f"/api/v1/{path}", params, headers)


def ranged(url: str, query: str, *, path: str = "query_range", step_s: float = 60, **params: object) -> Reply:
    return get(url, path, query=query, start=START_MS / 1000, end=NOW_MS / 1000, step=step_s, **params)


def test_stats_as_prometheus_names_them(url: str) -> None:
    data = get(url, "query", query="m_total", time=NOW_MS / 1000, stats="all").json()["data"]
    assert list(data["stats"]["timings"]) == [
        "evalTotalTime", "resultSortTime", "queryPreparationTime", "innerEvalTime", "execQueueTime", "execTotalTime",
    ]  # fmt: skip
    timings = data["stats"]["timings"]
    assert timings["execTotalTime"] == pytest.approx(timings["execQueueTime"] + timings["evalTotalTime"])
    assert 0 < timings["innerEvalTime"] <= timings["evalTotalTime"] < 10 and 0 < timings["execQueueTime"] < 10
    samples = data["stats"]["samples"]
    assert samples["totalQueryableSamplesPerStep"] == [[NOW_MS / 1000, SERIES]]
    assert samples["totalQueryableSamples"] == SERIES and samples["samplesRead"] >= SERIES and samples["peakSamples"] >= SERIES
    plain = get(url, "query", query="m_total", time=NOW_MS / 1000, stats="true").json()["data"]["stats"]["samples"]
    assert "totalQueryableSamplesPerStep" not in plain and plain["totalQueryableSamples"] == SERIES
    assert "stats" not in get(url, "query", query="m_total", time=NOW_MS / 1000).json()["data"]


def test_explain_tells_pages_and_bytes_of_blocks(url: str) -> None:
    data = ranged(url, 'sum by (job) (rate(m_total{job="j1"}[5m]))', path="query_range_explain").json()["data"]
    assert not data["analyzed"] and (data["start_ms"], data["step_ms"]) == (START_MS, 60_000)
    root = data["root"]
    assert root["name"] == "sum by (job)" and root["children"][0]["name"] == "rate"
    (read,) = root["children"][0]["reads"]
    assert read["series"] == len(range(1, SERIES, 7)) and read["blocks"] >= 1 and read["pages"] >= 1 and read["bytes"] > 0
    assert read["samples"] == pytest.approx(read["series"] * SAMPLES, rel=0.2)
    assert read["block_resolutions_ms"] == [0] and read["read_samples"] is None


def test_analyze_tells_what_was_read(url: str) -> None:
    data = get(url, "query_explain", query="count(m_total)", time=NOW_MS / 1000, analyze="true").json()["data"]
    (selector,) = data["root"]["children"]
    assert data["analyzed"] and selector["series"] == SERIES and selector["samples"] == SERIES
    assert selector["reads"][0]["read_series"] == SERIES and selector["seconds"] > 0
    text = get(url, "query_explain", query="count(m_total)", time=NOW_MS / 1000, analyze="1", format="text")
    assert text.headers["content-type"].startswith("text/plain") and "└─ read m_total" in text.body.decode()


def test_explain_refuses_what_the_query_would(url: str) -> None:
    assert get(url, "query_explain", query="sum(").json()["errorType"] == "bad_data"
    assert get(url, "query_explain", query="up", analyze="perhaps").status == 400
    assert "max_query_bytes" in get(url, "query_explain", query="1+" * 6000 + "1").json()["error"]


def test_explain_over_the_python_store_and_the_command_line(url: str) -> None:
    with front_door.open(url) as store:
        told = store.explain("rate(m_total[5m])", start="-30m", step="1m", analyze=True)
        assert told.analyzed and told.root is not None and told.root.name == "rate" and told.root.reads[0].read_series == SERIES
        assert str(store.explain("m_total")).startswith("selector: m_total")
        with pytest.raises(BadData, match=r"is a server; its configuration lists the functions .*python_functions"):
            store.register("again", twice)
    run = CliRunner().invoke(main, ["query", "sum(m_total)", "--explain", "--range", "1h", "--step", "1m", "--url", url])
    assert run.exit_code == 0 and run.output.startswith("sum(m_total)  [61 steps") and "read m_total" in run.output
    run = CliRunner().invoke(main, ["query", "sum(m_total)", "--analyze", "--url", url])
    assert run.exit_code == 0 and "samples read" in run.output


def test_a_function_that_the_configuration_allows(url: str) -> None:
    found = get(url, "query", query='doubled(m_total{i="00001"})', time=NOW_MS / 1000).json()["data"]["result"]
    assert [row["value"][1] for row in found] == [str(2 * (SAMPLES - 1))]
    assert get(url, "parse_query", query="doubled(x)").json()["data"]["func"]["name"] == "doubled"
    assert get(url, "query", query="thrice(m_total)").status == 400


def test_functions_of_an_embedded_store(tmp_path: Path) -> None:
    with front_door.open(str(tmp_path / "store"), python_functions=("tests.treering.test_api_explain:twice",)) as store:
        times = np.array([NOW_MS - 60_000, NOW_MS], "datetime64[ms]")
        store.write({"time": times, "value": [1.0, 2.0], "job": ["a", "a"]}, metric="m")

        def thrice(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            """Three times the values."""
            return values * 3

        store.register("thrice", thrice)
        assert store.query("thrice(twice(m))", NOW_MS / 1000).value == 12.0
        assert store.functions()["thrice"].endswith("Three times the values.")
        with pytest.raises(BadData, match="the name is taken"):
            store.register("twice", thrice)
        store.register("twice", thrice, replace=True)
        assert store.query("twice(m)", NOW_MS / 1000).value == 6.0

        def failing(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            """Fails."""
            raise RuntimeError("on purpose")

        store.register("failing", failing)
        with pytest.raises(QueryFailed, match="function failing: RuntimeError: on purpose"):
            store.query("failing(m)", NOW_MS / 1000)
    with front_door.open(str(tmp_path / "store")) as again, pytest.raises(ParseError, match="unknown function"):
        again.query("thrice(m)")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nothing", "is not `module:function`"),
        ("no.such.module:f", "No module named"),
        ("tests.treering.test_api_explain:missing", "has no attribute 'missing'"),
        ("rate=tests.treering.test_api_explain:twice", "PromQL has this word already"),
        ("tests.treering.test_api_explain:get", "want .values, …. for instant"),
    ],
)
def test_functions_that_no_configuration_can_allow(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(BadData, match=f"python_functions.*{message}"):
        front_door.open(str(tmp_path / "store"), python_functions=(entry,))


def test_arrow_when_it_is_asked_for(url: str) -> None:
    for path, params in (
        ("query", {"time": NOW_MS / 1000}),
        ("query_range", {"start": (NOW_MS - 60_000) / 1000, "end": NOW_MS / 1000, "step": 30}),
    ):
        reply = get(url, path, {"Accept": ARROW}, query='m_total{i=~"0000[12]"}', **params)
        assert reply.status == 200 and reply.headers["content-type"] == ARROW
        table = pa.ipc.open_stream(reply.body).read_all()
        assert table.column_names == ["time", "__name__", "i", "job", "value"]
        assert table["value"].to_pylist()[-1] == SAMPLES - 1 and len(table) == 2 * (1 if path == "query" else 3)
    refused = get(url, "query", {"Accept": ARROW}, query="sum(")
    assert refused.status == 400 and refused.json()["errorType"] == "bad_data"


def test_arrow_without_pyarrow_is_not_acceptable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from treering.config import load_config
    from treering.http import api_query
    from treering.http.asgi import Request
    from treering.node import Node

    monkeypatch.setattr(api_query, "find_spec", lambda name: None)
    with Node(load_config(None, {"data": str(tmp_path)})) as node:
        request = Request("GET", "/api/v1/query", {"accept": [ARROW]}, "", params={"query": ["1"]})
        response = api_query.QueryApi(node).query(request)
    assert response.status == 406 and b"pip install 'treering[arrow]'" in response.body


@pytest.mark.parametrize(
    ("query", "step_s", "status", "names"),
    [
        ("m_total * on (i) group_left () m_total", 1, 422, "max_query_memory_bytes|max_samples"),
        ("sort(m_total)", 1, 422, "80000000 .max_query_memory_bytes."),
        ("+".join(f"count(m_total offset {i}s)" for i in range(51)), 600, 422, "more than 100000 series.*max_series"),
        ("m_total", 0.1, 400, "exceeded maximum resolution of 11,000 points per timeseries"),
        ("m_total or " * 1200 + "m_total", 60, 400, "10000 bytes .max_query_bytes."),
    ],
)
def test_limits_name_themselves(program: Program, query: str, step_s: float, status: int, names: str) -> None:
    reply = ranged(program.url, query, step_s=step_s)
    assert reply.status == status
    assert re.search(names, reply.json()["error"])


def test_the_limit_of_samples(tmp_path: Path) -> None:
    with front_door.open(str(tmp_path / "store"), max_samples=1000) as store:
        times = np.arange(NOW_MS - 2_000_000, NOW_MS, 1000).astype("datetime64[ms]")
        store.write({"time": times, "value": np.ones(2000), "job": ["a"] * 2000}, metric="m")
        with pytest.raises(LimitExceeded, match=r"too many samples into memory .* the limit is 1000 \(max_samples\)"):
            store.query_range("m", NOW_MS / 1000 - 2000, NOW_MS / 1000, 1)
        assert len(store.query("count_over_time(m[10s])", NOW_MS / 1000)) == 1


def test_the_timeout_is_told(url: str) -> None:
    reply = ranged(url, slow_query(), step_s=5, timeout="100ms")
    assert (reply.status, reply.json()["errorType"]) == (503, "timeout")
    assert "query timed out in query execution (timeout: 0.1s)" in reply.json()["error"]


def test_a_refused_query_frees_its_memory_and_others_go_on(program: Program) -> None:
    assert ranged(program.url, "sort(m_total)", step_s=1).status == 422
    before, failed, stop = program.memory_bytes("VmRSS"), [], threading.Event()

    def others() -> None:
        while not stop.is_set():
            if get(program.url, "query", query="count(m_total)", time=NOW_MS / 1000).status != 200:
                failed.append(1)

    beside = threading.Thread(target=others)
    beside.start()
    try:
        assert {ranged(program.url, "sort(m_total)", step_s=1).status for _ in range(8)} == {422}
    finally:
        stop.set()
        beside.join()
    assert not failed
    assert program.memory_bytes("VmRSS") - before < 40 << 20


def test_a_query_stops_when_its_client_leaves(program: Program) -> None:
    marker = f"left-{time.time_ns()}"
    form = {"query": f'x{{marker="{marker}"}} or {slow_query()}', "start": START_MS / 1000, "end": NOW_MS / 1000, "step": 5}
    connection = http.client.HTTPConnection(urlsplit(program.url).netloc, timeout=60)
    connection.request("GET", "/api/v1/query_range?" + urllib.parse.urlencode(form))
    time.sleep(0.5)
    connection.close()
    line = _logged(program.log, marker, within_s=60)
    assert "canceled" in line, line


def slow_query() -> str:
    """A query of ten seconds at least, however fast the machine is, that holds little."""
    return " + ".join(f"slow(sum(m_total) + {n})" for n in range(40))


def _logged(log: Path, marker: str, within_s: float) -> str:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        for line in log.read_text().splitlines():
            if marker in line and "slow query" in line:
                return line
        time.sleep(0.02)
    raise AssertionError(f"no line about {marker} in {log.read_text()[-2000:]}")

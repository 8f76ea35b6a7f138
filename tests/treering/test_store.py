"""`Store`: every method over a folder (memory and blocks), a server, and a bucket on S3 (moto's), with equal answers."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

import treering
from benchmarks.peers import Program
from benchmarks.peers import treering as serve
from promql.syntax.errors import ParseError
from remote.wire.client import encode_v1, post_write
from tests.remote.writes import write_batch
from treering.config import Config
from treering.library.result import Result
from treering.library.store import Store, nice_step_ms
from treering.node import Node
from tsdb.model.errors import BadData, LimitExceeded, QueryFailed, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_NAN
from tsdb.model.write import WriteBatch

START_S = 1_700_000_000
KINDS = ("memory", "blocks", "server", "s3")


def batch() -> WriteBatch:
    """Counters of two jobs, an odd name, and values that are hard to carry."""
    times = [(START_S + 15 * i) * 1000 for i in range(240)]
    series = {
        Labels.of({"__name__": "requests_total", "job": job, "code": code}): [(t, k * i * 1.1) for i, t in enumerate(times)]
        for k, (job, code) in enumerate([("api", "200"), ("api", "500"), ("web", "200")], 1)
    }
    hard = [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1, 1e21, STALE_NAN, 1e-7, 2.0**53]
    series[Labels.of({"__name__": "hard", "a.b": 'q"\\\n', "ü": "ö"})] = list(zip(times, hard, strict=False))
    return write_batch(series)


def fill(folder: Path, bucket: str = "") -> None:
    with Node(Config(data=str(folder), bucket=bucket)) as node:
        node.push("anonymous", batch())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with serve(tmp_path_factory.mktemp("store") / "server") as server:
            assert post_write(server.url + "/api/v1/write", encode_v1(batch())).status == 204
            yield server


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, program: Program) -> Iterator[dict[str, Store]]:
    folder = tmp_path_factory.mktemp("stores")
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        import boto3

        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="metrics")
        s3 = f"s3://metrics/some/prefix?endpoint=http://{host}:{port}&region=us-east-1&path_style=true"
        fill(folder / "writer", s3)
        fill(folder / "blocks")
        opened = {
            "memory": treering.open(str(folder / "memory")),
            "blocks": treering.open(f"file://{folder / 'blocks'}"),
            "server": treering.open(program.url),
            "s3": treering.open(s3),
        }
        opened["memory"]._backend.push(batch())
        yield opened
        for store in opened.values():
            store.close()
    moto.stop()


def seen(result: Result) -> object:
    """What two results must have in common."""
    rows = [(series.labels, series.t_ms.tolist(), [bits(v) for v in series.values]) for series in result]
    return result.kind, rows, result.warnings, result.infos, str(result.value) if result.kind in ("scalar", "string") else ""


def bits(value: float) -> int:
    """A float's bits; all NaN are one, as in JSON."""
    return 0 if value != value else int(np.float64(value).view(np.uint64))


END_S = START_S + 239 * 15
ASKED: dict[str, Callable[[Store], object]] = {
    "vector": lambda s: seen(s.query("requests_total", END_S)),
    "vector at a datetime": lambda s: seen(s.query("requests_total", datetime.fromtimestamp(END_S, UTC))),
    "lookback": lambda s: seen(s.query("requests_total", END_S + 600, lookback="11m")),
    "scalar": lambda s: seen(s.query("1 / 3", END_S)),
    "string": lambda s: seen(s.query('"a\\nb"', END_S)),
    "nothing": lambda s: seen(s.query("nothing", END_S)),
    "rate": lambda s: seen(s.query_range("sum by (job) (rate(requests_total[5m]))", START_S, END_S, "1m")),
    "range of a timedelta": lambda s: seen(s.query_range("requests_total", START_S, END_S, timedelta(minutes=7))),
    "range without a step": lambda s: seen(s.query_range("requests_total", START_S, END_S)),
    "warnings": lambda s: seen(s.query("rate(hard[5m])", START_S + 100)),
    "limit": lambda s: seen(s.query("requests_total", END_S, limit=1)),
    "raw downsampling": lambda s: seen(s.query_range("avg_over_time(requests_total[30m])", START_S, END_S, 600, downsample="raw")),
    "matrix": lambda s: seen(s.query("hard[10m]", START_S + 599)),
    "select": lambda s: seen(s.select("hard", START_S - 1, END_S)),
    "select, open start": lambda s: seen(s.select('requests_total{job="web"}', START_S, START_S + 30)),
    "select by an odd name": lambda s: seen(s.select('{"hard", "a.b"=~"q.*"}', START_S - 1, END_S)),
    "series": lambda s: s.series('requests_total{job="api"}', START_S, END_S),
    "series of several": lambda s: s.series(["hard", 'requests_total{code="500"}'], START_S, END_S),
    "series, limited": lambda s: s.series("requests_total", START_S, END_S, limit=2),
    "labels": lambda s: s.labels(None, START_S, END_S),
    "labels of": lambda s: s.labels("hard", START_S, END_S),
    "label values": lambda s: s.label_values("job", None, START_S, END_S),
    "label values of": lambda s: s.label_values("code", 'requests_total{job="web"}', START_S, END_S),
    "values of an odd name": lambda s: s.label_values("a.b", None, START_S, END_S),
    "metrics": lambda s: [name for name in s.label_values("__name__", None, START_S, END_S) if name.startswith("req")],
}


@pytest.mark.parametrize("asked", ASKED)
def test_all_answer_the_same(stores: dict[str, Store], asked: str) -> None:
    want = ASKED[asked](stores["memory"])
    for kind in KINDS[1:]:
        assert ASKED[asked](stores[kind]) == want, kind
    assert want or asked == "nothing"


def test_the_answers_are_right(stores: dict[str, Store]) -> None:
    store = stores["s3"]
    assert store.query("requests_total", END_S)[{"job": "web"}].values[-1] == 3 * 239 * 1.1
    assert store.series('requests_total{job="web"}', START_S, END_S) == [
        {"__name__": "requests_total", "job": "web", "code": "200"}
    ]
    assert store.labels(None, START_S, END_S) == ["__name__", "a.b", "code", "job", "ü"]
    assert store.label_values("a.b", None, START_S, END_S) == ['q"\\\n']
    hard = store.select("hard", START_S - 1, END_S)[0]
    assert hard.t_ms.tolist() == [(START_S + 15 * i) * 1000 for i in range(12) if i != 9], "a stale marker is no sample"
    assert np.signbit(hard.values[1]) and hard.values[5] == 5e-324


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_the_last_day(stores: dict[str, Store], kind: str) -> None:
    assert stores[kind].metrics("no such") == []


@pytest.mark.parametrize("kind", KINDS)
def test_explain_tells_the_tree(stores: dict[str, Store], kind: str) -> None:
    told = str(stores[kind].explain("sum(rate(requests_total[5m]))", END_S))
    assert "requests_total" in told and "sum" in told
    assert "requests_total" in str(stores[kind].explain("requests_total", start=START_S, end=END_S, step="1m", analyze=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("expr", "words"),
    [("sum(rate(requests_total[5m])", ("parse error", "^")), ("rate(requests_total)", ("expected type range vector", "^"))],
)
def test_parse_errors_have_a_caret(stores: dict[str, Store], kind: str, expr: str, words: Sequence[str]) -> None:
    with pytest.raises(BadData) as caught:
        stores[kind].query(expr)
    assert isinstance(caught.value, ParseError) == (kind != "server")
    lines = str(caught.value).splitlines()
    assert all(word in str(caught.value) for word in words), lines
    at = next(i for i, line in enumerate(lines) if line.strip(" ^") == "" and "^" in line)
    assert expr in lines[at - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_other_errors(stores: dict[str, Store], kind: str) -> None:
    store = stores[kind]
    with pytest.raises(QueryFailed, match="many-to-many"):
        store.query("requests_total * on () requests_total", END_S)
    with pytest.raises(BadData, match="11,000 points"):
        store.query_range("requests_total", 0, END_S, 1)
    with pytest.raises(BadData, match="before start"):
        store.query_range("requests_total", END_S, START_S)
    with pytest.raises(BadData, match="not positive"):
        store.query_range("requests_total", START_S, END_S, 0)
    with pytest.raises(BadData, match="time zone"):
        store.query("requests_total", datetime(2026, 1, 1))
    with pytest.raises(BadData, match="parse error"):
        store.select("rate(x)")
    with pytest.raises(BadData, match="unknown function"):
        store.query("nope(requests_total)")


@pytest.mark.parametrize("kind", KINDS)
def test_python_functions(stores: dict[str, Store], kind: str) -> None:
    def doubled(values: np.ndarray) -> np.ndarray:
        """Twice the value."""
        return values * 2

    store = stores[kind]
    if kind == "server":
        with pytest.raises(BadData, match="python_functions"):
            store.register("doubled", doubled)
        assert store.functions() == {}
        return
    store.register("doubled", doubled, replace=True)
    assert "Twice the value." in store.functions()["doubled"]
    assert store.query('doubled(requests_total{job="web"})', END_S)[0].values[0] == 2 * 3 * 239 * 1.1


FRAMES: dict[str, Callable[[], object]] = {
    "dict": lambda: {"time": [START_S, START_S + 1.5, START_S], "value": [1, 2.5, 3], "job": ["a", "a", "b"], "none": [None] * 3},
    "pandas": lambda: pd.DataFrame(
        {
            "time": pd.to_datetime([START_S * 1000, START_S * 1000 + 1500, START_S * 1000], unit="ms", utc=True),
            "value": [1, 2.5, 3],
            "job": pd.Categorical(["a", "a", "b"]),
            "none": [None, float("nan"), None],
        }
    ),
    "polars": lambda: pl.DataFrame(
        {
            "time": [datetime.fromtimestamp(START_S + x, UTC) for x in (0, 1.5, 0)],
            "value": [1.0, 2.5, 3.0],
            "job": ["a", "a", "b"],
            "none": pl.Series([None] * 3, dtype=pl.String),
        }
    ),
    "arrow": lambda: pa.table(
        {
            "time": pa.array([START_S * 1000, START_S * 1000 + 1500, START_S * 1000], pa.timestamp("ms", tz="UTC")),
            "value": [1.0, 2.5, 3.0],
            "job": pa.array(["a", "a", "b"]).dictionary_encode(),
            "none": pa.nulls(3, pa.string()),
        }
    ),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", ["memory", "server"])
def test_writing_frames(stores: dict[str, Store], kind: str, frame: str) -> None:
    store, metric = stores[kind], f"written_{frame}"
    for _ in range(2):  # equal duplicates count as stored
        report = store.write(FRAMES[frame](), metric=metric)
        assert (report.samples, report.rejected, report.message) == (3, {}, "")
    found = {series.labels: (series.t_ms.tolist(), series.values.tolist()) for series in store.select(metric, START_S - 1, END_S)}
    start_ms = START_S * 1000
    assert found == {
        Labels.of({"__name__": metric, "job": "a"}): ([start_ms, start_ms + 1500], [1.0, 2.5]),
        Labels.of({"__name__": metric, "job": "b"}): ([start_ms], [3.0]),
    }


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_a_written_result_is_the_same_again(stores: dict[str, Store], kind: str) -> None:
    store = stores[kind]
    frame = store.query_range("sum by (job) (requests_total)", START_S, END_S, "1m").to_pandas()
    assert store.write(frame, metric="copied").samples == len(frame)
    copied = store.query_range("copied", START_S, END_S, "1m").to_pandas().drop(columns=["__name__"])
    assert copied.equals(frame[copied.columns])


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_what_is_refused_of_a_write_is_reported(stores: dict[str, Store], kind: str) -> None:
    store = stores[kind]
    store.write({"time": [START_S], "value": [1.0]}, metric="told")
    report = store.write({"time": [START_S, START_S + 1, 9e9], "value": [2.0, 2.0, 2.0]}, metric="told")
    assert report.samples == 1
    assert dict(report.rejected) == {"duplicate-timestamp": 1, "too-far-in-future": 1}
    assert "told" in report.message
    assert store.select("told", START_S - 1, END_S)[0].values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_many_samples_are_written_whole(stores: dict[str, Store], kind: str) -> None:
    n = 120_001
    frame = {"time": START_S + np.arange(n) / 1000, "value": np.arange(n) / 7, "i": np.arange(n) % 3}
    assert stores[kind].write(frame, metric="many").samples == n
    found = stores[kind].query("count_over_time(many[3m])", START_S + 130)
    assert {series["i"]: series.values[0] for series in found} == {"0": 40_001, "1": 40_000, "2": 40_000}


@pytest.mark.parametrize("kind", ["memory", "server"])
@pytest.mark.parametrize(
    ("frame", "metric", "words"),
    [
        ({"time": [1]}, "m", "no column 'value'"),
        ({"time": [1], "value": [1.0]}, None, "no metric name"),
        ({"time": [1], "value": [1.0]}, "", "metric name"),
        ({"time": [1], "value": [1.0], "__name__": [None]}, None, "metric name"),
        ({"time": [1], "value": ["x"]}, "m", "'value' is not numeric"),
        ({"time": ["x"], "value": [1.0]}, "m", "'time'"),
        ({"time": [None], "value": [1.0]}, "m", "'time'"),
        ({"time": [math.nan], "value": [1.0]}, "m", "'time'"),
        ({"time": [pd.NaT], "value": [1.0]}, "m", "'time'"),
        ({"time": [math.inf], "value": [1.0]}, "m", "'time'"),
        ({"time": [1, 2], "value": [1.0]}, "m", "differ in length"),
        ({"time": [[1]], "value": [1.0]}, "m", "'time'"),
        (7, "m", "cannot read columns from a int"),
    ],
)
def test_frames_that_cannot_be_read(stores: dict[str, Store], kind: str, frame: object, metric: str | None, words: str) -> None:
    with pytest.raises(BadData) as caught:
        stores[kind].write(frame, metric=metric)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_an_empty_frame_writes_nothing(stores: dict[str, Store], kind: str) -> None:
    assert stores[kind].write({"time": [], "value": []}, metric="none").samples == 0
    assert stores[kind].write(pd.DataFrame({"time": pd.to_datetime([]), "value": [], "job": []}), metric="none").samples == 0


def test_a_bucket_is_not_written_to(stores: dict[str, Store]) -> None:
    with pytest.raises(BadData, match="only reads"):
        stores["s3"].write({"time": [START_S], "value": [1.0]}, metric="m")


def test_flushing(stores: dict[str, Store], tmp_path: Path) -> None:
    with pytest.raises(BadData, match="/ingester/flush"):
        stores["server"].flush()
    with treering.open(str(tmp_path / "store")) as store:
        store.write({"time": [START_S], "value": [1.0]}, metric="m")
        store.flush()
        assert store.query("m", START_S)[0].values[0] == 1.0
    assert list((tmp_path / "store" / "bucket").rglob("meta.json"))


def test_tenants(tmp_path: Path) -> None:
    with treering.open(str(tmp_path / "store"), tenant="a") as store:
        store.write({"time": [START_S], "value": [1.0]}, metric="m")
        assert len(store.query("m", START_S)) == 1
    with treering.open(str(tmp_path / "store"), tenant="b") as store:
        assert len(store.query("m", START_S)) == 0
    with treering.open(str(tmp_path / "store"), tenant="a") as store:
        assert len(store.query("m", START_S)) == 1


def test_a_locked_folder_and_another_try(tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    with treering.open(folder), pytest.raises(Unavailable, match=f"{folder} is in use by process"):
        treering.open(folder)
    treering.open(folder).close()


@pytest.mark.parametrize(
    ("url", "config", "words"),
    [
        ("ftp://host", {}, "unknown scheme 'ftp'"),
        ("http://127.0.0.1:9", {"ingesters": 3}, "ingesters: configuration is for a store in this process"),
        ("{folder}", {"bucket": "gopher://x"}, "gopher://x"),
        ("{folder}", {"wal_sync": "never"}, "wal_sync"),
        ("{folder}", {"nonsense": 1}, "nonsense"),
        ("{folder}", {"limits": {"max_exemplras": 1}}, "max_exemplars"),
        ("{folder}", {"ignore_deleted_s": 0.001}, "ignore"),
    ],
)
def test_mistakes_at_opening_leave_the_folder_free(tmp_path: Path, url: str, config: dict[str, object], words: str) -> None:
    folder = str(tmp_path / "store")
    with pytest.raises(BadData) as caught:
        treering.open(url.format(folder=folder), **config)
    assert words in str(caught.value)
    treering.open(folder).close()


def test_a_server_that_is_gone() -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/api/v1/query: .*refused"):
        treering.open("http://127.0.0.1:1").query("up")


class Receiver(BaseHTTPRequestHandler):
    """A server that knows remote write 1.0 only, and remembers the headers it was sent."""

    sent: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        self.sent.append({name.lower(): text for name, text in self.headers.items()})
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert len(body) > 0
        self.send_response(415 if "v2" in self.headers["Content-Type"] else 429 if self.headers.get("X-Slow") else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def test_a_server_of_version_1_and_the_headers_that_are_sent() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            store = treering.open(url, tenant="team-a", headers={"Authorization": "Bearer x"})
            assert store.write({"time": [START_S], "value": [1.0]}, metric="m").samples == 1
            with pytest.raises(LimitExceeded, match="429"):
                treering.open(url, headers={"X-Slow": "1"}).write({"time": [START_S], "value": [1.0]}, metric="m")
        finally:
            server.shutdown()
            thread.join()
    assert [sent["x-prometheus-remote-write-version"] for sent in Receiver.sent[:2]] == ["2.0.0", "0.1.0"]
    assert all((sent["x-scope-orgid"], sent["authorization"]) == ("team-a", "Bearer x") for sent in Receiver.sent[:2])


@pytest.mark.parametrize(
    ("range_ms", "step_ms"), [(0, 1000), (500_000, 1000), (500_001, 2000), (86_400_000, 300_000), (10**12, 2_073_600_000)]
)
def test_nice_steps(range_ms: int, step_ms: int) -> None:
    assert nice_step_ms(range_ms) == step_ms


def test_a_batch_can_be_changed_before_it_is_sent(stores: dict[str, Store]) -> None:
    shifted = replace(batch(), t_ms=batch().t_ms + 7_200_000)
    for kind in ("memory", "server"):
        assert stores[kind]._backend.push(shifted).samples == len(shifted.row)

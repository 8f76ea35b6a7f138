"""The HTTP API as Grafana and Prometheus use it, against a real server process."""

import gzip
import json
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.peers import treering
from remote.wire.client import encode_v1
from tests.treering.server import Reply, call
from tsdb.model.labels import Labels
from tsdb.model.write import Metadata, WriteBatch

NOW_MS = int(time.time() * 1000) // 60_000 * 60_000
V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
PREFIXES = ["/api/v1", "/prometheus/api/v1", "/api/prom/api/v1"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with treering(folder / "store") as program:
            rows = [Labels.of({"__name__": "requests_total", "job": job, "a.b": "dot"}) for job in ("api", "web")]
            row = np.tile(np.arange(2, dtype=np.int32), 61)
            t_ms = np.repeat(NOW_MS - np.arange(61)[::-1] * 15_000, 2)
            batch = WriteBatch.of(rows, row=row, t_ms=t_ms, values=np.arange(122) / 4)
            assert call(program.url, "POST", "/api/v1/push", encode_v1(batch), V1).status == 204
            yield program.url


def get(url: str, path: str, **params: object) -> Reply:
    return call(url, "POST", f"/api/v1/{path}", params)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_prefix_and_method(url: str, prefix: str, method: str) -> None:
    reply = call(url, method, f"{prefix}/query?query=1%2B1&time=4")
    assert reply.status == 200
    assert reply.json() == {"status": "success", "data": {"resultType": "scalar", "result": [4, "2"]}}


def test_grafana_save_and_test(url: str) -> None:
    assert get(url, "query", query="1+1", time=4).status == 200
    info = call(url, "GET", "/api/v1/status/buildinfo").json()["data"]
    assert info["version"].startswith("3.") and "features" not in info
    probe = get(url, "query_exemplars", query="test", start=NOW_MS, end=NOW_MS + 1)
    assert probe.json() == {"status": "success", "data": []}


def test_form_and_url_are_merged(url: str) -> None:
    reply = call(url, "POST", "/api/v1/query?stats=all&time=5", {"query": "time()"})
    assert reply.json()["data"]["result"] == [5, "5"]


def test_range_query(url: str) -> None:
    reply = get(url, "query_range", query="requests_total", start=(NOW_MS - 60_000) / 1000, end=NOW_MS / 1000, step="30s")
    data = reply.json()["data"]
    assert data["resultType"] == "matrix"
    assert [row["metric"]["job"] for row in data["result"]] == ["api", "web"]
    assert [t for t, _ in data["result"][0]["values"]] == [NOW_MS / 1000 - 60, NOW_MS / 1000 - 30, NOW_MS / 1000]
    assert reply.body.index(b"resultType") < reply.body.index(b'result"')


def test_limit_truncates_with_a_warning(url: str) -> None:
    answer = get(url, "query", query="requests_total", time=NOW_MS / 1000, limit=1).json()
    assert len(answer["data"]["result"]) == 1
    assert answer["warnings"] == ["results truncated due to limit"]
    answer = get(url, "labels", limit=1).json()
    assert len(answer["data"]) == 1 and answer["warnings"] == ["results truncated due to limit"]


def test_listings(url: str) -> None:
    assert get(url, "labels").json()["data"] == ["__name__", "a.b", "job"]
    assert get(url, "label/job/values").json()["data"] == ["api", "web"]
    assert get(url, "label/U__a_2e_b/values").json()["data"] == ["dot"]
    assert call(url, "GET", "/api/v1/label/__name__/values?limit=40000&match[]=requests_total").json()["data"] == ["requests_total"]
    assert get(url, "label/job/values", start=0, end=1).json()["data"] == []
    rows = get(url, "series", **{"match[]": ['requests_total{job="api"}', '{job=~"a.."}']}).json()["data"]
    assert rows == [{"__name__": "requests_total", "a.b": "dot", "job": "api"}]


def test_metadata(url: str) -> None:
    none = np.empty(0, np.int64)
    batch = WriteBatch.of([], row=none.astype(np.int32), t_ms=none, values=none.astype(float))
    body = encode_v1(
        WriteBatch(
            **{f: getattr(batch, f) for f in batch.__slots__}
            | {"metadata": (Metadata("requests_total", "counter", "Requests.", ""),)}
        )
    )
    assert call(url, "POST", "/api/v1/write", body, V1).status == 204
    data = call(url, "GET", "/api/v1/metadata?limit=40000").json()["data"]
    assert data == {"requests_total": [{"type": "counter", "help": "Requests.", "unit": ""}]}
    assert call(url, "GET", "/api/v1/metadata?metric=other").json()["data"] == {}


def test_format_and_parse(url: str) -> None:
    assert get(url, "format_query", query="sum by(job)(rate(x[5m]))").json()["data"] == "sum by (job) (rate(x[5m]))"
    tree = get(url, "parse_query", query="foo/bar").json()["data"]
    assert tree["type"] == "binaryExpr" and tree["op"] == "/"


@pytest.mark.parametrize(
    ("path", "params", "status", "kind", "text"),
    [
        ("query", {"query": "rate(x)"}, 400, "bad_data", "expected type range vector"),
        ("query", {"query": "x", "time": "soon"}, 400, "bad_data", 'invalid parameter "time"'),
        ("query", {}, 400, "bad_data", "no expression found in input"),
        ("query", {"query": "requests_total * on () requests_total", "time": NOW_MS / 1000}, 422, "execution", "many-to-many"),
        (
            "query_range",
            {"query": "x", "start": 0, "end": 11_001, "step": 1},
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points",
        ),
        (
            "query_range",
            {"query": "x", "start": 5, "end": 1, "step": 1},
            400,
            "bad_data",
            "end timestamp must not be before start time",
        ),
        ("query_range", {"query": "x", "start": 0, "end": 1, "step": 0}, 400, "bad_data", "zero or negative query resolution"),
        ("query_range", {"query": "x", "start": 0, "end": 1}, 400, "bad_data", 'invalid parameter "step"'),
        ("series", {}, 400, "bad_data", "no match[] parameter provided"),
        ("series", {"match[]": "{}"}, 400, "bad_data", "must contain at least one non-empty matcher"),
        ("labels", {"limit": "-1"}, 400, "bad_data", 'invalid parameter "limit"'),
    ],
)
def test_errors_that_grafana_can_show(url: str, path: str, params: dict[str, object], status: int, kind: str, text: str) -> None:
    reply = get(url, path, **params)
    assert (reply.status, reply.json()["status"], reply.json()["errorType"]) == (status, "error", kind)
    assert text in reply.json()["error"]


def test_gzip_when_it_is_asked_for(url: str) -> None:
    params = {"query": "requests_total", "start": (NOW_MS - 900_000) / 1000, "end": NOW_MS / 1000, "step": 1}
    plain = call(url, "POST", "/api/v1/query_range", params)
    packed = call(url, "POST", "/api/v1/query_range", params, {"Accept-Encoding": "gzip, deflate, br, zstd"})
    assert plain.headers.get("content-encoding") is None and packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body


def test_health_and_metrics(url: str) -> None:
    for path in ("/-/healthy", "/-/ready", "/ready"):
        assert call(url, "GET", path).status == 200
    text = call(url, "GET", "/metrics").body.decode()
    assert "treering_samples_received_total" in text and "treering_ingester_series 2.0" in text
    assert call(url, "GET", "/config").body.decode().startswith("data:")
    stats = call(url, "GET", "/api/v1/status/tsdb").json()["data"]
    assert stats["headStats"]["numSeries"] == 2
    assert stats["seriesCountByMetricName"] == [{"name": "requests_total", "value": 2}]


def test_unknown_paths_and_methods(url: str) -> None:
    assert call(url, "GET", "/nothing").status == 404
    assert call(url, "GET", "/api/v1/write").status == 405
    assert call(url, "DELETE", "/api/v1/query").status == 405


def test_flush_and_read_back(url: str) -> None:
    before = get(url, "query", query="count_over_time(requests_total[1h])", time=NOW_MS / 1000).json()
    assert call(url, "POST", "/ingester/flush").status == 204
    assert get(url, "query", query="count_over_time(requests_total[1h])", time=NOW_MS / 1000).json() == before
    with urllib.request.urlopen(f"{url}/api/v1/label/job/values") as response:
        assert json.load(response)["data"] == ["api", "web"]

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.writes import write_batch
from treering.config import Config, load_config
from treering.http.api_status import StatusApi
from treering.http.asgi import Request, Response
from treering.node import Node
from treering.self_scrape import SelfScrape
from tsdb.model.errors import BadData
from tsdb.model.labels import Labels
from tsdb.model.source import MAX_MS, Selection

NOW_MS = int(time.time() * 1000)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(Config(data=str(tmp_path / "store"), multitenancy=True, self_tenant="self")) as node:
        series = {Labels.of({"__name__": name, "job": job, "i": str(i)}): [(NOW_MS - i, 1.0)] for i, (name, job) in enumerate(
            [("a", "x"), ("a", "y"), ("a", "y"), ("bb", "y")]
        )}  # fmt: skip
        node.push("team", write_batch(series))
        yield node


def request(tenant: str = "team", **params: str) -> Request:
    return Request("GET", "/", {"x-scope-orgid": [tenant]}, "", params={name: [text] for name, text in params.items()})


def data(response: Response) -> dict[str, object]:
    body = json.loads(response.body)
    assert body["status"] == "success"
    return body["data"]  # type: ignore[no-any-return]


def test_cardinality(node: Node) -> None:
    told = data(StatusApi(node).tsdb(request()))
    assert told["headStats"] == {
        "numSeries": 4, "numLabelPairs": 8, "chunkCount": 0, "minTime": NOW_MS - 3, "maxTime": NOW_MS
    }  # fmt: skip
    assert told["seriesCountByMetricName"] == [{"name": "a", "value": 3}, {"name": "bb", "value": 1}]
    assert told["labelValueCountByLabelName"] == [
        {"name": "i", "value": 4}, {"name": "__name__", "value": 2}, {"name": "job", "value": 2}
    ]  # fmt: skip
    assert told["seriesCountByLabelValuePair"][:2] == [{"name": "__name__=a", "value": 3}, {"name": "job=y", "value": 3}]  # type: ignore[index]
    del told["headStats"]
    cut = data(StatusApi(node).tsdb(request(limit="1")))
    assert {key: cut[key] for key in told} == {key: rows[:1] for key, rows in told.items()}  # type: ignore[index]


def test_another_tenant_sees_nothing(node: Node) -> None:
    told = data(StatusApi(node).tsdb(request("other")))
    assert told["headStats"] == {"numSeries": 0, "numLabelPairs": 0, "chunkCount": 0, "minTime": 0, "maxTime": 0}
    assert told["seriesCountByMetricName"] == []


@pytest.mark.parametrize("limit", ["0", "10001", "-1", "x"])
def test_limits_of_the_listing(node: Node, limit: str) -> None:
    with pytest.raises(BadData, match='"limit"'):
        StatusApi(node).tsdb(request(limit=limit))


def test_the_process_tells_of_itself(node: Node, tmp_path: Path) -> None:
    api = StatusApi(node)
    assert data(api.build_info(request()))["application"] == "Treering"
    assert data(api.flags(request()))["wal-sync"] == "commit"
    assert data(api.runtime_info(request()))["CWD"] == node.config.data
    shown = tmp_path / "shown.yaml"
    shown.write_bytes(api.config(request()).body)
    assert load_config(str(shown), {}, {}) == node.config


def test_own_metrics_are_written_into_the_tenant_of_the_configuration(node: Node) -> None:
    SelfScrape(node).run()
    rows = node.source(("self",)).series(Selection((), 0, MAX_MS)).rows()
    assert Labels.of({"__name__": "up", "job": "treering", "instance": node.config.listen}) in rows
    assert {labels.get("job") for labels in rows} == {"treering"}
    assert "treering_ingester_series" in {labels.get("__name__") for labels in rows}
    assert not any(labels.get("__name__").endswith("_created") for labels in rows)

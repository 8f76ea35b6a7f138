"""Deleting series and tenants over HTTP, against a real server process with several tenants."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import treering
from remote.wire.client import encode_v1
from tests.treering.server import Reply, call
from tests.treering.test_api import NOW_MS, V1
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SELF_SCRAPE_S", "0"), ("MULTITENANCY", "true"), ("COMPACT_S", "0.2"), ("COMPACTION_SCAN_S", "0")):
            patch.setenv(f"TREERING_{name}", value)
        with treering(tmp_path_factory.mktemp("admin") / "store") as program:
            yield program.url


def push(url: str, tenant: str) -> Reply:
    rows = [Labels.of({"__name__": "requests_total", "job": job}) for job in ("api", "web")]
    row = np.tile(np.arange(2, dtype=np.int32), 61)
    t_ms = np.repeat(NOW_MS - np.arange(61)[::-1] * 15_000, 2)
    batch = WriteBatch.of(rows, row=row, t_ms=t_ms, values=np.arange(122) / 4)
    return call(url, "POST", "/api/v1/push", encode_v1(batch), {**V1, "X-Scope-OrgID": tenant})


def ask(url: str, tenant: str, method: str, path: str, **form: Any) -> Reply:
    return call(url, method, f"/api/v1/{path}", form or None, {"X-Scope-OrgID": tenant})


def counts(url: str, tenant: str) -> dict[str, int]:
    reply = ask(url, tenant, "POST", "query", query="count_over_time(requests_total[1h])", time=NOW_MS / 1000).json()
    return {row["metric"]["job"]: int(row["value"][1]) for row in reply["data"]["result"]}


def test_delete_series(url: str) -> None:
    assert push(url, "a").status == 204 and push(url, "b").status == 204
    assert counts(url, "a") == {"api": 61, "web": 61}
    form = {"match[]": '{job="api"}', "start": (NOW_MS - 150_000) / 1000, "end": NOW_MS / 1000}
    dry = ask(url, "a", "POST", "admin/tsdb/delete_series", **form, dry_run="true")
    assert dry.json() == {"status": "success", "data": {"series": 1, "samples": 11}}
    assert counts(url, "a") == {"api": 61, "web": 61}
    assert ask(url, "a", "PUT", "admin/tsdb/delete_series", **form).status == 204
    assert counts(url, "a") == {"api": 50, "web": 61} and counts(url, "b") == {"api": 61, "web": 61}
    assert push(url, "a").status == 204
    assert counts(url, "a") == {"api": 61, "web": 61}, "what is written later is not deleted"
    assert ask(url, "a", "POST", "admin/tsdb/delete_series", **{"match[]": '{job="api"}'}).status == 204
    assert counts(url, "a") == {"web": 61}
    assert ask(url, "a", "POST", "series", **{"match[]": "requests_total"}).json()["data"] == [
        {"__name__": "requests_total", "job": "web"}
    ]
    assert ask(url, "a", "POST", "admin/tsdb/clean_tombstones").status == 204
    assert counts(url, "a") == {"web": 61}
    blocks = ask(url, "a", "GET", "blocks").json()["data"]["blocks"]
    assert all(block["tombstones"] == 0 for block in blocks if block["answers"])
    assert sum(block["samples"] for block in blocks if block["answers"]) >= 61


def test_what_deletion_refuses(url: str) -> None:
    assert ask(url, "a", "POST", "admin/tsdb/delete_series").status == 400
    assert ask(url, "a", "POST", "admin/tsdb/delete_series", **{"match[]": "{job="}).status == 400
    assert ask(url, "a", "POST", "admin/tsdb/delete_series", **{"match[]": "up", "start": "5", "end": "4"}).status == 400
    assert ask(url, "a", "POST", "admin/tsdb/delete_series", **{"match[]": "up", "dry_run": "maybe"}).status == 400
    assert ask(url, "a", "GET", "admin/tsdb/delete_series").status == 405
    assert call(url, "POST", "/api/v1/admin/tsdb/delete_series", {"match[]": "up"}).status == 401


def test_delete_tenant(url: str) -> None:
    assert push(url, "c").status == 204 and counts(url, "c") == {"api": 61, "web": 61}
    assert ask(url, "c", "POST", "admin/delete_tenant").status == 200
    assert counts(url, "c") == {}
    refused = push(url, "c")
    assert refused.status == 400 and b"being deleted" in refused.body
    assert ask(url, "c", "GET", "admin/delete_tenant_status").json() == {"tenant_id": "c", "blocks_deleted": False}
    assert counts(url, "b") != {}


def test_the_compactor_runs_and_tells(url: str) -> None:
    text = call(url, "GET", "/metrics").body.decode()
    assert 'treering_compactor_blocks_total{event="rewrite"}' in text and "treering_store_index_cache_hits" in text

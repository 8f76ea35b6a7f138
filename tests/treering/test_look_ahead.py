"""What a server reads ahead of its first query, and that it harms nobody."""

import logging
from pathlib import Path

import pytest

from tests.remote.writes import write_batch
from treering.config import Config
from treering.look_ahead import SPAN_MS, look_ahead
from treering.node import Node, Query
from tsdb.model.labels import Labels

UP = Labels.of({"__name__": "up", "job": "a"})
OTHER = Labels.of({"__name__": "other"})


def write(node: Node, tenant: str, labels: Labels, t_ms: int) -> None:
    node.push(tenant, write_batch({labels: [(t_ms, 1.0)]}))


def opened(node: Node) -> int:
    return node.store_gateway.index_cache.size_bytes


def test_the_newest_blocks_of_own_tenants_are_open_before_a_query(tmp_path: Path) -> None:
    with Node(Config(data=str(tmp_path))) as node:
        now_ms = node.now_ms()
        write(node, "anonymous", UP, now_ms - 2 * SPAN_MS)  # what stopped long ago is looked at where it ends
    with Node(Config(data=str(tmp_path))) as node:
        assert opened(node) == 0
        look_ahead(node, lambda: False)
        assert opened(node) > 0
        asked, read = node.store_gateway.page_cache.opened, node.bucket.requests
        assert asked.size_bytes > 0
        assert node.query(("anonymous",), Query("up", now_ms - 2 * SPAN_MS, now_ms - 2 * SPAN_MS)).value
        assert node.bucket.requests == read


def test_a_store_without_data_or_without_the_metric_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "treering")
    with Node(Config(data=str(tmp_path))) as node:
        look_ahead(node, lambda: False)
        write(node, "anonymous", OTHER, node.now_ms())
        look_ahead(node, lambda: False)
    assert "looking ahead failed" not in caplog.text


def test_what_fails_is_told_and_keeps_no_other_tenant_from_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "treering")
    config = Config(data=str(tmp_path), multitenancy=True, tenant_limits={"a": {"max_fetched_series": 1}})
    with Node(config) as node:
        for tenant in "ab":
            for job in "ab":
                write(node, tenant, Labels.of({"__name__": "up", "job": job}), node.now_ms())
    with Node(config) as node:
        for tenant in "ab":  # tenants of their own are those with something in the log
            write(node, tenant, OTHER, node.now_ms())
        look_ahead(node, lambda: False)
        read = node.bucket.requests
        node.query(("b",), Query("up", node.now_ms(), node.now_ms()))
        assert node.bucket.requests == read
    told = [record.fields["tenant"] for record in caplog.records if record.message == "looking ahead failed"]  # type: ignore[attr-defined]
    assert told == ["a"]


def test_who_stops_is_not_kept_waiting(tmp_path: Path) -> None:
    with Node(Config(data=str(tmp_path))) as node:
        write(node, "anonymous", UP, node.now_ms())
        node.flush()
    with Node(Config(data=str(tmp_path))) as node:
        look_ahead(node, lambda: True)
        assert node.store_gateway.page_cache.opened.size_bytes == 0

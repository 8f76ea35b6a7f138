"""The threads that serve queries: turns between tenants, and a tenant's own bound."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treering.config import load_config
from treering.http import query_pool
from treering.http.api_query import QueryApi
from treering.http.asgi import Request, Response
from treering.http.query_pool import QueryPool
from treering.node import Node
from tsdb.model.errors import BadData, LimitExceeded, QueryCanceled, QueryTimeout
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch

LIMITS = {"greedy": 2}


def request(tenant: str) -> Request:
    return Request("GET", "/api/v1/query", {"x-scope-orgid": [tenant]}, "")


def pool(threads: int, max_waiting: int = 100, **options: Any) -> QueryPool:
    return QueryPool(
        **options,
        threads=threads,
        max_waiting=max_waiting,
        tenant_of=lambda asked: asked.headers["x-scope-orgid"][0],
        limit_of=lambda tenant: LIMITS.get(tenant, 0),
    )


def test_tenants_take_turns_and_a_tenants_own_stay_in_order() -> None:
    served, begun, gate = [], threading.Event(), threading.Event()

    def handler(asked: Request) -> Response:
        begun.set()
        gate.wait()
        served.append(asked.headers["x-scope-orgid"][0])
        return Response()

    start = pool(1).serving(handler)
    futures = [start(request("a"))]
    assert begun.wait(30)
    futures += [start(request(tenant)) for tenant in "aaaabbc"]
    gate.set()
    for future in futures:
        future.result(30)
    assert "".join(served) == "aabcabaa"


def test_a_tenant_has_no_more_at_work_than_its_limit_and_others_go_on() -> None:
    at_work, gate = threading.Semaphore(0), threading.Event()

    def handler(asked: Request) -> Response:
        if asked.headers["x-scope-orgid"][0] == "greedy":
            at_work.release()
            gate.wait()
        return Response()

    start = pool(4).serving(handler)
    greedy = [start(request("greedy")) for _ in range(6)]
    assert at_work.acquire(timeout=30) and at_work.acquire(timeout=30)
    for _ in range(20):
        assert start(request("modest")).result(30).status == 200
    assert not at_work.acquire(blocking=False), "the third waits for one of the two"
    gate.set()
    assert [future.result(30).status for future in greedy] == [200] * 6


def test_a_tenant_does_not_fill_the_queue_and_errors_reach_who_asked() -> None:
    gate = threading.Event()

    def handler(asked: Request) -> Response:
        gate.wait()
        raise BadData("no")

    start = pool(1, max_waiting=2).serving(handler)
    futures = [start(request("a")) for _ in range(3)]
    with pytest.raises(LimitExceeded, match="2 queries of tenant a are waiting, its share of the queue is 2") as caught:
        start(request("a"))
    assert caught.value.retry_after_s == 1.0
    futures.append(start(request("b")))
    gate.set()
    for future in futures:
        with pytest.raises(BadData, match="no"):
            future.result(30)


def test_equal_queries_that_come_meanwhile_are_evaluated_once_and_after_they_came() -> None:
    begun, gate = threading.Semaphore(0), {name: threading.Semaphore(0) for name in ("a/api/v1/query", "a/other", "b/api/v1/query")}
    written, shared = [0], []

    def handler(asked: Request) -> Response:
        seen = written[0]
        begun.release()
        assert gate[asked.headers["x-scope-orgid"][0] + asked.path].acquire(timeout=30)
        return Response(body=f"{asked.path} {seen}".encode())

    start = pool(4, question_of=lambda asked: asked.path, note_shared=lambda: shared.append(1)).serving(handler)
    first = start(request("a"))
    assert begun.acquire(timeout=30)
    written[0] = 1
    alike = [start(request("a")) for _ in range(5)]
    others = [start(replace(request("a"), path="/other")), start(request("b"))]
    for _ in others:
        assert begun.acquire(timeout=30)
    assert not begun.acquire(blocking=False) and len(shared) == 4, "equal ones wait though threads are free"
    written[0] = 2
    for one in gate.values():
        one.release()
    assert first.result(30).body == b"/api/v1/query 0"
    assert {other.result(30).body for other in others} == {b"/other 1", b"/api/v1/query 1"}
    assert begun.acquire(timeout=30)
    gate["a/api/v1/query"].release()
    assert [future.result(30).body for future in alike] == [b"/api/v1/query 2"] * 5
    assert not begun.acquire(blocking=False)
    gate["a/api/v1/query"].release()
    assert start(request("a")).result(30).body == b"/api/v1/query 2"


def test_who_asks_again_soon_is_answered_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_pool, "SEND_S", 0.5)
    begun, gate = threading.Semaphore(0), threading.Semaphore(0)

    def handler(asked: Request) -> Response:
        begun.release()
        assert gate.acquire(timeout=30)
        return Response()

    start = pool(4, question_of=lambda asked: asked.path).serving(handler)
    first = start(request("a"))
    assert begun.acquire(timeout=30)
    together = [start(request("a")) for _ in range(2)]
    gate.release(2)
    for future in (first, *together):
        future.result(30)
    assert begun.acquire(timeout=30)
    again = [start(request("a"))]
    time.sleep(0.1)
    again.append(start(request("a")))
    gate.release()  # one evaluation for both
    assert [future.result(30).status for future in again] == [200] * 2
    assert begun.acquire(timeout=30) and not begun.acquire(blocking=False)


def test_equal_queries_fill_no_more_of_the_queue_than_others() -> None:
    gate = threading.Event()

    def handler(asked: Request) -> Response:
        assert gate.wait(30)
        return Response()

    start = pool(1, max_waiting=3, question_of=lambda asked: asked.path).serving(handler)
    futures = [start(request("a")) for _ in range(4)]
    with pytest.raises(LimitExceeded, match="3 queries of tenant a are waiting, its share of the queue is 3"):
        start(request("a"))
    futures.append(start(request("b")))
    gate.set()
    assert [future.result(30).status for future in futures] == [200] * 5
    assert start(request("a")).result(30).status == 200


def test_a_shared_query_is_canceled_once_everyone_has_left() -> None:
    begun, gate, seen = threading.Event(), threading.Event(), list[bool]()

    def handler(asked: Request) -> Response:
        begun.set()
        assert gate.wait(30)
        seen.append(asked.canceled.is_set())
        if len(seen) == 2:
            asked_by[2].canceled.set()
            seen.append(asked.canceled.is_set())
            asked.check_canceled()
        return Response()

    asked_by = [request("a") for _ in range(3)]
    start = pool(2, question_of=lambda asked: asked.path).serving(handler)
    futures = [start(asked_by[0])]
    assert begun.wait(30)
    futures += [start(asked) for asked in asked_by[1:]]
    asked_by[1].canceled.set()
    gate.set()
    assert futures[0].result(30).status == 200
    for future in futures[1:]:
        with pytest.raises(QueryCanceled):
            future.result(30)
    assert seen == [False, False, True]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_samples": 100}, r"too many samples .* the limit is 100 \(max_samples\)"),
        ({"max_fetched_series": 3}, r"more than 3 series.*max_fetched_series"),
        ({"max_query_points": 10}, r"exceeded maximum resolution of 10 points .*\(\?step=XX\) \(max_points, max_query_points\)"),
        ({"max_query_length_ms": 60_000}, r"the limit is .* \(60000 ms, max_query_length_ms\)"),
        ({"query_timeout_ms": 1}, r"query timed out in query execution \(timeout: 0.001s\) \(query_timeout_ms\)"),
    ],
)
def test_limits_hold_for_the_tenant_that_has_them(tmp_path: Path, limits: dict[str, int], words: str) -> None:
    config = load_config(None, {"data": str(tmp_path), "multitenancy": True, "tenant_limits": {"small": limits}})
    with Node(config) as node:
        now_ms = node.now_ms() // 1000 * 1000
        series = [Labels.of({"__name__": "m", "i": str(i)}) for i in range(5)]
        times = np.repeat(now_ms - np.arange(200, 0, -1) * 1000, 5)
        batch = WriteBatch.of(series, row=np.tile(np.arange(5, dtype=np.int32), 200), t_ms=times, values=np.ones(1000))
        api = QueryApi(node)
        for tenant in ("small", "large"):
            node.push(tenant, batch)
        query = "+".join(f"sum(m offset {i}s)" for i in range(60))  # takes longer than a millisecond anywhere
        params = {"query": [query], "start": [str(now_ms // 1000 - 100)], "end": [str(now_ms // 1000)], "step": ["1"]}
        wide = Request("GET", "/api/v1/query_range", {"x-scope-orgid": ["large"]}, "", params=params)
        assert api.query_range(wide).status == 200
        for tenants in ("small", "large|small"):
            asked = Request("GET", "/api/v1/query_range", {"x-scope-orgid": [tenants]}, "", params=params)
            with pytest.raises((LimitExceeded, BadData, QueryTimeout), match=words):
                api.query_range(asked)

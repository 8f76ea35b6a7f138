"""Exemplars: a bounded ring, found by series and time."""

import math

from tests.tsdb.writes import series
from tsdb.head.exemplars import Exemplars
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.write import Exemplar

UP_A, UP_B = series("up", job="a"), series("up", job="b")
ANY = (Matcher("__name__", "=", "up"),)


def exemplar(t_ms: int, value: float = 1.0, trace: str = "x") -> Exemplar:
    return Exemplar(0, Labels.of({"trace_id": trace}), value, t_ms)


def times(ring: Exemplars, start_ms: int = 0, end_ms: int = 1000) -> dict[str, list[int]]:
    found = ring.query([ANY], start_ms=start_ms, end_ms=end_ms)
    return {one.labels.get("job"): [o.t_ms for o in one.exemplars] for one in found}


def test_a_query_is_by_any_selector_and_closed_time() -> None:
    ring = Exemplars()
    for t in (30, 10, 20):
        assert ring.add(UP_B.encode(), exemplar(t))
    assert ring.add(UP_A.encode(), exemplar(5))
    assert times(ring) == {"a": [5], "b": [10, 20, 30]}
    assert list(times(ring)) == ["a", "b"]
    assert times(ring, 10, 20) == {"b": [10, 20]}
    selectors = [(Matcher("job", "=", "a"),), (Matcher("job", "=", "b"), Matcher("__name__", "=", "no"))]
    assert [one.labels for one in ring.query(selectors, start_ms=0, end_ms=99)] == [UP_A]
    assert ring.query([], start_ms=0, end_ms=99) == []


def test_equal_exemplars_are_kept_once() -> None:
    ring = Exemplars()
    assert ring.add(UP_A.encode(), exemplar(1, math.nan))
    assert not ring.add(UP_A.encode(), exemplar(1, math.nan))
    assert ring.add(UP_A.encode(), exemplar(1, 0.0)) and ring.add(UP_A.encode(), exemplar(1, -0.0))
    assert ring.add(UP_A.encode(), exemplar(1, 0.0, trace="y"))
    assert len(ring) == len(ring.rows()) == 4


def test_the_oldest_leave_when_it_is_full() -> None:
    ring = Exemplars(capacity=3)
    ring.add(UP_A.encode(), exemplar(1))
    for t in (2, 3, 4):
        ring.add(UP_B.encode(), exemplar(t))
    assert times(ring) == {"b": [2, 3, 4]} and len(ring) == 3
    assert not Exemplars(capacity=0).add(UP_A.encode(), exemplar(1))

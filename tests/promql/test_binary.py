import math
import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.matrix import Matrix, Scalar, Value
from promql.names import settle
from promql.operators.binary import binary, negated
from promql.syntax.ast import Binary
from promql.syntax.parser import parse
from tests.promql.matrices import labels, matrix, rows, scalar
from tsdb.model.errors import QueryFailed
from tsdb.model.labels import METRIC_NAME, Labels

FEATURES = frozenset(["promql-binop-fill-modifiers"])
OPERATORS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, ">": operator.gt, "==": operator.eq}
Row = tuple[str, list[float | None]]


def node(query: str) -> Binary:
    expr = parse(query, features=FEATURES)
    assert isinstance(expr, Binary)
    return expr


def run(query: str, lhs: Value, rhs: Value) -> list[Row]:
    out = binary(node(query), lhs, rhs, Annotations(query))
    assert isinstance(out, Matrix)
    return rows(settle(out))


LEFT = matrix([('l{x="a"}', [1, 2]), ('l{x="b"}', [3, None])])
RIGHT = matrix([('r{x="a"}', [10, None]), ('r{x="b"}', [3, 4]), ('r{x="c"}', [5, 5])])


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("l + r", [('{x="a"}', [11, None]), ('{x="b"}', [6, None])]),
        ("l == r", [('l{x="b"}', [3, None])]),
        ("l == bool r", [('{x="a"}', [0, None]), ('{x="b"}', [1, None])]),
        ("l and r", [('l{x="a"}', [1, None]), ('l{x="b"}', [3, None])]),
        ("l unless r", [('l{x="a"}', [None, 2])]),
        ("l or r", [('l{x="a"}', [1, 2]), ('l{x="b"}', [3, None]), ('r{x="b"}', [None, 4]), ('r{x="c"}', [5, 5])]),
        ("l + fill(0) r", [('{x="a"}', [11, 2]), ('{x="b"}', [6, 4]), ('{x="c"}', [5, 5])]),
        ("l + fill_right(0) r", [('{x="a"}', [11, 2]), ('{x="b"}', [6, None])]),
        ("l > fill_left(7) r", [('{x="b"}', [None, 7]), ('{x="c"}', [7, 7])]),
    ],
)
def test_vectors_with_vectors(query: str, want: list[Row]) -> None:
    assert sorted(run(query, LEFT, RIGHT)) == sorted(want)


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("l * 2", [('{x="a"}', [2, 4]), ('{x="b"}', [6, None])]),
        ("l > 1", [('l{x="a"}', [None, 2]), ('l{x="b"}', [3, None])]),
        ("l > bool 1", [('{x="a"}', [0, 1]), ('{x="b"}', [1, None])]),
        ("l ^ -1", [('{x="a"}', [1, 0.5]), ('{x="b"}', [1 / 3, None])]),
        ("l % -2", [('{x="a"}', [1, 0]), ('{x="b"}', [1, None])]),
        ("l atan2 0", [('{x="a"}', [math.pi / 2, math.pi / 2]), ('{x="b"}', [math.pi / 2, None])]),
    ],
)
def test_vectors_with_scalars(query: str, want: list[Row]) -> None:
    number = float(query.split()[-1])
    assert run(query, LEFT, scalar(number, number)) == want


def test_a_filter_keeps_the_vector_on_the_right() -> None:
    assert run("2 > l", scalar(2, 2), LEFT) == [('l{x="a"}', [1, None])]
    assert run("2 - l", scalar(2, 2), LEFT) == [('{x="a"}', [1, 0]), ('{x="b"}', [-1, None])]


@pytest.mark.parametrize(
    ("query", "lhs", "rhs", "want"),
    [
        ("1 % 1", 5.5, -2.0, 1.5), ("1 % 1", -5.5, 2.0, -1.5), ("1 % 1", 1.0, 0.0, math.nan), ("1 % 1", 3.0, math.inf, 3.0),
        ("1 ^ 1", 1.0, math.nan, 1.0), ("1 ^ 1", 0.0, -1.0, math.inf), ("1 ^ 1", -8.0, 1 / 3, math.nan),
        ("1 / 1", -1.0, 0.0, -math.inf), ("1 / 1", 0.0, 0.0, math.nan), ("1 >= bool 1", 2.0, 2.0, 1.0),
        ("1 != bool 1", math.nan, math.nan, 1.0),
    ],
)  # fmt: skip
def test_scalars_follow_go(query: str, lhs: float, rhs: float, want: float) -> None:
    out = binary(node(query), scalar(lhs), scalar(rhs), Annotations(""))
    assert isinstance(out, Scalar)
    assert np.array_equal(out.values, [want], equal_nan=True)


MANY = matrix([('m{s="1", k="a"}', [1]), ('m{s="1", k="b"}', [2]), ('m{s="2", k="a"}', [3]), ('m{s="3", k="a"}', [4])])
ONE = matrix([('o{s="1", owner="x"}', [10]), ('o{s="2"}', [20]), ('o{s="4", owner="z"}', [40])])


@pytest.mark.parametrize(
    ("query", "lhs", "rhs", "want"),
    [
        ("m + on(s) group_left o", MANY, ONE, ['{k="a", s="1"}', '{k="b", s="1"}', '{k="a", s="2"}']),
        ("m + on(s) group_left(owner) o", MANY, ONE, ['{k="a", owner="x", s="1"}', '{k="b", owner="x", s="1"}', '{k="a", s="2"}']),
        ("o + on(s) group_right(owner) m", ONE, MANY, ['{k="a", owner="x", s="1"}', '{k="b", owner="x", s="1"}', '{k="a", s="2"}']),
        ("m > on(s) group_left o", ONE, ONE, []),
        ("m + on(s) group_left fill_left(0) o", MANY, ONE, ['{k="a", s="1"}', '{k="b", s="1"}', '{k="a", s="2"}', '{s="4"}']),
        ("m + ignoring(k, owner) group_left o", MANY, ONE, ['{k="a", s="1"}', '{k="b", s="1"}', '{k="a", s="2"}']),
    ],
)
def test_many_to_one(query: str, lhs: Matrix, rhs: Matrix, want: list[str]) -> None:
    assert [name for name, _ in run(query, lhs, rhs)] == want


@pytest.mark.parametrize(
    ("query", "lhs", "rhs", "message"),
    [
        ("m + on(s) o", MANY, ONE, "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"),
        (
            "o + on(s) m", ONE, MANY,
            'found duplicate series for the match group {s="1"} on the right hand-side of the operation: '
            '[{__name__="m", k="a", s="1"}, {__name__="m", k="b", s="1"}];'
            "many-to-many matching not allowed: matching labels must be unique on one side",
        ),
        (
            "m + on(s) group_right m", MANY, MANY,
            'found duplicate series for the match group {s="1"} on the left hand-side of the operation: '
            '[{__name__="m", k="a", s="1"}, {__name__="m", k="b", s="1"}];'
            "many-to-many matching not allowed: matching labels must be unique on one side",
        ),
        (
            "m + on(s) group_left(k) o", matrix([('m{s="1", k="a"}', [1]), ('n{s="1", k="b"}', [1])]), ONE,
            "multiple matches for labels: grouping labels must ensure unique matches",
        ),
    ],
)  # fmt: skip
def test_matches_must_be_unique(query: str, lhs: Matrix, rhs: Matrix, message: str) -> None:
    with pytest.raises(QueryFailed) as failure:
        run(query, lhs, rhs)
    assert str(failure.value) == message


def test_duplicates_that_never_meet_are_one_series() -> None:
    left = matrix([('l{x="a"}', [1, 2, 3])])
    churn = matrix([('r{x="a", pod="1"}', [10, None, None]), ('r{x="a", pod="2"}', [None, 20, None])])
    assert run("l + on(x) r", left, churn) == [('{x="a"}', [11, 22, None])]
    assert run("l + on(x) group_left(pod) r", left, churn) == [
        ('{pod="1", x="a"}', [11, None, None]),
        ('{pod="2", x="a"}', [None, 22, None]),
    ]


def test_a_duplicate_on_the_right_does_no_harm_where_the_left_is_empty() -> None:
    both = matrix([('r{x="a", pod="1"}', [1, 2]), ('r{x="a", pod="2"}', [None, 3])])
    assert run("l + on(x) r", matrix([('l{x="a"}', [1, None])]), both) == [('{x="a"}', [2, None])]
    with pytest.raises(QueryFailed):
        run("l + on(x) r", matrix([('l{x="b"}', [1, 1])]), both)


def test_of_two_errors_that_of_the_earlier_step_is_told() -> None:
    left = matrix([('l{x="a", i="0"}', [1, 1]), ('l{x="a", i="1"}', [1, 1])])
    right = matrix([('r{x="a", j="0"}', [1, 1]), ('r{x="a", j="1"}', [None, 1])])
    with pytest.raises(QueryFailed, match="multiple matches for labels"):
        run("l + on(x) r", left, right)
    with pytest.raises(QueryFailed, match="found duplicate series"):
        run("l + on(x) r", left, right.take(np.array([1, 1])))


def test_series_that_become_one_must_not_meet() -> None:
    with pytest.raises(QueryFailed, match="vector cannot contain metrics with the same labelset"):
        run("l * 2", matrix([('a{x="1"}', [1]), ('b{x="1"}', [2])]), scalar(2))
    assert run("l * 2", matrix([('a{x="1"}', [1, None]), ('b{x="1"}', [None, 2])]), scalar(2, 2)) == [('{x="1"}', [2, 4])]


def test_negation_takes_the_name() -> None:
    out = negated(LEFT)
    assert isinstance(out, Matrix)
    assert rows(settle(out)) == [('{x="a"}', [-1, -2]), ('{x="b"}', [-3, None])]


VALUES = st.sampled_from([None, 1.0, 2.0, 3.0])


@st.composite
def sides(draw: st.DrawFn, name: str) -> list[Row]:
    sets = draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=5, unique=True))
    return [(f'{name}{{s="{s}", k="{k}"}}', [draw(VALUES) for _ in range(2)]) for s, k in sets]


@settings(max_examples=200)
@given(
    sides("l"),
    sides("r"),
    st.sampled_from(["+", "-", ">", "=="]),
    st.sampled_from(["", "on(s)", "ignoring(k)", "on(s) group_left"]),
)
def test_joins_are_prometheus_step_by_step(left: list[Row], right: list[Row], op: str, modifier: str) -> None:
    query = f"l {op} {modifier} r"
    want = naive_join(left, right, op, modifier)
    if isinstance(want, str):
        with pytest.raises(
            QueryFailed, match=r"found duplicate series|multiple matches"
        ):  # whichever of two the engine meets first
            run(query, matrix(left), matrix(right))
    else:
        assert {name: row for name, row in run(query, matrix(left), matrix(right)) if any(v is not None for v in row)} == want


def naive_join(left: list[Row], right: list[Row], op: str, modifier: str) -> dict[str, list[float | None]] | str:
    """The result as {labels: values}, or the start of the error: Prometheus's VectorBinop, step by step over dictionaries."""
    out: dict[str, list[float | None]] = {}
    for step in range(2):
        lefts = [(labels(text), row[step]) for text, row in left if row[step] is not None]
        rights = [(labels(text), row[step]) for text, row in right if row[step] is not None]
        if not lefts or not rights:
            continue
        by_key: dict[Labels, float | None] = {}
        for label, value in rights:
            if key_of(label, modifier) in by_key:
                return "found duplicate series"
            by_key[key_of(label, modifier)] = value
        matched: set[object] = set()
        for label, value in lefts:
            key = key_of(label, modifier)
            other = by_key.get(key)
            if other is None or value is None:
                continue
            name = str(result_labels(label, op, modifier))
            mark = (key, name) if "group_left" in modifier else key
            if mark in matched:
                return "multiple matches"
            matched.add(mark)
            if op in "+-" or OPERATORS[op](value, other):
                out.setdefault(name, [None, None])[step] = OPERATORS[op](value, other) if op in "+-" else value
    return out


def key_of(label: Labels, modifier: str) -> Labels:
    unwanted = {METRIC_NAME, *(["k"] if modifier else [])}
    return Labels(tuple((name, value) for name, value in label if name not in unwanted))


def result_labels(label: Labels, op: str, modifier: str) -> Labels:
    keep = {"s", "k", METRIC_NAME}
    if op in "+-":
        keep.discard(METRIC_NAME)
    if modifier == "on(s)":
        keep &= {"s"}
    if modifier == "ignoring(k)":
        keep.discard("k")
    return Labels(tuple((name, value) for name, value in label if name in keep))

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.matrix import Matrix
from promql.operators.aggregate import Accumulator, aggregate
from promql.operators.aggregate_whole import labels_hash
from promql.syntax.ast import Aggregate
from promql.syntax.parser import parse
from tests.promql.matrices import matrix, rows, scalar
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesTable

FEATURES = frozenset(["promql-experimental-functions"])
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.0, 1e100, -1e100, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan, 0.1, 0.3]),
    st.floats(width=64),
)


def node(query: str) -> Aggregate:
    expr = parse(query, features=FEATURES)
    assert isinstance(expr, Aggregate)
    return expr


def run(query: str, value: Matrix, param: float | str | list[float] | None = None) -> Matrix:
    size = len(value.steps)
    given = scalar(*[param] * size) if isinstance(param, float | int) else scalar(*param) if isinstance(param, list) else param
    return aggregate(node(query), value, given, Annotations(query))


REQUESTS = matrix(
    [
        ('r{job="a", i="0"}', [1, 2]),
        ('r{job="a", i="1"}', [3, None]),
        ('r{job="b", i="0"}', [None, 5]),
        ('r{job="b", i="1"}', [7, 9]),
    ]
)


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("sum by (job) (r)", [('{job="a"}', [4, 2]), ('{job="b"}', [7, 14])]),
        ("sum(r)", [("{}", [11, 16])]),
        ("avg without (i) (r)", [('{job="a"}', [2, 2]), ('{job="b"}', [7, 7])]),
        ("min by (job) (r)", [('{job="a"}', [1, 2]), ('{job="b"}', [7, 5])]),
        ("max by (job) (r)", [('{job="a"}', [3, 2]), ('{job="b"}', [7, 9])]),
        ("count by (i) (r)", [('{i="0"}', [1, 2]), ('{i="1"}', [2, 1])]),
        ("group by (absent) (r)", [("{}", [1, 1])]),
        ("stdvar by (job) (r)", [('{job="a"}', [1, 0]), ('{job="b"}', [0, 4])]),
        ("stddev by (job) (r)", [('{job="a"}', [1, 0]), ('{job="b"}', [0, 2])]),
    ],
)
def test_operators_that_fold(query: str, want: object) -> None:
    assert rows(run(query, REQUESTS)) == want


def test_a_group_without_samples_is_not_there() -> None:
    assert rows(run("sum by (job) (r)", matrix([('r{job="a"}', [None]), ('r{job="b"}', [1])]))) == [('{job="b"}', [1])]
    assert rows(run("sum(r)", matrix([]))) == []


def kahan(values: Sequence[float]) -> tuple[float, float]:
    total, rest = values[0], 0.0
    for x in values[1:]:
        new = total + x
        if math.isinf(new):
            rest = 0.0
        elif abs(total) >= abs(x):
            rest += (total - new) + x
        else:
            rest += (x - new) + total
        total = new
    return total, rest


def mean(values: Sequence[float]) -> float:
    """Prometheus's avg: the compensated sum divided, or from the overflow on the running mean."""
    total, rest, count, running = values[0], 0.0, 1.0, False
    for x in values[1:]:
        count += 1
        if not running:
            new, new_rest = _inc(x, total, rest)
            if not math.isinf(new):
                total, rest = new, new_rest
                continue
            running = True
            total, rest = total / (count - 1), rest / (count - 1)
        q = (count - 1) / count
        total, rest = _inc(x / count, q * total, q * rest)
    return total + rest if running else total / count + rest / count


def _inc(x: float, total: float, rest: float) -> tuple[float, float]:
    new = total + x
    if math.isinf(new):
        return new, 0.0
    return new, rest + ((total - new) + x if abs(total) >= abs(x) else (x - new) + total)


def same(left: float, right: float) -> bool:
    return (math.isnan(left) and math.isnan(right)) or (left == right and math.copysign(1, left) == math.copysign(1, right))


@given(st.lists(FLOATS, min_size=1, max_size=9))
def test_sum_and_avg_are_prometheus_bit_by_bit(values: list[float]) -> None:
    value = matrix([(f'x{{i="{i}"}}', [v]) for i, v in enumerate(values)])
    total, rest = kahan(values)
    assert same(run("sum(x)", value).values[0, 0], total + rest)
    assert same(run("avg(x)", value).values[0, 0], mean(values))


@given(st.lists(FLOATS, min_size=1, max_size=9))
def test_min_and_max_ignore_nan_unless_it_is_all(values: list[float]) -> None:
    value = matrix([(f'x{{i="{i}"}}', [v]) for i, v in enumerate(values)])
    numbers = [v for v in values if not math.isnan(v)] or [math.nan]
    for query, want in (("min(x)", min(numbers)), ("max(x)", max(numbers))):
        got = run(query, value).values[0, 0]
        assert got == want or (math.isnan(got) and math.isnan(want))


@given(st.data())
def test_batches_with_other_symbols_add_up_to_the_whole(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    sets = data.draw(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=size, max_size=size))
    names = ["m{" + ", ".join(f'{k}="{v}"' for k, v in sorted(s.items())) + f', id="{i}"}}' for i, s in enumerate(sets)]
    names = [n.replace("{, ", "{") for n in names]
    whole = matrix([(n, [data.draw(st.sampled_from([None, 1.0, 0.1, 2.5])) for _ in range(3)]) for n in names])
    query = data.draw(
        st.sampled_from(["sum by (a, b) (m)", "avg without (id) (m)", "count(m)", "stddev by (c) (m)", "max without (a) (m)"])
    )
    accumulator = Accumulator.start(node(query), whole.steps)
    at = 0
    while at < size:
        end = data.draw(st.integers(at + 1, size))
        part = whole.take(np.arange(at, end))
        accumulator.add(replace(part, series=SeriesTable.of(part.series.rows())))
        at = end
    assert rows(accumulator.finish(Annotations(query))) == rows(run(query, whole))


def go_heap_top(values: Sequence[float], k: int, sign: float) -> list[int]:
    """The rows that Prometheus's topk keeps: container/heap written out."""
    heap: list[int] = []

    def less(a: int, b: int) -> bool:
        x, y = sign * values[heap[a]], sign * values[heap[b]]
        return math.isnan(x) or x < y

    def up(j: int) -> None:
        while (i := (j - 1) // 2) != j and j > 0 and less(j, i):
            heap[i], heap[j] = heap[j], heap[i]
            j = i

    def down(i: int) -> None:
        while (j := 2 * i + 1) < len(heap):
            if j + 1 < len(heap) and less(j + 1, j):
                j += 1
            if not less(j, i):
                return
            heap[i], heap[j] = heap[j], heap[i]
            i = j

    for row, value in enumerate(values):
        if len(heap) < k:
            heap.append(row)
            up(len(heap) - 1)
            continue
        low, x = sign * values[heap[0]], sign * value
        if low < x or (math.isnan(low) and not math.isnan(x)):
            heap[0] = row
            down(0)
    return sorted(heap)


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan, math.inf]), min_size=1, max_size=12), st.integers(1, 5))
def test_topk_keeps_the_rows_that_prometheus_keeps(values: list[float], k: int) -> None:
    value = matrix([(f'x{{i="{i:02}"}}', [v, v]) for i, v in enumerate(values)])
    for op, sign in (("topk", 1.0), ("bottomk", -1.0)):
        got = run(f"{op}({k}, x)", value, float(k))
        assert [int(row.get("i")) for row in got.series.rows()] == go_heap_top(values, k, sign)


def test_topk_of_one_step_is_in_order_and_of_many_is_chosen_step_by_step() -> None:
    one = matrix([("a", [1]), ("b", [math.nan]), ("c", [3])])
    assert [name for name, _ in rows(run("topk(3, x)", one, 3.0))] == ["c", "a", "b"]
    assert [name for name, _ in rows(run("bottomk(3, x)", one, 3.0))] == ["a", "c", "b"]
    many = matrix([("a", [1, 5]), ("b", [2, 4])])
    assert rows(run("topk(1, x)", many, 1.0)) == [("a", [None, 5]), ("b", [2, None])]
    assert rows(aggregate(node("topk(1, x)"), many, scalar(0, 2), Annotations(""))) == [("a", [None, 5]), ("b", [None, 4])]


def test_limitk_takes_the_first_of_each_group_at_each_step() -> None:
    assert rows(run("limitk by (job) (1, r)", REQUESTS, 1.0)) == [
        ('r{i="0", job="a"}', [1, 2]),
        ('r{i="0", job="b"}', [None, 5]),
        ('r{i="1", job="b"}', [7, None]),
    ]
    assert rows(run("limitk(0, r)", REQUESTS, 0.0)) == []


def test_limit_ratio_and_its_complement_make_the_whole() -> None:
    value = matrix([(f'x{{i="{i}"}}', [1]) for i in range(1000)])
    some, rest = (run("limit_ratio(0.3, x)", value, r) for r in (0.3, -0.7))
    assert sorted(name for name, _ in rows(some) + rows(rest)) == sorted(name for name, _ in rows(value))
    assert 200 < len(some) < 400
    notes = Annotations("limit_ratio(1.1, x)")
    assert len(aggregate(node("limit_ratio(1.1, x)"), value, scalar(1.1), notes)) == 1000
    assert list(notes.warnings) == ["PromQL warning: ratio value should be between -1 and 1, got 1.1, capping to 1 (1:13)"]


def test_labels_hash_does_not_depend_on_how_the_table_is_made() -> None:
    wide = matrix([('x{a="1", b="2"}', [1]), ('y{c="3"}', [1])]).series
    narrow = matrix([('y{c="3"}', [1])]).series
    assert labels_hash(wide)[1] == labels_hash(narrow)[0] == 911347381593499256


def test_quantile_interpolates_and_warns() -> None:
    value = matrix([("a", [0, 1]), ("b", [1, math.nan]), ("c", [4, None])])
    got = rows(run("quantile(0.8, x)", value, 0.8))[0][1]
    assert got[0] == pytest.approx(2.8)
    assert math.isnan(got[1])
    notes = Annotations("quantile(2, x)")
    assert rows(aggregate(node("quantile(2, x)"), value, scalar(2, -1), notes)) == [("{}", [math.inf, -math.inf])]
    assert len(notes.warnings) == 2


def test_count_values_makes_labels_of_values() -> None:
    value = matrix([('v{i="0"}', [6, 1e21]), ('v{i="1"}', [6, 0.5]), ('v{i="2"}', [math.nan, None])])
    assert dict(rows(run('count_values("version", v)', value, "version"))) == {
        '{version="6"}': [2, None],
        '{version="1000000000000000000000"}': [None, 1],
        '{version="0.5"}': [None, 1],
        '{version="NaN"}': [1, None],
    }
    assert rows(run('count_values without (i) ("i", v)', value.take(np.arange(1)), "i")) == [("{}", [1, 1])]


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ("topk(1, x)", math.nan, "Parameter value is NaN"),
        ("topk(1, x)", 1e19, r"Scalar value 1e\+19 overflows int64"),
        ("limitk(1, x)", [1.0, -1e19], r"Scalar value -1e\+19 underflows int64"),
        ("limit_ratio(1, x)", math.nan, "Ratio value is NaN"),
        ('count_values("", x)', "", 'invalid label name ""'),
        ('count_values("a", x)', "a\udcc5z", r'invalid label name "a\\xc5z"'),
    ],
)
def test_bad_parameters(query: str, param: float | str | list[float], message: str) -> None:
    with pytest.raises(QueryFailed, match=message):
        run('count_values("a", x)' if isinstance(param, str) else query, matrix({"x": [1, 1]}), param)


@pytest.mark.parametrize("query", ["topk(1, h)", "bottomk(1, h)", "limitk(1, h)"])
@pytest.mark.parametrize("param", [0.5, -1e30, -math.inf])
def test_less_than_one_chooses_nothing_and_tells_nothing(query: str, param: float) -> None:
    notes = Annotations(query)
    out = aggregate(node(query), matrix({"h": [1, 2]}), scalar(param, param), notes)
    assert len(out) == 0 and not notes.infos


def test_a_name_to_lose_is_lost_by_the_group_that_carries_it() -> None:
    value = replace(matrix([('a{env="1"}', [1]), ('a{env="2"}', [2])]), drop_name=np.array([False, True]))
    out = run("sum by (__name__) (a)", value)
    assert out.drop_name is not None and out.drop_name.tolist() == [True]

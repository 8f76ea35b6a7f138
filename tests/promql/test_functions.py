import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.functions.call import EvalContext, call
from promql.functions.elementwise import FUNCTIONS
from promql.functions.time_functions import PARTS
from promql.matrix import Matrix, Scalar, Value
from promql.names import settle
from promql.syntax.ast import Call
from promql.syntax.parser import parse
from promql.syntax.signatures import signature
from promql.window.over_time import RANGE_FUNCTIONS
from tests.promql.matrices import matrix, rows, scalar
from tsdb.model.errors import QueryFailed

FEATURES = frozenset(["promql-experimental-functions"])


def run(query: str, *args: Value, notes: Annotations | None = None) -> Value:
    node = parse(query, features=FEATURES)
    assert isinstance(node, Call)
    steps = next((a.steps for a in args if isinstance(a, Matrix | Scalar)), scalar(0, 0, 0).steps)
    return call(node, list(args), EvalContext(steps, 60_000, 180_000, 30_000, FEATURES, notes or Annotations(query)))


def vector(query: str, *args: Value) -> list[tuple[str, list[float | None]]]:
    out = run(query, *args)
    assert isinstance(out, Matrix)
    return rows(settle(out))


def number(query: str, *args: Value) -> list[float]:
    out = run(query, *args)
    assert isinstance(out, Scalar)
    return [float(v) for v in out.values]


def test_every_function_of_the_language_is_evaluated_somewhere() -> None:
    elsewhere = {*RANGE_FUNCTIONS, "absent_over_time", "info", "start_timestamp"}
    names = [n for n in (*FUNCTIONS, *PARTS, *elsewhere) if signature(n) is None]
    assert names == []


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("abs", -1.5, 1.5), ("ceil", 1.2, 2), ("floor", -1.2, -2), ("exp", 0, 1), ("sqrt", -1, math.nan), ("ln", 0, -math.inf),
        ("log2", 8, 3), ("log10", 1000, 3), ("sgn", -3, -1), ("sgn", -0.0, -0.0), ("sgn", math.nan, math.nan),
        ("deg", math.pi, 180), ("rad", 180, math.pi), ("acosh", 0.5, math.nan), ("atanh", 1, math.inf),
        ("sin", math.inf, math.nan), ("cosh", 0, 1),
    ],
)  # fmt: skip
def test_elementwise(name: str, value: float, want: float) -> None:
    [(labels, [got])] = vector(f"{name}(x)", matrix({'x{a="1"}': [value]}))
    assert labels == '{a="1"}'
    assert np.array_equal([got], [want], equal_nan=True)
    assert got is not None
    assert math.copysign(1, got) == math.copysign(1, want) or math.isnan(want)


def test_clamp_with_infinity_and_nan() -> None:
    value, nan = matrix({"x": [-math.inf, math.inf, math.nan]}), scalar(math.nan, math.nan, math.nan)
    zeros = vector("clamp(x, -0.0, 0)", matrix({"x": [-0.0, 0.0, -1.0]}), scalar(-0.0, -0.0, -0.0), scalar(0, 0, 0))[0][1]
    assert [math.copysign(1, zero) for zero in zeros if zero is not None] == [-1, 1, -1]
    assert math.copysign(1, vector("clamp_min(x, 0)", matrix({"x": [-0.0]}), scalar(0))[0][1][0] or 0.0) == 1
    infinite = scalar(-math.inf, math.inf, math.inf)
    assert vector("clamp(x, -2, scalar(y))", value, scalar(-2, -2, -2), nan)[0][1][0] == -2
    assert vector("clamp_max(x, scalar(y))", value, nan)[0][1][0] == -math.inf
    assert vector("clamp_min(x, scalar(y))", value, nan)[0][1][1] == math.inf
    assert vector("clamp_min(x, scalar(y))", value, infinite)[0][1] == [-math.inf, math.inf, math.inf]


def test_clamp_round_and_empty_clamp() -> None:
    value = matrix({"x": [-5, 5, 50]})
    assert vector("clamp(x, 0, 10)", value, scalar(0, 0, 20), scalar(10, 10, 10)) == [("{}", [0, 5, None])]
    assert vector("clamp_min(x, 0)", value, scalar(0, 0, 0)) == [("{}", [0, 5, 50])]
    assert vector("clamp_max(x, 0)", value, scalar(0, 0, math.nan))[0][1][:2] == [-5, 0]
    assert vector("round(x)", matrix({"x": [0.5, -0.5, 2.5]})) == [("{}", [1, 0, 3])]
    assert vector("round(x, 0.1)", matrix({"x": [2.15]}), scalar(0.1)) == [("{}", [2.2])]


def test_constants() -> None:
    assert number("time()") == [0, 60, 120]
    assert number("pi()") == [math.pi] * 3
    assert number("start()") == [60] * 3
    assert number("end()") == [180] * 3
    assert number("range()") == [120] * 3
    assert number("step()") == [30] * 3
    assert number("min_of(1, 2)", scalar(1), scalar(2)) == [1]
    assert math.isnan(number("max_of(1, 2)", scalar(math.nan), scalar(2))[0])


def test_scalar_and_vector() -> None:
    got = number("scalar(x)", matrix([("a", [1, None, None]), ("b", [2, 3, None])]))
    assert math.isnan(got[0]) and got[1] == 3 and math.isnan(got[2])
    assert vector("vector(1)", scalar(7, 8)) == [("{}", [7, 8])]


def test_absent() -> None:
    there = matrix([("a", [1, None, None])])
    assert vector('absent(x{job="a", i=~"b", c="1", c="2", d="3"})', there) == [('{d="3", job="a"}', [None, 1, 1])]
    assert vector("absent(sum(x))", matrix([("a", [1])])) == []


@given(st.integers(-62_135_596_800, 253_402_300_799), st.floats(0, 0.999))
def test_dates_are_those_of_the_calendar(seconds: int, fraction: float) -> None:
    value = matrix({"x": [seconds + fraction if seconds >= 0 else float(seconds)]})
    date = datetime.fromtimestamp(seconds, UTC)
    follow = datetime(date.year + date.month // 12, date.month % 12 + 1, 1, tzinfo=UTC) if date.year < 9999 else None
    want = {
        "minute": date.minute, "hour": date.hour, "day_of_week": date.isoweekday() % 7, "day_of_month": date.day,
        "month": date.month, "year": date.year, "day_of_year": date.timetuple().tm_yday,
    }  # fmt: skip
    if follow is not None:
        want["days_in_month"] = (follow - datetime(date.year, date.month, 1, tzinfo=UTC)).days
    assert {name: vector(f"{name}(x)", value)[0][1][0] for name in want} == want


def test_a_date_that_is_none_is_go_s() -> None:
    assert vector("year(x)", matrix({"x": [math.nan, math.inf, 1e300]})) == [("{}", [292277026596.0] * 3)]
    assert vector("hour()") == [("{}", [0, 0, 0])]


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (("dst", "new-$1", "src", "v(.*)"), 'x{dst="new-1", src="v1"}'),
        (("dst", "${1}x$1x$$", "src", "v(.*)"), 'x{dst="1x$", src="v1"}'),
        (("dst", "$name", "src", "v(?P<name>.*)"), 'x{dst="1", src="v1"}'),
        (("dst", "$9$other", "src", ".*"), 'x{src="v1"}'),
        (("dst", "$1", "absent", "(.*)"), 'x{src="v1"}'),
        (("dst", "y", "src", "v"), 'x{dst="old", src="v1"}'),
        (("src", "", "src", ".*"), 'x{dst="old"}'),
        (("__name__", "y_$1", "src", "(.+)"), 'y_v1{dst="old", src="v1"}'),
        (("dst", "$", "src", ".*"), 'x{dst="$", src="v1"}'),
    ],
)
def test_label_replace(args: tuple[str, str, str, str], want: str) -> None:
    assert vector('label_replace(x, "a", "b", "c", "d")', matrix({'x{src="v1", dst="old"}': [1]}), *args) == [(want, [1])]


def test_label_replace_refuses() -> None:
    value = matrix([('x{a="1"}', [1]), ('x{a="2"}', [1])])
    with pytest.raises(QueryFailed, match="vector cannot contain metrics with the same labelset"):
        run('label_replace(x, "a", "b", "c", "d")', value, "a", "same", "a", ".*")
    with pytest.raises(QueryFailed, match=r"invalid regular expression in label_replace\(\): \(\?"):
        run('label_replace(x, "a", "b", "c", "d")', value, "a", "", "a", "(?")
    with pytest.raises(QueryFailed, match=r"invalid destination label name in label_replace\(\): "):
        run('label_replace(x, "a", "b", "c", "d")', value, "", "", "a", ".*")


def test_a_name_that_label_replace_sets_is_not_lost() -> None:
    marked = replace(matrix([('x{a="1"}', [1]), ('y{a="1"}', [1])]), drop_name=np.array([True, True]))
    assert vector('label_replace(x, "a", "b", "c", "d")', marked, "__name__", "new_$1", "__name__", "(x)") == [
        ('new_x{a="1"}', [1]),
        ('{a="1"}', [1]),
    ]


def test_label_join() -> None:
    value = matrix([('x{a="1", b="2"}', [1]), ('x{b="3"}', [1])])
    assert vector('label_join(x, "d", "-", "a", "b")', value, "d", "-", "a", "b") == [
        ('x{a="1", b="2", d="1-2"}', [1]),
        ('x{b="3", d="-3"}', [1]),
    ]
    assert vector('label_join(x, "b", "-")', value.take(np.arange(1)), "b", "-") == [('x{a="1"}', [1])]
    with pytest.raises(QueryFailed, match="invalid source label name"):
        run('label_join(x, "d", "-", "a")', value, "d", "-", "")


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("sort(x)", ["b", "a", "c"]),
        ("sort_desc(x)", ["a", "b", "c"]),
    ],
)
def test_sort_puts_nan_last(query: str, want: Sequence[str]) -> None:
    assert [name for name, _ in vector(query, matrix([("a", [2]), ("b", [1]), ("c", [math.nan])]))] == want


def test_sort_by_label_is_natural() -> None:
    texts = ["node10", "node2", "node1a", "node1", "1.20", "1.3", ""]
    value = matrix([(f'x{{l="{text}"}}', [1]) for text in texts])
    got = [labels.get("l") for labels in settle(_matrix(run('sort_by_label(x, "l")', value, "l"))).series.rows()]
    assert got == ["", "1.3", "1.20", "node1", "node1a", "node2", "node10"]
    backwards = [labels.get("l") for labels in settle(_matrix(run('sort_by_label_desc(x, "l")', value, "l"))).series.rows()]
    assert backwards == got[::-1]


def test_sorting_a_range_query_is_told_to_be_idle() -> None:
    notes = Annotations("sort(x)")
    run("sort(x)", matrix({"x": [1, 2]}), notes=notes)
    assert list(notes.warnings) == [
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)"
    ]


def bucket_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Prometheus's BucketQuantile, for counts that differ by more than noise."""
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    bounds = sorted({bound for bound, _ in buckets})
    counts = [sum(count for bound, count in buckets if bound == b) for b in bounds]
    if not bounds or bounds[-1] != math.inf or len(bounds) < 2:
        return math.nan
    for i in range(1, len(counts)):
        counts[i] = max(counts[i], counts[i - 1])
    if counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    b = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(counts) - 1)
    if b == len(counts) - 1:
        return bounds[-2]
    if b == 0 and bounds[0] <= 0:
        return bounds[0]
    start, before = (bounds[b - 1], counts[b - 1]) if b > 0 else (0.0, 0.0)
    return start + (bounds[b] - start) * ((rank - before) / (counts[b] - before)) if counts[b] != before else math.nan


@given(
    st.dictionaries(st.sampled_from(["-1", "0", "0.5", "1", "1.0", "1e1", "+Inf", "Inf"]), st.integers(0, 9), min_size=1),
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.99, 1.0, 2.0, math.nan]),
)
def test_histogram_quantile_is_prometheus_s(buckets: dict[str, int], q: float) -> None:
    value = matrix([(f'h_bucket{{le="{le}", job="a"}}', [float(count)]) for le, count in buckets.items()])
    got = vector("histogram_quantile(0.5, h_bucket)", scalar(q), value)
    assert [name for name, _ in got] == ['{job="a"}']
    want = bucket_quantile(q, [(float(le), float(count)) for le, count in buckets.items()])
    assert np.allclose([got[0][1][0] or 0.0], [want], rtol=1e-12, equal_nan=True)


def test_quantiles_of_changing_buckets_and_what_is_told() -> None:
    value = matrix([
        ('h{le="1"}', [1, 5, None]), ('h{le="2"}', [2, 4, 1]), ('h{le="+Inf"}', [4, 8, 2]),
        ('h{le="x"}', [1, 1, 1]), ("other", [1, 1, None]),
    ])  # fmt: skip
    notes = Annotations("histogram_quantile(2, h)")
    out = run("histogram_quantile(2, h)", scalar(0.5, 0.75, 2), value, notes=notes)
    assert rows(settle(_matrix(out))) == [("{}", [2, 2, math.inf])]
    assert list(notes.warnings) == [
        "PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)",
        'PromQL warning: bucket label "le" is missing or has a malformed value of "x" for metric name "h" (1:23)',
        'PromQL warning: bucket label "le" is missing or has a malformed value of "" for metric name "other" (1:23)',
    ]
    assert list(notes.infos) == [
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity "
        "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
        ", from buckets 2 to 2, with a max diff of 1, over 1 samples"
        " from 1970-01-01T00:01:00Z to 1970-01-01T00:01:00Z (1:23)"
    ]


def test_histogram_quantiles_and_fraction() -> None:
    value = matrix([('h{le="1"}', [1]), ('h{le="2"}', [3]), ('h{le="+Inf"}', [4])])
    assert vector('histogram_quantiles(h, "q", 0.25, 1)', value, "q", scalar(0.25), scalar(1.0)) == [
        ('{q="0.25"}', [1]),
        ('{q="1.0"}', [2]),
    ]
    assert vector("histogram_fraction(0, 1.5, h)", scalar(0), scalar(1.5), value) == [("{}", [0.5])]
    assert vector("histogram_fraction(0, 1.5, h)", scalar(5), scalar(1.5), value) == [("{}", [0])]


@given(st.lists(st.tuples(st.floats(0.1, 10), st.integers(1, 9)), min_size=1, max_size=6))
def test_fraction_below_a_quantile_is_the_quantile(buckets: list[tuple[float, int]]) -> None:
    bounds = np.cumsum([width for width, _ in buckets]).tolist()
    counts = np.cumsum([count for _, count in buckets]).tolist()
    value = matrix(
        [(f'h{{le="{b}"}}', [float(c)]) for b, c in zip(bounds, counts, strict=True)] + [('h{le="+Inf"}', [float(counts[-1])])]
    )
    found = [vector("histogram_quantile(0.5, h)", scalar(q), value)[0][1][0] for q in (0.1, 0.5, 0.9)]
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(found))
    for q, at in zip((0.1, 0.5, 0.9), found, strict=True):
        [(_, [share])] = vector("histogram_fraction(0, 1, h)", scalar(-math.inf), scalar(at or 0), value)
        assert share == pytest.approx(q)


def _matrix(value: Value) -> Matrix:
    assert isinstance(value, Matrix)
    return value

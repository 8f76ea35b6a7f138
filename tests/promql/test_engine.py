"""The engine as a whole: kinds of answers, what is read, limits, and that batches, threads and sharing change no result."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.answer import DELAYED_NAME_REMOVAL, START_TIMESTAMPS
from promql.engine import Answer, QueryOptions, query_instant, query_range
from promql.matrix import Matrix, Scalar, Steps
from promql.syntax.typecheck import ALL_FEATURES
from tests.promql.memory import MemorySource, batch_of, source_of, texts
from tsdb.kernel import window, window_reduce, window_rise
from tsdb.model.errors import BadData, LimitExceeded, QueryFailed, QueryTimeout
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Grid, Selection

OPTIONS = QueryOptions(features=ALL_FEATURES | {DELAYED_NAME_REMOVAL})
STEPS = Steps(0, 120_000, 30_000)
SCRIPT = """load 10s
  x_total{job="a", i="1"} 0+1x12
  x_total{job="a", i="2"} 0+2x12
  x_total{job="b", i="1"} 5 4 3 2 1 _ _ 8 9 stale 1 2 3
  x_total{job="b", i="2"} 0+3x12
  y{job="a"} 7x12
"""


def matrix(answer: Answer) -> Matrix:
    assert isinstance(answer.value, Matrix)
    return answer.value


def cells(answer: Answer) -> dict[str, list[float | None]]:
    """Values by the text of the labels, None where absent."""
    found = matrix(answer)
    rows = np.where(found.present, found.values, np.nan).tolist()
    return {text: [None if v != v else v for v in row] for text, row in zip(texts(found.series), rows, strict=True)}


def ask(query: str, steps: Steps = STEPS, options: QueryOptions = OPTIONS) -> Answer:
    return query_range(source_of(SCRIPT), query, steps, options)


def test_kinds_of_instant_answers() -> None:
    source = source_of(SCRIPT)
    vector = query_instant(source, 'y{job="a"}', 60_000, OPTIONS)
    assert (vector.kind, cells(vector)) == ("vector", {'y{job="a"}': [7.0]})
    scalar = query_instant(source, "1 + 2 * 3", 60_000, OPTIONS)
    assert scalar.kind == "scalar"
    assert isinstance(scalar.value, Scalar)
    assert scalar.value.values.tolist() == [7.0]
    text = query_instant(source, '"hello"', 60_000, OPTIONS)
    assert (text.kind, text.value) == ("string", "hello")


@pytest.mark.parametrize(
    "query", ["y @ 9e15 offset -200y", "y @ -9e15 offset 200y", "y offset 290y", "count_over_time(y[290y] @ 9e15)"]
)
@pytest.mark.parametrize("at_ms", [0, MIN_MS, MAX_MS])
def test_times_beyond_all_time_hold_nothing(query: str, at_ms: int) -> None:
    assert len(matrix(query_instant(source_of(SCRIPT), query, at_ms, OPTIONS))) == 0


def test_a_range_selector_gives_raw_samples() -> None:
    answer = query_instant(source_of(SCRIPT), 'x_total{job="b", i="1"}[1m]', 90_000, OPTIONS)
    assert answer.kind == "matrix"
    assert isinstance(answer.value, SeriesBatch)
    assert answer.value.t_ms.tolist() == [40_000, 70_000, 80_000]  # open at 30 s, no stale marker at 90 s
    assert answer.value.values.tolist() == [1.0, 8.0, 9.0]


def test_a_subquery_gives_raw_samples_too() -> None:
    answer = query_instant(source_of(SCRIPT), "abs(y)[1m:30s]", 90_000, OPTIONS)
    assert isinstance(answer.value, SeriesBatch)
    assert answer.value.t_ms.tolist() == [60_000, 90_000]
    assert texts(answer.value.series) == ['{job="a"}']


def test_range_answers_are_matrices_sorted_by_labels() -> None:
    assert cells(ask("time()")) == {"{}": [0.0, 30.0, 60.0, 90.0, 120.0]}
    found = ask("sort_desc(x_total) or y")
    assert texts(matrix(found).series) == sorted(texts(matrix(found).series))
    assert cells(ask('x_total{job="b", i="1"}'))['x_total{i="1", job="b"}'] == [5.0, 2.0, 1.0, None, 3.0]


@pytest.mark.parametrize("query", ['"text"', "y[5m]", "y[5m:1m]"])
def test_what_has_no_value_at_a_step(query: str) -> None:
    with pytest.raises(BadData, match="for range query, must be Scalar or instant Vector"):
        ask(query)


def test_bounds_of_the_steps() -> None:
    with pytest.raises(BadData, match=r"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query"):
        ask("y", Steps(0, 11_001 * 1000, 1000))
    assert len(matrix(ask("y", Steps(0, 11_000 * 1000, 1000))).steps) == 11_001
    with pytest.raises(BadData, match="end timestamp must not be before start"):
        ask("y", Steps(1000, 0, 1000))
    with pytest.raises(BadData, match="zero or negative query resolution"):
        ask("y", Steps(0, 1000, 0))


def test_bound_of_samples() -> None:
    with pytest.raises(LimitExceeded, match=r"too many samples into memory in query execution: .* the limit is 20"):
        ask("x_total", options=QueryOptions(max_samples=20))
    ask("sum(y)", options=QueryOptions(max_samples=20))


@pytest.mark.parametrize(
    "query", ["max_over_time(y[10000d:1ms])", "max_over_time(x_total[1d:50ms])", "sum(max_over_time(vector(1)[1y:1ms]))"]
)
def test_a_subquery_is_bounded_before_it_takes_memory(query: str) -> None:
    with pytest.raises(LimitExceeded, match="limit"):
        ask(query, options=QueryOptions(max_samples=1_000_000))


def test_bound_of_series() -> None:
    with pytest.raises(LimitExceeded, match="more than 3 series"):
        ask("x_total", options=QueryOptions(max_series=3))


def test_the_deadline_ends_the_query() -> None:
    left = itertools.count(5, -1)

    def deadline() -> None:
        if next(left) == 0:
            raise QueryTimeout("query timed out")

    with pytest.raises(QueryTimeout):
        query_range(source_of(SCRIPT, 1), "sum(x_total)", STEPS, OPTIONS, deadline=deadline)


@pytest.mark.parametrize(
    ("query", "start_ms", "end_ms"),
    [
        ("y", -299_999, 120_001),
        ("y offset 1m", -359_999, 60_001),
        ("y @ 50", -249_999, 50_001),
        ("rate(y[1m])", -59_999, 120_001),
        ("rate(y[1m] offset -10s)", -49_999, 130_001),
        ("increase(y[1m] anchored)", -359_999, 120_001),
        ("increase(y[1m] smoothed)", -359_999, 420_001),
        ("y smoothed", -299_999, 420_001),
        ("max_over_time(y[1m:20s])", -339_999, 120_001),
        ("max_over_time(rate(y[1m])[1m:20s] @ 100)", 1, 100_001),
    ],
)
def test_only_what_is_needed_is_read(query: str, start_ms: int, end_ms: int) -> None:
    source = source_of(SCRIPT)
    query_range(source, query, STEPS, OPTIONS)
    assert [(s.start_ms, s.end_ms) for s in source.asked] == [(start_ms, end_ms)]


@pytest.mark.parametrize(
    ("query", "grid"),
    [
        ("x_total", Grid(0, 30_000)),
        ("quantile_over_time(0.5, y[15s])", Grid(0, 30_000, 15_000)),
        ("quantile_over_time(0.5, y[22s] offset 20s)", Grid(-20_000, 30_000, 22_000)),
        ("quantile_over_time(0.5, y[23s])", None),  # nearly all samples are in a window
        ("quantile_over_time(0.5, y[15s] @ 100)", None),
        ("rate(x_total[15s] smoothed)", None),
    ],
)
def test_storage_is_told_what_the_steps_see(query: str, grid: Grid | None) -> None:
    source = source_of(SCRIPT)
    query_range(source, query, STEPS, OPTIONS)
    assert [selection.grid for selection in source.asked] == [grid]


@pytest.mark.parametrize(
    "query",
    ["sum(x_total) / (sum(x_total) + 1)", "sum(rate(x_total[1m])) / count(rate(x_total[1m]))", "x_total / x_total - sum(x_total)"],
)
def test_equal_parts_are_read_once(query: str) -> None:
    source = source_of(SCRIPT)
    once = query_range(source, query, STEPS, OPTIONS)
    assert len(source.asked) == 1
    assert cells(once) == cells(query_range(source_of(SCRIPT, 1), query.replace("x_total", "x_total offset 0s", 1), STEPS, OPTIONS))


def test_what_is_told_of_two_places_names_the_later() -> None:
    for query in ("sum(rate(y[1m])) + sum(rate(y[1m]))", "sum(rate(y[2m])) + sum(rate(y[1m]))"):
        answer = query_range(source_of(SCRIPT), query, STEPS, OPTIONS)
        assert [text[-7:].strip() for text in answer.infos] == ["(1:29)"]


def test_a_fixed_part_is_evaluated_at_one_step() -> None:
    found = cells(ask("sum(x_total @ 60) + 0 * sum(y)"))
    assert found == {"{}": [6.0 + 12 + 18 + 1] * 5}


QUERIES = [
    "x_total",
    "rate(x_total[40s])",
    "-abs(x_total) * 2 > -20",
    "timestamp(x_total)",
    "sum by (job) (rate(x_total[40s]))",
    "avg without (i) (x_total)",
    "stddev(x_total) + on() group_right() sum by (job) (x_total)",
    "topk(2, x_total)",
    "absent_over_time(x_total[20s])",
    "absent(nothing{job='a'})",
    "max_over_time(sum by (job) (x_total)[40s:10s])",
    "sum(count_over_time(deriv(x_total[30s])[40s:10s]))",
    "quantile_over_time(0.5, x_total[1m]) and on(job) y",
    "last_over_time(x_total[20s] @ 70)",
]


@pytest.mark.parametrize("query", QUERIES)
def test_batches_and_threads_change_nothing(query: str) -> None:
    whole = ask(query)
    with ThreadPoolExecutor(2) as executor:
        for size, pool in ((1, None), (2, None), (1, executor), (3, executor), (9, executor)):
            answer = query_range(source_of(SCRIPT, size), query, STEPS, OPTIONS, executor=pool)
            assert cells(answer) == cells(whole)
            assert (answer.warnings, answer.infos) == (whole.warnings, whole.infos)


@settings(max_examples=40)
@given(at_s=st.integers(0, 150), query=st.sampled_from(QUERIES[:-1]))
def test_one_step_of_a_range_is_an_instant(at_s: int, query: str) -> None:
    source = source_of(SCRIPT)
    instant = query_instant(source, query, at_s * 1000, OPTIONS)
    ranged = query_range(source, query, Steps(at_s * 1000 - 30_000, at_s * 1000 + 30_000, 30_000), OPTIONS)
    middle = {text: row[1] for text, row in cells(ranged).items() if row[1] is not None}
    assert middle == {text: row[0] for text, row in cells(instant).items()}


def test_an_aggregation_holds_one_batch() -> None:
    script = "load 10s\n" + "\n".join(f'  x_total{{i="{i}"}} 0+1x12' for i in range(100))
    answer = query_range(source_of(script, 5), "sum(rate(x_total[1m]))", STEPS, OPTIONS)
    assert answer.stats is not None
    assert answer.stats.series == 100
    assert answer.stats.samples == 1300
    assert answer.stats.peak_samples <= 5 * 13 + 5 * len(STEPS)


def test_without_delayed_removal_names_go_at_once() -> None:
    plain = QueryOptions(features=ALL_FEATURES)
    assert texts(matrix(ask("rate(x_total[1m])", options=plain)).series)[0] == '{i="1", job="a"}'
    twice = 'load 10s\n  a{i="1"} 1 2 3\n  b{i="1"} 1 2 3'
    for size in (1, 2):
        with pytest.raises(QueryFailed, match="vector cannot contain metrics with the same labelset"):
            query_range(source_of(twice, size), 'sum(rate({i="1"}[1m]))', STEPS, plain)


def test_start_timestamps_are_a_feature() -> None:
    script = "load 10s\n  x_total@st -5sx6\n  x_total 5x6"
    on = QueryOptions(features=ALL_FEATURES | {START_TIMESTAMPS})
    assert cells(query_instant(source_of(script), "increase(x_total[1m])", 60_000, OPTIONS)) == {"{}": [0.0]}
    assert cells(query_instant(source_of(script), "increase(x_total[1m])", 60_000, on)) == {"{}": [30.0]}


def test_warnings_of_storage_are_passed_on() -> None:
    batch = batch_of(SCRIPT)
    lame = MemorySource([SeriesBatch.empty(("block 01 is damaged",)), batch])
    assert query_range(lame, "sum(y)", STEPS, OPTIONS).warnings == ("block 01 is damaged",)


def test_node_timings() -> None:
    ticks = itertools.count()
    answer = query_range(source_of(SCRIPT), "sum(x_total) / count(y)", STEPS, OPTIONS, clock=lambda: float(next(ticks)))
    assert answer.stats is not None
    root = answer.stats.root
    assert root is not None
    assert (root.name, [part.name for part in root.parts]) == ("/", ["sum", "count"])
    assert root.seconds > sum(part.seconds for part in root.parts)
    assert query_range(source_of(SCRIPT), "y", STEPS, OPTIONS).stats.root is None  # type: ignore[union-attr]


class WholeSource(MemorySource):
    """Gives its batches as they are, whatever is asked: samples outside the range do no harm."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return iter(self.batches)


def test_each_kernel_is_compiled_for_one_kind_of_array() -> None:
    batch = batch_of(SCRIPT)
    frozen = [np.frombuffer(column.tobytes(), column.dtype) for column in (batch.offsets, batch.t_ms, batch.values)]
    strided = [np.repeat(column, 2)[::2] for column in (batch.offsets, batch.t_ms, batch.values)]
    kernels = (window.latest_samples, window_rise.counter_windows, window_reduce.reduce_windows)
    counts = []
    for columns in ((batch.offsets, batch.t_ms, batch.values), frozen, strided):
        source = WholeSource([SeriesBatch(batch.series, *columns)])
        for query in ("x_total", "rate(x_total[1m])", "max_over_time(x_total[1m])", "max_over_time((x_total)[30s:30s])"):
            query_range(source, query, STEPS, OPTIONS)
            query_instant(source, query, 60_000, OPTIONS)
        counts.append([len(kernel.signatures) for kernel in kernels])
    assert counts[0] == counts[1] == counts[2]

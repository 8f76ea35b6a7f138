"""Range functions over batches: notes, names, limits of use. What the numbers are is tested at the kernels and by scripts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from promql.annotations import Annotations
from promql.matrix import F64, Matrix, Steps
from promql.window.floats import MIN_PART_SAMPLES
from promql.window.over_time import RangeCall, check_call, over_time
from promql.window.windows import Windows
from tests.promql.memory import batch_of, texts
from tsdb.model.errors import QueryFailed
from tsdb.model.series import STALE_NAN, SeriesBatch, SeriesTable

AT = Steps.instant(60_000)


def windows(steps: Steps = AT, range_ms: int = 60_000, *, anchored: bool = False, smoothed: bool = False) -> Windows:
    return Windows(steps, steps.ms, range_ms, 300_000, anchored, smoothed)


def run(
    func: str, script: str, params: Sequence[F64] = (), steps: Steps = AT, *, typed: bool = False
) -> tuple[Matrix, Annotations]:
    notes = Annotations(f"{func}(x[1m])")
    return over_time(RangeCall(func, params, (0, 1), typed), batch_of(script), windows(steps), notes), notes


def value(func: str, script: str, *params: float) -> float | None:
    matrix, _ = run(func, script, [np.array([param]) for param in params])
    return float(matrix.values[0, 0]) if len(matrix) else None


@pytest.mark.parametrize(
    ("func", "params", "expected"),
    [
        ("sum_over_time", (), 26.0),
        ("avg_over_time", (), 6.5),
        ("min_over_time", (), 1.0),
        ("max_over_time", (), 16.0),
        ("ts_of_min_over_time", (), 50.0),
        ("ts_of_max_over_time", (), 40.0),
        ("count_over_time", (), 4.0),
        ("present_over_time", (), 1.0),
        ("first_over_time", (), 2.0),
        ("last_over_time", (), 1.0),
        ("ts_of_first_over_time", (), 10.0),
        ("ts_of_last_over_time", (), 50.0),
        ("quantile_over_time", (0.5,), 4.5),
        ("mad_over_time", (), 3.0),
        ("stdvar_over_time", (), 35.25),
        ("changes", (), 3.0),
        ("resets", (), 1.0),
        ("idelta", (), -15.0),
        ("irate", (), 0.1),
        ("predict_linear", (0.0,), None),
    ],
)
def test_functions(func: str, params: tuple[float, ...], expected: float | None) -> None:
    found = value(func, "load 10s\n x 9 2 _ 7 16 1", *params)
    assert found is not None
    if expected is not None:
        assert found == pytest.approx(expected)


def test_windows_are_open_at_their_start() -> None:
    assert value("count_over_time", "load 60s\n x 1 1") == 1


def test_stale_markers_are_not_there() -> None:
    matrix, _ = run("count_over_time", "load 10s\n x 1 1 stale 1")
    assert matrix.values.tolist() == [[2.0]]
    batch = SeriesBatch(SeriesTable.empty(1), np.array([0, 1]), np.array([50_000]), np.array([STALE_NAN]))
    assert len(over_time(RangeCall("last_over_time", (), (0, 1)), batch, windows(), Annotations(""))) == 0


def test_names_are_marked_to_go_but_where_the_metric_stays_the_same() -> None:
    assert run("sum_over_time", "load 10s\n x 1 2")[0].drop_name is not None
    for func in ("last_over_time", "first_over_time"):
        assert run(func, "load 10s\n x 1 2")[0].drop_name is None


def test_series_without_a_result_go() -> None:
    matrix, _ = run("rate", 'load 10s\n x{a="1"} 1 2 3\n x{a="2"} _ 1')
    assert texts(matrix.series) == ['x{a="1"}']


def test_what_does_not_look_like_a_counter() -> None:
    _, notes = run("rate", "load 10s\n x 1 2 3\n y_total 1 2 3\n z_count 1 2\n w 1")
    text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket"
    assert list(notes.infos) == [f'PromQL info: {text}: "x" (1:1)']
    assert not run("delta", "load 10s\n x 1 2 3")[1].infos


def test_what_its_type_says_is_no_counter() -> None:
    _, notes = run("increase", 'load 10s\n x{__type__="gauge"} 1 2 3\n y{__type__="counter"} 1 2', typed=True)
    text = 'metric might not be a counter, __type__ label is not set to "counter" or "histogram", got "gauge"'
    assert list(notes.infos) == [f'PromQL info: {text}: "x" (1:1)']


def test_quantiles_out_of_range_are_warned_of_where_there_are_samples() -> None:
    q = [np.array([2.0])]
    assert list(run("quantile_over_time", "load 10s\n x 1 2", q)[1].warnings) == [
        "PromQL warning: quantile value should be between 0 and 1, got 2 (1:1)"
    ]
    assert not run("quantile_over_time", "load 100s\n x _ 1", q)[1].warnings


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((0.0, 0.5), "invalid smoothing factor. Expected: 0 < sf < 1, got: 0.000000"),
        ((0.5, 1.5), "invalid trend factor. Expected: 0 < tf < 1, got: 1.500000"),
    ],
)
def test_smoothing_factors(factors: tuple[float, float], message: str) -> None:
    with pytest.raises(QueryFailed, match=message):
        value("double_exponential_smoothing", "load 10s\n x 1 2 3", *factors)


def test_mixed_windows() -> None:
    script = "load 10s\n x 1 2 {{count:3 sum:4}} {{count:5 sum:6}}"
    matrix, notes = run("rate", script)
    assert len(matrix) == 0
    assert list(notes.warnings) == ['PromQL warning: encountered a mix of histograms and floats for metric name "x" (1:1)']
    matrix, notes = run("max_over_time", script)
    assert matrix.values.tolist() == [[2.0]]
    ignored = "ignored histograms in a range containing both floats and histograms"
    assert list(notes.infos) == [f'PromQL info: {ignored} for metric name "x" (1:1)']
    assert run("count_over_time", script)[0].values.tolist() == [[3.0]]
    matrix, _ = run("last_over_time", script)
    assert matrix.histograms is not None
    assert matrix.cells is not None
    assert matrix.histograms.count[matrix.cells[0, 0]] == 5


def test_modifiers_and_functions_that_do_not_go_together() -> None:
    with pytest.raises(QueryFailed, match="anchored modifier can only be used with: changes, delta, increase, rate, resets - not"):
        check_call(RangeCall("deriv", (), (0, 1)), windows(anchored=True))
    with pytest.raises(QueryFailed, match="smoothed modifier can only be used with: delta, increase, rate - not with changes"):
        check_call(RangeCall("changes", (), (0, 1)), windows(smoothed=True))


@pytest.mark.parametrize("func", ["rate", "sum_over_time", "count_over_time", "quantile_over_time"])
def test_threads_share_the_series_of_a_batch(func: str) -> None:
    n, m = 300, 4 * MIN_PART_SAMPLES // 300
    rng = np.random.default_rng(7)
    table = SeriesTable.empty(n)
    batch = SeriesBatch(table, np.arange(n + 1) * m, np.tile(np.arange(m) * 15_000, n), rng.random(n * m).cumsum())
    steps = Steps(0, m * 15_000, 600_000)
    call = RangeCall(func, [np.full(len(steps), 0.5)] if func == "quantile_over_time" else (), (0, 1))
    alone = over_time(call, batch, windows(steps, 300_000), Annotations(""))
    with ThreadPoolExecutor(2) as executor:
        shared = over_time(call, batch, windows(steps, 300_000), Annotations(""), executor)
    np.testing.assert_array_equal(alone.present, shared.present)
    np.testing.assert_array_equal(alone.values[alone.present], shared.values[shared.present])

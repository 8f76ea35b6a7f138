"""Every function over downsampled data beside the same over raw samples: what docs/downsampling.md calls exact is equal to 1e-9."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promql.answer import START_TIMESTAMPS, Answer, QueryOptions
from promql.engine import query_instant, query_range
from promql.matrix import F64, Matrix, Steps
from promql.resolution import AUTO, EXACT, EXACT_NATIVE, INSTANT
from promql.window.over_time import RANGE_FUNCTIONS
from tests.promql.memory import MemorySource
from tests.tsdb.batches import histogram_batch
from tsdb.compaction.downsample import downsample
from tsdb.merge import merge_batches
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_NAN, SeriesBatch, SeriesTable

DOCS = Path(__file__).parents[2] / "docs" / "downsampling.md"
M, H = 60_000, 3_600_000
FEATURES = frozenset({"promql-experimental-functions", "promql-extended-range-selectors"})
RAW = QueryOptions(features=FEATURES)
HOURLY = Steps(4 * H, 24 * H, H)
ARGUMENTS = {
    "quantile_over_time": "0.9, {}",
    "predict_linear": "{}, 600",
    "double_exponential_smoothing": "{}, 0.3, 0.6",
}
NATIVE_FUNCTIONS = sorted(EXACT_NATIVE | {"sum_over_time", "avg_over_time", "changes", "irate", "idelta"})


def series(name: str, t_ms: np.ndarray, values: np.ndarray) -> SeriesBatch:
    table = SeriesTable.of([Labels.of({"__name__": "x_total", "shape": name})])
    return SeriesBatch(table, np.array([0, len(t_ms)]), np.asarray(t_ms, np.int64), np.asarray(values, np.float64))


@cache
def shapes() -> SeriesBatch:
    """A day of counters with resets, gauges of all sizes, gaps, stale markers, NaN and infinities, at odd times."""
    rng = np.random.default_rng(7)
    t_ms = np.arange(0, 24 * H, 15_000) + rng.integers(-3000, 3000, 24 * 240)
    n = len(t_ms)
    counter = np.cumsum(rng.integers(0, 50, n)).astype(float)
    counter -= np.maximum.accumulate(np.where(rng.random(n) < 0.002, counter, 0))
    stale = np.where(rng.random(n) < 0.01, STALE_NAN, np.round(rng.normal(5, 2, n), 1))
    nans = np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 4, n))
    gap = (t_ms % (5 * H) < 2 * H) & (t_ms % H < 50 * M)
    parts = [
        series("counter", t_ms, counter),
        series("even", np.arange(0, 24 * H, 15_000), counter),
        series("gauge", t_ms, rng.normal(0, 1, n)),
        series("large", t_ms, 1e9 + rng.normal(0, 1, n)),
        series("steady", t_ms, np.full(n, 0.1)),
        series("stale", t_ms, stale),
        series("nan", t_ms, nans),
        series("infinite", t_ms, np.where(rng.random(n) < 0.01, np.inf, rng.normal(0, 1, n))),
        series("gap", t_ms[gap], counter[gap]),
        series("sparse", t_ms[::700], counter[::700]),
        series("once", t_ms[1500:1501], counter[1500:1501]),
    ]
    return merge_batches(parts)


@cache
def coarse(resolution_ms: int, from_ms: int = 0) -> SeriesBatch:
    batch = shapes() if from_ms == 0 else coarse(from_ms)
    return downsample(batch, resolution_ms)


def answers(query: str, batch: SeriesBatch, steps: Steps, options: QueryOptions) -> Answer:
    if steps.start_ms == steps.end_ms:
        return query_instant(MemorySource([batch]), query, steps.start_ms, options)
    return query_range(MemorySource([batch]), query, steps, options)


def same(raw: Answer, other: Answer, *, scale: F64 | float = 1.0) -> None:
    """Equal to 1e-9 of the values or, where large numbers cancel out, of `scale`."""
    assert isinstance(raw.value, Matrix) and isinstance(other.value, Matrix)
    assert raw.value.series.rows() == other.value.series.rows()
    assert np.array_equal(raw.value.present, other.value.present)
    there = raw.value.present
    np.testing.assert_allclose(other.value.values[there], raw.value.values[there], rtol=1e-9, atol=1e-12 * scale, equal_nan=True)


def call(func: str, selector: str) -> str:
    return f"{func}({ARGUMENTS.get(func, '{}').format(selector)})"


def approximations(answer: Answer) -> list[str]:
    return [info for info in answer.infos if "is approximated" in info]


@pytest.mark.parametrize("resolution", [(5 * M, 0), (H, 0), (H, 5 * M)], ids=["5m", "1h", "1h of 5m"])
@pytest.mark.parametrize("func", sorted(EXACT))
def test_exact_functions_equal_raw(func: str, resolution: tuple[int, int]) -> None:
    large = 1e9 if func in ("stddev_over_time", "stdvar_over_time") else 1.0
    for selector in ("x_total[1h]", "x_total[3h]", "x_total[2h] offset 1h"):
        query = call(func, f"{selector}")
        raw = answers(query, shapes(), HOURLY, RAW)
        answer = answers(query, coarse(*resolution), HOURLY, replace(RAW, resolution_ms=AUTO))
        same(raw, answer, scale=large)
        assert approximations(answer) == []


@pytest.mark.parametrize("resolution", [(5 * M, 0), (H, 5 * M)], ids=["5m", "1h"])
@pytest.mark.parametrize("query", ["x_total", "x_total offset 2h", "timestamp(x_total)"])
def test_instant_selectors_equal_raw(query: str, resolution: tuple[int, int]) -> None:
    for lookback_ms in (5 * M, 20 * M, 90 * M):
        options = replace(RAW, lookback_ms=lookback_ms)
        raw = answers(query, shapes(), HOURLY, options)
        answer = answers(query, coarse(*resolution), HOURLY, replace(options, resolution_ms=AUTO))
        same(raw, answer)
        assert approximations(answer) == []


@pytest.mark.parametrize("func", sorted(RANGE_FUNCTIONS - EXACT))
def test_all_other_functions_say_that_they_are_approximated(func: str) -> None:
    query = call(func, 'x_total{shape="gauge"}[2h]')
    answer = answers(query, coarse(5 * M), HOURLY, replace(RAW, resolution_ms=5 * M))
    assert approximations(answer) == [
        f"PromQL info: {func}() over samples downsampled to 5m is approximated (1:{query.index('x_total') + 1})"
    ]
    assert isinstance(answer.value, Matrix) and answer.value.present.any()
    auto = MemorySource([shapes()])
    query_range(auto, query, HOURLY, replace(RAW, resolution_ms=AUTO))
    assert [(one.resolution_ms, one.fallback_ms) for one in auto.asked] == [(0, 5 * M)], "raw samples, where they are there"


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        ('rate(x_total{shape="counter"}[2h])', Steps(4 * H + M, 20 * H, H)),
        ('rate(x_total{shape="counter"}[2h])', Steps(4 * H, 20 * H, 7 * M)),
        ('rate(x_total{shape="counter"}[61m])', HOURLY),
        ('rate(x_total{shape="counter"}[2h] offset 3m)', HOURLY),
        ('rate(x_total{shape="counter"}[2h] @ 50000.5)', HOURLY),
        ('rate(x_total{shape="counter"}[2h] anchored)', HOURLY),
        ('increase(x_total{shape="counter"}[2h] smoothed)', HOURLY),
        ('x_total{shape="counter"}', Steps(4 * H + M, 20 * H, H)),
        ('x_total{shape="counter"} smoothed', HOURLY),
        ('max_over_time(x_total{shape="counter"}[2h:7m])', HOURLY),
    ],
)
def test_windows_that_are_cut_say_so(query: str, steps: Steps) -> None:
    answer = answers(query, coarse(5 * M), steps, replace(RAW, resolution_ms=5 * M))
    assert len(approximations(answer)) == 1
    raw = answers(query, shapes(), steps, RAW)
    assert isinstance(raw.value, Matrix) and isinstance(answer.value, Matrix)
    assert raw.value.present.mean() - answer.value.present.mean() < 0.1
    both = raw.value.present & answer.value.present
    np.testing.assert_allclose(answer.value.values[both], raw.value.values[both], rtol=0.2)


def test_start_timestamps_are_not_kept() -> None:
    options = QueryOptions(features=frozenset({START_TIMESTAMPS}), resolution_ms=H)
    assert len(approximations(answers('rate(x_total{shape="counter"}[2h])', coarse(H), HOURLY, options))) == 1


@pytest.mark.parametrize("func", sorted(EXACT))
def test_raw_and_downsampled_stretches_make_one_answer(func: str) -> None:
    """Old windows of an hour, then windows of five minutes, then raw samples."""
    mixed = merge_batches(
        [coarse(H).clip(0, 8 * H + 1), coarse(5 * M).clip(8 * H + 1, 16 * H + 1), shapes().clip(16 * H + 1, 25 * H)]
    )
    query = call(func, "x_total[3h]")
    large = 1e9 if func in ("stddev_over_time", "stdvar_over_time") else 1.0
    same(answers(query, shapes(), HOURLY, RAW), answers(query, mixed, HOURLY, replace(RAW, resolution_ms=H)), scale=large)


@cache
def natives() -> SeriesBatch:
    """Three hours of native histograms every 15 s, one of them reset."""
    batch = histogram_batch(4, 720)
    return replace(batch, t_ms=(batch.t_ms - batch.t_ms.min()) // np.diff(batch.t_ms[:2])[0] * 15_000 + 1000, start_ms=None)


@pytest.mark.parametrize("func", NATIVE_FUNCTIONS)
def test_native_histograms(func: str) -> None:
    steps = Steps(H, 3 * H, H)
    query = call(func, '{__name__!=""}[1h]')
    raw = answers(query, natives(), steps, RAW)
    for batch in (downsample(natives(), 5 * M), downsample(downsample(natives(), 5 * M), H)):
        assert batch.samples < natives().samples
        answer = answers(query, batch, steps, replace(RAW, resolution_ms=H))
        if func in EXACT_NATIVE:
            assert approximations(answer) == []
            same(raw, answer)
            assert_equal_cells(raw, answer)
        else:
            assert approximations(answer) != []


def assert_equal_cells(raw: Answer, answer: Answer) -> None:
    """That histograms of two answers are equal to 1e-9, bucket by bucket."""
    one, other = (list(histograms(each)) for each in (raw, answer))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)


def histograms(answer: Answer) -> Iterator[F64]:
    assert isinstance(answer.value, Matrix)
    if answer.value.cells is None or answer.value.histograms is None:
        return
    for row in answer.value.cells[answer.value.natives].tolist():
        h = answer.value.histograms.take(np.array([row]))
        used = h.positive.counts != 0
        index = h.positive.index[used].astype(float)
        yield np.concatenate([h.count, h.sum, h.zero_count, index, h.positive.counts[used]])


VALUES = st.one_of(
    st.integers(0, 5).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([STALE_NAN, STALE_NAN, np.nan, 0.0, -0.0]),
)


@given(
    st.lists(st.tuples(st.integers(1, 12 * M), VALUES), min_size=1, max_size=60),
    st.sampled_from(sorted(EXACT | {INSTANT})),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([5 * M, 20 * M]),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_series_is_answered_as_from_raw(
    samples: list[tuple[int, float]], func: str, windows: int, offset: int, lookback_ms: int
) -> None:
    t_ms = np.cumsum([gap for gap, _ in samples])
    batch = series("x", t_ms, np.array([value for _, value in samples]))
    selector = f"x_total offset {5 * offset}m" if func == INSTANT else f"x_total[{5 * windows}m] offset {5 * offset}m"
    query = selector if func == INSTANT else call(func, selector)
    steps = Steps(0, int(t_ms[-1]) // (5 * M) * 5 * M + 30 * M, 5 * M)
    options = replace(RAW, lookback_ms=lookback_ms)
    answer = answers(query, downsample(batch, 5 * M), steps, replace(options, resolution_ms=5 * M))
    scale = float(np.abs(np.nan_to_num(batch.values)).max())
    power = 2 if func == "stdvar_over_time" else 1
    same(answers(query, batch, steps, options), answer, scale=10 * scale**power)
    assert approximations(answer) == []


def test_means_of_sums_that_overflow() -> None:
    query, at, auto = "avg_over_time(x_total[30m])", Steps.instant(30 * M), replace(RAW, resolution_ms=AUTO)
    few, many = (series("vast", np.arange(1, 31 * M // gap) * gap, np.full(31 * M // gap - 1, 1.5e307)) for gap in (M, 6000))
    answer = answers(query, downsample(few, 5 * M), at, auto)
    assert approximations(answer) == []
    same(answers(query, few, at, RAW), answer)
    assert len(approximations(answers(query, downsample(many, 5 * M), at, auto))) == 1, "a window's own sum overflows"


def test_the_table_in_the_docs_says_what_is_so() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (exact|approximated) \| (exact|approximated|floats only|–) \|", DOCS.read_text(), re.M)
    told = {func: (floats, natives) for func, floats, natives in rows}
    assert set(told) == set(RANGE_FUNCTIONS)
    for func, (floats, native) in told.items():
        assert (floats == "exact") == (func in EXACT), func
        assert (native == "exact") == (func in EXACT_NATIVE), func

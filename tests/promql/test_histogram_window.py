"""Range functions over native histograms: where they agree with floats, and where windows give nothing but a note."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.engine import QueryOptions, query_range
from promql.histogram.samples import WindowResult
from promql.histogram.window import FUNCTIONS, over_time, with_reset_hints
from promql.matrix import Matrix, Steps
from promql.window.floats import float_windows
from promql.window.windows import Windows, bounds
from tests.promql.histogram_literal import HistogramLiteral, from_histograms, parse_histogram, to_histograms
from tests.promql.memory import MemorySource
from tsdb.model.histogram import COUNTER_RESET, NOT_COUNTER_RESET, UNKNOWN_RESET
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

STEP_MS = 15_000


def batch_of(*points: str | float | HistogramLiteral) -> SeriesBatch:
    """One series `h` with a point each STEP_MS: floats, literals or their texts."""
    parsed = [parse_histogram(point) if isinstance(point, str) else point for point in points]
    literals = [point for point in parsed if isinstance(point, HistogramLiteral)]
    native = np.array([isinstance(point, HistogramLiteral) for point in parsed])
    return SeriesBatch(
        SeriesTable.of([Labels.of({"__name__": "h"})]),
        np.array([0, len(parsed)]),
        np.arange(len(parsed), dtype=np.int64) * STEP_MS,
        np.array([np.nan if isinstance(point, HistogramLiteral) else point for point in parsed]),
        to_histograms(literals),
        np.where(native, np.cumsum(native) - 1, -1),
    )


def evaluate(func: str, batch: SeriesBatch, *, range_ms: int = 60_000) -> tuple[WindowResult, Annotations]:
    """The function at each point's time."""
    steps = Steps(0, int(batch.t_ms[-1]), STEP_MS)
    windows = Windows(steps, steps.ms, range_ms)
    chosen, notes = bounds(batch, windows), Annotations("")
    result = over_time(func, batch, chosen.lo, chosen.hi, end_ms=windows.ends_ms, range_ms=range_ms, notes=notes, span=(0, 0))
    return result, notes


def counter(count: float) -> HistogramLiteral:
    return HistogramLiteral(count=count, sum=2 * count, positive={3: count})


@given(st.sampled_from(["rate", "increase", "irate"]), st.lists(st.integers(0, 20), min_size=2, max_size=30))
def test_counts_behave_as_float_counters(func: str, counts: list[int]) -> None:
    batch = batch_of(*(counter(float(count)) for count in counts))
    result, _ = evaluate(func, batch)
    floats = SeriesBatch(batch.series, batch.offsets, batch.t_ms, np.array(counts, np.float64))
    steps = Steps(0, int(batch.t_ms[-1]), STEP_MS)
    expected = float_windows(func, floats, Windows(steps, steps.ms, 60_000), ())
    assert np.array_equal(result.present, expected.present)
    found = result.histograms.count[result.cells[result.present]]
    # a float counter's reset lets its first sample go on counting, a histogram's forgets it: the sums agree nevertheless
    assert found == pytest.approx(expected.values[expected.present])


@given(st.sampled_from(["sum_over_time", "avg_over_time"]), st.lists(st.integers(0, 20), min_size=1, max_size=20))
def test_sums_behave_as_floats(func: str, counts: list[int]) -> None:
    result, notes = evaluate(func, batch_of(*(counter(float(count)) for count in counts)))
    for j in range(len(counts)):
        window = counts[max(0, j - 3) : j + 1]
        total = sum(window) / (len(window) if func == "avg_over_time" else 1)
        out = from_histograms(result.histograms, int(result.cells[0, j]))
        assert [out.count, out.sum] == pytest.approx([total, 2 * total])
    assert not notes.warnings


def test_a_reset_in_one_bucket() -> None:
    batch = batch_of("count:4 sum:5 buckets:[1 2 1]", "count:5 sum:6 buckets:[1 1 3]", "count:6 sum:7 buckets:[1 2 3]")
    result, _ = evaluate("increase", batch, range_ms=45_000)
    out = from_histograms(result.histograms, int(result.cells[0, 2]))
    assert (out.count, out.sum) == (9, 10.5)
    assert evaluate("resets", batch)[0].values[0].tolist() == [0, 1, 1]


def test_picks_and_counts() -> None:
    batch = batch_of("count:1", 5.0, "count:1", "count:1 sum:2", 7.0)
    last, _ = evaluate("last_over_time", batch)
    assert last.handled[0].tolist() == [True, False, True, True, False]  # a float that is last is the float kernels'
    assert evaluate("count_over_time", batch)[0].values[0].tolist() == [1, 2, 3, 4, 4]
    assert evaluate("changes", batch)[0].values[0].tolist() == [0, 1, 2, 3, 3]
    assert evaluate("present_over_time", batch)[0].values[0].tolist() == [1] * 5


@pytest.mark.parametrize("func", ["rate", "delta", "sum_over_time", "avg_over_time"])
def test_mixed_windows_only_warn(func: str) -> None:
    result, notes = evaluate(func, batch_of("count:1 counter_reset_hint:gauge", 5.0, 6.0))
    assert result.handled[0, 2]
    assert not result.present[0, 2]
    assert 'PromQL warning: encountered a mix of histograms and floats for metric name "h" (1:1)' in notes.warnings


def test_gauges_and_counters_are_told_apart() -> None:
    gauges = batch_of("count:1 counter_reset_hint:gauge", "count:3 counter_reset_hint:gauge")
    counters = batch_of("count:1", "count:3")
    for func in ("rate", "increase", "irate"):
        assert list(evaluate(func, gauges)[1].warnings) == [
            'PromQL warning: this native histogram metric is not a counter: "h" (1:1)'
        ]
        assert not evaluate(func, counters)[1].warnings
    for func in ("delta", "idelta"):
        assert list(evaluate(func, counters)[1].warnings) == [
            'PromQL warning: this native histogram metric is not a gauge: "h" (1:1)'
        ]
        assert not evaluate(func, gauges)[1].warnings


def test_exponential_and_custom_buckets_only_warn() -> None:
    exponential, custom = "count:1 buckets:[1]", "schema:-53 count:1 custom_values:[5] buckets:[1]"
    result, notes = evaluate("rate", batch_of(exponential, custom, exponential))
    assert not result.present[0, 2]
    assert "mix of histograms with exponential and custom buckets" in next(iter(notes.warnings))


def test_a_counter_that_begins_in_the_window() -> None:
    batch = batch_of("count:60 buckets:[60]", "count:90 buckets:[90]")
    started = SeriesBatch(
        batch.series, batch.offsets, batch.t_ms, batch.values, batch.histograms, batch.histogram_at, np.array([-10_000, -10_000])
    )
    alone, _ = evaluate("increase", started)
    assert alone.histograms.count[alone.cells[0, 0]] == 60
    assert not evaluate("increase", batch)[0].present[0, 0]


def test_hints_found_by_comparison() -> None:
    batch = batch_of("count:1", "count:2", "count:1", 3.0, "count:9", "count:10 counter_reset_hint:gauge")
    hinted = with_reset_hints(batch)
    assert hinted.histograms is not None
    expected = [UNKNOWN_RESET, NOT_COUNTER_RESET, COUNTER_RESET, UNKNOWN_RESET, 3]
    assert hinted.histograms.hint.tolist() == expected


@pytest.mark.parametrize("func", sorted(FUNCTIONS))
def test_no_samples_at_all(func: str) -> None:
    result, notes = evaluate(func, batch_of(1.0, 2.0, 3.0))
    assert not result.handled.any()
    assert not notes.warnings


def test_count_and_sum_need_no_buckets() -> None:
    counts = [1, 4, 9, 2, 7, 7, 8, 1, 3]
    source, steps = MemorySource([batch_of(*(counter(float(count)) for count in counts))]), Steps(60_000, 120_000, STEP_MS)
    for func in ("histogram_count", "histogram_sum", "histogram_avg"):
        for inner in ("rate(h[1m])", "sum(increase(h[1m]))", "avg_over_time(h[1m])", "h"):
            alone = query_range(source, f"{func}({inner})", steps, QueryOptions())
            beside = query_range(
                source, f"{func}({inner}) + 0 * histogram_quantile(0.5, last_over_time(h[1m]) * 2)", steps, QueryOptions()
            )
            assert isinstance(alone.value, Matrix)
            assert isinstance(beside.value, Matrix)
            np.testing.assert_allclose(alone.value.values, beside.value.values)

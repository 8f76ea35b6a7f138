"""Sliding reductions against plain Python over each window by itself, and compiled against interpreted."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.kernel.series_windows import NONE, ranges, same, series, steps, windows
from tsdb.kernel import window_reduce as kernel


def reduce(
    code: int, data: tuple, ends: np.ndarray, range_ms: int, smallest: int = 1, q: float = 0.3, *, interpreted: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    out, present = np.full(shape, -1.0), np.empty(shape, bool)
    params = np.full(len(ends), q)
    with np.errstate(all="ignore"):
        if code in kernel.FITTED:
            fit = kernel.fit_windows.py_func if interpreted else kernel.fit_windows
            fit(code, offsets, t_ms, values, ends, range_ms, ends, params, smallest, out, present)
        else:
            run = kernel.reduce_windows.py_func if interpreted else kernel.reduce_windows
            run(code, offsets, t_ms, values, NONE, ends, range_ms, 0, params, params, smallest, out, present)
    return out, present


def quantile(q: float, v: np.ndarray) -> float:
    ordered = sorted(v.tolist(), key=lambda x: (not math.isnan(x), x))
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    with np.errstate(all="ignore"):
        a, b = np.float64(ordered[low]), np.float64(ordered[min(low + 1, len(ordered) - 1)])
        return float(a * (1 - (rank - low)) + b * (rank - low))


def extreme(v: np.ndarray, t: np.ndarray, better: Callable[[float, float], bool]) -> tuple[float, float]:
    best, at = v[0], t[0]
    for x, when in zip(v, t, strict=True):
        if better(x, best) or math.isnan(best):
            best, at = x, when
    return float(best), at / 1000


EXACT = {
    kernel.MIN: lambda t, v: extreme(v, t, lambda a, b: a < b)[0],
    kernel.MAX: lambda t, v: extreme(v, t, lambda a, b: a > b)[0],
    kernel.TS_OF_MIN: lambda t, v: extreme(v, t, lambda a, b: a <= b)[1],
    kernel.TS_OF_MAX: lambda t, v: extreme(v, t, lambda a, b: a >= b)[1],
    kernel.CHANGES: lambda t, v: float(sum(not same(a, b) for a, b in pairwise(v))),
    kernel.RESETS: lambda t, v: float(sum(b < a for a, b in pairwise(v))),
    kernel.QUANTILE: lambda t, v: quantile(0.3, v),
    kernel.MAD: lambda t, v: math.nan if np.isnan(v).any() else quantile(0.5, np.abs(v - quantile(0.5, v))),
}


@pytest.mark.parametrize("code", EXACT)
@settings(max_examples=60)
@given(data=series(), range_ms=ranges, step_ms=steps)
def test_sliding_state_gives_what_each_window_gives_alone(code: int, data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    out, present = reduce(code, data, ends, range_ms)
    for s, j, t, v in windows(data, ends, range_ms):
        assert present[s, j] == (len(v) > 0)
        if len(v):
            with np.errstate(all="ignore"):
                assert same(out[s, j], EXACT[code](t, v)), (v, out[s, j])


CODES = range(17)


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=25)
@given(data=series(), range_ms=ranges, step_ms=steps)
def test_compiled_equals_interpreted(code: int, data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    smallest = 2 if kernel.IRATE <= code <= kernel.SMOOTHING else 1
    out, present = reduce(code, data, ends, range_ms, smallest)
    slow, slow_present = reduce(code, data, ends, range_ms, smallest, interpreted=True)
    np.testing.assert_array_equal(present, slow_present)
    np.testing.assert_array_equal(out[present], slow[present])


@settings(max_examples=60)
@given(data=series(st.floats(-1e3, 1e3)), range_ms=ranges, step_ms=steps)
def test_sums_are_exact(data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    sums, _ = reduce(kernel.SUM, data, ends, range_ms)
    means, _ = reduce(kernel.AVG, data, ends, range_ms)
    variances, _ = reduce(kernel.STDVAR, data, ends, range_ms)
    for s, j, _t, v in windows(data, ends, range_ms):
        if len(v):
            assert sums[s, j] == pytest.approx(math.fsum(v), rel=1e-15, abs=1e-12)
            assert means[s, j] == pytest.approx(math.fsum(v) / len(v), rel=1e-14, abs=1e-12)
            assert variances[s, j] == pytest.approx(np.var(v), rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(data=series(st.integers(-(10**12), 10**12).map(float)), range_ms=ranges, step_ms=steps)
def test_running_totals_of_whole_numbers_do_not_round(data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    sums, _ = reduce(kernel.SUM, data, ends, range_ms)
    for s, j, _t, v in windows(data, ends, range_ms):
        if len(v):
            assert sums[s, j] == sum(int(x) for x in v)


def test_the_mean_goes_on_where_the_sum_overflows() -> None:
    data = np.array([0, 3]), np.array([1, 2, 3]), np.array([1e308, 1e308, 1e308])
    out, _ = reduce(kernel.AVG, data, np.array([3]), 10)
    assert out[0, 0] == pytest.approx(1e308, rel=1e-15)


def test_regression_of_a_line() -> None:
    t_ms = np.arange(5) * 1000
    data = np.array([0, 5]), t_ms, 3.0 + 2.0 * t_ms / 1000
    out, _ = reduce(kernel.DERIV, data, np.array([4000]), 10_000, 2)
    assert out[0, 0] == pytest.approx(2.0)
    out, _ = reduce(kernel.PREDICT_LINEAR, data, np.array([4000]), 10_000, 2, q=10.0)
    assert out[0, 0] == pytest.approx(3 + 2 * 14)


def test_windows_that_stand_still_stay_right() -> None:
    """As for an `@` time: the same end at every step."""
    data = np.array([0, 4]), np.array([10, 20, 30, 40]), np.array([1.0, 5.0, 2.0, 9.0])
    for code in (kernel.MAX, kernel.QUANTILE, kernel.SUM):
        out, _ = reduce(code, data, np.array([30, 30, 30]), 100)
        assert len(set(out[0].tolist())) == 1


def test_large_steps_skip_samples() -> None:
    data = np.array([0, 6]), np.arange(6) * 10, np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    out, present = reduce(kernel.MAX, data, np.array([0, 50]), 15)
    assert out[0].tolist() == [9.0, 5.0]
    assert present.all()

"""The window kernels against plain Python over each window by itself, and compiled against interpreted."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.kernel import window, window_rise
from tsdb.kernel import window_reduce as kernel

STALE = float(np.uint64(window.STALE_BITS).view(np.float64))
NONE = np.empty(0, np.int64)

numbers = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308, -1e308]),
)


@st.composite
def series(draw: st.DrawFn, values: st.SearchStrategy[float] = numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(offsets, t_ms, values) of up to three series with gaps of 1 to 40 ms."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    times = [np.cumsum(draw(st.lists(st.integers(1, 40), min_size=n, max_size=n))) for n in sizes]
    total = sum(sizes)
    return (
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([np.empty(0, np.int64), *times]).astype(np.int64),
        np.array(draw(st.lists(values, min_size=total, max_size=total)), np.float64),
    )


ranges = st.integers(1, 150)
steps = st.integers(1, 60)


def reduce(code: int, data: tuple, ends: np.ndarray, range_ms: int, smallest: int = 1, q: float = 0.3, run: Callable | None = None):
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    out, present = np.full(shape, -1.0), np.empty(shape, bool)
    params = np.full(len(ends), q)
    args = (code, offsets, t_ms, values, NONE, ends, range_ms, 0, ends, params, params, smallest, out, present)
    with np.errstate(all="ignore"):
        (run or kernel.reduce_windows)(*args)
    return out, present


def windows(data: tuple, ends: np.ndarray, range_ms: int):
    """(series, step, times, values) of every window."""
    offsets, t_ms, values = data
    for s in range(len(offsets) - 1):
        t, v = t_ms[offsets[s] : offsets[s + 1]], values[offsets[s] : offsets[s + 1]]
        for j, end in enumerate(ends):
            inside = (t > end - range_ms) & (t <= end)
            yield s, j, t[inside], v[inside]


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b


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
@settings(max_examples=60, deadline=None)
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
@settings(max_examples=25, deadline=None)
@given(data=series(), range_ms=ranges, step_ms=steps)
def test_compiled_equals_interpreted(code: int, data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    smallest = 2 if kernel.IRATE <= code <= kernel.SMOOTHING else 1
    out, present = reduce(code, data, ends, range_ms, smallest)
    slow, slow_present = reduce(code, data, ends, range_ms, smallest, run=kernel.reduce_windows.py_func)
    np.testing.assert_array_equal(present, slow_present)
    np.testing.assert_array_equal(out[present], slow[present])


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


def latest(data: tuple, ends: np.ndarray, lookback_ms: int):
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    index, out, present = np.empty(shape, np.int64), np.empty(shape), np.empty(shape, bool)
    window.latest_samples(offsets, t_ms, values, values.view(np.uint64), ends, lookback_ms, index, out, present)
    return index, out, present


@settings(max_examples=60, deadline=None)
@given(data=series(st.sampled_from([1.0, 2.0, STALE, math.nan])), lookback_ms=ranges, step_ms=steps)
def test_latest_sample(data: tuple, lookback_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    index, out, present = latest(data, ends, lookback_ms)
    for s, j, t, v in windows(data, ends, lookback_ms):
        stale = len(v) > 0 and v[-1:].view(np.uint64)[0] == window.STALE_BITS
        assert present[s, j] == (len(v) > 0 and not stale)
        if present[s, j]:
            assert same(out[s, j], v[-1])
            assert data[1][index[s, j]] == t[-1]
        else:
            assert index[s, j] == -1


def test_the_lookback_is_open_at_its_start() -> None:
    data = np.array([0, 1]), np.array([100]), np.array([7.0])
    assert latest(data, np.array([99, 100, 149, 150]), 50)[2].tolist() == [[False, True, True, False]]


def counter(data: tuple, ends: np.ndarray, range_ms: int, *, kind: tuple[bool, bool], started: np.ndarray = NONE, run=None):
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    out, present, overlap = np.full(shape, -1.0), np.empty(shape, bool), np.zeros(shape[0], bool)
    with np.errstate(all="ignore"):
        (run or window_rise.counter_windows)(
            *kind, range_ms / 1000, offsets, t_ms, values, started, ends, range_ms, out, present, overlap
        )
    return out, present


def extrapolated(t: np.ndarray, v: np.ndarray, end: int, range_ms: int, *, is_counter: bool) -> float:
    """Prometheus's extrapolatedRate of one window, without the division by its range."""
    rise = v[-1] - v[0]
    if is_counter:
        for a, b in pairwise(v):
            if b < a:
                rise += a
    to_start, to_end = (t[0] - (end - range_ms)) / 1000, (end - t[-1]) / 1000
    sampled = (t[-1] - t[0]) / 1000
    mean = sampled / (len(t) - 1)
    if to_start >= mean * 1.1:
        to_start = mean / 2
    if is_counter and rise > 0 and v[0] >= 0:
        to_start = min(to_start, sampled * (v[0] / rise))
    if to_end >= mean * 1.1:
        to_end = mean / 2
    return float(rise * ((sampled + to_start + to_end) / sampled))


@pytest.mark.parametrize("kind", [(True, False), (False, False)], ids=["increase", "delta"])
@settings(max_examples=80, deadline=None)
@given(data=series(), range_ms=ranges, step_ms=steps)
def test_extrapolation(kind: tuple[bool, bool], data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    out, present = counter(data, ends, range_ms, kind=kind)
    for s, j, t, v in windows(data, ends, range_ms):
        assert present[s, j] == (len(v) > 1)
        if len(v) > 1:
            with np.errstate(all="ignore"):
                assert same(out[s, j], extrapolated(t, v, ends[j], range_ms, is_counter=kind[0])), (t, v)


@settings(max_examples=60, deadline=None)
@given(data=series(st.floats(0, 100)), range_ms=ranges, step_ms=steps)
def test_unknown_start_timestamps_change_nothing(data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    plain = counter(data, ends, range_ms, kind=(True, True))
    unknown = counter(data, ends, range_ms, kind=(True, True), started=np.zeros(len(data[1]), np.int64))
    np.testing.assert_array_equal(plain[1], unknown[1])
    np.testing.assert_array_equal(plain[0][plain[1]], unknown[0][plain[1]])


def test_a_start_timestamp_is_a_zero_sample() -> None:
    data = np.array([0, 1]), np.array([10_000]), np.array([6.0])
    out, present = counter(data, np.array([10_000]), 60_000, kind=(True, False), started=np.array([4_000]))
    assert present[0, 0]
    assert out[0, 0] == 6.0


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


def between(data: tuple, end: int, range_ms: int, *, smoothed: bool, is_counter: bool = True):
    offsets, t_ms, values = data
    out, present = np.full((len(offsets) - 1, 1), -1.0), np.empty((len(offsets) - 1, 1), bool)
    window_rise.extended_windows(smoothed, is_counter, 1.0, offsets, t_ms, values, np.array([end]), range_ms, 300_000, out, present)
    return out[0, 0] if present[0, 0] else None


def test_anchored_and_smoothed_increases() -> None:
    t_ms = np.arange(10) * 15_000
    data = np.array([0, 10]), t_ms, np.array([1, 2, 3, 4, 5, 9, 10, 11, 12, 13.0])
    assert between(data, 5_000, 60_000, smoothed=False) == 0
    assert between(data, 50_000, 60_000, smoothed=False) == 3
    assert between(data, 80_000, 60_000, smoothed=False) == 7
    assert between(data, 35_000, 60_000, smoothed=True) == pytest.approx(7 / 3)
    assert between(data, 80_000, 60_000, smoothed=True) == pytest.approx(7)
    assert between(data, 600_000, 60_000, smoothed=False) is None

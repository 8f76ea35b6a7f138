"""`rate`, `increase` and `delta` against Prometheus's rule applied to each window by itself."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.kernel.series_windows import NONE, ranges, same, series, steps, windows
from tsdb.kernel import window_rise


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
@settings(max_examples=80)
@given(data=series(), range_ms=ranges, step_ms=steps)
def test_extrapolation(kind: tuple[bool, bool], data: tuple, range_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    out, present = counter(data, ends, range_ms, kind=kind)
    for s, j, t, v in windows(data, ends, range_ms):
        assert present[s, j] == (len(v) > 1)
        if len(v) > 1:
            with np.errstate(all="ignore"):
                assert same(out[s, j], extrapolated(t, v, ends[j], range_ms, is_counter=kind[0])), (t, v)


@settings(max_examples=60)
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

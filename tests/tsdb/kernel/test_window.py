"""The newest samples and the bounds of windows against plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.kernel.series_windows import ranges, same, series, steps, windows
from tsdb.kernel import window

STALE = float(np.uint64(window.STALE_BITS).view(np.float64))


def latest(data: tuple, ends: np.ndarray, lookback_ms: int):
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    index, out, present = np.empty(shape, np.int64), np.empty(shape), np.empty(shape, bool)
    window.latest_samples(offsets, t_ms, values, values.view(np.uint64), ends, lookback_ms, index, out, present)
    return index, out, present


@settings(max_examples=60)
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


@settings(max_examples=60)
@given(data=series(), range_ms=ranges, step_ms=steps, anchor_ms=st.integers(0, 50))
def test_bounds(data: tuple, range_ms: int, step_ms: int, anchor_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    offsets, t_ms, _ = data
    lo, hi = np.empty((len(offsets) - 1, len(ends)), np.int64), np.empty((len(offsets) - 1, len(ends)), np.int64)
    window.window_bounds(offsets, t_ms, ends, range_ms, anchor_ms, lo, hi)
    for s, j, t, _v in windows(data, ends, range_ms):
        left = ends[j] - range_ms
        before = [x for x in t_ms[offsets[s] : offsets[s + 1]].tolist() if left - anchor_ms < x <= left]
        assert t_ms[lo[s, j] : hi[s, j]].tolist() == before[-1:] + t.tolist()


@settings(max_examples=60)
@given(data=series(st.floats(-100, 100)), lookback_ms=ranges, step_ms=steps)
def test_smoothed_samples(data: tuple, lookback_ms: int, step_ms: int) -> None:
    ends = np.arange(0, 400, step_ms)
    offsets, t_ms, values = data
    shape = (len(offsets) - 1, len(ends))
    before, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    out, present = np.zeros(shape), np.empty(shape, bool)
    window.smoothed_samples(offsets, t_ms, values, ends, lookback_ms, before, after, out, present)
    for s in range(shape[0]):
        rows = range(offsets[s], offsets[s + 1])
        for j, at in enumerate(ends.tolist()):
            earlier = [i for i in rows if at - lookback_ms < t_ms[i] <= at]
            later = [i for i in rows if at < t_ms[i] <= at + lookback_ms]
            assert present[s, j] == bool(earlier)
            if not earlier:
                continue
            a = earlier[-1]
            b = a if t_ms[a] == at or not later else later[0]
            assert (before[s, j], after[s, j]) == (a, b)
            share = 0 if a == b else (at - t_ms[a]) / (t_ms[b] - t_ms[a])
            assert out[s, j] == pytest.approx(values[a] + (values[b] - values[a]) * share, abs=1e-9)

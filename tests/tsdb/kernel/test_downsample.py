"""The kernels of downsampling beside plain Python over one window at a time, and their pure forms beside the compiled ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.kernel import downsample as kernel
from tsdb.model.series import STALE_BITS, STALE_NAN
from tsdb.model.windows import COLUMNS

VALUES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e9, 1e9), st.sampled_from([STALE_NAN, math.nan, math.inf, -math.inf]))
SAMPLES = st.lists(st.lists(st.tuples(st.integers(1, 15), VALUES), max_size=25), max_size=4)
"""Series as (gap to the sample before in ms, value)."""

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def columns_of(series: list[list[tuple[int, float]]], start_ms: int) -> Columns:
    """(offsets, t_ms, values)"""
    offsets = np.cumsum([0, *(len(one) for one in series)]).astype(np.int64)
    times = [start_ms + np.cumsum([gap for gap, _ in one], dtype=np.int64) for one in series]
    t_ms = np.concatenate([*times, np.empty(0, np.int64)])
    return offsets, t_ms, np.array([value for one in series for _, value in one], np.float64)


def windows(offsets: np.ndarray, t_ms: np.ndarray, values: np.ndarray, resolution_ms: int, columns: np.ndarray | None) -> tuple:
    """(offsets, t_ms, values, columns) as the kernels make them."""
    ends = np.empty(len(t_ms), np.int64)
    out_offsets = kernel.count_windows(offsets, t_ms, resolution_ms, ends)
    size = int(out_offsets[-1])
    out_t, out_values, out = np.empty(size, np.int64), np.empty(size), np.empty((len(COLUMNS), size))
    bits = values.view(np.uint64)
    if columns is None:
        kernel.reduce_samples(offsets[0], t_ms, values, bits, resolution_ms, ends[:size], out_t, out_values, out)
    else:
        kernel.reduce_windows(offsets[0], t_ms, values, bits, columns, resolution_ms, ends[:size], out_t, out_values, out)
    return out_offsets, out_t, out_values, out


def window_of(end_ms: int, samples: list[tuple[int, float]]) -> dict[str, float]:
    """What a window says, by its definition; `samples` are (time, value)."""
    real = [(t, v) for t, v in samples if np.float64(v).view(np.uint64) != STALE_BITS]
    out = dict.fromkeys(COLUMNS, 0.0)
    if not real:
        return out | {"last_ms": end_ms - samples[-1][0]}
    numbers = [v for _, v in real if not math.isnan(v)]
    first, last = real[0][1], real[-1][1]
    pairs = list(zip([v for _, v in real], [v for _, v in real[1:]], strict=False))
    finite = all(math.isfinite(v) for _, v in real)
    squares = math.fsum((v - first) ** 2 for _, v in real) if finite else math.nan
    total = math.fsum(v for _, v in real) if finite else sum(v for _, v in real)
    return {
        "count": len(real),
        "sum": total,
        "squares": squares,
        "min": min(numbers, default=math.nan),
        "max": max(numbers, default=math.nan),
        "first": first,
        "correction": float(sum(a for a, b in pairs if b < a)),
        "resets": sum(b < a for a, b in pairs),
        "changes": sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs),
        "first_ms": end_ms - real[0][0],
        "last_ms": end_ms - real[-1][0],
        "before_stale": last if len(real) and samples[-1] != real[-1] and _is_stale(samples[-1][1]) else 0.0,
    }


def _is_stale(value: float) -> bool:
    return bool(np.float64(value).view(np.uint64) == STALE_BITS)


@given(SAMPLES, st.integers(-100, 100))
@settings(max_examples=300)
def test_windows_say_what_is_in_them(series: list[list[tuple[int, float]]], start_ms: int) -> None:
    offsets, t_ms, values = columns_of(series, start_ms)
    out_offsets, out_t, out_values, out = windows(offsets, t_ms, values, 20, None)
    for s in range(len(series)):
        samples = list(zip(t_ms[offsets[s] : offsets[s + 1]].tolist(), values[offsets[s] : offsets[s + 1]].tolist(), strict=True))
        ends = sorted({-(-t // 20) * 20 for t, _ in samples})
        mine = slice(int(out_offsets[s]), int(out_offsets[s + 1]))
        assert out_t[mine].tolist() == ends
        for w, end_ms in zip(range(mine.start, mine.stop), ends, strict=True):
            inside = [(t, v) for t, v in samples if end_ms - 20 < t <= end_ms]
            assert np.float64(inside[-1][1]).view(np.uint64) == out_values[w : w + 1].view(np.uint64)[0]
            want = window_of(end_ms, inside)
            scale = max(abs(v) for _, v in inside if math.isfinite(v)) if any(math.isfinite(v) for _, v in inside) else 1
            for c, name in enumerate(COLUMNS):
                atol = 1e-12 * (scale * scale if name == "squares" else scale)
                rtol = 6e-11 if name == "squares" else 1e-12
                np.testing.assert_allclose(out[c, w], want[name], rtol=rtol, atol=atol, err_msg=name)


@given(SAMPLES, st.integers(-100, 100))
@settings(max_examples=200)
def test_longer_windows_of_windows_are_those_of_the_samples(series: list[list[tuple[int, float]]], start_ms: int) -> None:
    offsets, t_ms, values = columns_of(series, start_ms)
    short = windows(offsets, t_ms, values, 20, None)
    of_windows, of_samples = windows(*short[:3], 60, short[3]), windows(offsets, t_ms, values, 60, None)
    for a, b in zip(of_windows[:3], of_samples[:3], strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    finite = np.abs(values[np.isfinite(values)]).max(initial=1.0)
    for c, name in enumerate(COLUMNS):
        atol = 1e-11 * (finite * finite if name == "squares" else finite)
        rtol = 2e-10 if name == "squares" else 1e-11
        np.testing.assert_allclose(of_windows[3][c], of_samples[3][c], rtol=rtol, atol=atol, err_msg=name)


def test_sums_of_decimals_are_decimals() -> None:
    """Two and nine decimals: sums have as many, squares twice as many, whatever adding up in binary left."""
    hundredths, nanos = np.arange(1000) * 37 % 9973, np.arange(1000) * 7919 % 99_991 + 150_000
    values = np.concatenate([hundredths / 100, nanos / 1e9])
    _, _, _, out = windows(np.array([0, 1000, 2000]), np.tile(np.arange(1, 1001), 2), values, 20, None)
    whole = np.concatenate([hundredths.reshape(50, 20), nanos.reshape(50, 20)])
    steps = whole - whole[:, :1]
    fell = np.where(np.diff(whole, axis=1) < 0, whole[:, :-1], 0).sum(axis=1)
    decimals = np.repeat([2, 9], 50)
    assert out[COLUMNS.index("sum")].tolist() == (whole.sum(axis=1) / 10.0**decimals).tolist()
    assert out[COLUMNS.index("correction")].tolist() == (fell / 10.0**decimals).tolist()
    assert out[COLUMNS.index("squares")][:50].tolist() == ((steps * steps).sum(axis=1)[:50] / 1e4).tolist()
    assert out[COLUMNS.index("squares")][50:] == pytest.approx((steps * steps).sum(axis=1)[50:] / 1e18, rel=6e-11)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e300, 123456789012345.6, 2.0**53 + 2, 1e-300, -7.5, math.inf, 5e-324])
def test_what_has_no_such_decimals_is_not_rounded(value: float) -> None:
    assert kernel.rounded(value, kernel.SUM_DIGITS) == value


def test_compiled_and_plain_agree() -> None:
    offsets, t_ms, values = columns_of([[(7, 1.0), (7, 3.0), (7, 2.0), (7, STALE_NAN)], [(1, math.nan), (30, 0.5)]], 0)
    ends, plain_ends = np.empty(6, np.int64), np.empty(6, np.int64)
    out = kernel.count_windows(offsets, t_ms, 20, ends)
    assert out.tolist() == kernel.count_windows.py_func(offsets, t_ms, 20, plain_ends).tolist() == [0, 2, 4]
    assert ends[:4].tolist() == plain_ends[:4].tolist() == [2, 4, 5, 6]
    compiled = windows(offsets, t_ms, values, 20, None)
    plain_t, plain_values, plain = np.empty(4, np.int64), np.empty(4), np.empty((len(COLUMNS), 4))
    kernel.reduce_samples.py_func(0, t_ms, values, values.view(np.uint64), 20, ends[:4], plain_t, plain_values, plain)
    assert np.array_equal(compiled[1], plain_t) and np.array_equal(compiled[3], plain, equal_nan=True)

"""Series and windows that the tests of the window kernels share."""

import math

import numpy as np
from hypothesis import strategies as st

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

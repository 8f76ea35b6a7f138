"""The compiled histogram kernels against their own Python, and bucket bounds against exact powers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.histogram.layout import columns
from tests.promql.histogram_literal import HistogramLiteral, to_histograms
from tests.promql.histograms import custom, exponential
from tsdb.kernel import histogram as kernel

many = st.lists(st.one_of(exponential(thresholds=(0.0, 0.3)), custom()), min_size=2, max_size=4)


@settings(max_examples=50)
@given(many, st.data())
def test_sums_are_those_of_plain_python(literals: list[HistogramLiteral], data: st.DataObject) -> None:
    side = to_histograms(literals).positive
    rows = np.array(data.draw(st.lists(st.integers(0, len(literals) - 1), min_size=3, max_size=8)), np.int64)
    factors = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5]), min_size=len(rows), max_size=len(rows))))
    args = (side.offsets, side.index, side.counts, np.array([0, 2, len(rows)]), rows, factors, np.ones(len(rows), np.int64))
    for compiled, plain in zip(kernel.add_buckets(*args), kernel.add_buckets.py_func(*args), strict=True):
        assert np.array_equal(compiled, plain)
    numbers = np.arange(2.0 * len(literals)).reshape(2, -1)
    args = (numbers, np.array([0, 2, len(rows)]), rows, factors)
    assert np.array_equal(kernel.add_columns(*args), kernel.add_columns.py_func(*args))
    before, after = rows[:-1], rows[1:]
    args = (side.offsets, side.index, side.counts, before, after)
    assert np.array_equal(kernel.decreases(*args), kernel.decreases.py_func(*args))


def test_runs_are_spread_to_histograms() -> None:
    run_size, sizes, index = np.array([2, 1, 3]), np.array([2, 0, 1]), np.array([4, 7, -1], np.int32)
    for kernel_of in (kernel.spread_runs, kernel.spread_runs.py_func):
        counts, buckets = np.empty(7), np.empty(7, np.int32)
        kernel_of(run_size, sizes, index, np.array([1.0, 2.0, 10.0, 20.0, 5.0, 6.0, 7.0]), counts, buckets)
        assert counts.tolist() == [1, 10, 2, 20, 5, 6, 7]
        assert buckets.tolist() == [4, 7, 4, 7, -1, -1, -1]


@settings(max_examples=50)
@given(many, st.floats(-0.1, 1.1), st.floats(-50, 50), st.floats(-50, 50))
def test_estimates_are_those_of_plain_python(literals: list[HistogramLiteral], q: float, a: float, b: float) -> None:
    flat = columns(to_histograms(literals))
    size = len(literals)
    pairs = [
        (kernel.quantiles, (flat, np.full(size, q))),
        (kernel.fractions, (flat, np.full(size, a), np.full(size, b))),
    ]
    for function, args in pairs:
        np.testing.assert_allclose(function(*args), function.py_func(*args), rtol=1e-13)


@pytest.mark.parametrize("schema", range(-4, 9))
def test_bounds(schema: int) -> None:
    index = np.arange(-300, 300)
    found = kernel.upper_bounds(index, np.full(len(index), schema))
    exact = [2.0 ** (i * 2.0**-schema) if abs(i * 2.0**-schema) < 1020 else None for i in index.tolist()]
    for bound, want in zip(found.tolist(), exact, strict=True):
        if want is not None:
            assert bound == pytest.approx(want, rel=1e-15)
    assert np.all(np.diff(found[(found > 0) & (found < 1e308)]) > 0)
    assert found[300] == 1.0
    assert not any(math.isinf(bound) for bound in found.tolist())


def test_compensation_survives_infinity() -> None:
    args = (np.array([[math.inf, 1.0, -math.inf]]), np.array([0, 2, 4]), np.array([0, 1, 0, 2]), np.ones(4))
    out = kernel.add_columns(*args)
    assert out[0, 0] == math.inf
    assert math.isnan(out[0, 1])

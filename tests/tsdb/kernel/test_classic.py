import numpy as np
import pytest

from tsdb.kernel.classic import buckets


@pytest.mark.parametrize("fraction", [False, True])
def test_buckets_is_its_python_self(fraction: bool) -> None:
    rng = np.random.default_rng(3)
    starts = np.array([0, 4, 4, 9, 10])
    upper = np.array([0.1, 1.0, 1.0, np.inf, -1.0, 0.0, 2.0, 5.0, np.inf, np.inf])
    counts = np.floor(rng.random((10, 30)) * 9) + rng.choice([0.0, 1e-14], (10, 30))
    present = rng.random((10, 30)) > 0.15
    low, high = rng.choice([-1.0, 0.0, 0.3, 0.9, 1.0, 2.0, np.nan, -np.inf], 30), rng.choice([0.5, 3.0, np.inf, np.nan], 30)
    ours = buckets(fraction, low, high, starts, upper, counts, present)
    with np.errstate(all="ignore"):
        plain = buckets.py_func(fraction, low, high, starts, upper, counts, present)
    for a, b in zip(ours, plain, strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    assert not ours[1][1].any()  # a histogram without buckets is at no step


def test_noise_is_no_fall_and_a_fall_is_told() -> None:
    starts, upper = np.array([0, 3]), np.array([1.0, 2.0, np.inf])
    counts = np.array([[10.0, 10.0, 10.0], [10.0 - 1e-13, 4.0, 10.0], [20.0, 20.0, 10.0]])
    values, _, repair = buckets(False, np.full(3, 0.5), np.full(3, 0.5), starts, upper, counts, np.ones((3, 3), bool))
    assert values.tolist() == [[1.0, 1.0, 0.5]]
    assert repair.tolist() == [[2.0, 2.0, 6.0, 1.0, 1.0, 1.0]]

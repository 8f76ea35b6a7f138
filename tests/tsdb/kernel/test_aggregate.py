import numpy as np
import pytest

from tsdb.kernel.aggregate import AVG, COUNT, MAX, MIN, SUM, VARIANCE, fold, top

START = {SUM: -0.0, AVG: -0.0, MIN: np.nan, MAX: np.nan, COUNT: 0.0, VARIANCE: 0.0}


def folded(kernel: object, op: int, values: np.ndarray, present: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    g, k = 3, values.shape[1]
    state = [np.zeros((g, k)), np.full((g, k), START[op]), np.zeros((g, k)), np.zeros((g, k), bool)]
    with np.errstate(all="ignore"):
        kernel(op, group, values, present, *state)  # type: ignore[operator]
    return state


@pytest.mark.parametrize("op", START)
def test_fold_is_its_python_self(op: int) -> None:
    rng = np.random.default_rng(op)
    values = rng.choice([0.1, -0.0, 1e100, -1e100, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan, 3.0, 1 / 3], (40, 23))
    present = rng.random((40, 23)) > 0.3
    group = rng.integers(0, 3, 40)
    for ours, plain in zip(folded(fold, op, values, present, group), folded(fold.py_func, op, values, present, group), strict=True):
        assert np.array_equal(ours, plain, equal_nan=True)


def test_top_is_its_python_self() -> None:
    rng = np.random.default_rng(1)
    values = rng.choice([1.0, 2.0, 3.0, np.nan, np.inf], (7, 30))
    present = rng.random((7, 30)) > 0.2
    group = rng.integers(0, 3, 30)
    room = np.array([0, 4, 8, 12])
    limits = np.array([0, 1, 2, 3, 4, 4, 4])
    ours, plain = (kernel(1.0, limits, group, room, values, present) for kernel in (top, top.py_func))
    assert np.array_equal(ours[0], plain[0])
    assert np.array_equal(ours[2], plain[2])
    assert ours[0].sum(axis=1).max() <= 12

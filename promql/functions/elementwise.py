"""Functions that look at each float for itself. They pass over histograms and take the name away."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from promql.matrix import F64, Matrix
from promql.matrix_rows import non_empty
from promql.names import mark

FUNCTIONS: dict[str, Callable[[F64], F64]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "deg": lambda v: v * 180 / np.pi,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "rad": lambda v: v * np.pi / 180,
    "sgn": lambda v: np.where(v < 0, -1.0, np.where(v > 0, 1.0, v)),
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}


def apply(name: str, vector: Matrix) -> Matrix:
    """The function `name` of FUNCTIONS of each float."""
    with np.errstate(all="ignore"):
        return floats_only(vector, FUNCTIONS[name](vector.values))


def clamp(vector: Matrix, *, low: F64, high: F64) -> Matrix:
    """Each float held in low[j]..high[j] at step j; none at the steps where high is below low.

    By Go's Min and Max: the infinity that settles the matter comes before NaN, and 0 is greater than -0.
    """
    with np.errstate(all="ignore"):
        out = floats_only(vector, _greater(low, -_greater(-high, -vector.values)))
    return non_empty(replace(out, present=out.present & ~(high < low)))


def _greater(one: F64, other: F64) -> F64:
    greater = np.where((one == np.inf) | (other == np.inf), np.inf, np.maximum(one, other))
    return np.where(greater == 0, greater + np.where(one == 0, one, other), greater)


def round_to(vector: Matrix, nearest: F64) -> Matrix:
    """Each float rounded to a multiple of nearest[j], ties up."""
    with np.errstate(all="ignore"):
        inverse = 1.0 / nearest  # Prometheus multiplies by the inverse: rounding to 0.1 is then exact more often
        return floats_only(vector, np.floor(vector.values * inverse + 0.5) / inverse)


def timestamps(vector: Matrix) -> Matrix:
    """The time of each sample in seconds: that of its step, for the vector is no plain selector."""
    values = np.broadcast_to(vector.steps.ms / 1000, vector.values.shape).copy()
    return mark(replace(vector, values=values, histograms=None, cells=None))


def floats_only(vector: Matrix, values: F64) -> Matrix:
    """`values` in place of the floats, histograms gone, names marked."""
    return mark(non_empty(replace(vector, values=values, present=vector.floats, histograms=None, cells=None)))

"""Binary operators on floats, with Go's rules for the corner cases."""

from collections.abc import Callable

import numpy as np

from promql.matrix import F64, Bool

ARITHMETIC: dict[str, Callable[[F64, F64], F64]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
"""C's pow, fmod and atan2 have Go's special cases: pow(1, NaN) = 1, fmod takes the sign of the dividend."""

COMPARISONS: dict[str, Callable[[F64, F64], Bool]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}

SET_OPERATORS = ("and", "or", "unless")
TRIMS = ("</", ">/")


def calculate(op: str, lhs: F64, rhs: F64) -> F64:
    """lhs op rhs, broadcast; a comparison gives 1 and 0."""
    with np.errstate(all="ignore"):
        if op in COMPARISONS:
            return COMPARISONS[op](lhs, rhs).astype(np.float64)
        return np.asarray(ARITHMETIC[op](lhs, rhs), np.float64)

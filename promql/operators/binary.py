"""Binary operators: scalars and vectors in any combination. Vectors with vectors are joined by `promql.operators.join`."""

from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram.cells import negate_samples
from promql.matrix import Matrix, Scalar, Value
from promql.matrix_rows import non_empty
from promql.names import mark
from promql.operators.arithmetic import COMPARISONS, SET_OPERATORS, TRIMS, calculate
from promql.operators.element import Cells, operate
from promql.operators.join import join
from promql.operators.set_operators import combine
from promql.syntax.ast import Binary, Matching


def binary(node: Binary, lhs: Value, rhs: Value, notes: Annotations) -> Value:
    """`lhs op rhs` of evaluated sides. QueryFailed where series cannot be matched, in Prometheus's words.

    A comparison of vectors filters unless `bool` is written. Names that go are marked, see `promql.names`.
    """
    if isinstance(lhs, Scalar) and isinstance(rhs, Scalar):
        return Scalar(lhs.steps, calculate(node.op, lhs.values, rhs.values))
    if isinstance(lhs, Matrix) and isinstance(rhs, Matrix):
        if node.op in SET_OPERATORS:
            return combine(node.op, node.matching or Matching(card="many-to-many"), lhs, rhs)
        return join(node, lhs, rhs, notes)
    if isinstance(lhs, Matrix) and isinstance(rhs, Scalar):
        return _with_scalar(node, lhs, rhs, notes, swapped=False)
    assert isinstance(lhs, Scalar) and isinstance(rhs, Matrix), "the parser lets no string into a binary operator"
    return _with_scalar(node, rhs, lhs, notes, swapped=True)


def negated(value: Value) -> Value:
    """Unary minus; a vector's names are marked to go."""
    if isinstance(value, Scalar):
        return Scalar(value.steps, -value.values)
    assert isinstance(value, Matrix), "the parser lets no string be negated"
    return mark(negate_samples(value))


def _with_scalar(node: Binary, vector: Matrix, scalar: Scalar, notes: Annotations, *, swapped: bool) -> Matrix:
    """The vector against one number a step; a filter keeps the vector's value, on whichever side it stands."""
    here = Cells(vector.values, vector.cells, vector.histograms)
    there = Cells(np.broadcast_to(scalar.values, vector.values.shape))
    lhs, rhs = (there, here) if swapped else (here, there)
    outcome = operate(node, lhs, rhs, vector.present, notes)
    if node.op in COMPARISONS and not node.return_bool:
        return non_empty(replace(vector, present=outcome.keep))
    samples = outcome.as_bool() if node.return_bool else outcome.samples
    out = replace(vector, values=samples.values, present=outcome.defined, histograms=samples.histograms, cells=samples.cells)
    out = non_empty(out)
    return out if node.op in TRIMS else mark(out)

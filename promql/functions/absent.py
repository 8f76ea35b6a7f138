"""`absent`: one series where a vector has none, with the labels that its selector says."""

import numpy as np

from promql.matrix import Matrix
from promql.syntax.ast import Expr, MatrixSelector, Paren, VectorSelector
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import SeriesTable


def absent(expr: Expr, vector: Matrix) -> Matrix:
    """1 at the steps where the vector, the value of `expr`, has no sample."""
    missing = np.asarray(~vector.present.any(axis=0, keepdims=True))
    if not missing.any():
        return Matrix.empty(vector.steps)
    return Matrix(SeriesTable.of([absent_labels(expr)]), vector.steps, np.ones(missing.shape), missing)


def absent_labels(expr: Expr) -> Labels:
    """The labels that a selector fixes by one `=` matcher; none of any other expression."""
    while isinstance(expr, Paren):
        expr = expr.expr
    selector = expr.selector if isinstance(expr, MatrixSelector) else expr
    if not isinstance(selector, VectorSelector):
        return Labels(())
    fixed: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op == "=" and matcher.name not in seen:
            fixed[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            fixed.pop(matcher.name, None)
    return Labels.of(fixed)

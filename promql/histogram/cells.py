"""Native histograms in the cells of matrices: what functions and operators do with them, histogram arithmetic being elsewhere."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram import stats
from promql.histogram.arithmetic import add, compact, divide, negate, scale, subtract
from promql.histogram.buckets import to_text
from promql.histogram.trim import trim
from promql.matrix import F64, I64, Bool, Matrix
from promql.matrix_rows import non_empty
from promql.names import mark
from promql.syntax.ast import Binary, Span
from tsdb.model.histogram import Histograms
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import Strings

SUMMARIES: dict[str, Callable[[Histograms], F64]] = {
    "histogram_avg": stats.average,
    "histogram_count": lambda h: h.count,
    "histogram_sum": lambda h: h.sum,
    "histogram_stddev": stats.deviation,
    "histogram_stdvar": stats.variance,
}
"""Functions of one number for each histogram; they pass over floats."""


def summarize(name: str, vector: Matrix) -> Matrix:
    """The function `name` of SUMMARIES of each histogram."""
    rows, steps, histograms = _taken(vector)
    return mark(_as_floats(vector, rows, steps, SUMMARIES[name](histograms)))


def quantiles(vector: Matrix, q: F64, *, span: Span, notes: Annotations) -> Matrix:
    """The q[j]-quantile of each histogram at step j; `span` is where notes about observations of NaN point."""
    rows, steps, histograms = _taken(vector)
    values = stats.quantile(q[steps], histograms)
    stats.note_nan_quantiles(histograms, q[steps], values, _metric_names(vector)[rows], span, notes)
    return _as_floats(vector, rows, steps, values)


def fractions(vector: Matrix, *, low: F64, high: F64, span: Span, notes: Annotations) -> Matrix:
    """The share of each histogram's observations between low[j] and high[j] at step j."""
    rows, steps, histograms = _taken(vector)
    values = stats.fraction(low[steps], high[steps], histograms)
    stats.note_nan_fractions(histograms, low[steps], high[steps], _metric_names(vector)[rows], span, notes)
    return _as_floats(vector, rows, steps, values)


def cell_texts(vector: Matrix, rows: I64, steps: I64) -> list[str]:
    """The text of each histogram cell (rows[i], steps[i])."""
    if vector.cells is None or vector.histograms is None:
        return []
    used, which = np.unique(vector.cells[rows, steps], return_inverse=True)
    texts = [to_text(vector.histograms, cell) for cell in used.tolist()]
    return [texts[i] for i in which.tolist()]


def negate_samples(vector: Matrix) -> Matrix:
    """Every sample times -1."""
    histograms = None if vector.histograms is None else negate(vector.histograms)
    return replace(vector, values=-vector.values, histograms=histograms)


def add_or_subtract(node: Binary, lhs: Histograms, rhs: Histograms, notes: Annotations) -> tuple[Histograms, Bool]:
    """(results, bool[n] which pairs have one): exponential and custom buckets do not mix."""
    out = add(lhs, rhs) if node.op == "+" else subtract(lhs, rhs)
    doing = "addition" if node.op == "+" else "subtraction"
    fits = ~out.incompatible
    if out.incompatible.any():
        notes.warn(f"incompatible bucket layout encountered for binary operator {node.op}", node.span)
    if (out.collision & fits).any():
        notes.warn(f"conflicting counter resets during histogram {doing}", node.span)
    if (out.reconciled & fits).any():
        notes.info(f"mismatched custom buckets were reconciled during {doing}", node.span)
    return compact(out.histograms.take(np.flatnonzero(fits))), fits


def scale_or_trim(op: str, histograms: Histograms, numbers: F64) -> Histograms:
    """Each histogram times, divided by or trimmed at its number."""
    match op:
        case "*":
            return compact(scale(histograms, numbers))
        case "/":
            return compact(divide(histograms, numbers))
        case _:
            return trim(histograms, numbers, upper=op == "</")


def _taken(vector: Matrix) -> tuple[I64, I64, Histograms]:
    """(row, step, histogram) of each histogram cell."""
    rows, steps = np.nonzero(vector.natives)
    if vector.cells is None or vector.histograms is None:
        return rows, steps, Histograms.empty()
    return rows, steps, vector.histograms.take(vector.cells[rows, steps])


def _as_floats(vector: Matrix, rows: I64, steps: I64, values: F64) -> Matrix:
    """The series with floats in the cells (rows[i], steps[i]) alone."""
    out, present = np.full(vector.values.shape, np.nan), np.zeros(vector.present.shape, bool)
    out[rows, steps], present[rows, steps] = values, True
    return non_empty(replace(vector, values=out, present=present, histograms=None, cells=None))


def _metric_names(vector: Matrix) -> Strings:
    return vector.series.values(METRIC_NAME)

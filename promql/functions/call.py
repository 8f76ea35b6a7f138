"""Functions of instant vectors, scalars and nothing.

Those of range vectors are in `promql.window.over_time`, info in `promql.functions.info`.
"""

from dataclasses import dataclass

import numpy as np

from promql.annotations import Annotations
from promql.answer import DELAYED_NAME_REMOVAL
from promql.functions import elementwise, time_functions
from promql.functions.absent import absent
from promql.functions.classic_histogram import histogram_fraction, histogram_quantile, histogram_quantiles
from promql.functions.label_functions import label_join, label_replace
from promql.functions.sorting import sort_by_label, sort_by_value
from promql.histogram.cells import SUMMARIES, summarize
from promql.matrix import Matrix, Scalar, Steps, Value
from promql.syntax.ast import Call
from tsdb.model.series import SeriesTable


@dataclass(frozen=True, slots=True)
class EvalContext:
    """Where a function is evaluated: its steps (a subquery has its own), the whole query's times, and where notes go."""

    steps: Steps
    query_start_ms: int
    query_end_ms: int
    query_step_ms: int
    features: frozenset[str]
    notes: Annotations


def call(node: Call, args: list[Value], context: EvalContext) -> Value:
    """The function's value. Names that it takes away are marked, see `promql.names`."""
    name = node.func
    match name:
        case "time" | "pi" | "start" | "end" | "range" | "step":
            return _constant(name, context)
        case "min_of" | "max_of":
            choose = np.minimum if name == "min_of" else np.maximum
            return Scalar(context.steps, choose(_scalar(args, 0).values, _scalar(args, 1).values))
        case "vector":
            return _vector(_scalar(args, 0))
        case "scalar":
            return _to_scalar(_matrix(args, 0))
        case "absent":
            return absent(node.args[0], _matrix(args, 0))
        case "timestamp":
            return elementwise.timestamps(_matrix(args, 0))
        case "sort" | "sort_desc":
            return sort_by_value(node, _matrix(args, 0), context.notes)
        case "sort_by_label" | "sort_by_label_desc":
            return sort_by_label(node, _matrix(args, 0), _texts(args[1:]), context.notes)
        case "label_replace":
            return label_replace(_matrix(args, 0), *_texts(args[1:]))
        case "label_join":
            dst, separator, *sources = _texts(args[1:])
            return label_join(_matrix(args, 0), dst, separator, sources)
        case _:
            return _samples(node, args, context)


def _samples(node: Call, args: list[Value], context: EvalContext) -> Matrix:
    """The functions that look at the samples one by one, or at the buckets of a histogram."""
    name, named = node.func, DELAYED_NAME_REMOVAL in context.features
    match name:
        case "clamp":
            return elementwise.clamp(_matrix(args, 0), low=_scalar(args, 1).values, high=_scalar(args, 2).values)
        case "clamp_min":
            return elementwise.clamp(_matrix(args, 0), low=_scalar(args, 1).values, high=np.full(len(context.steps), np.inf))
        case "clamp_max":
            return elementwise.clamp(_matrix(args, 0), low=np.full(len(context.steps), -np.inf), high=_scalar(args, 1).values)
        case "round":
            return elementwise.round_to(_matrix(args, 0), _scalar(args, 1).values if len(args) > 1 else np.ones(1))
        case "histogram_quantile":
            return histogram_quantile(node, _scalar(args, 0).values, _matrix(args, 1), context.notes, named=named)
        case "histogram_quantiles":
            qs = [_scalar(args, i).values for i in range(2, len(args))]
            return histogram_quantiles(node, _matrix(args, 0), _texts(args[1:2])[0], qs, context.notes, named=named)
        case "histogram_fraction":
            low, high = _scalar(args, 0).values, _scalar(args, 1).values
            return histogram_fraction(node, _matrix(args, 2), low=low, high=high, notes=context.notes)
        case _ if name in SUMMARIES:
            return summarize(name, _matrix(args, 0))
        case _ if name in time_functions.PARTS:
            return time_functions.part(name, _matrix(args, 0) if args else _vector(_constant("time", context)))
        case _:
            return elementwise.apply(name, _matrix(args, 0))


def _constant(name: str, context: EvalContext) -> Scalar:
    """Scalars that depend on the query only; times and durations are in seconds."""
    match name:
        case "time":
            return Scalar(context.steps, context.steps.ms / 1000)
        case "pi":
            value = np.pi
        case "start":
            value = context.query_start_ms / 1000
        case "end":
            value = context.query_end_ms / 1000
        case "range":
            value = (context.query_end_ms - context.query_start_ms) / 1000
        case _:
            value = context.query_step_ms / 1000
    return Scalar(context.steps, np.full(len(context.steps), value))


def _vector(scalar: Scalar) -> Matrix:
    """One series without labels."""
    shape = (1, len(scalar.steps))
    return Matrix(SeriesTable.empty(1), scalar.steps, scalar.values.reshape(shape).copy(), np.ones(shape, bool))


def _to_scalar(vector: Matrix) -> Scalar:
    """The value of the only float at each step; NaN where there is none or are several."""
    floats = vector.floats
    one = floats.sum(axis=0) == 1
    row = np.argmax(floats, axis=0) if len(vector) else np.zeros(len(vector.steps), np.int64)
    values = np.full(len(vector.steps), np.nan)
    values[one] = vector.values[row[one], np.flatnonzero(one)]
    return Scalar(vector.steps, values)


def _matrix(args: list[Value], i: int) -> Matrix:
    value = args[i]
    assert isinstance(value, Matrix), f"argument {i} is no instant vector: the parser checks types"
    return value


def _scalar(args: list[Value], i: int) -> Scalar:
    value = args[i]
    assert isinstance(value, Scalar), f"argument {i} is no scalar: the parser checks types"
    return value


def _texts(args: list[Value]) -> list[str]:
    return [value for value in args if isinstance(value, str)]

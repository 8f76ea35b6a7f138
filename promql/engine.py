"""The engine: a query's text to its `Answer`, over any `Source`.

It reads no clock and starts no thread: those it may use are given to it.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np

from promql.annotations import Annotations
from promql.answer import Answer, NodeStats, QueryOptions, QueryStats
from promql.evaluate import evaluate, raw_samples
from promql.evaluation import Evaluation
from promql.matrix import Matrix, Scalar, Steps, Value
from promql.matrix_rows import non_empty
from promql.measure import finish_stats
from promql.names import settle
from promql.plan import make_plan, plan_of
from promql.syntax.ast import Expr, MatrixSelector, Subquery
from tsdb.model.errors import BadData, LimitExceeded
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Source

__all__ = ["Answer", "NodeStats", "QueryOptions", "QueryStats", "query_instant", "query_range"]

DEFAULT = QueryOptions()
Made = TypeVar("Made", Value, SeriesBatch)


def query_range(
    source: Source,
    query: str | Expr,
    steps: Steps,
    options: QueryOptions = DEFAULT,
    *,
    deadline: Callable[[], None] | None = None,
    executor: Executor | None = None,
    clock: Callable[[], float] | None = None,
) -> Answer:
    """The value of a query at all steps: a "matrix", sorted by labels.

    `deadline` is called often and ends the query by raising; `executor` lends threads; `clock` (seconds) turns node timings on.
    BadData for more steps than the limit or a query that is no vector and no scalar, ParseError for one that is none,
    QueryFailed where evaluation is impossible, LimitExceeded where it would take too much.
    """
    _check_steps(steps, options)
    ev = _start(source, query, steps, options, deadline, executor, clock)
    if isinstance(ev.plan.expr, MatrixSelector | Subquery):
        raise BadData('invalid expression type "range vector" for range query, must be Scalar or instant Vector')
    value = _bounded(lambda: evaluate(ev, ev.plan.expr, ev.query))
    if isinstance(value, str):
        raise BadData('invalid expression type "string" for range query, must be Scalar or instant Vector')
    matrix = _as_matrix(value) if isinstance(value, Scalar) else non_empty(settle(value))
    began_s = clock() if clock is not None else 0.0
    order = matrix.series.order()
    ordered = matrix if np.all(np.diff(order) == 1) else matrix.take(order)
    ev.stats.sort_s = clock() - began_s if clock is not None else 0.0
    return _answer(ev, "matrix", ordered)


def query_instant(
    source: Source,
    query: str | Expr,
    at_ms: int,
    options: QueryOptions = DEFAULT,
    *,
    deadline: Callable[[], None] | None = None,
    executor: Executor | None = None,
    clock: Callable[[], float] | None = None,
) -> Answer:
    """The value of a query at one time: a "vector", "scalar" or "string", or of a range selector a "matrix" of raw samples.

    Arguments and errors are those of `query_range`.
    """
    steps = Steps.instant(at_ms)
    ev = _start(source, query, steps, options, deadline, executor, clock)
    if isinstance(ev.plan.expr, MatrixSelector | Subquery):
        selector = ev.plan.expr
        return _answer(ev, "matrix", _bounded(lambda: raw_samples(ev, selector, steps)))
    value = _bounded(lambda: evaluate(ev, ev.plan.expr, ev.query))
    if isinstance(value, Matrix):
        return _answer(ev, "vector", non_empty(settle(value)))
    return _answer(ev, "string" if isinstance(value, str) else "scalar", value)


def _start(
    source: Source,
    query: str | Expr,
    steps: Steps,
    options: QueryOptions,
    deadline: Callable[[], None] | None,
    executor: Executor | None,
    clock: Callable[[], float] | None,
) -> Evaluation:
    began_s = clock() if clock is not None else 0.0
    if isinstance(query, str):
        plan, notes = plan_of(query, steps, options.features, options.functions), Annotations(query)
    else:
        plan, notes = make_plan(query, steps), Annotations("")
    ev = Evaluation(source, plan, steps, options, notes, deadline, executor, clock)
    ev.stats.preparation_s = clock() - began_s if clock is not None else 0.0
    return ev


def _bounded(compute: Callable[[], Made]) -> Made:
    try:
        return compute()
    except RecursionError:
        raise LimitExceeded("the query is nested too deeply to be evaluated") from None


def _check_steps(steps: Steps, options: QueryOptions) -> None:
    if steps.step_ms <= 0:
        raise BadData(f"zero or negative query resolution step widths are not accepted: {steps.step_ms} ms. Try a positive integer")
    if steps.end_ms < steps.start_ms:
        raise BadData(f"end timestamp must not be before start time: {steps.end_ms} ms is before {steps.start_ms} ms")
    if (steps.end_ms - steps.start_ms) // steps.step_ms > options.max_points:
        raise BadData(
            f"exceeded maximum resolution of {options.max_points:,} points per timeseries. "
            "Try decreasing the query resolution (?step=XX) (max_points, max_query_points)"
        )


def _as_matrix(scalar: Scalar) -> Matrix:
    """A scalar over many steps is one series without labels."""
    shape = (1, len(scalar.steps))
    return Matrix(SeriesTable.empty(1), scalar.steps, scalar.values.reshape(shape), np.ones(shape, bool))


def _answer(ev: Evaluation, kind: str, value: Value | SeriesBatch) -> Answer:
    finish_stats(ev)
    return Answer(kind, value, ev.notes.warnings, ev.notes.infos, ev.stats)  # type: ignore[arg-type]

"""The evaluation of a plan: one match over the nodes of the tree.

A value is made in one of two ways. `evaluate` holds it whole. Below an aggregation that folds, `stream` makes it a batch of
series at a time, so that `sum(rate(x[5m]))` over a million series holds a few batches and one result. What nodes compute is
elsewhere: `window` and `select` read samples; `functions`, `aggregate` and `binary` are pure functions over matrices.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from promql import user_functions
from promql.answer import DELAYED_NAME_REMOVAL, TYPE_AND_UNIT
from promql.evaluation import Evaluation, check_deadline, hold, keep, size_of, told
from promql.functions import call as functions
from promql.functions import info
from promql.functions.absent import absent_labels
from promql.matrix import I64, Matrix, Scalar, Steps, Value
from promql.matrix_rows import concat_matrices, non_empty
from promql.measure import count_windows, counted_windows, measured, measured_stream, name_of, taken_again, uncounted
from promql.names import mark, merge_equal, settle
from promql.operators import aggregate, binary
from promql.plan import duration_ms
from promql.reading import (
    SAMPLE_TIMES,
    ends_of,
    read_batches,
    read_instant,
    read_range,
    read_raw,
    read_stamped,
    read_times,
    windows_of,
)
from promql.syntax.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
    chain,
)
from promql.syntax.typecheck import children, walk
from promql.window.over_time import RANGE_FUNCTIONS, RangeCall, check_call, over_time
from promql.window.subquery import as_samples, inner_steps
from promql.window.windows import Windows
from tsdb.model.errors import LimitExceeded, QueryFailed
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable

ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "cos",
        "cosh",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "days_in_month",
        "deg",
        "exp",
        "floor",
        "histogram_avg",
        "histogram_count",
        "histogram_stddev",
        "histogram_stdvar",
        "histogram_sum",
        "hour",
        "ln",
        "log10",
        "log2",
        "minute",
        "month",
        "rad",
        "round",
        "sgn",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
        "year",
    ]
)
"""Functions that treat each series by itself, whose vector is their first argument."""


MAX_LINKS = 32
"""Operators in a row, as in a + b + c, that are evaluated like any other nodes."""
MAX_KEPT_CELLS = 2_000_000
"""A streamed node of more cells (18 MB) is streamed again for its next place: memory is worth more than the second read."""


def evaluate(ev: Evaluation, expr: Expr, steps: Steps) -> Value:
    """The value of a node at the steps, whole. Fixed nodes are evaluated once, shared ones once for all their places."""
    check_deadline(ev)
    if ev.plan.fixed and len(steps) > 1 and expr in ev.plan.fixed:
        return _spread(evaluate(ev, expr, Steps.instant(steps.start_ms)), steps)
    shared = bool(ev.plan.shared) and expr in ev.plan.shared
    if shared and (expr, steps) in ev.memo:
        taken_again(ev, expr, steps)
        return ev.memo[expr, steps]
    held, before = ev.held, told(ev)
    value = _compute(ev, expr, steps) if ev.clock is None else measured(ev, expr, steps, lambda: _compute(ev, expr, steps))
    if isinstance(value, Matrix) and DELAYED_NAME_REMOVAL not in ev.options.features:
        value = settle(value)
    hold(ev, size_of(value))
    ev.held = held + size_of(value)  # what the parts held is free again
    if shared and (expr, steps) not in ev.memo and told(ev) == before:
        keep(ev, expr, steps, value)
    return value


def raw_samples(ev: Evaluation, expr: MatrixSelector | Subquery, at: Steps) -> SeriesBatch:
    """The samples of a range selector that is itself the query."""
    return measured(ev, expr, at, lambda: _raw_samples(ev, expr, at))


def _raw_samples(ev: Evaluation, expr: MatrixSelector | Subquery, at: Steps) -> SeriesBatch:
    windows = windows_of(ev, expr, at)
    if isinstance(expr, MatrixSelector):
        return read_raw(ev, expr.selector, windows)
    inner = [*uncounted(ev, _inner(ev, expr, windows))]
    samples = as_samples(settle(_together(inner, at)))
    count_windows(ev, samples, windows)
    return samples


def _compute(ev: Evaluation, expr: Expr, steps: Steps) -> Value:
    match expr:
        case NumberLiteral():
            return Scalar(steps, np.full(len(steps), expr.value))
        case StringLiteral():
            return expr.value
        case Paren():
            return evaluate(ev, expr.expr, steps)
        case Unary():
            value = evaluate(ev, expr.expr, steps)
            return binary.negated(value) if expr.op == "-" else value
        case Binary() if _is_long(expr):
            return _long_chain(ev, expr, steps)
        case Binary():
            return binary.binary(expr, evaluate(ev, expr.lhs, steps), evaluate(ev, expr.rhs, steps), ev.notes)
        case Aggregate():
            return _aggregate(ev, expr, steps)
        case Call() if not _streams(expr):
            return _call(ev, expr, steps)
        case VectorSelector() | Call():
            return _whole(ev, expr, steps)
        case MatrixSelector() | Subquery():
            raise QueryFailed("a range vector has no value at a step; it needs a function over time around it")


def _is_long(expr: Expr) -> bool:
    """Whether an operator ends a chain of so many that evaluation may not recurse along it."""
    for _ in range(MAX_LINKS):
        if not isinstance(expr, Binary):
            return False
        expr = expr.lhs
    return True


def _long_chain(ev: Evaluation, expr: Binary, steps: Steps) -> Value:
    """Link by link, from the left; what several chains share is not looked for."""
    links, held = chain(expr), ev.held
    value = evaluate(ev, links[-1].lhs, steps)
    for link in reversed(links):
        value = binary.binary(link, value, evaluate(ev, link.rhs, steps), ev.notes)
        if isinstance(value, Matrix) and DELAYED_NAME_REMOVAL not in ev.options.features:
            value = settle(value)
        ev.held = held
        hold(ev, size_of(value))  # what the link before held is free again
    ev.held = held
    return value


def _aggregate(ev: Evaluation, node: Aggregate, steps: Steps) -> Value:
    if node.definition is not None:
        given = None if node.param is None else evaluate(ev, node.param, steps)
        return user_functions.aggregate(node, _matrix(evaluate(ev, node.expr, steps)), given, ev.notes)
    if not aggregate.folds(node.op) or not _flows(ev, node.expr, steps):
        param = None if node.param is None else evaluate(ev, node.param, steps)
        assert not isinstance(param, Matrix), "the parser lets no vector be a parameter"
        value, check = _matrix(evaluate(ev, node.expr, steps)), partial(check_deadline, ev)
        return aggregate.aggregate(node, value, param, ev.notes, check)
    accumulator = aggregate.Accumulator.start(node, steps)
    for matrix in stream(ev, node.expr, steps):
        hold(ev, size_of(matrix))
        accumulator.add(matrix)
        ev.held -= size_of(matrix)
    return accumulator.finish(ev.notes)


def _call(ev: Evaluation, call: Call, steps: Steps) -> Value:
    """A call that needs its arguments whole."""
    if call.definition is not None:
        return _user_call(ev, call, steps)
    match call.func:
        case "absent_over_time":
            return _absent_over_time(ev, call, steps)
        case "start_timestamp":
            return Matrix.empty(steps)  # an expression has no start timestamps
        case "info":
            return _info(ev, call, steps)
        case _:
            return functions.call(call, [evaluate(ev, arg, steps) for arg in call.args], _context(ev, steps))


def _user_call(ev: Evaluation, call: Call, steps: Steps) -> Matrix:
    """A call of a user's function, of one batch at a time and in this thread: it may not know how to share."""
    first, *rest = call.args
    args = [evaluate(ev, arg, steps) for arg in rest]
    if not isinstance(first, MatrixSelector | Subquery):
        return user_functions.instant(call, [evaluate(ev, first, steps), *args], ev.notes)
    windows = windows_of(ev, first, steps)
    if isinstance(first, MatrixSelector):
        batches = counted_windows(ev, read_batches(ev, first.selector, windows), windows)
    else:
        batches = counted_windows(ev, (as_samples(inner) for inner in uncounted(ev, _inner(ev, first, windows))), windows)
    parts = []
    for matrix in user_functions.over_time(call, batches, windows, args, ev.notes):
        hold(ev, matrix.values.size)
        parts.append(matrix)
    return concat_matrices(parts or [Matrix.empty(steps)])


def _info(ev: Evaluation, call: Call, steps: Steps) -> Matrix:
    """`info` with its info series read at the time that the base series are about."""
    ends_ms = _base_times(call.args[0], steps)

    def select_info(matchers: tuple[Matcher, ...]) -> Matrix:
        return read_stamped(ev, VectorSelector("", matchers), ends_ms, steps)

    return info.info(call, _matrix(evaluate(ev, call.args[0], steps)), select_info, ev.notes)


def _base_times(base: Expr, steps: Steps) -> I64:
    """i64[k]: the times that the first selector of an expression is about, through the subqueries around it."""
    ends_ms, node = steps.ms, base
    while True:
        if isinstance(node, Subquery | VectorSelector | MatrixSelector):
            ends_ms = ends_of(node.selector if isinstance(node, MatrixSelector) else node, ends_ms)
        parts = [part for part in children(node) if any(isinstance(inner, VectorSelector) for inner in walk(part))]
        if not parts or isinstance(node, MatrixSelector):
            return ends_ms
        node = parts[0]


def _absent_over_time(ev: Evaluation, call: Call, steps: Steps) -> Matrix:
    """1 at the steps where no series has a sample in its window."""
    present = np.zeros(len(steps), bool)
    for matrix in _stream_range_call(ev, call, steps):
        present |= matrix.present.any(axis=0)
    labels = SeriesTable.of([absent_labels(call.args[0])])
    return mark(non_empty(Matrix(labels, steps, np.ones((1, len(steps))), ~present[None, :])))


def stream(ev: Evaluation, expr: Expr, steps: Steps) -> Iterator[Matrix]:
    """The value of a node that `_streams`, a batch of series at a time; a small shared one is kept for its other places."""
    shared = bool(ev.plan.shared) and expr in ev.plan.shared
    if shared and (expr, steps) in ev.memo:
        taken_again(ev, expr, steps)
        yield _matrix(ev.memo[expr, steps])
        return
    parts, room, before = [Matrix.empty(steps)], MAX_KEPT_CELLS if shared else 0, told(ev)
    matrices = _stream(ev, expr, steps)
    for matrix in matrices if ev.clock is None else measured_stream(ev, expr, steps, matrices):
        check_deadline(ev)
        settled = matrix if DELAYED_NAME_REMOVAL in ev.options.features else settle(matrix)
        room -= settled.values.size
        if room >= 0:
            parts.append(settled)
        else:
            parts.clear()
        yield settled
    if shared and parts and told(ev) == before:
        keep(ev, expr, steps, _together(parts[1:], steps))


def _stream(ev: Evaluation, expr: Expr, steps: Steps) -> Iterator[Matrix]:
    match expr:
        case VectorSelector():
            yield from read_instant(ev, expr, steps)
        case Call() if expr.func in RANGE_FUNCTIONS:
            yield from _stream_range_call(ev, expr, steps)
        case Call(args=(VectorSelector() as selector,)) if expr.func in SAMPLE_TIMES:
            yield from read_times(ev, expr.func, selector, steps)
        case Call():
            rest = [evaluate(ev, arg, steps) for arg in expr.args[1:]]
            for matrix in stream(ev, expr.args[0], steps):
                yield _matrix(functions.call(expr, [matrix, *rest], _context(ev, steps)))
        case Unary():
            for matrix in stream(ev, expr.expr, steps):
                yield _matrix(binary.negated(matrix)) if expr.op == "-" else matrix
        case Binary() if _streams(expr.lhs):
            scalar = evaluate(ev, expr.rhs, steps)
            for matrix in stream(ev, expr.lhs, steps):
                yield _matrix(binary.binary(expr, matrix, scalar, ev.notes))
        case Binary():
            scalar = evaluate(ev, expr.lhs, steps)
            for matrix in stream(ev, expr.rhs, steps):
                yield _matrix(binary.binary(expr, scalar, matrix, ev.notes))
        case _:
            raise AssertionError(f"{name_of(expr)} does not stream")


def _streams(expr: Expr) -> bool:
    """Whether each series of the node's value follows from one series of storage, whatever the others are."""
    match expr:
        case VectorSelector():
            return True
        case Call() if expr.func == "absent_over_time":
            return False
        case Call() if expr.func in RANGE_FUNCTIONS:
            return True
        case Call() if expr.func in SAMPLE_TIMES:
            return isinstance(expr.args[0], VectorSelector)
        case Call():
            return expr.func in ELEMENTWISE and len(expr.args) > 0 and _streams(expr.args[0])
        case Unary():
            return _streams(expr.expr)
        case Binary() if _is_long(expr):
            return False
        case Binary(matching=None):
            return _streams(expr.lhs) or _streams(expr.rhs)
        case _:
            return False


def _flows(ev: Evaluation, expr: Expr, steps: Steps) -> bool:
    """Whether to stream the node: unless it is fixed, or names that go at once could make series of two batches equal."""
    if not _streams(expr) or (len(steps) > 1 and expr in ev.plan.fixed):
        return False
    return DELAYED_NAME_REMOVAL in ev.options.features or all(
        any(m.name == METRIC_NAME and m.op == "=" for m in node.matchers) for node in walk(expr) if isinstance(node, VectorSelector)
    )


def _stream_range_call(ev: Evaluation, call: Call, steps: Steps) -> Iterator[Matrix]:
    selector = _range_argument(call)
    params = [_scalar(evaluate(ev, arg, steps)).values for arg in call.args if arg is not selector]
    windows = windows_of(ev, selector, steps)
    range_call = RangeCall(call.func, params, call.args[0].span, TYPE_AND_UNIT in ev.options.features)
    check_call(range_call, windows)

    if isinstance(selector, MatrixSelector):
        yield from read_range(ev, range_call, selector.selector, windows)
        return
    for inner in uncounted(ev, _inner(ev, selector, windows)):
        size = 2 * inner.values.size + len(inner) * len(steps)
        hold(ev, size)
        samples = as_samples(inner)
        count_windows(ev, samples, windows)
        yield over_time(range_call, samples, windows, ev.notes, ev.executor, drop_name=inner.drop_name)
        ev.held -= size


def _inner(ev: Evaluation, subquery: Subquery, windows: Windows) -> Iterator[Matrix]:
    """The inner expression of a subquery at its own steps."""
    step_ms = duration_ms(subquery.step) if subquery.step is not None else ev.options.default_step_ms
    steps = inner_steps(windows, step_ms)
    if steps is None:
        return
    if len(steps) > ev.options.max_samples:
        raise LimitExceeded(f"a subquery of {len(steps)} steps is over the limit of {ev.options.max_samples} samples")
    if _flows(ev, subquery.expr, steps):
        yield from stream(ev, subquery.expr, steps)
    else:
        yield _matrix(evaluate(ev, subquery.expr, steps))


def _whole(ev: Evaluation, expr: Expr, steps: Steps) -> Matrix:
    """The matrices of a node that streams, put together."""
    parts = []
    for matrix in stream(ev, expr, steps):
        hold(ev, size_of(matrix))
        parts.append(matrix)
    return _together(parts, steps)


def _together(parts: list[Matrix], steps: Steps) -> Matrix:
    """All parts as one. Each has its names settled, but series of two may only now turn out to be the same."""
    return merge_equal(concat_matrices(parts)) if len(parts) > 1 else parts[0] if parts else Matrix.empty(steps)


def _range_argument(call: Call) -> MatrixSelector | Subquery:
    return next(arg for arg in call.args if isinstance(arg, MatrixSelector | Subquery))


def _context(ev: Evaluation, steps: Steps) -> functions.EvalContext:
    query = ev.query
    step_ms = 0 if query.start_ms == query.end_ms else query.step_ms
    return functions.EvalContext(steps, query.start_ms, query.end_ms, step_ms, ev.options.features, ev.notes)


def _spread(value: Value, steps: Steps) -> Value:
    """A value of one step at all steps."""
    k = len(steps)
    if isinstance(value, str):
        return value
    if isinstance(value, Scalar):
        return Scalar(steps, np.repeat(value.values, k))
    cells = None if value.cells is None else np.repeat(value.cells, k, axis=1)
    return replace(
        value, steps=steps, values=np.repeat(value.values, k, axis=1), present=np.repeat(value.present, k, axis=1), cells=cells
    )


def _matrix(value: Value) -> Matrix:
    assert isinstance(value, Matrix), "the parser has checked the types"
    return value


def _scalar(value: Value) -> Scalar:
    assert isinstance(value, Scalar), "the parser has checked the types"
    return value

"""Runs one `eval` of a test script and says what differs from what it expects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promql.answer import DELAYED_NAME_REMOVAL, START_TIMESTAMPS, Answer, QueryOptions
from promql.engine import query_instant, query_range
from promql.matrix import Matrix, Scalar, Steps
from promql.syntax.ast import Aggregate, At, Binary, Call, Expr, MatrixSelector, Paren, Subquery, Unary, VectorSelector
from promql.syntax.errors import ParseError
from promql.syntax.gotext import format_number
from promql.syntax.parser import parse
from promql.syntax.printer import format_expr
from promql.syntax.typecheck import ALL_FEATURES, walk
from tests.promql.histogram_literal import HistogramLiteral, almost_equal, from_histograms, same_histogram, show
from tests.promql.script import Eval, Expect, Point
from tsdb.model.errors import TreeringError
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, is_stale
from tsdb.model.source import Source

FEATURES = ALL_FEATURES | {DELAYED_NAME_REMOVAL, START_TIMESTAMPS}
OPTIONS = QueryOptions(features=FEATURES)
MINUTE_MS = 60_000
CONTEXT_FUNCTIONS = ("start()", "end()", "range()", "step()")
TIME_FUNCTIONS = frozenset({
    "days_in_month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute", "month", "year", "predict_linear", "time",
    "timestamp", "start", "end", "range", "step", "start_timestamp",
})  # fmt: skip
"""Their value depends on the evaluation time, whatever `@` says of their arguments."""


class Mismatch(AssertionError):
    """An answer differs from what the script expects."""


@dataclass(frozen=True, slots=True)
class Sample:
    t_ms: int
    value: float | HistogramLiteral


Series = list[tuple[Labels, list[Sample]]]


def run(source: Source, command: Eval, options: QueryOptions = OPTIONS, *, thorough: bool = True) -> None:
    """Raises Mismatch where the answer is not as expected.

    An instant query is asked again as the middle step of a range query and, if `thorough`, with its time pinned by `@` at
    other times, as Prometheus's own suite does.
    """
    if command.step_ms:
        steps = Steps(command.start_ms, command.end_ms, command.step_ms)
        answer = _ask(command, lambda: query_range(source, command.query, steps, options))
        if answer is not None:
            _check_matrix(command, _series(answer))
        return
    for query, at_ms in _instant_queries(command, thorough):
        try:
            _run_instant(source, command, query, at_ms, options)
        except Mismatch as mismatch:
            raise Mismatch(f"{query} at {at_ms} ms: {mismatch}") from None


def _instant_queries(command: Eval, thorough: bool) -> Iterator[tuple[str, int]]:
    at_ms = command.start_ms
    yield command.query, at_ms
    if not thorough:
        return
    try:
        expr = parse(command.query, features=FEATURES)
    except ParseError:
        return
    if any(isinstance(node, Call) and node.func in TIME_FUNCTIONS for node in walk(expr)):
        return
    pinned = format_expr(_pin(expr, at_ms))
    for other_ms in (-10 * at_ms, 0, at_ms // 5, at_ms, 10 * at_ms) if at_ms else (-1000, 0, 1000):
        yield pinned, other_ms


def _pin(expr: Expr, at_ms: int) -> Expr:
    """The expression with `@` at every outermost selector or subquery that has none with a time."""
    match expr:
        case VectorSelector() | Subquery():
            fixed = expr.at is not None and expr.at.at_ms is not None
            return expr if fixed else replace(expr, at=At(at_ms=at_ms))
        case MatrixSelector():
            selector = _pin(expr.selector, at_ms)
            assert isinstance(selector, VectorSelector)
            return replace(expr, selector=selector)
        case Paren() | Unary():
            return replace(expr, expr=_pin(expr.expr, at_ms))
        case Aggregate():
            return replace(expr, expr=_pin(expr.expr, at_ms), param=None if expr.param is None else _pin(expr.param, at_ms))
        case Binary():
            return replace(expr, lhs=_pin(expr.lhs, at_ms), rhs=_pin(expr.rhs, at_ms))
        case Call():
            return replace(expr, args=tuple(_pin(arg, at_ms) for arg in expr.args))
    return expr


def _run_instant(source: Source, command: Eval, query: str, at_ms: int, options: QueryOptions) -> None:
    answer = _ask(command, lambda: query_instant(source, query, at_ms, options))
    if answer is None:
        return
    _check_answer(command, answer)
    if command.range_vector or command.text is not None or any(word in query for word in CONTEXT_FUNCTIONS):
        return
    try:
        ranged = query_range(source, query, Steps(at_ms - MINUTE_MS, at_ms + MINUTE_MS, MINUTE_MS), options)
    except TreeringError as error:
        raise Mismatch(f"as a range query: {error}") from error
    if command.of_kind("ordered"):
        return
    middle = [(labels, [s for s in samples if s.t_ms == at_ms]) for labels, samples in _series(ranged)]
    middle = [(labels, samples) for labels, samples in middle if samples]
    try:
        if isinstance(answer.value, Scalar):
            _check_scalar(command, middle[0][1][0].value)
        else:
            _check_vector(command, middle)
    except Mismatch as mismatch:
        raise Mismatch(f"as a range query: {mismatch}") from None


def _ask(command: Eval, question: Callable[[], Answer]) -> Answer | None:
    """The answer with its annotations checked, or None where the query failed as expected."""
    fails = command.of_kind("fail")
    try:
        answer = question()
    except TreeringError as error:
        if not fails:
            raise Mismatch(f"failed: {error}") from error
        if not fails[0].matches(str(error)):
            raise Mismatch(f"failed with {str(error)!r}, expected {fails[0].message or fails[0].pattern!r}") from error
        return None
    if fails:
        raise Mismatch("expected a failure, got an answer")
    _check_notes(command, "warn", answer.warnings)
    _check_notes(command, "info", answer.infos)
    return answer


def _check_notes(command: Eval, kind: str, notes: Sequence[str]) -> None:
    expected: tuple[Expect, ...] = command.of_kind(kind)
    if command.of_kind(f"no_{kind}") and notes:
        raise Mismatch(f"unexpected {kind}: {list(notes)}")
    for expect in expected:
        if not any(expect.matches(note) for note in notes):
            raise Mismatch(f"no {kind} matches {expect.message or expect.pattern!r}, got {list(notes)}")
    for note in notes if expected else ():
        if not any(expect.matches(note) for expect in expected):
            raise Mismatch(f"unexpected {kind} {note!r}")


def _check_answer(command: Eval, answer: Answer) -> None:
    if isinstance(answer.value, str):
        if answer.value != command.text:
            raise Mismatch(f"string {answer.value!r}, expected {command.text!r}")
    elif isinstance(answer.value, Scalar):
        _check_scalar(command, float(answer.value.values[0]))
    elif answer.kind == "matrix":
        _check_matrix(command, _series(answer))
    else:
        _check_vector(command, _series(answer))


def _check_scalar(command: Eval, value: float | HistogramLiteral) -> None:
    if command.scalar is None:
        raise Mismatch(f"scalar {_show(value)}, expected series")
    if not _same(command.scalar, value):
        raise Mismatch(f"scalar {_show(value)}, expected {_show(command.scalar)}")


def _check_vector(command: Eval, series: Series) -> None:
    if command.scalar is not None:
        raise Mismatch(f"a vector, expected the scalar {_show(command.scalar)}")
    expected = {labels: points[0] for labels, points in command.series}
    for labels, samples in series:
        value = samples[0].value
        if labels not in expected:
            raise Mismatch(f"unexpected series {labels} = {_show(value)}")
        wanted = expected[labels]
        if wanted is None or not _same(wanted, value):
            raise Mismatch(f"{labels} = {_show(value)}, expected {_show(wanted)}")
    _check_complete(list(expected), series)
    if command.of_kind("ordered") and [labels for labels, _ in series] != list(expected):
        raise Mismatch(f"order {[str(labels) for labels, _ in series]}, expected {[str(labels) for labels in expected]}")


def _check_matrix(command: Eval, series: Series) -> None:
    start_ms, end_ms, step_ms = command.range_vector or (command.start_ms, command.end_ms, command.step_ms)
    expected = dict(command.series)
    for labels, samples in series:
        if labels not in expected:
            raise Mismatch(f"unexpected series {labels} = {_show_all(samples)}")
        points = [(start_ms + i * step_ms, point) for i, point in enumerate(expected[labels]) if point is not None]
        if points and points[-1][0] > end_ms:
            raise Mismatch(f"{labels}: the script expects points after {end_ms} ms")
        same = len(points) == len(samples) and all(
            t_ms == sample.t_ms and _same(point, sample.value) for (t_ms, point), sample in zip(points, samples, strict=True)
        )
        if not same:
            wanted = [Sample(t_ms, point) for t_ms, point in points]
            raise Mismatch(f"{labels} = {_show_all(samples)}, expected {_show_all(wanted)}")
    _check_complete(list(expected), series)


def _check_complete(expected: Sequence[Labels], series: Series) -> None:
    seen = [labels for labels, _ in series]
    if len(set(seen)) != len(seen):
        raise Mismatch(f"a series twice: {[str(labels) for labels in seen]}")
    missing = [str(labels) for labels in expected if labels not in set(seen)]
    if missing:
        raise Mismatch(f"missing series {missing}, got {[str(labels) for labels in seen]}")


def _series(answer: Answer) -> Series:
    """The answer series by series, its samples present only; a scalar is a series without labels."""
    value = answer.value
    if isinstance(value, SeriesBatch):
        return [(value.series.labels(i), _batch_samples(value, i)) for i in range(len(value))]
    assert isinstance(value, Matrix)
    return [(value.series.labels(i), _row_samples(value, i)) for i in range(len(value))]


def _row_samples(matrix: Matrix, row: int) -> list[Sample]:
    at = np.flatnonzero(matrix.present[row])
    times, values = matrix.steps.ms[at].tolist(), matrix.values[row, at].tolist()
    if matrix.cells is None or matrix.histograms is None:
        return [Sample(t, v) for t, v in zip(times, values, strict=True)]
    histograms, cells = matrix.histograms, matrix.cells[row, at].tolist()
    return [Sample(t, v if c < 0 else from_histograms(histograms, c)) for t, v, c in zip(times, values, cells, strict=True)]


def _batch_samples(batch: SeriesBatch, row: int) -> list[Sample]:
    at = np.arange(batch.offsets[row], batch.offsets[row + 1])
    at = at[~is_stale(batch.values[at])]
    cells = [-1] * len(at) if batch.histogram_at is None else batch.histogram_at[at].tolist()
    out = []
    for t, v, cell in zip(batch.t_ms[at].tolist(), batch.values[at].tolist(), cells, strict=True):
        assert cell < 0 or batch.histograms is not None
        out.append(Sample(t, v if cell < 0 or batch.histograms is None else from_histograms(batch.histograms, cell)))
    return out


def _same(expected: float | HistogramLiteral, actual: float | HistogramLiteral) -> bool:
    if isinstance(expected, HistogramLiteral) or isinstance(actual, HistogramLiteral):
        both = isinstance(expected, HistogramLiteral) and isinstance(actual, HistogramLiteral)
        return both and same_histogram(expected, actual)
    return almost_equal(expected, actual)


def _show(value: Point) -> str:
    if value is None:
        return "nothing"
    return show(value) if isinstance(value, HistogramLiteral) else format_number(value)


def _show_all(samples: Sequence[Sample]) -> str:
    return "[" + " ".join(f"{_show(sample.value)}@{sample.t_ms / 1000:g}" for sample in samples) + "]"

"""A syntax tree made ready to run: durations and `@ start()` are numbers, and what needs one evaluation only is known.

What this leaves to the engine: every decision that depends on data.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from promql.fold import fold
from promql.matrix import Steps
from promql.operators.arithmetic import TRIMS
from promql.syntax.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Definition,
    Duration,
    DurationExpr,
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
from promql.syntax.parser import CACHED_QUERIES, MAX_CACHED_CHARS, parse
from promql.syntax.typecheck import children, walk
from tsdb.model.errors import BadData

AT_UNSAFE = frozenset(
    [
        "days_in_month",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "end",
        "hour",
        "minute",
        "month",
        "year",
        "predict_linear",
        "range",
        "start",
        "step",
        "time",
        "timestamp",
    ]
)
"""Functions whose result changes with the evaluation time though their arguments do not."""

SUMMARY_FUNCTIONS = ("histogram_count", "histogram_sum", "histogram_avg")
BUCKET_FUNCTIONS = ("histogram_quantile", "histogram_quantiles", "histogram_fraction")

MAX_DURATION_S = float(1 << 53)
"""Durations beyond are refused; Go's own limit is of the same order, and milliseconds of this still fit an int64."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`expr` resolved; `fixed`: its nodes that have one value at all steps; `shared`: nodes that stand in it more than once.

    `summaries`: selectors of whose histograms nothing but counts and sums is asked, wherever they stand; Prometheus reads those
    without buckets and tells every reset among them.
    """

    expr: Expr
    fixed: frozenset[Expr]
    shared: frozenset[Expr]
    summaries: frozenset[Expr]


def plan_of(text: str, query: Steps, features: frozenset[str], functions: Sequence[Definition] = ()) -> Plan:
    """The plan of a query's text. Errors are those of `parse` and `make_plan`.

    Plans that are the same for all steps come from a bounded cache where their text was asked before.
    """
    if len(text) > MAX_CACHED_CHARS:
        return make_plan(parse(text, features=features, functions=functions), query)
    expr, plan = _plan_cached(text, features, tuple(definition for definition in functions if definition.name in text))
    return make_plan(expr, query) if plan is None else plan


@lru_cache(CACHED_QUERIES)
def _plan_cached(text: str, features: frozenset[str], functions: tuple[Definition, ...]) -> tuple[Expr, Plan | None]:
    """The tree, and the plan unless it follows from the steps."""
    expr = parse(text, features=features, functions=functions)
    return expr, None if any(map(_asks_for_steps, walk(expr))) else make_plan(expr, Steps.instant(0))


def _asks_for_steps(node: Expr) -> bool:
    """Whether a node is written in terms of the query's start, end, range or step."""
    match node:
        case VectorSelector():
            return isinstance(node.offset, DurationExpr) or (node.at is not None and bool(node.at.edge))
        case MatrixSelector():
            return isinstance(node.range, DurationExpr) or _asks_for_steps(node.selector)
        case Subquery():
            durations = (node.offset, node.range, node.step)
            return any(isinstance(one, DurationExpr) for one in durations) or (node.at is not None and bool(node.at.edge))
        case _:
            return False


def make_plan(expr: Expr, query: Steps) -> Plan:
    """The plan of an expression for the steps of its query. BadData where a duration cannot be."""
    resolved = fold(resolve(expr, query))
    fixed: set[Expr] = set()
    _collect_fixed(resolved, fixed)
    nodes = walk(resolved)
    counts = Counter(node for node in nodes if isinstance(node, Aggregate | Call | Binary | VectorSelector))
    counts.subtract(node.selector for node in nodes if isinstance(node, MatrixSelector))
    shared = frozenset(node for node, count in counts.items() if count > 1)
    uses = _uses(resolved, asked=False, whole=False)
    summaries = {selector for selector, summed in uses if summed} - {selector for selector, summed in uses if not summed}
    return Plan(resolved, frozenset(fixed), shared, frozenset(summaries))


def resolve(expr: Expr, query: Steps) -> Expr:
    """The tree without parentheses, with durations as numbers and `@ start()`, `@ end()` as times."""
    match expr:
        case Paren():
            return resolve(expr.expr, query)
        case Unary():
            return replace(expr, expr=resolve(expr.expr, query))
        case Binary():
            links = chain(expr)
            tree = resolve(links[-1].lhs, query)
            for link in reversed(links):
                tree = replace(link, lhs=tree, rhs=resolve(link.rhs, query))
            return tree
        case Aggregate():
            param = None if expr.param is None else resolve(expr.param, query)
            return replace(expr, expr=resolve(expr.expr, query), param=param)
        case Call():
            return replace(expr, args=tuple(resolve(arg, query) for arg in expr.args))
        case VectorSelector():
            return _resolve_selector(expr, query)
        case MatrixSelector():
            return replace(expr, selector=_resolve_selector(expr.selector, query), range=_positive(expr.range, query))
        case Subquery():
            return replace(
                expr,
                expr=resolve(expr.expr, query),
                range=_positive(expr.range, query),
                step=None if expr.step is None else _positive(expr.step, query),
                offset=_resolve_offset(expr.offset, query),
                at=_resolve_at(expr.at, query),
            )
        case _:
            return expr


def duration_ms(duration: Duration | None) -> int:
    """Whole milliseconds of a resolved duration; None is 0."""
    if duration is None:
        return 0
    if isinstance(duration, DurationExpr):
        raise BadData(f"duration expression {duration.op!r} is not resolved")
    return math.trunc(round(duration.value * 1e9) / 1e6)


def _resolve_selector(selector: VectorSelector, query: Steps) -> VectorSelector:
    return replace(selector, offset=_resolve_offset(selector.offset, query), at=_resolve_at(selector.at, query))


def _resolve_at(at: At | None, query: Steps) -> At | None:
    if at is None or not at.edge:
        return at
    return At(query.start_ms if at.edge == "start" else query.end_ms)


def _resolve_offset(offset: Duration | None, query: Steps) -> Duration | None:
    return _resolve_duration(offset, query) if isinstance(offset, DurationExpr) else offset


def _positive(duration: Duration, query: Steps) -> Duration:
    resolved = _resolve_duration(duration, query) if isinstance(duration, DurationExpr) else duration
    if resolved.value <= 0:
        raise _refusal(duration, "duration must be greater than 0")
    return resolved


def _resolve_duration(duration: DurationExpr, query: Steps) -> NumberLiteral:
    seconds = _seconds(duration, query)
    if not abs(seconds) < MAX_DURATION_S:
        raise _refusal(duration, "duration is out of range")
    return NumberLiteral(math.trunc(seconds * 1000) / 1000, duration=True, span=duration.span)


def _seconds(duration: Duration | None, query: Steps) -> float:
    match duration:
        case None:
            return 0.0
        case NumberLiteral():
            return duration.value
        case DurationExpr(op="step"):
            return 0.0 if query.start_ms == query.end_ms else query.step_ms / 1000
        case DurationExpr(op="range"):
            return (query.end_ms - query.start_ms) / 1000
        case DurationExpr(op="-", lhs=None):
            return -_seconds(duration.rhs, query)
        case DurationExpr(op="" | "+", lhs=None):
            return _seconds(duration.rhs, query)
        case DurationExpr(op="", rhs=None):
            return _seconds(duration.lhs, query)
        case DurationExpr():
            return _arithmetic(duration, lhs=_seconds(duration.lhs, query), rhs=_seconds(duration.rhs, query))


def _arithmetic(duration: DurationExpr, *, lhs: float, rhs: float) -> float:
    try:
        match duration.op:
            case "+":
                return lhs + rhs
            case "-":
                return lhs - rhs
            case "*":
                return lhs * rhs
            case "/":
                return lhs / rhs
            case "%":
                return math.fmod(lhs, rhs)
            case "^":
                return math.pow(lhs, rhs)
            case "min_of":
                return min(lhs, rhs)
            case "max_of":
                return max(lhs, rhs)
    except ZeroDivisionError:
        raise _refusal(duration, "division by zero") from None
    except (OverflowError, ValueError):
        raise _refusal(duration, "modulo by zero" if duration.op == "%" else "duration is out of range") from None
    raise BadData(f"unexpected duration expression operator {duration.op!r}")


def _refusal(duration: Duration, problem: str) -> BadData:
    """The error with the place of the duration as Prometheus writes it: where it begins and ends, from 0 on."""
    return BadData(f"{duration.span[0]}:{duration.span[1]}: {problem}")


def _uses(expr: Expr, *, asked: bool, whole: bool) -> set[tuple[Expr, bool]]:
    """Each selector with whether only counts and sums are asked of it: below SUMMARY_FUNCTIONS, and not as `whole` histograms
    for BUCKET_FUNCTIONS, trim operators or subqueries.
    """
    if isinstance(expr, VectorSelector):
        return {(expr, asked and not whole)}
    if isinstance(expr, Binary):
        found: set[tuple[Expr, bool]] = set()
        links = chain(expr)
        for link in links:
            whole = whole or link.op in TRIMS
            found |= _uses(link.rhs, asked=asked, whole=whole)
        return found | _uses(links[-1].lhs, asked=asked, whole=whole)
    func = expr.func if isinstance(expr, Call) else ""
    asked, whole = asked or func in SUMMARY_FUNCTIONS, whole or func in BUCKET_FUNCTIONS or isinstance(expr, Subquery)
    return {use for part in children(expr) for use in _uses(part, asked=asked, whole=whole)}


def _collect_fixed(expr: Expr, fixed: set[Expr]) -> bool:
    """Whether the value of expr is the same at every step; adds such nodes, literals apart, to `fixed`."""
    if isinstance(expr, Binary):
        links = chain(expr)
        same = _collect_fixed(links[-1].lhs, fixed)
        for link in reversed(links):
            same = _collect_fixed(link.rhs, fixed) and same
            if same:
                fixed.add(link)
        return same
    parts = [_collect_fixed(part, fixed) for part in children(expr)]
    match expr:
        case NumberLiteral() | StringLiteral():
            return True
        case VectorSelector():
            same = expr.at is not None
        case MatrixSelector():
            same = expr.selector.at is not None
        case Subquery():
            same = expr.at is not None
        case Call():
            over_selector = expr.func == "timestamp" and isinstance(expr.args[0], VectorSelector)
            same = (expr.func not in AT_UNSAFE or over_selector) and all(parts)
        case _:
            same = all(parts)
    if same:
        fixed.add(expr)
    return same

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
from promql.syntax.typecheck import children, operands, walk
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
ADDING_FUNCTIONS = ("rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time", "last_over_time")
"""Functions that add, scale or pick histograms: count and sum of the result follow from counts, sums and reset hints alone."""
BUCKET_FUNCTIONS = ("histogram_quantile", "histogram_fraction")

MAX_DURATION_S = float(1 << 53)
"""Durations beyond are refused; Go's own limit is of the same order, and milliseconds of this still fit an int64."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`expr` resolved; `fixed`: its nodes that have one value at all steps; `shared`: nodes that stand in it more than once.

    `summaries`: selectors of whose histograms only count and sum are asked; Prometheus tells every reset among those.
    `bucketless`: those of them whose buckets no node between can miss, and that stand nowhere else.
    """

    expr: Expr
    fixed: frozenset[Expr]
    shared: frozenset[Expr]
    summaries: frozenset[Expr]
    bucketless: frozenset[Expr]


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
    uses = _bucket_uses(resolved, needed=True)
    bucketless = {selector for selector, needed in uses if not needed} - {selector for selector, needed in uses if needed}
    return Plan(resolved, frozenset(fixed), shared, frozenset(_summaries(resolved, asked=False)), frozenset(bucketless))


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
        raise BadData("duration must be greater than 0")
    return resolved


def _resolve_duration(duration: DurationExpr, query: Steps) -> NumberLiteral:
    seconds = _seconds(duration, query)
    if not abs(seconds) < MAX_DURATION_S:
        raise BadData("duration is out of range")
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
            return _arithmetic(duration.op, lhs=_seconds(duration.lhs, query), rhs=_seconds(duration.rhs, query))


def _arithmetic(op: str, *, lhs: float, rhs: float) -> float:
    try:
        match op:
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
        raise BadData("division by zero") from None
    except (OverflowError, ValueError):
        raise BadData("modulo by zero" if op == "%" else "duration is out of range") from None
    raise BadData(f"unexpected duration expression operator {op!r}")


def _summaries(expr: Expr, *, asked: bool) -> set[Expr]:
    """The selectors below a function of SUMMARY_FUNCTIONS, with nothing between that needs the buckets."""
    if isinstance(expr, VectorSelector):
        return {expr} if asked else set()
    if isinstance(expr, Subquery) or (isinstance(expr, Call) and expr.func in BUCKET_FUNCTIONS):
        return set()
    asked = asked or (isinstance(expr, Call) and expr.func in SUMMARY_FUNCTIONS)
    return {selector for part in operands(expr) for selector in _summaries(part, asked=asked)}


def _bucket_uses(expr: Expr, *, needed: bool) -> set[tuple[Expr, bool]]:
    """Each selector with whether the buckets of its histograms matter above it."""
    match expr:
        case VectorSelector():
            return {(expr, needed or expr.anchored or expr.smoothed)}
        case Call() if expr.func in SUMMARY_FUNCTIONS:
            needed = False
        case Call() if expr.func in ADDING_FUNCTIONS:
            pass
        case Aggregate() if expr.op in ("sum", "avg"):
            pass
        case MatrixSelector():
            pass
        case _:
            needed = True
    return {use for part in operands(expr) for use in _bucket_uses(part, needed=needed)}


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

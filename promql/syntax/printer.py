"""Text of syntax trees: one line as Prometheus's String(), many lines as its Prettify(), and the JSON of /parse_query."""

import re

from promql.syntax.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Duration,
    DurationExpr,
    Expr,
    Matching,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
    chain,
)
from promql.syntax.gotext import format_duration_ms, format_number, quote
from promql.syntax.signatures import Signature, signature
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import Matcher

MAX_LINE_CHARS = 100
"""Prettify breaks an expression that is longer."""
_INDENT = "  "
_LEGACY_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TYPE_WORDS = {ValueType.SCALAR: "scalar", ValueType.VECTOR: "vector", ValueType.MATRIX: "matrix", ValueType.STRING: "string"}

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def format_expr(expr: Expr) -> str:
    """The query on one line, as Prometheus writes it; it means the same when it is parsed again."""
    match expr:
        case NumberLiteral():
            return _signed_duration(expr.value) if expr.duration else format_number(expr.value)
        case StringLiteral():
            return quote(expr.value)
        case Paren():
            return f"({format_expr(expr.expr)})"
        case Unary():
            return expr.op + format_expr(expr.expr)
        case Binary():
            links = chain(expr)
            return format_expr(links[-1].lhs) + "".join(f" {_operator(link)} {format_expr(link.rhs)}" for link in reversed(links))
        case Aggregate():
            param = "" if expr.param is None else f"{format_expr(expr.param)}, "
            return f"{_aggregator(expr)}({param}{format_expr(expr.expr)})"
        case Call():
            return f"{expr.func}({', '.join(map(format_expr, expr.args))})"
        case VectorSelector():
            return _selector(expr) + _at(expr.at) + _extended(expr) + _offset(expr.offset)
        case MatrixSelector():
            inner = expr.selector
            return f"{_selector(inner)}[{_duration(expr.range)}]{_extended(inner)}{_at(inner.at)}{_offset(inner.offset)}"
        case Subquery():
            return format_expr(expr.expr) + _subquery_suffix(expr)


def pretty(expr: Expr, level: int = 0) -> str:
    """The query over as many lines as it takes to keep each within MAX_LINE_CHARS where the language allows."""
    indent, whole = _INDENT * level, format_expr(expr)
    if isinstance(expr, Unary):
        return f"{indent}{expr.op}{pretty(expr.expr, level).strip()}"
    if len(whole.encode()) <= MAX_LINE_CHARS:
        return whole if isinstance(expr, Subquery) else indent + whole  # Prometheus leaves subqueries unindented
    match expr:
        case Aggregate():
            param = "" if expr.param is None else f"{pretty(expr.param, level + 1)},\n"
            return f"{indent}{_aggregator(expr)}(\n{param}{pretty(expr.expr, level + 1)}\n{indent})"
        case Binary():
            return _pretty_chain(expr, level)
        case Call():
            args = ",\n".join(pretty(arg, level + 1) for arg in expr.args)
            return f"{indent}{expr.func}(\n{args}\n{indent})"
        case Paren():
            return f"{indent}(\n{pretty(expr.expr, level + 1)}\n{indent})"
        case Subquery():
            return pretty(expr.expr, level) + _subquery_suffix(expr)
    return indent + whole


def to_json(expr: Expr | None) -> Json:
    """The tree as Prometheus's /api/v1/parse_query gives it. Durations that need the query's step or range are 0."""
    match expr:
        case None:
            return None
        case NumberLiteral():
            return {"type": "numberLiteral", "val": format_number(expr.value)}
        case StringLiteral():
            return {"type": "stringLiteral", "val": expr.value}
        case Paren():
            return {"type": "parenExpr", "expr": to_json(expr.expr)}
        case Unary():
            return {"type": "unaryExpr", "op": expr.op, "expr": to_json(expr.expr)}
        case Binary():
            links = chain(expr)
            tree = to_json(links[-1].lhs)
            for link in reversed(links):
                tree = {
                    "type": "binaryExpr", "op": link.op, "lhs": tree, "rhs": to_json(link.rhs),
                    "matching": _matching_json(link.matching), "bool": link.return_bool,
                }  # fmt: skip
            return tree
        case Aggregate():
            return {
                "type": "aggregation", "op": expr.op, "expr": to_json(expr.expr), "param": to_json(expr.param),
                "grouping": list(expr.grouping), "without": expr.without,
            }  # fmt: skip
        case Call():
            return {"type": "call", "func": _function_json(expr), "args": [to_json(arg) for arg in expr.args]}
        case VectorSelector():
            return {"type": "vectorSelector", **_selector_json(expr)}
        case MatrixSelector():
            return {"type": "matrixSelector", "range": _milliseconds(expr.range), **_selector_json(expr.selector)}
        case Subquery():
            return {
                "type": "subquery", "expr": to_json(expr.expr), "range": _milliseconds(expr.range),
                "step": _milliseconds(expr.step), "offset": _milliseconds(expr.offset), **_at_json(expr.at),
            }  # fmt: skip


def _pretty_chain(node: Binary, level: int) -> str:
    """The first links that fit one line together on it, each of the others one level less deep."""
    links = chain(node)
    size, after = len(format_expr(links[-1].lhs).encode()), []
    for link in reversed(links):
        size += len(f" {_operator(link)} {format_expr(link.rhs)}".encode())
        if size > MAX_LINE_CHARS:
            after.append(link)
    depth = level + len(after)
    parts = [pretty(after[0].lhs, depth)]
    for link in after:
        depth -= 1
        parts += [f"{_INDENT * depth}{_operator(link)}", pretty(link.rhs, depth + 1)]
    return "\n".join(parts)


def _operator(node: Binary) -> str:
    return node.op + (" bool" if node.return_bool else "") + ("" if node.matching is None else _matching(node.matching))


def _matching(matching: Matching) -> str:
    text, grouped = "", matching.card in ("many-to-one", "one-to-many")
    if matching.labels or matching.on or grouped:
        text = f" {'on' if matching.on else 'ignoring'} ({_names(matching.labels)})"
    if grouped:
        text += f" group_{'left' if matching.card == 'many-to-one' else 'right'} ({_names(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and right is not None and repr(left) == repr(right):
        return f"{text} fill ({format_number(left)})"
    text += "" if left is None else f" fill_left ({format_number(left)})"
    return text + ("" if right is None else f" fill_right ({format_number(right)})")


def _aggregator(node: Aggregate) -> str:
    if node.without:
        return f"{node.op} without ({_names(node.grouping)}) "
    return f"{node.op} by ({_names(node.grouping)}) " if node.grouping else node.op


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(name if _LEGACY_LABEL.fullmatch(name) else quote(name) for name in names)


def _selector(node: VectorSelector) -> str:
    named = Matcher(METRIC_NAME, "=", node.name) if node.name else None
    matchers = sorted(_matcher(matcher) for matcher in node.matchers if matcher != named)
    return f"{node.name}{{{','.join(matchers)}}}" if matchers or not node.name else node.name


def _matcher(matcher: Matcher) -> str:
    name = matcher.name if _LEGACY_LABEL.fullmatch(matcher.name) else quote(matcher.name)
    return f"{name}{matcher.op}{quote(matcher.value)}"


def _extended(node: VectorSelector) -> str:
    return " anchored" if node.anchored else " smoothed" if node.smoothed else ""


def _at(at: At | None) -> str:
    if at is None:
        return ""
    return f" @ {at.edge}()" if at.at_ms is None else f" @ {at.at_ms / 1000:.3f}"


def _offset(offset: Duration | None) -> str:
    if offset is None or (isinstance(offset, NumberLiteral) and _rounded_ms(offset.value) == 0):
        return ""
    return f" offset {_duration(offset)}"


def _subquery_suffix(node: Subquery) -> str:
    step = "" if node.step is None else _duration(node.step)
    return f"[{_duration(node.range)}:{step}]{_at(node.at)}{_offset(node.offset)}"


def _duration(duration: Duration) -> str:
    """A duration where one is wanted: a plain number of seconds is written as a duration too."""
    return _signed_duration(duration.value) if isinstance(duration, NumberLiteral) else _duration_expr(duration)


def _duration_expr(node: DurationExpr) -> str:
    lhs, rhs = _part(node.lhs), _part(node.rhs)
    if node.op in ("step", "range"):
        text = f"{node.op}()"
    elif node.op in ("min_of", "max_of"):
        text = f"{node.op}({lhs}, {rhs})"
    else:
        text = f"{node.op}{rhs}" if node.lhs is None else f"{lhs} {node.op} {rhs}"
    return f"({text})" if node.wrapped else text


def _part(part: DurationExpr | NumberLiteral | None) -> str:
    if part is None:
        return ""
    return format_expr(part) if isinstance(part, NumberLiteral) else _duration_expr(part)


def _rounded_ms(seconds: float) -> int:
    return int(abs(seconds) * 1000 + 0.5) * (-1 if seconds < 0 else 1)


def _signed_duration(seconds: float) -> str:
    return ("-" if seconds < 0 else "") + format_duration_ms(abs(_rounded_ms(seconds)))


def _milliseconds(duration: Duration | None) -> int:
    return _rounded_ms(duration.value) if isinstance(duration, NumberLiteral) else 0


def _at_json(at: At | None) -> dict[str, Json]:
    return {"timestamp": None if at is None else at.at_ms, "startOrEnd": at.edge or None if at else None}


def _selector_json(node: VectorSelector) -> dict[str, Json]:
    return {
        "name": node.name,
        "offset": _milliseconds(node.offset),
        "matchers": [{"name": m.name, "value": m.value, "type": m.op} for m in node.matchers],
        **_at_json(node.at),
        "anchored": node.anchored,
        "smoothed": node.smoothed,
    }


def _matching_json(matching: Matching | None) -> Json:
    if matching is None:
        return None
    return {
        "card": matching.card,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }


def _function_json(call: Call) -> Json:
    own = call.definition
    known = signature(call.func) if own is None else Signature(own.args, own.optional)
    assert known is not None, f"a tree calls the unknown function {call.func!r}"
    types: list[Json] = [_TYPE_WORDS[kind] for kind in known.args]
    return {"name": call.func, "argTypes": types, "variadic": known.variadic, "returnType": _TYPE_WORDS[known.returns]}

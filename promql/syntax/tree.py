"""The syntax tree from the rules of promql.lark: one function a rule or alias, called by lark as the rule is recognised.

Raises SyntaxProblem where a rule is well formed but means nothing: a function that does not exist, an offset set twice.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from lark import Token, v_args

from promql.syntax.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Definition,
    Duration,
    DurationExpr,
    Expr,
    Matching,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)
from promql.syntax.errors import SyntaxProblem
from promql.syntax.gotext import MAX_DURATION_MS, parse_duration_ms, parse_number, quote, unquote
from promql.syntax.lexer import describe
from promql.syntax.signatures import PARAMETERS, signature
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import Matcher

MAX_MATCHERS = 200
"""Matchers of one selector; each costs a pass over a label column."""
MAX_DURATION_S = MAX_DURATION_MS / 1000
Bracketed = tuple[tuple[Matcher, ...], Span]
Arguments = tuple[tuple[Expr, ...], Span]
Names = tuple[tuple[str, ...], Span]
_F = TypeVar("_F", bound=Callable[..., object])
_NEED = "must be preceded by an instant vector selector or range vector selector or a subquery"


class DefinedToken(Token):
    """The name of a user's function in a query."""

    definition: Definition


def _inline(function: _F) -> _F:
    """`function` with the parts of its rule as arguments."""
    return cast(_F, v_args(inline=True)(function))


def _span(token: Token) -> Span:
    return (token.start_pos or 0, token.end_pos or 0)


def expression(children: list[Expr]) -> Expr:
    return children[0]


def selector(children: list[VectorSelector]) -> VectorSelector:
    return children[0]


# Operators.


@_inline
def binary(lhs: Expr, op: Token, modifiers: tuple[bool, Matching], rhs: Expr) -> Binary:
    return_bool, matching = modifiers
    return Binary(op.lower(), lhs, rhs, matching, return_bool, (lhs.span[0], rhs.span[1]))


@_inline
def unary(op: Token, expr: Expr) -> Expr:
    if isinstance(expr, NumberLiteral):
        return signed(op, expr)
    return Unary(str(op), expr, (_span(op)[0], expr.span[1]))


def modifiers(children: list[object]) -> tuple[bool, Matching]:
    """[bool, Matching of on/ignoring, (side, fill value)…]; type checking drops a Matching that joins no vectors."""
    matching, filled = Matching(), ""
    for part in children[1:]:
        if isinstance(part, Matching):
            matching = part
        else:
            token, value = cast(tuple[Token, float], part)
            side = token.lower()
            if filled and {filled, side} != {"fill_left", "fill_right"}:
                raise SyntaxProblem(f"unexpected {describe(token)}", _span(token))
            filled = "fill" if filled else side
            left, right = (value if side != "fill_right" else None), (value if side != "fill_left" else None)
            matching = replace(
                matching,
                fill_left=matching.fill_left if left is None else left,
                fill_right=matching.fill_right if right is None else right,
            )
    return bool(children[0]), matching


def bool_modifier(children: list[Token]) -> bool:
    return bool(children)


@_inline
def matching(joined: Matching, group: Token | None = None, include: Names = ((), (0, 0))) -> Matching:
    if group is None:
        return joined
    return replace(joined, card="many-to-one" if group.lower() == "group_left" else "one-to-many", include=include[0])


@_inline
def joining(on: Token, names: Names) -> Matching:
    return Matching(on=on.lower() == "on", labels=names[0])


@_inline
def fill(side: Token, _lpar: Token, number: NumberLiteral, _rpar: Token) -> tuple[Token, float]:
    return side, number.value


# What follows an operand.


@_inline
def offset_modifier(operand: Expr, _offset: Token, duration: Duration) -> Expr:
    _in_range(duration)
    target = _selector_of(operand, f"offset modifier {_NEED}")
    if _is_set(target.offset):
        raise SyntaxProblem("offset may not be set multiple times", operand.span)
    return _with_selector(operand, replace(target, offset=duration), duration.span[1])


@_inline
def at_time(operand: Expr, _at: Token, time: NumberLiteral) -> Expr:
    if not math.isfinite(time.value) or abs(time.value) >= 1 << 63:
        shown = f"{time.value:f}" if math.isfinite(time.value) else {"inf": "+Inf", "-inf": "-Inf"}.get(str(time.value), "NaN")
        raise SyntaxProblem(f"timestamp out of bounds for @ modifier: {shown}", operand.span)
    scaled = time.value * 1000
    return _at_modifier(operand, At(at_ms=int(math.copysign(math.floor(abs(scaled) + 0.5), scaled))), time.span[1])


@_inline
def at_edge(operand: Expr, _at: Token, edge: Token, _lpar: Token, rpar: Token) -> Expr:
    return _at_modifier(operand, At(edge=edge.lower()), _span(rpar)[1])


@_inline
def extended(operand: Expr, word: Token) -> Expr:
    kind = word.lower()
    if isinstance(operand, Subquery):
        raise SyntaxProblem(f"{kind} modifier is not supported for subqueries", operand.span)
    if not isinstance(operand, VectorSelector | MatrixSelector):
        raise SyntaxProblem(f"{kind} modifier not implemented", operand.span)
    target = operand if isinstance(operand, VectorSelector) else operand.selector
    if (target.smoothed, target.anchored)[kind == "smoothed"]:
        raise SyntaxProblem("anchored and smoothed modifiers cannot be used together", operand.span)
    changed = replace(target, anchored=target.anchored or kind == "anchored", smoothed=target.smoothed or kind == "smoothed")
    return _with_selector(operand, changed, _span(word)[1])


@_inline
def range_selector(operand: Expr, lbracket: Token, duration: Duration, rbracket: Token) -> MatrixSelector:
    _positive(duration)
    place = (_span(lbracket)[0], _span(rbracket)[1])
    if not isinstance(operand, VectorSelector):
        raise SyntaxProblem("ranges only allowed for vector selectors", place)
    if _is_set(operand.offset):
        raise SyntaxProblem("no offset modifiers allowed before range", place)
    if operand.at is not None:
        raise SyntaxProblem("no @ modifiers allowed before range", place)
    return MatrixSelector(operand, duration, (operand.span[0], _span(rbracket)[1]))


@_inline
def subquery(operand: Expr, _lbracket: Token, duration: Duration, _colon: Token, step: Duration, rbracket: Token) -> Subquery:
    _positive(duration)
    _positive(step)
    return Subquery(operand, duration, step, span=(operand.span[0], _span(rbracket)[1]))


@_inline
def subquery_default_step(operand: Expr, _lbracket: Token, duration: Duration, _colon: Token, rbracket: Token) -> Subquery:
    _positive(duration)
    return Subquery(operand, duration, span=(operand.span[0], _span(rbracket)[1]))


# Operands.


@_inline
def string(token: Token) -> StringLiteral:
    return StringLiteral(_text(token), _span(token))


@_inline
def paren(lpar: Token, expr: Expr, rpar: Token) -> Paren:
    return Paren(expr, (_span(lpar)[0], _span(rpar)[1]))


@_inline
def call(name: Token, arguments: Arguments) -> Call:
    known = str(name) if name.type == "IDENTIFIER" else name.lower()
    definition = name.definition if isinstance(name, DefinedToken) else None
    if definition is None and signature(known) is None:
        raise SyntaxProblem(f"unknown function with name {quote(str(name))}", _span(name))
    return Call(known, arguments[0], (_span(name)[0], arguments[1][1]), definition)


@_inline
def aggregate_by_first(op: Token, grouping: tuple[bool, Names], arguments: Arguments) -> Aggregate:
    return _aggregate(op, arguments, grouping, arguments[1][1])


@_inline
def aggregate_by_last(op: Token, arguments: Arguments, grouping: tuple[bool, Names]) -> Aggregate:
    return _aggregate(op, arguments, grouping, grouping[1][1][1])


@_inline
def aggregate(op: Token, arguments: Arguments) -> Aggregate:
    return _aggregate(op, arguments, (False, ((), (0, 0))), arguments[1][1])


@_inline
def grouping(by: Token, names: Names) -> tuple[bool, Names]:
    """(whether the labels are those left out, the labels)"""
    return by.lower() == "without", names


@_inline
def arguments(lpar: Token, args: list[Expr], rpar: Token) -> Arguments:
    return tuple(args), (_span(lpar)[0], _span(rpar)[1])


@_inline
def no_arguments(lpar: Token, rpar: Token) -> Arguments:
    return (), (_span(lpar)[0], _span(rpar)[1])


@_inline
def trailing_comma(_arguments: list[Expr], comma: Token) -> None:
    raise SyntaxProblem("trailing commas not allowed in function call args", _span(comma))


@_inline
def first(item: object) -> list[object]:
    return [item]


@_inline
def more(items: list[object], _comma: Token, item: object) -> list[object]:
    items.append(item)
    return items


def labels(children: list[object]) -> Names:
    """[(, names, maybe a comma, )]"""
    return tuple(children[1]), (_span(children[0])[0], _span(children[-1])[1])  # type: ignore[arg-type]


@_inline
def no_labels(lpar: Token, rpar: Token) -> Names:
    return (), (_span(lpar)[0], _span(rpar)[1])


@_inline
def label(name: Token) -> str:
    return str(name)


@_inline
def quoted_label(token: Token) -> str:
    name = _text(token)
    if not name or not _is_utf8(name):
        raise SyntaxProblem(f"invalid label name for grouping: {quote(name)}", _span(token))
    return name


# Selectors.


@_inline
def metric_name(token: Token) -> Token:
    return token


@_inline
def named_selector(name: Token, bracketed: Bracketed) -> VectorSelector:
    matchers = (*bracketed[0], Matcher(METRIC_NAME, "=", str(name)))
    return VectorSelector(str(name), matchers, span=(_span(name)[0], bracketed[1][1]))


@_inline
def bare_selector(name: Token) -> VectorSelector:
    return VectorSelector(str(name), (Matcher(METRIC_NAME, "=", str(name)),), span=_span(name))


@_inline
def unnamed_selector(bracketed: Bracketed) -> VectorSelector:
    return VectorSelector("", bracketed[0], span=bracketed[1])


def braces(children: list[object]) -> Bracketed:
    """[{, matchers, maybe a comma, }]"""
    span = (_span(children[0])[0], _span(children[-1])[1])  # type: ignore[arg-type]
    matchers: tuple[Matcher, ...] = tuple(children[1])  # type: ignore[arg-type]
    if len(matchers) > MAX_MATCHERS:
        raise SyntaxProblem(f"a selector with {len(matchers)} matchers is over the limit of {MAX_MATCHERS}", span)
    return matchers, span


@_inline
def no_matchers(lbrace: Token, rbrace: Token) -> Bracketed:
    return (), (_span(lbrace)[0], _span(rbrace)[1])


@_inline
def matcher(name: Token, op: Token, value: Token) -> Matcher:
    return _matcher(str(name), op, value, _span(name))


@_inline
def quoted_matcher(name: Token, op: Token, value: Token) -> Matcher:
    return _matcher(_text(name), op, value, _span(name))


@_inline
def name_matcher(name: Token) -> Matcher:
    text = _text(name)
    if not _is_utf8(text):
        raise SyntaxProblem(f"metric name {quote(text)} is not valid UTF-8", _span(name))
    return Matcher(METRIC_NAME, "=", text)


# Numbers and durations.


@_inline
def number(token: Token) -> NumberLiteral:
    try:
        return NumberLiteral(parse_number(str(token)), span=_span(token))
    except ValueError as error:
        raise SyntaxProblem(f"error parsing number: {error}", _span(token)) from None


@_inline
def number_duration(token: Token) -> NumberLiteral:
    try:
        return NumberLiteral(parse_duration_ms(str(token)) / 1000, True, _span(token))
    except ValueError as error:
        raise SyntaxProblem(str(error), _span(token)) from None


def signed(op: Token, literal: NumberLiteral) -> NumberLiteral:
    """The literal with its sign, which begins where the sign stands."""
    value = -literal.value if op == "-" else literal.value
    return NumberLiteral(value, literal.duration, (_span(op)[0], literal.span[1]))


signed_literal = _inline(signed)


@_inline
def signed_duration(op: Token, duration: Duration) -> Duration:
    if isinstance(duration, NumberLiteral):
        return signed(op, duration)
    if op == "+":
        return duration
    return DurationExpr("-", None, duration, span=(_span(op)[0], duration.span[1]))


@_inline
def extent(word: Token, _lpar: Token, rpar: Token) -> DurationExpr:
    return DurationExpr(word.lower(), span=(_span(word)[0], _span(rpar)[1]))


@_inline
def extreme(word: Token, _lpar: Token, lhs: Duration, _comma: Token, rhs: Duration, rpar: Token) -> DurationExpr:
    return DurationExpr(word.lower(), lhs, rhs, span=(_span(word)[0], _span(rpar)[1]))


@_inline
def paren_duration(lpar: Token, duration: Duration, rpar: Token) -> Duration:
    """A number in parentheses is the number."""
    span = (_span(lpar)[0], _span(rpar)[1])
    return replace(duration, span=span) if isinstance(duration, NumberLiteral) else replace(duration, wrapped=True, span=span)


@_inline
def duration_binary(lhs: Duration, op: Token, rhs: Duration) -> DurationExpr:
    if op in ("/", "%") and isinstance(rhs, NumberLiteral) and rhs.value == 0:
        raise SyntaxProblem("division by zero" if op == "/" else "modulo by zero", _span(op))
    return DurationExpr(str(op), lhs, rhs, span=(lhs.span[0], rhs.span[1]))


def _aggregate(op: Token, arguments: Arguments, grouping: tuple[bool, Names], end: int) -> Aggregate:
    name, args, span = op.lower(), arguments[0], (_span(op)[0], end)
    if not args:
        raise SyntaxProblem("no arguments for aggregate expression provided", span)
    definition = op.definition if isinstance(op, DefinedToken) else None
    wanted = (2 if name in PARAMETERS else 1) if definition is None else len(definition.args)
    if len(args) != wanted:
        message = f"wrong number of arguments for aggregate expression provided, expected {wanted}, got {len(args)}"
        raise SyntaxProblem(message, span)
    without, (names, _) = grouping
    return Aggregate(name, args[-1], args[0] if wanted == 2 else None, names, without, span, definition)


def _at_modifier(operand: Expr, at: At, end: int) -> Expr:
    target = _selector_of(operand, f"@ modifier {_NEED}")
    if target.at is not None:
        raise SyntaxProblem("@ <timestamp> may not be set multiple times", operand.span)
    return _with_selector(operand, replace(target, at=at), end)


def _selector_of(operand: Expr, message: str) -> VectorSelector | Subquery:
    """What carries the modifiers of `operand`."""
    if isinstance(operand, MatrixSelector):
        return operand.selector
    if not isinstance(operand, VectorSelector | Subquery):
        raise SyntaxProblem(message, operand.span)
    return operand


def _with_selector(operand: Expr, target: VectorSelector | Subquery, end: int) -> Expr:
    """`operand` with `target` in the place of what carries its modifiers, now ending at `end`."""
    span = (operand.span[0], end)
    if isinstance(operand, MatrixSelector) and isinstance(target, VectorSelector):
        return replace(operand, selector=target, span=span)
    return replace(target, span=span)


def _is_set(offset: Duration | None) -> bool:
    return offset is not None and not (isinstance(offset, NumberLiteral) and offset.value == 0)


def _positive(duration: Duration) -> None:
    _in_range(duration)
    if isinstance(duration, NumberLiteral) and not duration.value > 0:
        raise SyntaxProblem("duration must be greater than 0", duration.span)


def _in_range(duration: Duration) -> None:
    if isinstance(duration, NumberLiteral) and not abs(duration.value) <= MAX_DURATION_S:
        raise SyntaxProblem("duration out of range", duration.span)


def _text(token: Token) -> str:
    try:
        return unquote(str(token))
    except ValueError as error:
        raise SyntaxProblem(str(error), _span(token)) from None


def _matcher(name: str, op: Token, value: Token, name_span: Span) -> Matcher:
    span = (name_span[0], _span(value)[1])
    text = _text(value)
    if not _is_utf8(text) or not _is_utf8(name):
        raise SyntaxProblem(f"matcher {quote(name)}{op}{quote(text)} is not valid UTF-8", span)
    try:
        return Matcher(name, str(op), text)
    except BadData as error:
        raise SyntaxProblem(str(error), span) from None


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)

"""Types of expressions, and the rules that syntax cannot say, in the order and the words of Prometheus's checkAST."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from promql.syntax.ast import (
    Aggregate,
    Binary,
    Call,
    Definition,
    Duration,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
    chain,
)
from promql.syntax.errors import SyntaxProblem
from promql.syntax.gotext import quote
from promql.syntax.lexer import MAX_NESTING
from promql.syntax.signatures import EXPERIMENTAL_AGGREGATORS, PARAMETERS, Signature, signature
from tsdb.model.labels import METRIC_NAME

EXPERIMENTAL_FUNCTIONS = "promql-experimental-functions"
DURATION_EXPRESSIONS = "promql-duration-expr"
EXTENDED_RANGES = "promql-extended-range-selectors"
FILL_MODIFIERS = "promql-binop-fill-modifiers"
ALL_FEATURES = frozenset({EXPERIMENTAL_FUNCTIONS, DURATION_EXPRESSIONS, EXTENDED_RANGES, FILL_MODIFIERS})
"""The features that the language knows; names are those of Prometheus's --enable-feature."""

Node = TypeVar("Node", Expr, DurationExpr)

COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
SETS = frozenset({"and", "or", "unless"})


def check(expr: Expr, text: str) -> Expr:
    """The tree with the matching of vector operators settled. Raises SyntaxProblem on a wrong type or a tree that is too deep."""
    _check_depth(expr)
    return _check(expr, text)[1]


def check_features(expr: Expr, features: frozenset[str]) -> None:
    """Raises SyntaxProblem where the tree uses what is experimental and not in `features`."""
    if features >= ALL_FEATURES:
        return
    for node in walk(expr):
        needed, message = _feature(node)
        if needed and needed not in features:
            raise SyntaxProblem(message, node.span)


def check_selector(selector: VectorSelector) -> None:
    """Raises SyntaxProblem where a selector names two metrics or may match everything."""
    if selector.name:
        for matcher in selector.matchers[:-1]:
            if matcher.name == METRIC_NAME:
                message = f"metric name must not be set twice: {quote(selector.name)} or {quote(matcher.value)}"
                raise SyntaxProblem(message, selector.span)
    elif all(matcher.matches("") for matcher in selector.matchers):
        raise SyntaxProblem("vector selector must contain at least one non-empty matcher", selector.span)


def type_of(expr: Expr) -> ValueType:
    """The type that a checked expression evaluates to."""
    if isinstance(expr, Paren | Unary):
        return type_of(expr.expr)
    if isinstance(expr, Binary):
        scalars = all(type_of(part) == ValueType.SCALAR for part in operands(expr))
        return ValueType.SCALAR if scalars else ValueType.VECTOR
    if isinstance(expr, Call):
        return _signature(expr).returns
    if isinstance(expr, NumberLiteral):
        return ValueType.SCALAR
    if isinstance(expr, StringLiteral):
        return ValueType.STRING
    return ValueType.MATRIX if isinstance(expr, MatrixSelector | Subquery) else ValueType.VECTOR


def children(node: Expr) -> tuple[Expr, ...]:
    """The expressions right below `node`; a MatrixSelector's selector counts."""
    if isinstance(node, Paren | Unary | Subquery):
        return (node.expr,)
    if isinstance(node, Binary):
        return (node.lhs, node.rhs)
    if isinstance(node, Aggregate):
        return (node.expr,) if node.param is None else (node.param, node.expr)
    if isinstance(node, Call):
        return node.args
    return (node.selector,) if isinstance(node, MatrixSelector) else ()


def operands(node: Expr) -> tuple[Expr, ...]:
    """The expressions below `node`, all of a chain of operators at once: recursion by these is as deep as the text is nested."""
    if isinstance(node, Binary):
        links = chain(node)
        return (links[-1].lhs, *(link.rhs for link in reversed(links)))
    return children(node)


def walk(expr: Expr) -> list[Expr]:
    """All nodes of a tree, parents before their children, left to right; needs no recursion."""
    nodes, stack = [], [expr]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(reversed(children(node)))
    return nodes


def _check_depth(expr: Expr) -> None:
    _check_levels(expr, operands)
    for node in walk(expr):
        for duration in _durations(node):
            _check_levels(duration, _duration_parts)


def _check_levels(root: Node, parts_of: Callable[[Node], Iterable[Node]]) -> None:
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise SyntaxProblem(f"nesting is over the limit of {MAX_NESTING} levels", level[0].span)
        level = [part for node in level for part in parts_of(node)]


def _durations(node: Expr) -> list[DurationExpr]:
    parts: tuple[Duration | None, ...] = ()
    if isinstance(node, MatrixSelector):
        parts = (node.range,)
    elif isinstance(node, Subquery):
        parts = (node.range, node.step, node.offset)
    elif isinstance(node, VectorSelector):
        parts = (node.offset,)
    return [part for part in parts if isinstance(part, DurationExpr)]


def _duration_parts(duration: DurationExpr) -> list[DurationExpr]:
    return [part for part in (duration.lhs, duration.rhs) if isinstance(part, DurationExpr)]


def _check(node: Expr, text: str) -> tuple[ValueType, Expr]:
    """(type, node with everything below it settled)."""
    match node:
        case Binary():
            return _check_binary(node, text)
        case Aggregate():
            return ValueType.VECTOR, _check_aggregate(node, text)
        case Call():
            return _check_call(node, text)
        case Paren():
            kind, inner = _check(node.expr, text)
            return kind, _settled(node, inner)
        case Unary():
            kind, inner = _check(node.expr, text)
            if kind not in (ValueType.SCALAR, ValueType.VECTOR):
                message = f"unary expression only allowed on expressions of type scalar or instant vector, got {quote(kind)}"
                raise SyntaxProblem(message, node.span)
            return kind, _settled(node, inner)
        case Subquery():
            kind, inner = _check(node.expr, text)
            if kind != ValueType.VECTOR:
                word = "matrix" if kind == ValueType.MATRIX else kind
                raise SyntaxProblem(f"subquery is only allowed on instant vector, got {word} instead", node.span)
            return ValueType.MATRIX, _settled(node, inner)
        case MatrixSelector():
            check_selector(node.selector)
        case VectorSelector():
            check_selector(node)
        case NumberLiteral() | StringLiteral():
            pass
    return type_of(node), node


def _settled(node: Paren | Unary | Subquery, inner: Expr) -> Expr:
    return node if inner is node.expr else replace(node, expr=inner)


def _expect(node: Expr, wanted: ValueType, context: str, text: str) -> Expr:
    kind, settled = _check(node, text)
    if kind != wanted:
        raise SyntaxProblem(f"expected type {wanted} in {context}, got {kind}", node.span)
    return settled


def _check_aggregate(node: Aggregate, text: str) -> Aggregate:
    inner = _expect(node.expr, ValueType.VECTOR, "aggregation expression", text)
    param = node.param
    if param is not None:
        wanted = PARAMETERS[node.op] if node.definition is None else ValueType.SCALAR
        param = _expect(param, wanted, "aggregation parameter", text)
    return node if inner is node.expr and param is node.param else replace(node, expr=inner, param=param)


def _check_binary(node: Binary, text: str) -> tuple[ValueType, Expr]:
    links = chain(node)
    kind, settled = _check(links[-1].lhs, text)
    for link in reversed(links):
        kind, settled = _check_link(link, kind, settled, text)
    return kind, settled


def _check_link(node: Binary, left: ValueType, lhs: Expr, text: str) -> tuple[ValueType, Binary]:
    """The same of an operator whose left side is settled."""
    right, rhs = _check(node.rhs, text)
    scalars = left == right == ValueType.SCALAR
    _check_operator(node, scalars, text)
    for kind, side in ((left, node.lhs), (right, node.rhs)):
        if kind not in (ValueType.SCALAR, ValueType.VECTOR):
            raise SyntaxProblem("binary expression must contain only scalar and instant vector types", side.span)
    matching = node.matching
    if matching is not None:
        vectors = left == right == ValueType.VECTOR
        if node.op in SETS and matching.card == "one-to-one":
            matching = replace(matching, card="many-to-many")
        _check_matching(node, vectors)
        matching = matching if vectors else None
    if node.op in SETS and ValueType.SCALAR in (left, right):
        raise SyntaxProblem(f"set operator {quote(node.op)} not allowed in binary scalar expression", node.span)
    return (ValueType.SCALAR if scalars else ValueType.VECTOR), replace(node, lhs=lhs, rhs=rhs, matching=matching)


def _check_operator(node: Binary, scalars: bool, text: str) -> None:
    if node.return_bool and node.op not in COMPARISONS:
        raise SyntaxProblem("bool modifier can only be used on comparison operators", _operator_span(node, text))
    if node.op in COMPARISONS and not node.return_bool and scalars:
        raise SyntaxProblem("comparisons between scalars must use BOOL modifier", _operator_span(node, text))
    if node.matching is not None and node.matching.on:
        for label in node.matching.labels:
            if label in node.matching.include:
                message = f"label {quote(label)} must not occur in ON and GROUP clause at once"
                raise SyntaxProblem(message, _operator_span(node, text))


def _check_matching(node: Binary, vectors: bool) -> None:
    assert node.matching is not None
    filled = node.matching.fill_left is not None or node.matching.fill_right is not None
    if not vectors:
        if node.matching.labels:
            raise SyntaxProblem("vector matching only allowed between instant vectors", node.span)
        if filled:
            raise SyntaxProblem("filling in missing series only allowed between instant vectors", node.span)
    elif node.op in SETS:
        if node.matching.card != "one-to-one":
            raise SyntaxProblem(f"no grouping allowed for {quote(node.op)} operation", node.span)
        if filled:
            raise SyntaxProblem("filling in missing series not allowed for set operators", node.span)


def _operator_span(node: Binary, text: str) -> Span:
    """Where the operator and its modifiers stand, for the tree keeps only the sides."""
    start, end = node.lhs.span[1], node.rhs.span[0]
    between = text[start:end]
    return start + len(between) - len(between.lstrip()), end - (len(between) - len(between.rstrip()))


def _signature(node: Call) -> Signature:
    if node.definition is not None:
        return Signature(node.definition.args, node.definition.optional)
    found = signature(node.func)
    assert found is not None, f"the parser let the unknown function {node.func!r} pass"
    return found


def _check_call(node: Call, text: str) -> tuple[ValueType, Call]:
    wanted = _signature(node)
    _check_arity(node, wanted)
    if node.func == "info" and len(node.args) == 2:
        return wanted.returns, _check_info(node, text)
    args = []
    for i, arg in enumerate(node.args):
        kind, settled = _check(arg, text)
        expected = wanted.args[min(i, len(wanted.args) - 1)]
        if kind != expected:
            raise SyntaxProblem(f"expected type {expected} in call to function {quote(node.func)}, got {kind}", arg.span)
        args.append(settled)
    return wanted.returns, node if all(a is b for a, b in zip(args, node.args, strict=True)) else replace(node, args=tuple(args))


def _check_arity(node: Call, wanted: Signature) -> None:
    if node.definition is not None:
        _check_own_arity(node, node.definition)
        return
    count, most = len(node.args), len(wanted.args)
    if wanted.variadic == 0:
        if count != most:
            raise SyntaxProblem(f"expected {most} argument(s) in call to {quote(node.func)}, got {count}", node.span)
        return
    least = most - 1
    if count < least:
        raise SyntaxProblem(f"expected at least {least} argument(s) in call to {quote(node.func)}, got {count}", node.span)
    if 0 < wanted.variadic < count - least:
        message = f"expected at most {least + wanted.variadic} argument(s) in call to {quote(node.func)}, got {count}"
        raise SyntaxProblem(message, node.span)


def _check_own_arity(node: Call, definition: Definition) -> None:
    count, most = len(node.args), len(definition.args)
    least = most - definition.optional
    if not least <= count <= most:
        wanted = f"{most}" if least == most else f"{least} to {most}"
        raise SyntaxProblem(f"expected {wanted} argument(s) in call to {quote(node.func)}, got {count}", node.span)


def _check_info(node: Call, text: str) -> Call:
    """info's second argument is a bare set of matchers, which may match everything."""
    base, matchers = node.args
    kind = type_of(matchers)
    if kind != ValueType.VECTOR:
        raise SyntaxProblem(f'expected type {ValueType.VECTOR} in call to function "info", got {kind}', node.span)
    if not isinstance(matchers, VectorSelector):
        raise SyntaxProblem("expected label selectors only", matchers.span)
    if matchers.name:
        raise SyntaxProblem("expected label selectors only, got vector selector instead", matchers.span)
    settled = _expect(base, ValueType.VECTOR, 'call to function "info"', text)
    return node if settled is base else replace(node, args=(settled, matchers))


def _feature(node: Expr) -> tuple[str, str]:
    """(the feature that this node needs or "", Prometheus's refusal)."""
    if isinstance(node, Aggregate) and node.op in EXPERIMENTAL_AGGREGATORS:
        message = f"{node.op}() is experimental and must be enabled with --enable-feature={EXPERIMENTAL_FUNCTIONS}"
        return EXPERIMENTAL_FUNCTIONS, message
    if isinstance(node, Call) and _signature(node).experimental:
        return EXPERIMENTAL_FUNCTIONS, f"function {quote(node.func)} is not enabled"
    if isinstance(node, Binary) and node.matching is not None:
        if node.matching.fill_left is not None or node.matching.fill_right is not None:
            return FILL_MODIFIERS, "binop fill modifiers are experimental and not enabled"
    elif isinstance(node, VectorSelector) and (node.anchored or node.smoothed):
        return EXTENDED_RANGES, f"{'anchored' if node.anchored else 'smoothed'} modifier is experimental and not enabled"
    if _durations(node):
        return DURATION_EXPRESSIONS, "experimental duration expression is not enabled"
    return "", ""

"""From query text to syntax tree, with Prometheus's messages. The grammar is promql.lark."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lark import Lark, Token
from lark.exceptions import UnexpectedToken
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_parser_state import ParserState

from promql.syntax import tree as rules
from promql.syntax.ast import Definition, Expr, VectorSelector
from promql.syntax.errors import ParseError, SyntaxProblem
from promql.syntax.lexer import MAX_QUERY_BYTES, QueryLexer, describe, tokens
from promql.syntax.typecheck import check, check_features, check_selector
from tsdb.model.matcher import Matcher

CACHED_QUERIES = 256
"""Dashboards and rules ask the same few hundred texts again and again."""
MAX_CACHED_CHARS = 4096
_CALLED = re.compile(r"\s*(\(|by\b|without\b)", re.IGNORECASE)
"""What follows a name that is called."""
_DURATION_HINT = "number, duration, step(), or range()"
_EXPECTED = {
    "error_aggregate": ("aggregation", ""),
    "error_labels": ("grouping opts", '"("'),
    "error_label_list": ("grouping opts", '"," or ")"'),
    "error_label": ("grouping opts", "label"),
    "error_offset": ("offset", _DURATION_HINT),
    "error_at": ("@", "timestamp"),
    "error_subquery_end": ("subquery selector", '"]"'),
    "error_subquery_step": ("subquery selector", 'number, duration, step(), range(), or "]"'),
    "error_range_end": ("subquery or range", '":" or "]"'),
    "error_range": ("subquery or range selector", _DURATION_HINT),
    "error_matcher_list": ("label matching", '"," or "}"'),
    "error_matcher_value": ("label matching", "string"),
    "error_matcher_operator": ("label matching", "label matching operator"),
    "error_matcher": ("label matching", 'identifier or "}"'),
}
"""By the alias of an ERROR rule: where in the language it is, and what could stand there."""


def parse(text: str, *, features: frozenset[str] = frozenset(), functions: Sequence[Definition] = ()) -> Expr:
    """The type-checked tree of a query. ParseError where it is none, or needs a feature (by Prometheus's name) not in `features`.

    `functions` are a user's, which the query may call.
    About 10 µs a token; texts asked before come from a bounded cache. Refuses what is over a limit before it costs more.
    """
    named = tuple(definition for definition in functions if definition.name in text)
    try:
        tree, checked = _parse_cached(text, named) if len(text) <= MAX_CACHED_CHARS else _parse(text, named)
        check_features(tree, features)  # Prometheus tells of them before it looks at types
    except SyntaxProblem as problem:
        raise ParseError(problem.message, query=text, span=problem.span) from None
    if isinstance(checked, SyntaxProblem):
        raise ParseError(checked.message, query=text, span=checked.span)
    return checked


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector such as a `match[]` parameter. ParseError where it is none."""
    try:
        selector = _tree(text, "selector")
        assert isinstance(selector, VectorSelector)
        check_selector(selector)
        return selector.matchers
    except SyntaxProblem as problem:
        raise ParseError(problem.message, query=text, span=problem.span) from None


@lru_cache(CACHED_QUERIES)
def _parse_cached(text: str, functions: tuple[Definition, ...]) -> tuple[Expr, Expr | SyntaxProblem]:
    return _parse(text, functions)


def _parse(text: str, functions: tuple[Definition, ...]) -> tuple[Expr, Expr | SyntaxProblem]:
    """(the tree, the type-checked tree or what is wrong with its types). SyntaxProblem where the text is no tree."""
    tree = _tree(text, "expression", functions)
    try:
        return tree, check(tree, text)
    except SyntaxProblem as problem:
        return tree, SyntaxProblem(problem.message, problem.span)


def _tree(text: str, start: str, functions: tuple[Definition, ...] = ()) -> Expr:
    """The tree of a whole text that `start` recognises."""
    known = {definition.name: definition for definition in functions}
    if len(text) > MAX_QUERY_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_QUERY_BYTES:
        raise SyntaxProblem(f"the query is over the limit of {MAX_QUERY_BYTES} bytes", (0, 0))
    state: ParserState[int] = _grammar().parse_interactive("", start=start).parser_state
    token = Token("$END", "", start_pos=len(text), end_pos=len(text))
    stream = tokens(text)
    while True:
        try:
            following = next(stream, None)
        except SyntaxProblem:
            _reduce_by_default(state, only_sure=True)  # what is wrong with rules that end before the bad token comes first
            raise
        try:
            if following is None:
                return state.feed_token(token, True)  # type: ignore[no-any-return]
            state.feed_token(_defined(following, known[following], text) if following in known else following)
        except UnexpectedToken as error:
            raise _unexpected(error, text) from None


def _defined(token: Token, definition: Definition, text: str) -> Token:
    """The name of a user's function where it is called; anywhere else it is a metric or a label as before."""
    end = token.end_pos or 0
    if token.type != "IDENTIFIER" or not _CALLED.match(text, end):
        return token
    kind = "AGGREGATE" if definition.kind == "aggregate" else "IDENTIFIER"
    defined = rules.DefinedToken(kind, str(token), start_pos=token.start_pos, end_pos=end)
    defined.definition = definition
    return defined


@lru_cache(1)
def _grammar() -> Lark:
    """The LALR tables of promql.lark; made once a process, in about 0.1 s."""
    text = Path(__file__).with_name("promql.lark").read_text()
    starts = ["expression", "selector"]
    return Lark(text, parser="lalr", lexer=QueryLexer, transformer=rules, start=starts, maybe_placeholders=False)


def _unexpected(error: UnexpectedToken, text: str) -> SyntaxProblem:
    """What to say of a token that cannot stand where it does: the innermost open rule that takes ERROR tells the context."""
    token, state = error.token, error.state
    at_end = token.type == "$END"
    if at_end and not state.value_stack:
        return SyntaxProblem("no expression found in input", (0, 0))
    _reduce_by_default(state)
    message = f"unexpected {describe(token)}"
    table = state.parse_conf.states
    for open_state in reversed(state.state_stack):
        action, following = table[open_state].get("ERROR", (None, None))
        if action is Shift:
            rule = next(argument for kind, argument in table[following].values() if kind is not Shift)
            context, expected = _EXPECTED.get(rule.alias or "", ("", ""))
            message += f" in {context}" if context else ""
            message += f", expected {expected}" if expected else ""
            break
    return SyntaxProblem(message, (len(text), len(text)) if at_end else (token.start_pos or 0, token.end_pos or 0))


def _reduce_by_default(state: "ParserState[int]", *, only_sure: bool = False) -> None:
    """Closes the rules that a yacc parser closes before it looks at the offending token, for its messages depend on that.

    yacc takes a state's most common reduction whenever it cannot shift; where nothing else is possible, that is sure, it
    does not even read the token.
    """
    table, callbacks = state.parse_conf.states, state.parse_conf.callbacks
    while True:
        actions = table[state.state_stack[-1]].values()
        rules = Counter(argument for kind, argument in actions if kind is not Shift)
        if not rules or (only_sure and (len(rules) > 1 or rules.total() < len(actions))):
            return
        rule = rules.most_common(1)[0][0]
        kept = len(state.value_stack) - len(rule.expansion)
        values = state.value_stack[kept:]
        del state.value_stack[kept:], state.state_stack[kept + 1 :]
        state.value_stack.append(callbacks[rule](values))
        state.state_stack.append(table[state.state_stack[-1]][rule.origin.name][1])

"""The parser: trees, Prometheus's messages with their places, limits, features."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promql.syntax.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    DurationExpr,
    Expr,
    Matching,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)
from promql.syntax.errors import ParseError
from promql.syntax.lexer import MAX_NESTING, MAX_QUERY_BYTES
from promql.syntax.parser import parse, parse_selector
from promql.syntax.typecheck import ALL_FEATURES
from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher


def metric(name: str, *matchers: Matcher) -> VectorSelector:
    return VectorSelector(name, (*matchers, Matcher("__name__", "=", name)))


def number(value: float) -> NumberLiteral:
    return NumberLiteral(value)


def seconds(value: float) -> NumberLiteral:
    return NumberLiteral(value, True)


FOO, BAR = metric("foo"), metric("bar")
TREES: list[tuple[str, Expr]] = [
    ("1", number(1)),
    ("+Inf", number(float("inf"))),
    (".5", number(0.5)),
    ("5.", number(5)),
    ("5e-3", number(0.005)),
    ("0xc", number(12)),
    ("0755", number(493)),
    ("1_000", number(1000)),
    ("0x_ff", number(255)),
    ("5m", seconds(300)),
    ("1h30m", seconds(5400)),
    ("-1^2", Unary("-", Binary("^", number(1), number(2)))),
    ("-1*2", Binary("*", number(-1), number(2))),
    ("2^3^2", Binary("^", number(2), Binary("^", number(3), number(2)))),
    ("1 < bool 2", Binary("<", number(1), number(2), return_bool=True)),
    ("foo + bar * 2", Binary("+", FOO, Binary("*", BAR, number(2)), Matching())),
    ("foo and bar unless foo or bar", Binary(
        "or", Binary("unless", Binary("and", FOO, BAR, Matching("many-to-many")), FOO, Matching("many-to-many")), BAR,
        Matching("many-to-many"),
    )),
    ("foo </ bar", Binary("</", FOO, BAR, Matching())),
    ("foo / ON (a, \"b c\",) GROUP_LEFT () bar", Binary("/", FOO, BAR, Matching("many-to-one", True, ("a", "b c")))),
    ("foo / ignoring (a) group_right (x) bar", Binary("/", FOO, BAR, Matching("one-to-many", False, ("a",), ("x",)))),
    ("foo + fill(0) bar", Binary("+", FOO, BAR, Matching(fill_left=0, fill_right=0))),
    ("foo + fill_left(-1) fill_right(2) bar", Binary("+", FOO, BAR, Matching(fill_left=-1, fill_right=2))),
    ("fill + fill", Binary("+", metric("fill"), metric("fill"), Matching())),
    ("foo * sum", Binary("*", FOO, metric("sum"), Matching())),
    ("on_x and start", Binary("and", metric("on_x"), metric("start"), Matching("many-to-many"))),
    ("a:b", metric("a:b")),
    ("{\"my.metric\", \"a.b\"=\"c\"}", VectorSelector("", (Matcher("__name__", "=", "my.metric"), Matcher("a.b", "=", "c")))),
    ("foo{a='1', b=~`2`, c!=\"3\", d!~\"4\",}", metric(
        "foo", Matcher("a", "=", "1"), Matcher("b", "=~", "2"), Matcher("c", "!=", "3"), Matcher("d", "!~", "4")
    )),
    ("offset{step='1s'}", metric("offset", Matcher("step", "=", "1s"))),
    ("foo[5m] offset -1m @ 2.5", MatrixSelector(VectorSelector("foo", FOO.matchers, seconds(-60), At(2500)), seconds(300))),
    ("foo @ end() offset 1h", VectorSelector("foo", FOO.matchers, seconds(3600), At(edge="end"))),
    ("foo[5m] smoothed", MatrixSelector(VectorSelector("foo", FOO.matchers, smoothed=True), seconds(300))),
    ("foo anchored[5m]", MatrixSelector(VectorSelector("foo", FOO.matchers, anchored=True), seconds(300))),
    ("foo[1h:]", Subquery(FOO, seconds(3600))),
    ("foo[1h:5m] @ start()", Subquery(FOO, seconds(3600), seconds(300), at=At(edge="start"))),
    ("foo offset 100 + 2", Binary("+", VectorSelector("foo", FOO.matchers, number(100)), number(2))),
    ("foo offset -1^1", Binary("^", VectorSelector("foo", FOO.matchers, number(-1)), number(1))),
    ("foo offset (1 + 2m)", VectorSelector("foo", FOO.matchers, DurationExpr("+", number(1), seconds(120), True))),
    ("foo[-2^2]", MatrixSelector(FOO, DurationExpr("-", None, DurationExpr("^", number(2), number(2))))),
    ("foo[max_of(step(), 5s)]", MatrixSelector(FOO, DurationExpr("max_of", DurationExpr("step"), seconds(5)))),
    ("sum(foo)", Aggregate("sum", FOO)),
    ("SUM by (a, and, without) (foo)", Aggregate("sum", FOO, grouping=("a", "and", "without"))),
    ("topk(5, foo) without (\"x y\")", Aggregate("topk", FOO, number(5), ("x y",), True)),
    ("count_values('v', foo)", Aggregate("count_values", FOO, StringLiteral("v"))),
    ("start()", Call("start", ())),
    ("min_of(1, 2)", Call("min_of", (number(1), number(2)))),
    ("round(foo, 5)", Call("round", (FOO, number(5)))),
    ("info(foo, {x=~'.*'})", Call("info", (FOO, VectorSelector("", (Matcher("x", "=~", ".*"),))))),
    ("# a comment\n(foo) # and another", Paren(FOO)),
    (r'"\a\n\x41\101é\U0001F600☺\""', StringLiteral('\a\nAAé😀☺"')),
    (r'"\xff"', StringLiteral("\udcff")),
    (r"`\n`", StringLiteral("\\n")),
]  # fmt: skip


@pytest.mark.parametrize(("query", "tree"), TREES, ids=[query for query, _ in TREES])
def test_tree(query: str, tree: Expr) -> None:
    assert parse(query, features=ALL_FEATURES) == tree


MESSAGES = [
    ("", "1:1", "no expression found in input"),
    ("# just a comment\n\n", "1:1", "no expression found in input"),
    ("1+", "1:3", "unexpected end of input"),
    (".", "1:1", "unexpected character: '.'"),
    ("2.5.", "1:1", 'bad number or duration syntax: "2.5."'),
    ("100..4", "1:1", 'bad number or duration syntax: "100.."'),
    ("0deadbeef", "1:1", 'bad number or duration syntax: "0de"'),
    ("*1", "1:1", "unexpected <op:*>"),
    ("(1))", "1:5", "unexpected right parenthesis ')'"),
    ("((1)", "1:5", "unclosed left parenthesis"),
    ("sum(rate(", "1:10", "unclosed left parenthesis"),
    ("1 and 1", "1:1", 'set operator "and" not allowed in binary scalar expression'),
    ("1 == 1", "1:3", "comparisons between scalars must use BOOL modifier"),
    ("1 !~ 1", "1:3", "unexpected character after '!': '~'"),
    ("1 =~ 1", "1:3", "unexpected character after '=': '~'"),
    ('-"string"', "1:1", 'unary expression only allowed on expressions of type scalar or instant vector, got "string"'),
    ("-test[5m]", "1:1", 'unary expression only allowed on expressions of type scalar or instant vector, got "range vector"'),
    ("@@", "1:1", "unexpected <op:@>"),
    (
        "1 offset 1d",
        "1:1",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo offset 1s offset 2s", "1:1", "offset may not be set multiple times"),
    ("foo @ 1 @ 2", "1:1", "@ <timestamp> may not be set multiple times"),
    ("foo @ Inf", "1:1", "timestamp out of bounds for @ modifier: +Inf"),
    ("a - on(b) ignoring(c) d", "1:11", "unexpected <ignoring>"),
    ("foo + bool bar", "1:5", "bool modifier can only be used on comparison operators"),
    ("foo + on(a) group_left(a) bar", "1:5", 'label "a" must not occur in ON and GROUP clause at once'),
    ("foo and on(a) group_left(b) bar", "1:1", 'no grouping allowed for "and" operation'),
    ("foo + on(a) 1", "1:1", "vector matching only allowed between instant vectors"),
    ("foo + fill(1) 1", "1:1", "filling in missing series only allowed between instant vectors"),
    ("foo or fill(1) bar", "1:1", "filling in missing series not allowed for set operators"),
    ("foo[5m] + 1", "1:1", "binary expression must contain only scalar and instant vector types"),
    ("foo[5mm]", "1:5", 'bad number or duration syntax: "5mm"'),
    ("foo[5m:1m1]", "1:8", 'bad number or duration syntax: "1m1"'),
    ("foo[5y1hs]", "1:5", 'unknown unit "hs" in duration "5y1hs"'),
    ("foo[5m1h]", "1:5", 'not a valid duration string: "5m1h"'),
    ("foo[0m]", "1:5", "duration must be greater than 0"),
    ("foo[-1]", "1:5", "duration must be greater than 0"),
    ("foo[9.5e10]", "1:5", "duration out of range"),
    ("foo offset 9.5e10", "1:12", "duration out of range"),
    ('foo["5m"]', "1:5", "unexpected character in duration expression: '\"'"),
    ("foo[]", "1:5", 'unexpected "]" in subquery or range selector, expected number, duration, step(), or range()'),
    ("foo[step]", "1:9", 'unexpected "]" in subquery or range selector, expected number, duration, step(), or range()'),
    ("foo[5s x 5s]", "1:8", "unexpected character: 'x', expected ':'"),
    ("foo[5s/0d]", "1:7", "division by zero"),
    ("foo offset (4d%0)", "1:15", "modulo by zero"),
    ("foo[5m:5m", "1:10", "unclosed left bracket"),
    ("foo[", "1:5", "unexpected end of input in duration expression"),
    ("foo[5m] OFFSET", "1:15", "unexpected end of input in offset, expected number, duration, step(), or range()"),
    ("foo OFFSET 1m[5m]", "1:14", "no offset modifiers allowed before range"),
    ("foo[5m] @", "1:10", "unexpected end of input in @, expected timestamp"),
    ("foo @ start() [5m]", "1:15", "no @ modifiers allowed before range"),
    ("(foo + bar)[5m]", "1:12", "ranges only allowed for vector selectors"),
    ("foo[5m][1h:]", "1:1", "subquery is only allowed on instant vector, got matrix instead"),
    ("foo[5m:] anchored", "1:1", "anchored modifier is not supported for subqueries"),
    ("foo anchored smoothed", "1:1", "anchored and smoothed modifiers cannot be used together"),
    ('sum by ("foo)(some_metric{})', "1:9", "unterminated quoted string"),
    ("sum without(==)(foo)", "1:13", "unexpected <op:==> in grouping opts, expected label"),
    ("sum without(foo,,)(bar)", "1:17", 'unexpected "," in grouping opts, expected label'),
    ("sum by (a) b", "1:12", 'unexpected identifier "b" in aggregation'),
    ("1 }", "1:3", "unexpected character: '}'"),
    (
        "(1 offset 5m",
        "1:2",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("nonesuch() !", "1:1", 'unknown function with name "nonesuch"'),
    ("nonesuch() b", "1:1", 'unknown function with name "nonesuch"'),
    ("sum by (a b) (c)", "1:11", 'unexpected identifier "b" in grouping opts, expected "," or ")"'),
    ("sum some_metric by (test)", "1:5", 'unexpected identifier "some_metric"'),
    ("sum (some_metric) by test", "1:22", 'unexpected identifier "test" in grouping opts, expected "("'),
    ("sum () by (test)", "1:1", "no arguments for aggregate expression provided"),
    ("sum (foo) without (a) by (b)", "1:23", "unexpected <by>"),
    ("topk(foo)", "1:1", "wrong number of arguments for aggregate expression provided, expected 2, got 1"),
    ("topk(foo,)", "1:9", "trailing commas not allowed in function call args"),
    ("topk(foo, bar)", "1:6", "expected type scalar in aggregation parameter, got instant vector"),
    ("count_values(5, foo)", "1:14", "expected type string in aggregation parameter, got scalar"),
    ("sum(1)", "1:5", "expected type instant vector in aggregation expression, got scalar"),
    ("floor()", "1:1", 'expected 1 argument(s) in call to "floor", got 0'),
    ("hour(a, b, c)", "1:1", 'expected at most 1 argument(s) in call to "hour", got 3'),
    ("label_join(a)", "1:1", 'expected at least 3 argument(s) in call to "label_join", got 1'),
    ("rate(foo)", "1:6", 'expected type range vector in call to function "rate", got instant vector'),
    ("nonesuch()", "1:1", 'unknown function with name "nonesuch"'),
    ("info(foo, target_info{})", "1:11", "expected label selectors only, got vector selector instead"),
    ("info(foo, {a='b'} == 1)", "1:11", "expected label selectors only"),
    ("-=", "1:2", 'unexpected "="'),
    ("e-+=/(0)", "1:4", 'unexpected "="'),
    ("{}", "1:1", "vector selector must contain at least one non-empty matcher"),
    ('{x=""}', "1:1", "vector selector must contain at least one non-empty matcher"),
    ('{x=~".*"}', "1:1", "vector selector must contain at least one non-empty matcher"),
    ('foo{__name__="bar"}', "1:1", 'metric name must not be set twice: "foo" or "bar"'),
    ("foo{", "1:5", "unexpected end of input inside braces"),
    ("foo{a", "1:6", "unexpected end of input inside braces"),
    ("foo{a}", "1:6", 'unexpected "}" in label matching, expected label matching operator'),
    ("foo{a=b}", "1:7", 'unexpected identifier "b" in label matching, expected string'),
    ("foo{a='b' c='d'}", "1:11", 'unexpected identifier "c" in label matching, expected "," or "}"'),
    ("foo{,}", "1:5", 'unexpected "," in label matching, expected identifier or "}"'),
    ("foo{a>'b'}", "1:6", "unexpected character inside braces: '>'"),
    ("foo{{", "1:5", "unexpected left brace '{'"),
    ("foo{1}", "1:5", "unexpected character inside braces: '1'"),
    ("`\\``", "1:4", "unterminated raw string"),
    ('"\\', "1:1", "escape sequence not terminated"),
    ('"\\c"', "1:1", "unknown escape sequence U+0063 'c'"),
    ('"\\x."', "1:1", "illegal character U+002E '.' in escape sequence"),
    ('"\\ud800"', "1:1", "escape sequence is an invalid Unicode code point"),
    ("a b", "1:3", 'unexpected identifier "b"'),
    ("a 'some long string'", "1:3", 'unexpected string "\'some long"...'),
    ("a:b c:d", "1:5", 'unexpected metric identifier "c:d"'),
    ("foo\n  + é", "2:5", "unexpected character: 'é'"),
    ('"é" "é"', "1:6", 'unexpected string "\\"é\\""'),
]


@pytest.mark.parametrize(("query", "place", "message"), MESSAGES, ids=[query for query, _, _ in MESSAGES])
def test_message(query: str, place: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(query, features=ALL_FEATURES)
    assert str(caught.value) == f"{place}: parse error: {message}"


def test_spans_are_where_prometheus_puts_them() -> None:
    query = "  sum by (a) (rate(foo{b='c'}[5m] offset 1m)) / -(1 + 2)"
    tree = parse(query)
    assert isinstance(tree, Binary) and isinstance(tree.lhs, Aggregate) and isinstance(tree.rhs, Unary)
    assert query[slice(*tree.lhs.span)] == "sum by (a) (rate(foo{b='c'}[5m] offset 1m))"
    assert query[slice(*tree.rhs.span)] == "-(1 + 2)"
    rate = tree.lhs.expr
    assert isinstance(rate, Call) and isinstance(rate.args[0], MatrixSelector)
    assert query[slice(*rate.args[0].span)] == "foo{b='c'}[5m] offset 1m"
    assert query[slice(*rate.args[0].selector.span)] == "foo{b='c'}"


def test_render_shows_the_line_with_carets() -> None:
    with pytest.raises(ParseError) as caught:
        parse("sum(\n  rate(foo)\n)")
    error = caught.value
    assert (error.line, error.column) == (2, 8)
    assert error.render() == f"{error}\n  rate(foo)\n       ^^^"


@pytest.mark.parametrize(
    ("query", "feature", "message"),
    [
        ("limitk(1, foo)", "promql-experimental-functions", "limitk() is experimental and must be enabled with"),
        ("first_over_time(foo[5m])", "promql-experimental-functions", 'function "first_over_time" is not enabled'),
        ("foo[5m * 2]", "promql-duration-expr", "experimental duration expression is not enabled"),
        ("foo offset step()", "promql-duration-expr", "experimental duration expression is not enabled"),
        ("foo[5m] anchored", "promql-extended-range-selectors", "anchored modifier is experimental and not enabled"),
        ("foo + fill(1) bar", "promql-binop-fill-modifiers", "binop fill modifiers are experimental and not enabled"),
    ],
)
def test_experimental_syntax_needs_its_feature(query: str, feature: str, message: str) -> None:
    with pytest.raises(ParseError, match=message.replace("(", r"\(").replace(")", r"\)")):
        parse(query, features=ALL_FEATURES - {feature})
    parse(query, features=frozenset({feature}))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("mad_over_time(foo)", 'function "mad_over_time" is not enabled'),
        ('limitk("a", foo)', r"limitk\(\) is experimental"),
        ("foo + fill(0) 1", "binop fill modifiers are experimental"),
    ],
)
def test_what_is_not_enabled_is_told_before_wrong_types(query: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(query)
    with pytest.raises(ParseError, match=r"expected|only"):
        parse(query, features=ALL_FEATURES)


@pytest.mark.parametrize(
    "query",
    [
        "(" * 1000 + "1" + ")" * 1000,
        "-" * 1000 + "foo",
        "1" + "+1" * 3000,
        "foo" + "[5m:1m]" * 1000,
        "foo[" + "-(" * 1000,
        "foo[" + "2^" * 1000 + "2]",
        "1+" * 500_000 + "1",
        "a" * 1_000_000,
        "foo{a='" + "x" * 1_000_000 + "'}",
        '"' + "\\n" * 500_000,
        "[" * 1_000_000,
        "a" * (MAX_QUERY_BYTES + 1),
        "1" * 60_000,
        "{" + ",".join(["a='b'"] * 1000) + "}",
        "foo{a=~'" + "x" * 5000 + "'}",
        "foo{a=~'((x{500}){500})'}",
    ],
    ids=lambda query: query[:12],
)
@pytest.mark.timeout(10)  # about 30 ms on a quiet machine; what is not refused at once takes minutes
def test_too_much_is_refused_at_once(query: str) -> None:
    with pytest.raises(ParseError):
        parse(query, features=ALL_FEATURES)


def test_nesting_up_to_the_limit_is_parsed() -> None:
    levels = MAX_NESTING - 1
    parse("(" * levels + "1" + ")" * levels)
    with pytest.raises(ParseError, match=f"limit of {MAX_NESTING} levels"):
        parse("(" * (levels + 1) + "1" + ")" * (levels + 1))


def test_selector() -> None:
    assert parse_selector('up{job="a"}') == (Matcher("job", "=", "a"), Matcher("__name__", "=", "up"))
    assert parse_selector('{"a.b"}') == (Matcher("__name__", "=", "a.b"),)
    for bad in ("{}", "up[5m]", "sum(up)", "", 'up{job="a"', "up offset 5m"):
        with pytest.raises(ParseError):
            parse_selector(bad)


PIECES = [
    "foo", "sum", "by", "rate", "(", ")", "[", "]", "{", "}", "5m", "1", ":", ",", "=", "=~", '"a"', "offset", "@", "-", "^", "and",
    "on", "\\", "é", " ",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40))
def test_any_text_is_a_tree_or_a_parse_error(text: str) -> None:
    try:
        parse(text, features=ALL_FEATURES)
    except BadData as error:
        assert isinstance(error, ParseError)
        assert 0 <= error.span[0] <= error.span[1] <= len(text)
        assert error.render()

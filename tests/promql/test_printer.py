"""The printer: one-line text that parses back to the same tree, pretty text, and the JSON of /parse_query."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from promql.syntax.ast import Expr
from promql.syntax.errors import ParseError
from promql.syntax.parser import parse
from promql.syntax.printer import format_expr, pretty, to_json
from promql.syntax.typecheck import ALL_FEATURES
from tests.promql.expressions import Vocabulary, instant_vectors
from tests.promql.test_parser import TREES

LINES = [
    ("sum by() (foo)", "sum(foo)"),
    ("sum by(a, 'b c') (foo)", 'sum by (a, "b c") (foo)'),
    ("sum(foo) without()", "sum without () (foo)"),
    ("topk(5, foo)", "topk(5, foo)"),
    ("count_values('v', foo)", 'count_values("v", foo)'),
    ("a - ON(b,) c", "a - on (b) c"),
    ("a - ignoring() c", "a - c"),
    ("a - on() c", "a - on () c"),
    ("a == BOOL on(x) GROUP_LEFT c", "a == bool on (x) group_left () c"),
    ("a + ignoring(x) group_right(y) c", "a + ignoring (x) group_right (y) c"),
    ("a + fill(-1) b", "a + fill (-1) b"),
    ("a + fill_left(1) fill_right(Inf) b", "a + fill_left (1) fill_right (+Inf) b"),
    ("foo[90s] offset -1h @ 5", "foo[1m30s] @ 5.000 offset -1h"),
    ("foo[300]", "foo[5m]"),
    ("foo smoothed[5m]", "foo[5m] smoothed"),
    ("foo anchored offset 1d @ end()", "foo @ end() anchored offset 1d"),
    ("foo offset 0", "foo"),
    ("foo[1h:]", "foo[1h:]"),
    ("foo[1w1d:5m] @ start() offset 1y", "foo[8d:5m] @ start() offset 1y"),
    ("foo[5m*2+step()]", "foo[5m * 2 + step()]"),
    ("foo[-(2^2)*min_of(1s,range())]", "foo[-(2 ^ 2) * min_of(1s, range())]"),
    ("foo offset (+1h / 2)", "foo offset (1h / 2)"),
    ("foo{b='c',a!~`x\"\\d`}", r'foo{a!~"x\"\\d",b="c"}'),
    ('{"my.metric","a b"=\'c\'}', '{"a b"="c",__name__="my.metric"}'),
    ("{__name__='foo'}", '{__name__="foo"}'),
    ("-foo ^ +2", "-foo ^ 2"),
    ("0x10 + 1e3 + .5 + 1e100 + 1e-7", "16 + 1000 + 0.5 + 1" + "0" * 100 + " + 0.0000001"),
    ("-Inf + NaN", "-Inf + NaN"),
    ("5m + 1500ms", "5m + 1s500ms"),
    (r'"\n\t\"é\xff\U0001F600"', r'"\n\t\"é\xff😀"'),
    ("((foo))", "((foo))"),
    ("info(foo, {})", "info(foo, {})"),
]


@pytest.mark.parametrize(("query", "text"), LINES)
def test_format(query: str, text: str) -> None:
    assert format_expr(_parse(query)) == text


@pytest.mark.parametrize("query", [query for query, _ in TREES])
def test_formatted_text_parses_to_the_same_tree(query: str) -> None:
    tree = _parse(query)
    text = format_expr(tree)
    assert format_expr(_parse(text)) == text
    if "{" not in query and "offset" not in query:  # matchers are sorted, and plain numbers become durations there
        assert _parse(text) == tree


PRETTY = [
    ("foo", "foo"),
    ("sum by (job) (rate(http_requests_total[5m]))", "sum by (job) (rate(http_requests_total[5m]))"),
    (
        'sum by (job, instance) (rate(http_requests_total{job="api-server", handler="/api/comments"}[5m] offset 1h)) > 10',
        """\
  sum by (job, instance) (
    rate(http_requests_total{handler="/api/comments",job="api-server"}[5m] offset 1h)
  )
>
  10""",
    ),
    (
        "histogram_quantile(0.9, sum by (le, namespace) (rate(very_long_metric_name_duration_seconds_bucket[10m])))",
        """\
histogram_quantile(
  0.9,
  sum by (le, namespace) (rate(very_long_metric_name_duration_seconds_bucket[10m]))
)""",
    ),
    (
        "quantile(0.9, (very_long_metric_name_number_one_total + on (a) very_long_metric_name_number_two_total_and_more))",
        """\
quantile(
  0.9,
  (very_long_metric_name_number_one_total + on (a) very_long_metric_name_number_two_total_and_more)
)""",
    ),
    (
        "-(very_long_metric_name_number_one_total + ignoring (aaa) very_long_metric_name_number_two_total_and_more)[1h:5m]",
        """\
-(
    very_long_metric_name_number_one_total
  + ignoring (aaa)
    very_long_metric_name_number_two_total_and_more
)[1h:5m]""",
    ),
]


@pytest.mark.parametrize(("query", "text"), PRETTY[:-1])
def test_pretty(query: str, text: str) -> None:
    assert pretty(_parse(query)) == text


def test_pretty_subquery_and_unary() -> None:
    query, text = PRETTY[-1]
    assert pretty(_parse(f"max_over_time({query[1:]})")).count("\n") == 6
    assert pretty(_parse(f"-max_over_time({query[1:]})")).startswith("-max_over_time(\n")
    assert text.endswith(")[1h:5m]")


def test_pretty_text_parses_to_the_same_tree() -> None:
    for query, _ in PRETTY[:-1]:
        tree = _parse(query)
        assert format_expr(_parse(pretty(tree))) == format_expr(tree)


def test_json() -> None:
    assert to_json(_parse("topk(2, foo{a='b'} offset 1m) by (x) - on () -bar @ 2")) == {
        "type": "binaryExpr",
        "op": "-",
        "lhs": {
            "type": "aggregation",
            "op": "topk",
            "expr": {
                "type": "vectorSelector",
                "name": "foo",
                "offset": 60_000,
                "matchers": [{"name": "a", "value": "b", "type": "="}, {"name": "__name__", "value": "foo", "type": "="}],
                "timestamp": None,
                "startOrEnd": None,
                "anchored": False,
                "smoothed": False,
            },
            "param": {"type": "numberLiteral", "val": "2"},
            "grouping": ["x"],
            "without": False,
        },
        "rhs": {
            "type": "unaryExpr",
            "op": "-",
            "expr": {
                "type": "vectorSelector",
                "name": "bar",
                "offset": 0,
                "matchers": [{"name": "__name__", "value": "bar", "type": "="}],
                "timestamp": 2000,
                "startOrEnd": None,
                "anchored": False,
                "smoothed": False,
            },
        },
        "matching": {"card": "one-to-one", "labels": [], "on": True, "include": [], "fillValues": {"lhs": None, "rhs": None}},
        "bool": False,
    }


def test_json_of_calls_and_ranges() -> None:
    json = to_json(_parse('label_join(rate(foo[5m] @ end()) or vector(1), "a", "", "b")'))
    assert isinstance(json, dict)
    assert json["func"] == {
        "name": "label_join",
        "argTypes": ["vector", "string", "string", "string"],
        "variadic": -1,
        "returnType": "vector",
    }
    subquery = to_json(_parse("(foo)[1h:5m] offset -1s"))
    assert subquery == {
        "type": "subquery",
        "expr": {"type": "parenExpr", "expr": to_json(_parse("foo"))},
        "range": 3_600_000,
        "step": 300_000,
        "offset": -1000,
        "timestamp": None,
        "startOrEnd": None,
    }


def test_every_query_of_our_scripts_survives_printing() -> None:
    queries = [
        line.split(None, 4)[-1] if " instant " in line else line.split(None, 8)[-1]
        for path in sorted(Path(__file__).with_name("scripts").glob("*.test"))
        for line in path.read_text().splitlines()
        if line.startswith("eval ")
    ]
    assert queries
    for query in queries:
        try:
            _parse(query)
        except ParseError:
            continue
        text = format_expr(_parse(query))
        assert format_expr(_parse(text)) == text


@given(instant_vectors(Vocabulary(modern=True, unstable=True)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_random_queries_survive_printing(query: str) -> None:
    text = format_expr(_parse(query))
    assert _plain(format_expr(_parse(text))) == _plain(text)
    assert _plain(format_expr(_parse(pretty(_parse(query))))) == _plain(text)
    to_json(_parse(query))


def _plain(text: str) -> str:
    """Without plus signs of infinities: `+Inf ^ 2` is read as `+(Inf ^ 2)`, so Prometheus's text gains one each time."""
    return re.sub(r"\++Inf", "Inf", text)


def _parse(query: str) -> Expr:
    return parse(query, features=ALL_FEATURES)

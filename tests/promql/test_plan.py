import pytest

from promql.matrix import Steps
from promql.plan import Plan, duration_ms, make_plan, plan_of
from promql.syntax.ast import Aggregate, At, Call, MatrixSelector, NumberLiteral, Paren, Subquery, VectorSelector
from promql.syntax.errors import ParseError
from promql.syntax.parser import parse
from promql.syntax.typecheck import ALL_FEATURES, walk
from tsdb.model.errors import BadData

QUERY = Steps(60_000, 180_000, 20_000)


def plan(text: str, query: Steps = QUERY) -> Plan:
    return make_plan(parse(text, features=ALL_FEATURES), query)


def range_ms(text: str, query: Steps = QUERY) -> int:
    expr = plan(f"rate(x[{text}])", query).expr
    assert isinstance(expr, Call)
    assert isinstance(expr.args[0], MatrixSelector)
    return duration_ms(expr.args[0].range)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m", 300_000),
        ("1.001", 1_001),
        ("0.029", 29),
        ("2m*15", 1_800_000),
        ("1h/7", 514_285),
        ("-5m+35m", 1_800_000),
        ("90m % 1h", 1_800_000),
        ("2^3", 8_000),
        ("step()", 20_000),
        ("range()", 120_000),
        ("min_of(step(), 5s)", 5_000),
        ("max_of(step()+1, 5s)", 21_000),
        ("((step()))", 20_000),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert range_ms(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1m-1m", "duration must be greater than 0"),
        ("1m/(1s-1s)", "division by zero"),
        ("1m%(1s-1s)", "modulo by zero"),
        ("9^999", "duration is out of range"),
    ],
)
def test_impossible_durations(text: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        range_ms(text)


def test_an_instant_query_has_neither_step_nor_range() -> None:
    with pytest.raises(BadData, match="duration must be greater than 0"):
        range_ms("step()", Steps.instant(5_000))


def test_edges_become_times_and_parentheses_go() -> None:
    expr = plan("((x @ start())) + y[1m:] @ end()".replace("y[1m:] @ end()", "sum_over_time(y[1m:] @ end())")).expr
    nodes = walk(expr)
    assert not any(isinstance(node, Paren) for node in nodes)
    assert [node.at for node in nodes if isinstance(node, VectorSelector) and node.name == "x"] == [At(60_000)]
    assert [node.at for node in nodes if isinstance(node, Subquery)] == [At(180_000)]


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("x @ 5", True),
        ("rate(x[5m] @ 5)", True),
        ("sum(x @ 5) + 1", True),
        ("vector(1) + 2 * 3", True),
        ("timestamp(x @ 5)", True),
        ("timestamp(abs(x @ 5))", False),
        ("predict_linear(x[5m] @ 5, 60)", False),
        ("time()", False),
        ("x", False),
        ("x + y @ 5", False),
        ("sum_over_time(x[5m:1m] @ 5)", True),
        ("sum_over_time((x @ 5)[5m:1m])", False),
    ],
)
def test_what_is_the_same_at_every_step(text: str, fixed: bool) -> None:
    found = plan(text)
    assert (found.expr in found.fixed) == fixed


def test_the_fixed_part_of_a_moving_whole() -> None:
    found = plan("x + sum(y @ 5)")
    assert [type(node) for node in found.fixed if isinstance(node, Aggregate)] == [Aggregate]
    assert not any(isinstance(node, NumberLiteral) for node in found.fixed)


def test_what_stands_twice_is_shared() -> None:
    found = plan("sum(x) / (sum(x) + count(y)) * rate(x[5m])")
    assert {node.op for node in found.shared if isinstance(node, Aggregate)} == {"sum"}
    assert not any(isinstance(node, Call) for node in found.shared)
    assert plan("x + rate(x[5m])").shared == frozenset()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("histogram_count(sum(x))", {"x"}),
        ("histogram_sum(rate(x[5m])) / histogram_count(y)", {"x", "y"}),
        ("histogram_quantile(0.9, sum(x))", set()),
        ("histogram_count(sum_over_time(x[5m:1m]))", set()),
        ("histogram_count(x </ 2 + y) + histogram_count(z + (y >/ 2))", {"z"}),
        ("histogram_count(sum(x)) + sum(y)", {"x"}),
        ("histogram_count(sum(x)) + sum(x)", set()),
        ("sum(x)", set()),
    ],
)
def test_selectors_that_only_need_count_and_sum(text: str, names: set[str]) -> None:
    assert {node.name for node in plan(text).summaries if isinstance(node, VectorSelector)} == names


ONE, OTHER = Steps(0, 600_000, 10_000), Steps(60_000, 900_000, 30_000)


@pytest.mark.parametrize(
    "text",
    ["x @ start()", "x offset step()", "rate(x[range()])", "sum_over_time(x[5m:step()])", "max_over_time(x[5m:1m] @ end())"],
)
def test_a_kept_plan_is_not_taken_where_it_follows_from_the_steps(text: str) -> None:
    for query in (ONE, OTHER, ONE):
        assert plan_of(text, query, ALL_FEATURES) == make_plan(parse(text, features=ALL_FEATURES), query)
    assert plan_of(text, ONE, ALL_FEATURES) != plan_of(text, OTHER, ALL_FEATURES)


def test_a_kept_plan_is_of_its_own_text_and_features() -> None:
    assert plan_of("sum(x) + 1", ONE, frozenset()) is plan_of("sum(x) + 1", OTHER, frozenset())
    there, apart = plan_of("sum(x)", ONE, frozenset()), plan_of("  sum(x)", ONE, frozenset())
    assert (there.expr.span, apart.expr.span) == ((0, 6), (2, 8))
    assert plan_of("limitk(1, x)", ONE, ALL_FEATURES).expr
    with pytest.raises(ParseError):
        plan_of("limitk(1, x)", ONE, frozenset())

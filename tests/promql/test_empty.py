"""Every operator and function over vectors without series: nothing comes out, and nothing breaks."""

import pytest

from promql.annotations import Annotations
from promql.functions.call import EvalContext, call
from promql.functions.info import info
from promql.matrix import Matrix, Scalar, Value
from promql.names import settle
from promql.operators.aggregate import aggregate
from promql.operators.binary import binary, negated
from promql.syntax.ast import Aggregate, Binary, Call
from promql.syntax.parser import parse
from promql.syntax.typecheck import ALL_FEATURES
from tests.promql.matrices import matrix, scalar

NOTHING = matrix([], 3)
NUMBER = scalar(0.5, 0.5, 0.5)
AGGREGATIONS = ["sum(x)", "avg by (a) (x)", "count without (a) (x)", "stddev(x)", "max(x)", "group(x)"]
WITH_NUMBER = ["topk(1, x)", "bottomk(1, x)", "quantile(0.5, x)", "limitk(1, x)", "limit_ratio(0.5, x)"]
BINARIES = ["x + y", "x > bool y", "x and y", "x or y", "x unless y", "x * on(a) group_left(b) y", "x + fill(0) y", "x </ y"]
CALLS = [
    "abs(x)", "clamp(x, 1, 2)", "clamp_min(x, 1)", "round(x)", "hour(x)", "sort(x)", "sort_by_label(x, 's')", "timestamp(x)",
    "label_replace(x, 's', 's', 's', 's')", "label_join(x, 's', 's', 's')", "histogram_quantile(1, x)", "histogram_count(x)",
    "histogram_quantiles(x, 's', 1, 1)", "histogram_fraction(1, 1, x)",
]  # fmt: skip


def check(value: Value) -> None:
    assert isinstance(value, Matrix)
    assert len(settle(value)) == 0
    assert value.values.shape == (0, 3)


@pytest.mark.parametrize("query", [*AGGREGATIONS, *WITH_NUMBER, 'count_values("v", x)'])
def test_aggregations(query: str) -> None:
    node = parse(query, features=ALL_FEATURES)
    assert isinstance(node, Aggregate)
    param = "v" if node.op == "count_values" else NUMBER if query in WITH_NUMBER else None
    check(aggregate(node, NOTHING, param, Annotations(query)))


@pytest.mark.parametrize("query", BINARIES)
def test_binaries(query: str) -> None:
    node = parse(query, features=ALL_FEATURES)
    assert isinstance(node, Binary)
    check(binary(node, NOTHING, NOTHING, Annotations(query)))
    check(negated(NOTHING))


@pytest.mark.parametrize("query", CALLS)
def test_calls(query: str) -> None:
    node = parse(query, features=ALL_FEATURES)
    assert isinstance(node, Call)
    args: list[Value] = [{"x": NOTHING, "1": NUMBER, "2": NUMBER}.get(_text(query, arg.span), "s") for arg in node.args]
    check(call(node, args, EvalContext(NOTHING.steps, 0, 1, 1, ALL_FEATURES, Annotations(query))))


def test_info_and_scalar() -> None:
    node = parse("info(x)", features=ALL_FEATURES)
    assert isinstance(node, Call)
    check(info(node, NOTHING, lambda _: NOTHING, Annotations("")))
    node = parse("scalar(x)")
    assert isinstance(node, Call)
    out = call(node, [NOTHING], EvalContext(NOTHING.steps, 0, 1, 1, ALL_FEATURES, Annotations("")))
    assert isinstance(out, Scalar) and len(out.values) == 3


def _text(query: str, span: tuple[int, int]) -> str:
    return query[span[0] : span[1]]

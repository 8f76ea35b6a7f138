import math

import pytest

from promql.fold import fold
from promql.matrix import Steps
from promql.plan import resolve
from promql.syntax.ast import Binary, Call, Expr, NumberLiteral, VectorSelector
from promql.syntax.parser import parse
from promql.syntax.typecheck import ALL_FEATURES


def folded(text: str) -> Expr:
    return fold(resolve(parse(text, features=ALL_FEATURES), Steps.instant(0)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("-(2 ^ 3 ^ 0.5)", -(2 ** (3**0.5))),
        ("7 % -3", 1.0),
        ("1 / 0", math.inf),
        ("2 > bool 1", 1.0),
        ("1m + 30", 90.0),
    ],
)
def test_operators_between_numbers(text: str, value: float) -> None:
    assert folded(text).value == value  # type: ignore[union-attr]


def test_numbers_anywhere_in_the_tree_keep_the_place_of_the_operator() -> None:
    expr = folded("topk((1 + 1), clamp_max(x, 60 * 5)) > 3 - 1")
    assert isinstance(expr, Binary) and expr.rhs == NumberLiteral(2.0) and expr.rhs.span == (38, 43)
    top = expr.lhs
    assert top.param == NumberLiteral(2.0)  # type: ignore[union-attr]
    assert isinstance(top.expr, Call) and top.expr.args[1] == NumberLiteral(300.0)  # type: ignore[union-attr]


def test_what_is_no_number_stays() -> None:
    expr = folded("x + 1 + 2")
    assert isinstance(expr, Binary) and isinstance(expr.lhs, Binary) and isinstance(expr.lhs.lhs, VectorSelector)
    assert folded("time() + 1") == parse("time() + 1")

"""Constant folding: operators between number literals are carried out once, when the plan is made."""

from dataclasses import replace

import numpy as np

from promql.operators.arithmetic import calculate
from promql.syntax.ast import Aggregate, Binary, Call, Expr, NumberLiteral, Subquery, Unary, chain


def fold(expr: Expr) -> Expr:
    """The tree with every operator over numbers replaced by its value, at the place of the operator."""
    match expr:
        case Unary():
            inner = fold(expr.expr)
            if isinstance(inner, NumberLiteral):
                return NumberLiteral(-inner.value if expr.op == "-" else inner.value, span=expr.span)
            return replace(expr, expr=inner)
        case Binary():
            links = chain(expr)
            tree = fold(links[-1].lhs)
            for link in reversed(links):
                tree = _fold_link(link, tree, fold(link.rhs))
            return tree
        case Aggregate():
            return replace(expr, expr=fold(expr.expr), param=None if expr.param is None else fold(expr.param))
        case Call():
            return replace(expr, args=tuple(fold(arg) for arg in expr.args))
        case Subquery():
            return replace(expr, expr=fold(expr.expr))
        case _:
            return expr


def _fold_link(node: Binary, lhs: Expr, rhs: Expr) -> Expr:
    if isinstance(lhs, NumberLiteral) and isinstance(rhs, NumberLiteral):
        value = calculate(node.op, np.full(1, lhs.value), np.full(1, rhs.value))
        return NumberLiteral(float(value[0]), span=node.span)
    return replace(node, lhs=lhs, rhs=rhs)

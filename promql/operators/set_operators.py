"""`and`, `or` and `unless`: series chosen by whether the other side has a series of the same matching labels at the step."""

from dataclasses import replace

import numpy as np

from promql.matrix import I64, Bool, Matrix
from promql.matrix_rows import concat_matrices, non_empty
from promql.names import merge_equal
from promql.operators.grouping import match_groups
from promql.syntax.ast import Matching


def combine(op: str, matching: Matching, lhs: Matrix, rhs: Matrix) -> Matrix:
    """The left side's samples with (and) or without (unless) a match on the right, or (or) with the right's unmatched ones."""
    left, right, groups = match_groups(matching, lhs.series, rhs.series)
    if op == "or":
        rest = rhs.present & ~group_presence(left, lhs.present, groups)[right]
        return merge_equal(non_empty(concat_matrices([lhs, replace(rhs, present=rest)])))
    matched = group_presence(right, rhs.present, groups)[left]
    return non_empty(replace(lhs, present=lhs.present & (matched if op == "and" else ~matched)))


def group_presence(group: I64, present: Bool, groups: int) -> Bool:
    """bool[groups, k] where any row of the group is present; group i64[n], present bool[n, k]."""
    out = np.zeros((groups, present.shape[1]), bool)
    if len(group) == 0:
        return out
    order = np.argsort(group, kind="stable")
    in_order = group[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
    if len(starts) == len(group):
        out[group] = present
    else:
        out[in_order[starts]] = np.logical_or.reduceat(present[order], starts)
    return out

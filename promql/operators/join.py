"""Joining two vectors for an operator: one-to-one, or many-to-one with group_left and group_right; missing sides filled.

Every possible pair of series is a row: a left and a right series of one group, or one of them with a fill value. A pair is
live at the steps where both its sides are, so duplicates are an error only where they meet, as in Prometheus, which joins step
by step.
"""

from dataclasses import dataclass, replace

import numpy as np

from promql.annotations import Annotations
from promql.matrix import I64, Bool, Matrix
from promql.matrix_rows import first_steps, non_empty
from promql.message_text import labels_text
from promql.names import METADATA_LABELS, merge_equal, without_labels
from promql.operators.arithmetic import ARITHMETIC
from promql.operators.element import Cells, operate
from promql.operators.grouping import match_groups, matched_labels
from promql.operators.set_operators import group_presence
from promql.syntax.ast import Binary, Matching
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesTable, concat_tables


@dataclass(frozen=True, slots=True)
class _Pairs:
    """p pairs: rows many i64[p] and one i64[p] of the sides, -1 where the side is filled; live bool[p, k]; group i64[p]."""

    many: I64
    one: I64
    group: I64
    live: Bool


def join(node: Binary, lhs: Matrix, rhs: Matrix, notes: Annotations) -> Matrix:
    """`lhs op rhs` by matching labels. QueryFailed where a match is not unique at a step."""
    matching = node.matching or Matching()
    swapped = matching.card == "one-to-many"
    many, one = (rhs, lhs) if swapped else (lhs, rhs)
    clash = _first_clash(matching, many, one)
    if clash is not None:
        step, message = clash
        if step > 0:  # Prometheus goes step by step, so whatever fails at an earlier one is told first
            join(node, first_steps(lhs, step), first_steps(rhs, step), Annotations(""))
        raise QueryFailed(message)
    pairs = _match(matching, many, one)
    left, right = _side(many, pairs.many, matching.fill_left), _side(one, pairs.one, matching.fill_right)
    outcome = operate(node, *((right, left) if swapped else (left, right)), pairs.live, notes)
    series = _labels(node, matching, many.series, one.series, pairs)
    _check_unique(matching, series, pairs.group, outcome.defined)
    samples = outcome.as_bool() if node.return_bool else outcome.samples
    drop = np.ones(len(pairs.many), bool) if node.return_bool else None  # Prometheus forgets other marks
    present = outcome.defined if node.return_bool else outcome.keep
    out = Matrix(series, lhs.steps, samples.values, present, samples.histograms, samples.cells, drop)
    return merge_equal(non_empty(out))


def _match(matching: Matching, many: Matrix, one: Matrix) -> _Pairs:
    many_group, one_group, groups = match_groups(matching, many.series, one.series)
    left, right = _pair_rows(many_group, one_group, groups)
    parts = [(left, right, many.present[left] & one.present[right])]
    if matching.fill_right is not None:
        parts.append(_unmatched(many_group, many.present, group_presence(one_group, one.present, groups)))
    if matching.fill_left is not None:
        rows, none, live = _unmatched(one_group, one.present, group_presence(many_group, many.present, groups))
        parts.append((none, rows, live))
    left, right, live = (np.concatenate([part[i] for part in parts]) for i in range(3))
    used = live.any(axis=1)
    if not used.all():
        left, right, live = left[used], right[used], live[used]
    group = np.concatenate([many_group, one_group])[np.where(left >= 0, left, right + len(many))]
    return _Pairs(left, right, group, live)


def _pair_rows(many_group: I64, one_group: I64, groups: int) -> tuple[I64, I64]:
    """All pairs of rows of one group, in the order of the many side."""
    order = np.argsort(one_group, kind="stable")
    size = np.bincount(one_group, minlength=groups)
    start = np.cumsum(size) - size
    partners = size[many_group]
    left = np.repeat(np.arange(len(many_group)), partners)
    nth = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    return left, order[start[many_group][left] + nth] if len(left) else left


def _unmatched(group: I64, present: Bool, other: Bool) -> tuple[I64, I64, Bool]:
    """Rows live where their group has nothing on the other side, paired with no row."""
    rows = np.arange(len(group))
    return rows, np.full(len(group), -1), present & ~other[group]


def _side(matrix: Matrix, rows: I64, fill: float | None) -> Cells:
    """The samples of one side of the pairs."""
    filled = rows < 0
    if not filled.any():
        same = len(rows) == len(matrix) and bool(np.all(rows == np.arange(len(rows))))
        chosen = matrix if same else matrix.take(rows)
        return Cells(chosen.values, chosen.cells, chosen.histograms)
    values = np.full((len(rows), len(matrix.steps)), np.nan if fill is None else fill)
    values[~filled] = matrix.values[rows[~filled]]
    cells = None
    if matrix.cells is not None:
        cells = np.full(values.shape, -1, np.int64)
        cells[~filled] = matrix.cells[rows[~filled]]
    return Cells(values, cells, matrix.histograms)


def _labels(node: Binary, matching: Matching, many: SeriesTable, one: SeriesTable, pairs: _Pairs) -> SeriesTable:
    """The labels of the results: the many side's, less what the operator and a one-to-one match take away, plus `include`."""
    both = concat_tables([many, one])
    base = both.take(np.where(pairs.many >= 0, pairs.many, pairs.one + len(many)))
    out = _matched_where(matching, base, pairs.many < 0)
    if node.op in ARITHMETIC:
        out = out.drop(METADATA_LABELS)
    if matching.card == "one-to-one":
        out = out.keep(matching.labels) if matching.on else out.drop(matching.labels)
    if not matching.include:
        return out
    other = _matched_where(matching, both.take(np.where(pairs.one >= 0, pairs.one + len(many), pairs.many)), pairs.one < 0)
    return _with_columns(out.drop(matching.include), other.keep(matching.include))


def _matched_where(matching: Matching, series: SeriesTable, rows: Bool) -> SeriesTable:
    """Only the matching labels in the rows that bool[p] says: all that is known of a side that is filled."""
    if not rows.any():
        return series
    kept = matched_labels(matching, series).names
    return without_labels(series, tuple(name for name in series.names if name not in kept), rows)


def _with_columns(series: SeriesTable, more: SeriesTable) -> SeriesTable:
    """Both tables' labels; they share symbols and no name."""
    names = (*series.names, *more.names)
    order = sorted(range(len(names)), key=names.__getitem__)
    ids = np.concatenate([series.ids, more.ids])[order]
    return replace(series, names=tuple(names[i] for i in order), ids=ids)


def _first_clash(matching: Matching, many: Matrix, one: Matrix) -> tuple[int, str] | None:
    """(the first step, the error) where two series on the one side have the same matching labels, None if never.

    A step where the many side is empty is passed over, unless missing sides are filled.
    """
    group, _ = matched_labels(matching, one.series).group()
    if len(group) == 0 or np.bincount(group).max() < 2:
        return None
    fills = matching.fill_left is not None or matching.fill_right is not None
    repeated = np.flatnonzero(np.bincount(group)[group] > 1)
    order = repeated[np.argsort(group[repeated], kind="stable")]
    present = one.present[order] if fills else one.present[order] & many.present.any(axis=0)
    starts = np.flatnonzero(np.concatenate([[True], group[order][1:] != group[order][:-1]]))
    clash = np.add.reduceat(present.astype(np.int64), starts) > 1
    if not clash.any():
        return None
    step = int(np.flatnonzero(clash.any(axis=0))[0])
    at = [np.flatnonzero((group == group[order[starts[g]]]) & one.present[:, step])[:2] for g in np.flatnonzero(clash[:, step])]
    row, other = min(at, key=lambda rows: int(rows[1])).tolist()
    side = "left" if matching.card == "one-to-many" else "right"
    labels = matched_labels(matching, one.series.take(slice(row, row + 1))).labels(0)
    both = ", ".join(labels_text(found) for found in sorted([one.series.labels(row), one.series.labels(other)]))
    return step, (
        f"found duplicate series for the match group {labels_text(labels)} on the {side} hand-side of the operation: [{both}]"
        ";many-to-many matching not allowed: matching labels must be unique on one side"
    )


def _check_unique(matching: Matching, series: SeriesTable, group: I64, live: Bool) -> None:
    """QueryFailed where two results of one group, or for many-to-one two of the same labels, are live at a step."""
    if matching.card == "one-to-one":
        key = group
    else:
        labels, _ = series.group()
        _, key = np.unique(labels * (int(group.max(initial=0)) + 1) + group, return_inverse=True)
    if len(key) == 0 or np.bincount(key).max() < 2:
        return
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], key[order][1:] != key[order][:-1]]))
    if not np.any(np.add.reduceat(live[order].astype(np.int64), starts) > 1):
        return
    if matching.card == "one-to-one":
        raise QueryFailed("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")
    raise QueryFailed("multiple matches for labels: grouping labels must ensure unique matches")

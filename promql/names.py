"""Metric names that a result must lose, and series that become one when they do.

An operator that changes what a value means takes the metric name away, with the labels of its type and unit. It only marks
the series (`Matrix.drop_name`); `settle` carries it out when the answer is made, or after every node where the feature
`promql-delayed-name-removal` is off.
"""

from dataclasses import replace

import numpy as np

from promql.matrix import Bool, Matrix
from tsdb.model.errors import QueryFailed
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable

METADATA_LABELS = (METRIC_NAME, "__type__", "__unit__")
"""What says what a metric is, not which one it is (Prometheus's schema.IsMetadataLabel)."""


def mark(matrix: Matrix) -> Matrix:
    """The same samples, all series marked to lose their name."""
    return replace(matrix, drop_name=np.ones(len(matrix), bool))


def settle(matrix: Matrix) -> Matrix:
    """The marked names removed, and series merged that are the same without them; no two must be the same with them.

    QueryFailed where two of them have a sample at one step.
    """
    if matrix.drop_name is None:
        return matrix
    if not matrix.drop_name.any():
        return replace(matrix, drop_name=None)
    series = without_labels(matrix.series, METADATA_LABELS, matrix.drop_name)
    settled = replace(matrix, series=series, drop_name=None)
    return settled if matrix.drop_name.all() and _same_metadata(matrix.series) else merge_equal(settled)


def _same_metadata(series: SeriesTable) -> bool:
    """Whether all series are of one metric: what goes then tells none of them from another."""
    return all(bool(np.all(ids == ids[0])) for name, ids in zip(series.names, series.ids, strict=True) if name in METADATA_LABELS)


def without_labels(series: SeriesTable, names: tuple[str, ...], rows: Bool) -> SeriesTable:
    """The table without the labels `names` in the rows that bool[n] says."""
    if rows.all():
        return series.drop(names)
    at = np.array([i for i, name in enumerate(series.names) if name in names], np.int64)
    ids = series.ids.copy()
    ids[np.ix_(at, np.flatnonzero(rows))] = -1
    return replace(series, ids=ids)


def merge_equal(matrix: Matrix) -> Matrix:
    """Series of equal labels as one, at the place of the first. QueryFailed where two have a sample at one step."""
    if len(matrix) < 2:
        return matrix
    group, first = matrix.series.group()
    if len(first) == len(matrix):
        return matrix
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(first)))
    if np.any(np.add.reduceat(matrix.present[order].astype(np.int32), starts) > 1):
        raise QueryFailed("vector cannot contain metrics with the same labelset")
    out = matrix.take(first)
    values, present = out.values.copy(), np.logical_or.reduceat(matrix.present[order], starts)
    cells = None if out.cells is None else out.cells.copy()
    for row in np.flatnonzero(first[group] != np.arange(len(matrix))).tolist():
        here = matrix.present[row]
        values[group[row], here] = matrix.values[row, here]
        if cells is not None and matrix.cells is not None:
            cells[group[row], here] = matrix.cells[row, here]
    drop = None if matrix.drop_name is None else np.logical_or.reduceat(matrix.drop_name[order], starts)
    return replace(out, values=values, present=present, cells=cells, drop_name=drop)


def any_marked(*matrices: Matrix) -> bool:
    """Whether any series of any matrix is marked."""
    return any(m.drop_name is not None and bool(m.drop_name.any()) for m in matrices)

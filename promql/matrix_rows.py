"""Rows of matrices: dropping empty ones, putting matrices together, and lining histograms of several up in one column."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.matrix import I64, Bool, Matrix
from tsdb.model.histogram import concat_histograms
from tsdb.model.series import concat_tables


def non_empty(matrix: Matrix) -> Matrix:
    """The series that have a sample."""
    rows = np.flatnonzero(matrix.present.any(axis=1))
    return matrix if len(rows) == len(matrix) else matrix.take(rows)


def first_steps(matrix: Matrix, size: int) -> Matrix:
    """The series at their first `size` steps (at least one) only."""
    steps = replace(matrix.steps, end_ms=matrix.steps.start_ms + (size - 1) * matrix.steps.step_ms)
    cells = None if matrix.cells is None else matrix.cells[:, :size]
    return replace(matrix, steps=steps, values=matrix.values[:, :size], present=matrix.present[:, :size], cells=cells)


def concat_matrices(parts: Sequence[Matrix]) -> Matrix:
    """All series of all parts (at least one, of the same steps), one after another; equal series stay two."""
    parts = [part for part in parts if len(part)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    cells, histograms = None, None
    if any(part.cells is not None for part in parts):
        known = [part.histograms for part in parts if part.histograms is not None]
        bases = np.cumsum([0] + [0 if part.histograms is None else len(part.histograms) for part in parts])
        cells = np.concatenate([_cells(part, int(base)) for part, base in zip(parts, bases[:-1], strict=True)])
        histograms = concat_histograms(known)
    drop = np.concatenate([_drops(part) for part in parts])
    return replace(
        parts[0],
        series=concat_tables([part.series for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        present=np.concatenate([part.present for part in parts]),
        histograms=histograms,
        cells=cells,
        drop_name=drop if drop.any() else None,
    )


def _cells(part: Matrix, base: int) -> I64:
    if part.cells is None:
        return np.full(part.present.shape, -1, np.int64)
    return np.where(part.cells >= 0, part.cells + base, -1)


def _drops(part: Matrix) -> Bool:
    return np.zeros(len(part), bool) if part.drop_name is None else part.drop_name

"""Subqueries: the steps an inner expression is evaluated at, and its result as samples that a range function can read."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from promql.matrix import Bool, Matrix, Steps
from promql.window.windows import Windows
from tsdb.model.histogram import COUNTER_RESET, NOT_COUNTER_RESET, UNKNOWN_RESET, Histograms
from tsdb.model.series import SeriesBatch

Number = TypeVar("Number", bound=np.generic)


def inner_steps(windows: Windows, step_ms: int) -> Steps | None:
    """The multiples of step_ms in (first window's start, last window's end], None if there are none."""
    first_ms = (int(windows.ends_ms[0]) - windows.range_ms) // step_ms * step_ms + step_ms
    last_ms = int(windows.ends_ms[-1])
    if first_ms > last_ms:
        return None
    return Steps(first_ms, first_ms + (last_ms - first_ms) // step_ms * step_ms, step_ms)


def as_samples(matrix: Matrix) -> SeriesBatch:
    """The present cells of a matrix as samples at their steps; start timestamps are not known behind an expression.

    Reset hints of histograms are forgotten but for gauges: the sample that carried a reset may be missing here, or repeated.
    """
    present = matrix.present
    offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(present, axis=1))]).astype(np.int64)
    t_ms = _present(np.broadcast_to(matrix.steps.ms, present.shape), present)
    values = _present(matrix.values, present)
    if matrix.cells is None or matrix.histograms is None:
        return SeriesBatch(matrix.series, offsets, t_ms, values)
    return SeriesBatch(matrix.series, offsets, t_ms, values, _without_hints(matrix.histograms), _present(matrix.cells, present))


def _present(cells: npt.NDArray[Number], present: Bool) -> npt.NDArray[Number]:
    """The present ones of cells [n, k], row after row, in an array of its own."""
    return cells.flatten() if present.all() else cells[present]


def _without_hints(histograms: Histograms) -> Histograms:
    told = (histograms.hint == COUNTER_RESET) | (histograms.hint == NOT_COUNTER_RESET)
    return replace(histograms, hint=np.where(told, UNKNOWN_RESET, histograms.hint).astype(np.uint8)) if told.any() else histograms

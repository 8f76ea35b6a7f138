"""Functions over range vectors: the samples of many series in sliding windows, to one value for each series and step.

This is the only place where range vectors exist. Floats go through the kernels (`promql.window.floats`), native histograms
through `promql.window.natives`; here the two are put together.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from promql.annotations import Annotations
from promql.downsampled import for_function
from promql.matrix import F64, Bool, Matrix
from promql.matrix_rows import non_empty
from promql.message_text import general
from promql.operators.aggregate_whole import warn_each_quantile
from promql.syntax.ast import Span
from promql.window.floats import EXTRAPOLATED, PICKS, REDUCTIONS, float_windows
from promql.window.natives import with_natives
from promql.window.notes import note_non_counters, warn_overlap
from promql.window.windows import Windows, only_floats, rows_with_histograms, without_stale
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesBatch

RANGE_FUNCTIONS = frozenset(REDUCTIONS) | frozenset(EXTRAPOLATED) | PICKS
KEEP_NAME = frozenset({"first_over_time", "last_over_time"})
"""They act like an offset, so that the metric stays what it is."""
ANCHORED_FUNCTIONS = ("changes", "delta", "increase", "rate", "resets")
SMOOTHED_FUNCTIONS = ("delta", "increase", "rate")


@dataclass(frozen=True, slots=True)
class RangeCall:
    """A function with its evaluated scalar arguments (f64[k] each), the span its notes are about, and what is switched on."""

    func: str
    params: Sequence[F64]
    span: Span
    typed: bool = False
    """Whether `__type__` labels say what a counter is (feature `type-and-unit-labels`)."""


def check_call(call: RangeCall, windows: Windows) -> None:
    """Raises QueryFailed for a parameter or a selector modifier that the function cannot take."""
    if windows.anchored and call.func not in ANCHORED_FUNCTIONS:
        raise QueryFailed(_only_with("anchored", ANCHORED_FUNCTIONS, call.func))
    if windows.smoothed and call.func not in SMOOTHED_FUNCTIONS:
        raise QueryFailed(_only_with("smoothed", SMOOTHED_FUNCTIONS, call.func))


def over_time(
    call: RangeCall,
    batch: SeriesBatch,
    windows: Windows,
    notes: Annotations,
    executor: Executor | None = None,
    *,
    drop_name: Bool | None = None,
) -> Matrix:
    """The function over each window of each series; series without any result go. All but KEEP_NAME mark names to go, those leave
    the marks bool[n] of a subquery's series.

    Samples of `batch` outside all windows do no harm. QueryFailed for smoothing factors outside (0, 1).
    """
    batch = without_stale(batch) if batch.windows is None else for_function(call.func, batch, windows)
    seen = batch if call.func in PICKS else only_floats(batch)
    floats = float_windows(call.func, seen, windows, call.params, executor)
    drop = drop_name if call.func in KEEP_NAME else np.ones(len(batch), bool)
    matrix = Matrix(batch.series, windows.steps, floats.values, floats.present, drop_name=drop)
    natives = rows_with_histograms(batch)
    if len(natives):
        matrix = with_natives(call.func, batch, natives, windows, matrix, call.span, notes)
    _note(call, matrix, floats.overlap, notes)
    return non_empty(matrix)


def _note(call: RangeCall, matrix: Matrix, overlap: Bool, notes: Annotations) -> None:
    if overlap.any():
        warn_overlap(matrix.series, overlap, call.span, notes)
    if call.func in ("rate", "increase"):
        rows: Bool = np.any(matrix.floats, axis=1)
        if rows.any():
            note_non_counters(matrix.series, rows, call.span, notes, by_type=call.typed)
    elif call.func == "quantile_over_time":
        used = matrix.floats.any(axis=0)
        if used.any():
            warn_each_quantile(call.params[0][used], call.span, notes)
    elif call.func == "double_exponential_smoothing":
        _check_factors(call, matrix)


def _check_factors(call: RangeCall, matrix: Matrix) -> None:
    """Prometheus looks at the factors only where there are samples to smooth. NaN is none that it minds."""
    wrong = [(factor <= 0) | (factor >= 1) for factor in call.params]
    if len(matrix) == 0 or not np.any(wrong):
        return
    step = int(np.argmax(np.any(wrong, axis=0)))
    name, symbol, at = ("smoothing", "sf", 0) if wrong[0][step] else ("trend", "tf", 1)
    factor = float(call.params[at][step])
    text = f"{factor:f}" if math.isfinite(factor) else general(factor)
    raise QueryFailed(f"invalid {name} factor. Expected: 0 < {symbol} < 1, got: {text}")


def _only_with(modifier: str, functions: Sequence[str], func: str) -> str:
    return f"{modifier} modifier can only be used with: {', '.join(functions)} - not with {func}"

"""Windows that hold native histograms, put beside those of floats alone; `promql.histogram.window` computes them."""

from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram import extended as histogram_extended
from promql.histogram import window as histogram_window
from promql.histogram.rate import EXTRAPOLATED
from promql.matrix import I64, Bool, Matrix
from promql.syntax.ast import Span
from promql.window.notes import note_ignored
from promql.window.windows import Bounds, Windows, bounds, only_floats, only_histograms
from tsdb.model.series import SeriesBatch


def with_natives(
    func: str, batch: SeriesBatch, rows: I64, windows: Windows, floats: Matrix, span: Span, notes: Annotations
) -> Matrix:
    """The result with the windows of `rows` (the series that have histograms) that hold one; `floats` is the rest of it.

    Functions that know no histograms keep their floats and tell what they ignored.
    """
    part = batch if len(rows) == len(batch) else batch.take(rows)
    if func not in histogram_window.FUNCTIONS:
        _note_ignored(part, windows, span, notes)
        return floats
    if (windows.anchored or windows.smoothed) and func in EXTRAPOLATED:
        result = histogram_extended.extended(func, part, windows, notes=notes, span=span)
    else:
        chosen = _anchored(part, windows) if windows.anchored else bounds(part, windows)
        result = histogram_window.over_time(
            func, part, chosen.lo, chosen.hi, end_ms=windows.ends_ms, range_ms=windows.range_ms, notes=notes, span=span
        )
    values, present = floats.values.copy(), floats.present.copy()
    cells = np.full(values.shape, -1, np.int64)
    values[rows] = np.where(result.handled, result.values, values[rows])
    present[rows] = np.where(result.handled, result.present, present[rows])
    cells[rows] = np.where(result.handled & result.present, result.cells, -1)
    return replace(floats, values=values, present=present, histograms=result.histograms, cells=cells)


def _anchored(batch: SeriesBatch, windows: Windows) -> Bounds:
    """The windows with the sample they are anchored at; empty where nothing follows it."""
    own = bounds(batch, windows)
    wider = bounds(batch, windows, windows.lookback_ms)
    return Bounds(np.where(own.counts > 0, wider.lo, own.lo), own.hi)


def _note_ignored(batch: SeriesBatch, windows: Windows, span: Span, notes: Annotations) -> None:
    mixed = (bounds(only_floats(batch), windows).counts > 0) & (bounds(only_histograms(batch), windows).counts > 0)
    rows: Bool = np.any(mixed, axis=1)
    if rows.any():
        note_ignored(batch.series, rows, span, notes)

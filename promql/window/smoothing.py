"""`smoothed` instant selectors: the value at each step, interpolated between the samples around it."""

import numpy as np

from promql.annotations import Annotations
from promql.histogram.extended import smoothed_between
from promql.histogram.samples import count_natives
from promql.matrix import I64, Bool, Matrix, Steps
from promql.matrix_rows import non_empty
from promql.syntax.ast import Span
from promql.window.notes import warn_mixed
from promql.window.windows import Windows, bounds, without_stale
from tsdb.kernel import window as kernel
from tsdb.model.series import SeriesBatch


def smoothed(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps, span: Span, notes: Annotations) -> Matrix:
    """The value at each of ends_ms i64[k]; the newest one before where nothing follows within lookback_ms.

    Floats and histograms within the lookback on either side leave nothing but a warning.
    """
    batch = without_stale(batch)
    shape = (len(batch), len(ends_ms))
    before, after = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    values, present = np.zeros(shape), np.empty(shape, bool)
    kernel.smoothed_samples(batch.offsets, batch.t_ms, batch.values, ends_ms, lookback_ms, before, after, values, present)
    if batch.histogram_at is None or batch.histograms is None:
        return non_empty(Matrix(batch.series, steps, values, present))
    near = bounds(batch, Windows(steps, ends_ms + lookback_ms, 2 * lookback_ms))
    natives = count_natives(batch, near.lo, near.hi)
    mixed = (natives > 0) & (natives < near.counts)
    rows: Bool = np.any(mixed, axis=1)
    warn_mixed(batch.series, rows, span, notes)
    present &= ~mixed
    series, step = np.nonzero(present)
    found = smoothed_between(batch, (before[series, step], after[series, step]), ends_ms[step], series, notes=notes, span=span)
    native = series[found.handled], step[found.handled]
    cells = np.full(shape, -1, np.int64)
    cells[native], values[native], present[native] = found.cells[found.handled], np.nan, found.present[found.handled]
    return non_empty(Matrix(batch.series, steps, values, present, found.histograms, cells))

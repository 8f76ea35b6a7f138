"""`smoothed` instant selectors: the value at each step, interpolated between the samples around it."""

import numpy as np

from promql.annotations import Annotations
from promql.histogram.extended import smoothed_between
from promql.matrix import I64, Matrix, Steps
from promql.matrix_rows import non_empty
from promql.syntax.ast import Span
from promql.window.windows import without_stale
from tsdb.kernel import window as kernel
from tsdb.model.series import SeriesBatch


def smoothed(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps, span: Span, notes: Annotations) -> Matrix:
    """The value at each of ends_ms i64[k]; the newest one before where nothing follows within lookback_ms."""
    batch = without_stale(batch)
    shape = (len(batch), len(ends_ms))
    before, after = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    values, present = np.zeros(shape), np.empty(shape, bool)
    kernel.smoothed_samples(batch.offsets, batch.t_ms, batch.values, ends_ms, lookback_ms, before, after, values, present)
    if batch.histogram_at is None or batch.histograms is None:
        return non_empty(Matrix(batch.series, steps, values, present))
    series, step = np.nonzero(present)
    found = smoothed_between(batch, (before[series, step], after[series, step]), ends_ms[step], series, notes=notes, span=span)
    native = series[found.handled], step[found.handled]
    cells = np.full(shape, -1, np.int64)
    cells[native], values[native], present[native] = found.cells[found.handled], np.nan, found.present[found.handled]
    return non_empty(Matrix(batch.series, steps, values, present, found.histograms, cells))

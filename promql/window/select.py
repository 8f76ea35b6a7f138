"""Instant selectors: the newest sample of each series at each step, or the value interpolated there for `smoothed` ones."""

from dataclasses import replace

import numpy as np

from promql.histogram.samples import only_used
from promql.matrix import I64, Matrix, Steps
from promql.matrix_rows import non_empty
from tsdb.kernel import window as kernel
from tsdb.model.series import SeriesBatch


def latest(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps) -> Matrix:
    """The newest sample in (end - lookback_ms, end] of each step, none behind a stale marker; series without any go."""
    if batch.histogram_at is None or batch.histograms is None:
        return non_empty(_latest(batch, ends_ms, lookback_ms, steps, tell_rows=False)[1])
    rows, matrix = _latest(batch, ends_ms, lookback_ms, steps)
    histograms, cells = only_used(batch.histograms, np.where(matrix.present, batch.histogram_at[rows], -1))
    values = np.where(cells >= 0, np.nan, matrix.values)
    return non_empty(Matrix(matrix.series, steps, values, matrix.present, histograms, cells))


def latest_times(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps) -> Matrix:
    """The time in seconds of each sample that `latest` gives."""
    rows, matrix = _latest(batch, ends_ms, lookback_ms, steps)
    return non_empty(Matrix(matrix.series, steps, batch.t_ms[rows] / 1000.0, matrix.present))


def latest_stamped(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps) -> Matrix:
    """What `latest` gives, with the time of each sample in milliseconds in place of its float."""
    samples, times = latest(batch, ends_ms, lookback_ms, steps), latest_times(batch, ends_ms, lookback_ms, steps)
    return replace(samples, values=times.values * 1000)


def latest_starts(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps) -> Matrix:
    """The start timestamp in seconds of each sample that `latest` gives, 0 where unknown."""
    rows, matrix = _latest(batch, ends_ms, lookback_ms, steps)
    starts_ms = np.zeros(len(batch.t_ms), np.int64) if batch.start_ms is None else batch.start_ms
    return non_empty(Matrix(matrix.series, steps, starts_ms[rows] / 1000.0, matrix.present))


def _latest(batch: SeriesBatch, ends_ms: I64, lookback_ms: int, steps: Steps, *, tell_rows: bool = True) -> tuple[I64, Matrix]:
    """(row i64[n, k] of each sample, 0 where absent, if they are to be told; the values)."""
    n, k = len(batch), len(ends_ms)
    rows, values, present = np.empty((n if tell_rows else 0, k), np.int64), np.empty((n, k)), np.empty((n, k), bool)
    bits = np.ascontiguousarray(batch.values).view(np.uint64)
    kernel.latest_samples(batch.offsets, batch.t_ms, batch.values, bits, ends_ms, lookback_ms, rows, values, present)
    if batch.samples == 0:
        return rows, Matrix.empty(steps)
    return np.maximum(rows, 0), Matrix(batch.series, steps, values, present)

"""Selectors read from storage, a batch of series at a time: instant ones as they are, ranges through a function over time."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.answer import START_TIMESTAMPS
from promql.ast import MatrixSelector, Subquery, VectorSelector
from promql.evaluation import Evaluation, hold, map_batches, select
from promql.matrix import I64, Matrix, Steps
from promql.matrix_rows import concat_matrices
from promql.measure import counted_cells, counted_windows
from promql.names import mark
from promql.plan import duration_ms
from promql.raw import concat_batches, in_window
from promql.resolution import read_for_instant, read_for_range
from promql.select import latest, latest_stamped, latest_starts, latest_times
from promql.smoothing import smoothed
from promql.window import RangeCall, over_time
from promql.windows import Windows, without_stale
from tsdb.model.series import SeriesBatch

SAMPLE_TIMES = {"timestamp": latest_times, "start_timestamp": latest_starts}
"""Functions about the samples that a selector finds, not their values."""


def read_instant(ev: Evaluation, selector: VectorSelector, steps: Steps) -> Iterator[Matrix]:
    """The newest sample of each series at each step, or the interpolated value of a `smoothed` selector."""
    ends_ms, lookback_ms = ends_of(selector, steps.ms), ev.options.lookback_ms

    def work(batch: SeriesBatch, notes: Annotations, _: Executor | None) -> Matrix:
        if selector.smoothed:
            return smoothed(batch, ends_ms, lookback_ms, steps, selector.span, notes)
        return latest(batch, ends_ms, lookback_ms, steps)

    beyond_ms = lookback_ms if selector.smoothed else 0
    start_ms, end_ms = int(ends_ms[0]) - lookback_ms + 1, int(ends_ms[-1]) + beyond_ms + 1
    read = read_for_instant(lookback_ms=lookback_ms, limit_ms=ev.options.resolution_ms)
    batches = select(ev, selector, start_ms=start_ms, end_ms=end_ms, read=read)
    yield from counted_cells(ev, map_batches(ev, batches, work, steps))


def read_times(ev: Evaluation, func: str, selector: VectorSelector, steps: Steps) -> Iterator[Matrix]:
    """A function of SAMPLE_TIMES. Without the feature there are no start timestamps."""
    if func == "start_timestamp" and START_TIMESTAMPS not in ev.options.features:
        return
    ends_ms, lookback_ms = ends_of(selector, steps.ms), ev.options.lookback_ms
    batches = select(ev, selector, start_ms=int(ends_ms[0]) - lookback_ms + 1, end_ms=int(ends_ms[-1]) + 1)
    times = (mark(SAMPLE_TIMES[func](batch, ends_ms, lookback_ms, steps)) for batch in batches)
    yield from counted_cells(ev, times)


def read_stamped(ev: Evaluation, selector: VectorSelector, ends_ms: I64, steps: Steps) -> Matrix:
    """The newest samples at ends_ms i64[k], floats replaced by their times in milliseconds."""
    lookback_ms = ev.options.lookback_ms
    batches = select(ev, selector, start_ms=int(ends_ms[0]) - lookback_ms + 1, end_ms=int(ends_ms[-1]) + 1)
    found = counted_cells(ev, (latest_stamped(batch, ends_ms, lookback_ms, steps) for batch in batches))
    return concat_matrices([*found] or [Matrix.empty(steps)])


def read_range(ev: Evaluation, call: RangeCall, selector: VectorSelector, windows: Windows) -> Iterator[Matrix]:
    """A function over the windows of a range selector."""
    limit_ms = ev.options.resolution_ms
    if call.func == "avg_over_time" and read_for_range("sum_over_time", range_ms=windows.range_ms, limit_ms=limit_ms).resolution_ms:
        yield _mean(ev, call, selector, windows)
        return
    read = read_for_range(call.func, range_ms=windows.range_ms, limit_ms=limit_ms)
    call = replace(call, func=read.func)

    def work(batch: SeriesBatch, notes: Annotations, executor: Executor | None) -> Matrix:
        return over_time(call, batch, windows, notes, executor)

    batches = select(ev, selector, start_ms=windows.start_ms, end_ms=windows.end_ms, read=read)
    yield from map_batches(ev, counted_windows(ev, batches, windows), work, windows.steps)


def read_raw(ev: Evaluation, selector: VectorSelector, windows: Windows) -> SeriesBatch:
    """The samples of a range selector in its one window."""
    batches = counted_windows(ev, select(ev, selector, start_ms=windows.start_ms, end_ms=windows.end_ms), windows)
    return concat_batches([in_window(without_stale(batch), windows) for batch in batches])


def windows_of(ev: Evaluation, selector: MatrixSelector | Subquery, steps: Steps) -> Windows:
    """The windows of a range selector at the steps."""
    range_ms = duration_ms(selector.range)
    if isinstance(selector, Subquery):
        return Windows(steps, ends_of(selector, steps.ms), range_ms)
    inside = selector.selector
    return Windows(steps, ends_of(inside, steps.ms), range_ms, ev.options.lookback_ms, inside.anchored, inside.smoothed)


def ends_of(selector: VectorSelector | Subquery, at_ms: I64) -> I64:
    """i64[k]: the time that a selector is about at each of at_ms, by its `@` and offset."""
    offset_ms = duration_ms(selector.offset)
    if selector.at is not None and selector.at.at_ms is not None:
        return np.full(len(at_ms), selector.at.at_ms - offset_ms, np.int64)
    return at_ms - offset_ms


def _mean(ev: Evaluation, call: RangeCall, selector: VectorSelector, windows: Windows) -> Matrix:
    """`avg_over_time` where downsampled data may answer: the sum of sums by the sum of counts."""
    sums, counts = (
        _whole(ev, read_range(ev, replace(call, func=func), selector, windows), windows.steps)
        for func in ("sum_over_time", "count_over_time")
    )
    return replace(sums, values=np.divide(sums.values, counts.values, where=sums.present, out=np.zeros_like(sums.values)))


def _whole(ev: Evaluation, matrices: Iterator[Matrix], steps: Steps) -> Matrix:
    parts = []
    for matrix in matrices:
        hold(ev, matrix.values.size)
        parts.append(matrix)
    return concat_matrices(parts or [Matrix.empty(steps)])

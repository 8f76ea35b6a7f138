"""Selectors read from storage, a batch of series at a time: instant ones as they are, ranges through a function over time."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.answer import START_TIMESTAMPS
from promql.downsampled import as_points, columns_for, note_approximated
from promql.evaluation import Evaluation, hold, map_batches, select
from promql.matrix import I64, Matrix, Steps
from promql.matrix_rows import concat_matrices
from promql.measure import counted_cells, counted_windows
from promql.names import mark
from promql.pieces import instant_pieces, range_pieces
from promql.plan import duration_ms
from promql.resolution import INSTANT, RAW, Read, Use, read_for
from promql.syntax.ast import MatrixSelector, Subquery, VectorSelector
from promql.window.floats import EXTRAPOLATED, PICKS
from promql.window.over_time import RangeCall, over_time
from promql.window.raw import concat_batches, in_window
from promql.window.select import latest, latest_stamped, latest_starts, latest_times
from promql.window.smoothing import smoothed
from promql.window.windows import Windows, without_stale
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Grid

SAMPLE_TIMES = {"timestamp": latest_times, "start_timestamp": latest_starts}
"""Functions about the samples that a selector finds, not their values."""
ONE_TIME_MS = 1 << 50
"""A grid so wide has one time in every selection."""


def read_instant(ev: Evaluation, selector: VectorSelector, steps: Steps) -> Iterator[Matrix]:
    """The newest sample of each series at each step, or the interpolated value of a `smoothed` selector."""
    ends_ms = ends_of(selector, steps.ms)

    def work(batch: SeriesBatch, notes: Annotations, _: Executor | None) -> Matrix:
        points, lookback_ms = _points(ev, batch, read, selector, notes)
        if selector.smoothed:
            return smoothed(points, ends_ms, lookback_ms, steps, selector.span, notes)
        return latest(points, ends_ms, lookback_ms, steps)

    read = read_for(Use(INSTANT, ends_ms, bent=selector.smoothed), ev.options, query_step_ms(ev))
    batches = instant_pieces(_select_instant(ev, selector, ends_ms, read), steps)
    yield from counted_cells(ev, map_batches(ev, batches, work, steps))


def read_times(ev: Evaluation, func: str, selector: VectorSelector, steps: Steps) -> Iterator[Matrix]:
    """A function of SAMPLE_TIMES. Without the feature there are no start timestamps."""
    if func == "start_timestamp" and START_TIMESTAMPS not in ev.options.features:
        return
    ends_ms = ends_of(selector, steps.ms)
    read = RAW if func == "start_timestamp" else read_for(Use(INSTANT, ends_ms), ev.options, query_step_ms(ev))
    found = (_points(ev, batch, read, selector, ev.notes) for batch in _select_instant(ev, selector, ends_ms, read))
    times = (mark(SAMPLE_TIMES[func](points, ends_ms, lookback_ms, steps)) for points, lookback_ms in found)
    yield from counted_cells(ev, times)


def read_stamped(ev: Evaluation, selector: VectorSelector, ends_ms: I64, steps: Steps) -> Matrix:
    """The newest samples at ends_ms i64[k], floats replaced by their times in milliseconds."""
    read = read_for(Use(INSTANT, ends_ms), ev.options, query_step_ms(ev))
    found = (_points(ev, batch, read, selector, ev.notes) for batch in _select_instant(ev, selector, ends_ms, read))
    stamped = counted_cells(ev, (latest_stamped(points, ends_ms, lookback_ms, steps) for points, lookback_ms in found))
    return concat_matrices([*stamped] or [Matrix.empty(steps)])


def read_range(ev: Evaluation, call: RangeCall, selector: VectorSelector, windows: Windows) -> Iterator[Matrix]:
    """A function over the windows of a range selector."""
    use = Use(call.func, windows.ends_ms, windows.range_ms, bent=windows.anchored or windows.smoothed)
    read = read_for(use, ev.options, query_step_ms(ev))

    def work(batch: SeriesBatch, notes: Annotations, executor: Executor | None) -> Matrix:
        note_approximated(call.func, batch, read, selector.span, notes)
        return over_time(call, batch, windows, notes, executor)

    columns = columns_for(call.func)
    start_ms, end_ms, grid = windows.start_ms, windows.end_ms, _windows_grid(windows)
    batches = select(ev, selector, start_ms=start_ms, end_ms=end_ms, read=read, columns=columns, grid=grid)
    pieces = range_pieces(batches, windows, once=call.func in EXTRAPOLATED or call.func in PICKS)
    yield from map_batches(ev, counted_windows(ev, pieces, windows), work, windows.steps)


def read_raw(ev: Evaluation, selector: VectorSelector, windows: Windows) -> SeriesBatch:
    """The samples of a range selector in its one window."""
    batches = counted_windows(ev, select(ev, selector, start_ms=windows.start_ms, end_ms=windows.end_ms), windows)
    return concat_batches([in_window(without_stale(batch), windows) for batch in batches])


def read_batches(ev: Evaluation, selector: VectorSelector, windows: Windows) -> Iterator[SeriesBatch]:
    """The raw samples of all windows, for functions that are not ours."""
    if windows.anchored or windows.smoothed:
        raise QueryFailed("anchored and smoothed modifiers cannot be used with a user's function")
    for batch in select(ev, selector, start_ms=windows.start_ms, end_ms=windows.end_ms):
        hold(ev, batch.samples)
        yield batch
        ev.held -= batch.samples


def windows_of(ev: Evaluation, selector: MatrixSelector | Subquery, steps: Steps) -> Windows:
    """The windows of a range selector at the steps."""
    range_ms = duration_ms(selector.range)
    if isinstance(selector, Subquery):
        return Windows(steps, ends_of(selector, steps.ms), range_ms)
    inside = selector.selector
    return Windows(steps, ends_of(inside, steps.ms), range_ms, ev.options.lookback_ms, inside.anchored, inside.smoothed)


def query_step_ms(ev: Evaluation) -> int:
    """The step of the query, 0 of an instant one."""
    return 0 if ev.query.start_ms == ev.query.end_ms else ev.query.step_ms


def ends_of(selector: VectorSelector | Subquery, at_ms: I64) -> I64:
    """i64[k]: the time that a selector is about at each of at_ms, by its `@` and offset, held in MIN_MS..MAX_MS."""
    offset_ms = min(max(duration_ms(selector.offset), MIN_MS // 2), MAX_MS // 2)
    if selector.at is not None and selector.at.at_ms is not None:
        return np.full(len(at_ms), min(max(selector.at.at_ms - offset_ms, MIN_MS), MAX_MS), np.int64)
    ends_ms = at_ms - offset_ms
    return ends_ms if ends_ms[0] >= MIN_MS and ends_ms[-1] <= MAX_MS else np.clip(ends_ms, MIN_MS, MAX_MS)


def _select_instant(ev: Evaluation, selector: VectorSelector, ends_ms: I64, read: Read) -> Iterator[SeriesBatch]:
    """All samples that any of ends_ms can see: also those in windows longer than the lookback, where such may answer."""
    lookback_ms = ev.options.lookback_ms
    reach_ms = max(lookback_ms, read.fallback_ms if read.fallback_ms > read.exact_ms else 0)
    beyond_ms = lookback_ms if selector.smoothed else 0
    start_ms, end_ms = int(ends_ms[0]) - reach_ms + 1, int(ends_ms[-1]) + beyond_ms + 1
    grid = None if selector.smoothed else _grid(ends_ms)
    return select(ev, selector, start_ms=start_ms, end_ms=end_ms, read=read, columns=columns_for(INSTANT), grid=grid)


def _grid(ends_ms: I64) -> Grid | None:
    """The grid that the times are of; None where they are not evenly apart, as when some lie at the edge of all time."""
    first_ms, last_ms = int(ends_ms[0]), int(ends_ms[-1])
    if first_ms == last_ms:
        return Grid(last_ms, ONE_TIME_MS)
    every_ms = int(ends_ms[1]) - first_ms
    return Grid(first_ms, every_ms) if first_ms + every_ms * (len(ends_ms) - 1) == last_ms else None


def _windows_grid(windows: Windows) -> Grid | None:
    """The grid from which all samples of the windows are seen; None where they cover over three quarters of the time: to choose
    takes longer than to copy a sample."""
    grid = None if windows.anchored or windows.smoothed else _grid(windows.ends_ms)
    if grid is None or grid.every_ms == ONE_TIME_MS or not 0 < 4 * windows.range_ms <= 3 * grid.every_ms:
        return None
    return replace(grid, range_ms=windows.range_ms)


def _points(
    ev: Evaluation, batch: SeriesBatch, read: Read, selector: VectorSelector, notes: Annotations
) -> tuple[SeriesBatch, int]:
    """(the newest samples as raw ones, the lookback in ms): at least a window where the windows do not end at the steps."""
    note_approximated(INSTANT, batch, read, selector.span, notes)
    rough_ms = batch.resolution_ms if batch.resolution_ms > read.exact_ms else 0
    return as_points(batch), max(ev.options.lookback_ms, rough_ms)

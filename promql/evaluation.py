"""One evaluation of a plan under way: what it reads from, may use, has noted and has counted so far."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from promql.annotations import Annotations
from promql.answer import START_TIMESTAMPS, NodeStats, QueryOptions, QueryStats, ReadStats
from promql.histogram.window import with_reset_hints, without_buckets
from promql.matrix import Matrix, Scalar, Steps, Value
from promql.plan import Plan
from promql.resolution import RAW, Read
from promql.syntax.ast import Expr, VectorSelector
from tsdb.model.errors import LimitExceeded
from tsdb.model.histogram import COUNTER_RESET, UNKNOWN_RESET, Histograms
from tsdb.model.series import SeriesBatch
from tsdb.model.source import Grid, Selection, Source
from tsdb.model.work import Pending, submit

HELD_BYTES = 24
"""What a sample or cell with what is made beside it takes at most."""

Number = TypeVar("Number", bound=np.generic)

Work = Callable[[SeriesBatch, Annotations, Executor | None], Matrix]
"""What is done to one batch; with an executor it may share its own work among threads."""


@dataclass(frozen=True, slots=True)
class _BatchAtWork:
    """A batch on a thread, with notes of its own and what it holds."""

    value: Pending[Matrix]
    notes: Annotations
    size: int


@dataclass(slots=True)
class Evaluation:
    """The state of one query.

    `held` counts the samples and cells of all values under way, `kept` those of the memo: shared nodes' values by their steps.
    """

    source: Source
    plan: Plan
    query: Steps
    options: QueryOptions
    notes: Annotations
    deadline: Callable[[], None] | None = None
    executor: Executor | None = None
    clock: Callable[[], float] | None = None
    stats: QueryStats = field(default_factory=QueryStats)
    held: int = 0
    kept: int = 0
    memo: dict[tuple[Expr, Steps], Value] = field(default_factory=dict)
    node: NodeStats | None = None
    measured: dict[tuple[Expr, Steps], NodeStats] = field(default_factory=dict)
    counting: bool = True
    """Whether the samples that selectors look at are counted; not inside a subquery, whose own samples are."""


def check_deadline(ev: Evaluation) -> None:
    """Raises what the deadline raises: QueryTimeout or QueryCanceled."""
    if ev.deadline is not None:
        ev.deadline()


def hold(ev: Evaluation, samples: int) -> None:
    """Count samples as held. LimitExceeded when they are too many."""
    ev.held += samples
    held = ev.held + ev.kept
    ev.stats.peak_samples = max(ev.stats.peak_samples, held)
    if held > ev.options.max_samples:
        raise LimitExceeded(
            "query processing would load too many samples into memory in query execution: "
            f"{held} samples, the limit is {ev.options.max_samples} (max_samples)"
        )
    if held * HELD_BYTES > ev.options.max_memory_bytes:
        raise LimitExceeded(
            f"the query needs about {held * HELD_BYTES} bytes of memory, the limit is {ev.options.max_memory_bytes} "
            "(max_query_memory_bytes)"
        )


def told(ev: Evaluation) -> int:
    """How often something was noted. What told nothing may be kept: notes name a place, and each place tells its own."""
    return ev.notes.count


def keep(ev: Evaluation, expr: Expr, steps: Steps, value: Value) -> None:
    """Remember the value of a shared node for its other places."""
    ev.memo[expr, steps] = value
    ev.kept += size_of(value)


def size_of(value: Value) -> int:
    """The cells of a value, native histograms counted as so many as fit in their room."""
    if isinstance(value, str):
        return 0
    return len(value.values) if isinstance(value, Scalar) else value.values.size + _weight(value.histograms)


def select(
    ev: Evaluation,
    selector: VectorSelector,
    *,
    start_ms: int,
    end_ms: int,
    read: Read = RAW,
    columns: tuple[str, ...] | None = None,
    grid: Grid | None = None,
) -> Iterator[SeriesBatch]:
    """The series of a selector with samples in [start_ms, end_ms), counted, warnings noted, reset hints completed; of windows
    the named columns, of samples perhaps only those seen from a grid.

    Series of histograms may begin up to the lookback earlier: whether the first one is a reset shows in the one before it.
    """
    selection = Selection(selector.matchers, start_ms, end_ms, read.resolution_ms, read.fallback_ms, columns, grid)
    told_of = ReadStats(selection)
    if ev.node is not None:
        ev.node.reads.append(told_of)
    batches = ev.source.select(selection)
    first = next(batches, None)
    if first is None:
        return
    if begins_unknown(first):
        batches = ev.source.select(replace(selection, start_ms=start_ms - ev.options.lookback_ms))
    else:
        batches = chain([first], batches)
    summed = selector in ev.plan.summaries
    for batch in batches:
        check_deadline(ev)
        ev.notes.pass_on(batch.warnings)
        ev.stats.samples += batch.samples
        ev.stats.series += len(batch)
        told_of.batches += 1
        told_of.series += len(batch)
        told_of.samples += batch.samples
        if ev.stats.series > ev.options.max_series:
            raise LimitExceeded(
                f"the query selects more than {ev.options.max_series} series, which is the limit (max_series, max_fetched_series)"
            )
        if len(batch):
            batch = with_reset_hints(_prepared(ev, batch), COUNTER_RESET if summed else UNKNOWN_RESET)
            yield without_buckets(batch) if summed else batch


def _prepared(ev: Evaluation, batch: SeriesBatch) -> SeriesBatch:
    """The batch with plain columns, for a kernel is compiled anew for strided or read-only ones; start timestamps if wanted."""
    if batch.start_ms is None and all(map(_is_plain, (batch.offsets, batch.t_ms, batch.values))):
        return batch
    start_ms = batch.start_ms if START_TIMESTAMPS in ev.options.features else None
    return replace(
        batch,
        offsets=_plain(batch.offsets),
        t_ms=_plain(batch.t_ms),
        values=_plain(batch.values),
        start_ms=None if start_ms is None else _plain(start_ms),
    )


def _plain(column: npt.NDArray[Number]) -> npt.NDArray[Number]:
    return column if _is_plain(column) else column.copy()


def _is_plain(column: npt.NDArray[Number]) -> bool:
    return column.flags.c_contiguous and column.flags.writeable


def begins_unknown(batch: SeriesBatch) -> bool:
    """Whether a series begins with a histogram without a reset hint."""
    if batch.histograms is None or batch.histogram_at is None:
        return False
    at = batch.histogram_at[batch.offsets[:-1][np.diff(batch.offsets) > 0]]
    return bool(np.any(batch.histograms.hint[at[at >= 0]] == UNKNOWN_RESET))


def map_batches(ev: Evaluation, batches: Iterator[SeriesBatch], work: Work, steps: Steps) -> Iterator[Matrix]:
    """`work` on every batch, to a value at the steps, in order.

    With an executor on its threads: several batches side by side, or parts of the only one.
    """
    first, second = next(batches, None), next(batches, None) if ev.executor is not None else None
    if first is None:
        return
    if ev.executor is None or second is None:
        for batch in chain([first], batches):
            size = _hold_batch(ev, batch, steps)
            matrix = work(batch, ev.notes, ev.executor)
            ev.held -= size
            yield matrix
        return
    waiting: deque[_BatchAtWork] = deque()
    for batch in chain([first, second], batches):
        if len(waiting) == ev.options.parallel_batches:
            yield _finish(ev, waiting.popleft())
        size, notes = _hold_batch(ev, batch, steps), Annotations(ev.notes.query)
        waiting.append(_BatchAtWork(submit(ev.executor, partial(work, batch, notes, None)), notes, size))
    while waiting:
        yield _finish(ev, waiting.popleft())


def _hold_batch(ev: Evaluation, batch: SeriesBatch, steps: Steps) -> int:
    """Count the samples of a batch and the cells that they will become as held."""
    size = batch.samples + len(batch) * len(steps) + _weight(batch.histograms)
    hold(ev, size)
    return size


def _weight(histograms: Histograms | None) -> int:
    """The room of native histograms in samples."""
    return 0 if histograms is None else histograms.size_bytes // HELD_BYTES


def _finish(ev: Evaluation, batch: _BatchAtWork) -> Matrix:
    matrix = batch.value.result()
    ev.notes.take(batch.notes)
    ev.held -= batch.size
    return matrix

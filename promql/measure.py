"""What the nodes of a query take: their time, their reads, and the samples that their selectors look at on each step.

All of it costs something, so it is done only where the evaluation was given a clock. Generators make this a matter of who is at
work: a node's time runs, and reads count as its own, only while its value or its next batch is being made.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from promql.answer import PER_STEP_STATS, NodeStats
from promql.evaluation import Evaluation
from promql.matrix import I64, Matrix, Steps, Value
from promql.syntax.ast import Aggregate, Binary, Call, Expr, Unary
from promql.window.windows import Windows, bounds, without_stale
from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesBatch

Made = TypeVar("Made", Value, SeriesBatch)

HISTOGRAM_BYTES, BUCKET_BYTES, SPAN_BYTES, SAMPLE_BYTES = 168, 8, 8, 16
"""Prometheus counts a native histogram as so many samples as its Go struct has room for."""


def measured(ev: Evaluation, expr: Expr, steps: Steps, compute: Callable[[], Made]) -> Made:
    """What `compute` makes, with a node of the statistics for it."""
    if ev.clock is None:
        return compute()
    node = _attach(ev, expr, steps)
    with _at_work(ev, node, ev.clock):
        value = compute()
    node.series = len(value) if isinstance(value, Matrix | SeriesBatch) else 0
    return value


def measured_stream(ev: Evaluation, expr: Expr, steps: Steps, matrices: Iterator[Matrix]) -> Iterator[Matrix]:
    """The same batches, with a node of the statistics for them, unless they make up the value that is being measured."""
    whole = ev.node is not None and ev.node.expr is expr and not ev.node.streamed
    if ev.clock is None or whole:
        yield from matrices
        return
    node = _attach(ev, expr, steps)
    node.streamed = True
    while True:
        with _at_work(ev, node, ev.clock):
            matrix = next(matrices, None)
        if matrix is None:
            return
        node.batches += 1
        node.series += len(matrix)
        yield matrix


def taken_again(ev: Evaluation, expr: Expr, steps: Steps) -> None:
    """Tell that the value of an equal expression is used once more."""
    if ev.clock is not None and ev.node is not None:
        node = NodeStats(name_of(expr), expr.span, expr=expr, steps=steps, again=ev.measured.get((expr, steps)))
        ev.node.parts.append(node)


def uncounted(ev: Evaluation, matrices: Iterator[Matrix]) -> Iterator[Matrix]:
    """The same batches; samples that are looked at in order to make them do not count."""
    while True:
        counting, ev.counting = ev.counting, False
        try:
            matrix = next(matrices, None)
        finally:
            ev.counting = counting
        if matrix is None:
            return
        yield matrix


def counted_cells(ev: Evaluation, matrices: Iterator[Matrix]) -> Iterator[Matrix]:
    """The same batches of an instant selector, each present cell counted as a sample looked at."""
    for matrix in matrices:
        if ev.clock is not None and ev.counting:
            counts = matrix.present.sum(axis=0, dtype=np.int64)
            if matrix.cells is not None and matrix.histograms is not None:
                native = matrix.natives
                weights = np.where(native, histogram_weights(matrix.histograms)[np.where(native, matrix.cells, 0)], 0)
                counts = matrix.floats.sum(axis=0, dtype=np.int64) + weights.sum(axis=0)
            _count(ev, counts)
        yield matrix


def counted_windows(ev: Evaluation, batches: Iterator[SeriesBatch], windows: Windows) -> Iterator[SeriesBatch]:
    """The same batches of a range selector, the samples in each window counted."""
    for batch in batches:
        if ev.clock is not None and ev.counting:
            count_windows(ev, batch, windows)
        yield batch


def count_windows(ev: Evaluation, batch: SeriesBatch, windows: Windows) -> None:
    """Count the samples in each window, stale markers left out."""
    if ev.clock is None or not ev.counting:
        return
    batch = without_stale(batch)
    inside = bounds(batch, windows)
    if batch.histogram_at is None or batch.histograms is None:
        _count(ev, inside.counts.sum(axis=0))
        return
    at = batch.histogram_at
    weights = np.where(at >= 0, histogram_weights(batch.histograms)[np.maximum(at, 0)], 1)
    before = np.concatenate([[0], np.cumsum(weights)])
    _count(ev, (before[inside.hi] - before[inside.lo]).sum(axis=0))


def histogram_weights(histograms: Histograms) -> I64:
    """i64[n]: as how many float samples each histogram counts (Prometheus's HPoint.size)."""
    size_bytes = np.full(len(histograms), HISTOGRAM_BYTES, np.int64) + BUCKET_BYTES * np.diff(histograms.bounds_offsets)
    for side in (histograms.positive, histograms.negative):
        breaks = np.ones(len(side.index), np.int64)
        breaks[1:] = np.diff(side.index) != 1
        breaks[side.offsets[:-1][np.diff(side.offsets) > 0]] = 1
        before = np.concatenate([[0], np.cumsum(breaks)])
        size_bytes += BUCKET_BYTES * np.diff(side.offsets) + SPAN_BYTES * (before[side.offsets[1:]] - before[side.offsets[:-1]])
    return np.asarray((size_bytes + 8) // SAMPLE_BYTES, np.int64)


def finish_stats(ev: Evaluation) -> None:
    """Fill in what follows from the nodes, once the value is made."""
    if ev.clock is None:
        return
    stats = ev.stats
    stats.evaluation_s = stats.root.seconds if stats.root is not None else 0.0
    stats.steps, stats.per_step = ev.query, queryable(stats.root, ev.query)
    stats.tell_steps = PER_STEP_STATS in ev.options.features


def queryable(root: NodeStats | None, steps: Steps) -> I64:
    """i64[k]: the samples looked at on each step, at all places; what has one value at all steps counts at each of them."""
    total = np.zeros(len(steps), np.int64)
    if root is None:
        return total
    node = root if root.again is None else root.again
    if node.counts is not None:
        total += node.counts
    for part in node.parts:
        if part.steps is not None and len(part.steps) in (1, len(steps)):
            total += queryable(part, part.steps)
    return total


def name_of(expr: Expr) -> str:
    """The function, operator or kind of a node."""
    match expr:
        case Call():
            return expr.func
        case Aggregate() | Binary() | Unary():
            return expr.op
        case _:
            return type(expr).__name__


def _attach(ev: Evaluation, expr: Expr, steps: Steps) -> NodeStats:
    node = NodeStats(name_of(expr), expr.span, expr=expr, steps=steps)
    ev.measured[expr, steps] = node
    if ev.node is None:
        ev.stats.root = node
    else:
        ev.node.parts.append(node)
    return node


@contextmanager
def _at_work(ev: Evaluation, node: NodeStats, clock: Callable[[], float]) -> Iterator[None]:
    above, began_s, ev.node = ev.node, clock(), node
    try:
        yield
    finally:
        node.seconds += clock() - began_s
        ev.node = above


def _count(ev: Evaluation, counts: I64) -> None:
    if ev.node is not None:
        ev.node.counts = counts if ev.node.counts is None else ev.node.counts + counts

"""Batches and matrices cut so that the work on one piece is short: between two of them a query can be stopped."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from promql.matrix import Matrix, Steps
from promql.window.windows import Windows
from tsdb.model.series import SeriesBatch

MAX_WORK = 32_000_000
"""Samples looked at, once for each window, and cells made for one piece: about ten milliseconds."""

MAX_CELLS = 2_000_000
"""Cells of a matrix looked at together where each is put in order among the others of its step: some tens of milliseconds."""


def step_slices(matrix: Matrix, check: Callable[[], None]) -> Iterator[slice]:
    """All steps of a matrix, in slices of at most MAX_CELLS cells and at least one step; `check` comes before each."""
    size = max(MAX_CELLS // max(len(matrix), 1), 1)
    for start in range(0, len(matrix.steps), size):
        check()
        yield slice(start, min(start + size, len(matrix.steps)))


def instant_pieces(batches: Iterator[SeriesBatch], steps: Steps) -> Iterator[SeriesBatch]:
    """The same series for an instant selector at the steps."""
    for batch in batches:
        yield from _cut(batch, batch.samples + len(batch) * len(steps))


def range_pieces(batches: Iterator[SeriesBatch], windows: Windows, *, once: bool) -> Iterator[SeriesBatch]:
    """The same series for a range selector; `once`: a function that looks at each sample once, in however many windows it is."""
    for batch in batches:
        yield from _cut(batch, batch.samples * (1.0 if once else windows.overlap) + len(batch) * len(windows.ends_ms))


def _cut(batch: SeriesBatch, work: float) -> Iterator[SeriesBatch]:
    count = min(len(batch), int(work // MAX_WORK) + 1)
    if count <= 1:
        yield batch
        return
    edges = np.linspace(0, len(batch), count + 1).astype(np.int64).tolist()
    yield from (batch.between(start, stop) for start, stop in pairwise(edges))

"""`NativeSums`: the histograms of an aggregation, added up for each group and step as batches arrive."""

from dataclasses import dataclass, field

import numpy as np

from promql.annotations import Annotations
from promql.histogram.arithmetic import Terms, combine, compact, mean
from promql.matrix import F64, I64, Bool, Matrix
from promql.syntax.ast import Aggregate
from promql.syntax.gotext import quote
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Histograms, concat_histograms
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import Strings

MAX_WAITING_BYTES = 48 << 20
"""Of histograms kept before they are added up, which takes as much once more."""
NEVER = np.iinfo(np.int64).max
"""The number of a series that has not come."""


@dataclass(slots=True)
class NativeSums:
    """Sums (or means) under way. Each waiting histogram belongs to a cell, group times steps plus step, and has a weight.

    Which notes Prometheus gives hangs on the order of series: one that fits not ends its cell, and behind a float in front no
    histogram is looked at. So waiting histograms have the number of their (first) series, and first_float i64[c] tells that of
    the first float in each cell. Batches without histograms do not come here; their floats count as the last.
    """

    node: Aggregate
    steps: int
    histograms: list[Histograms] = field(default_factory=list)
    cells: list[I64] = field(default_factory=list)
    weights: list[F64] = field(default_factory=list)
    names: list[Strings] = field(default_factory=list)
    numbers: list[I64] = field(default_factory=list)
    first_float: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    series: int = 0
    waiting_bytes: int = 0
    room_bytes: int = MAX_WAITING_BYTES
    incompatible: list[I64] = field(default_factory=list)
    incompatible_first: list[I64] = field(default_factory=list)
    """Those of the incompatible cells that were so before a float came."""
    incompatible_names: dict[str, None] = field(default_factory=dict)
    collided: list[I64] = field(default_factory=list)
    reconciled: bool = False

    @property
    def seen(self) -> bool:
        """Whether any histogram has come."""
        return len(self.histograms) > 0 or len(self.incompatible) > 0

    def add(self, batch: Matrix, group: I64) -> None:
        """Take the histograms of a batch; series i is of group[i]."""
        rows, steps = np.nonzero(batch.natives)
        if len(rows) == 0 or batch.cells is None or batch.histograms is None:
            return
        self._note_floats(batch, group)
        names, cells = batch.series.values(METRIC_NAME)[rows], group[rows] * self.steps + steps
        self._keep(batch.histograms.take(batch.cells[rows, steps]), cells, np.ones(len(rows)), names, self.series + rows)
        self.series += len(batch)
        if self.waiting_bytes > self.room_bytes:
            self._reduce()
            self.room_bytes = max(MAX_WAITING_BYTES, 2 * self.waiting_bytes)  # where most groups are single, adding up frees little

    def finish(self, groups: int, floats: Bool, notes: Annotations) -> tuple[I64, Histograms, Bool]:
        """(cells i64[g, k], histograms, which cells have both histograms and floats, which have none then).

        floats bool[g, k] says where the group has floats. What did not fit together is told in `notes`.
        """
        self._reduce()
        histograms, cells = concat_histograms(self.histograms), _joined(self.cells)
        all_cells = np.concatenate([cells, *self.incompatible])
        mixed = np.zeros(groups * self.steps, bool)
        mixed[all_cells] = floats.ravel()[all_cells]
        out = np.full(groups * self.steps, -1, np.int64)
        out[cells] = np.where(mixed[cells], -1, np.arange(len(cells)))
        self._tell(mixed, notes)
        return out.reshape(groups, self.steps), compact(histograms), mixed.reshape(groups, self.steps)

    def _note_floats(self, batch: Matrix, group: I64) -> None:
        size = (int(group.max()) + 1) * self.steps
        if size > len(self.first_float):
            self.first_float = np.concatenate([self.first_float, np.full(size - len(self.first_float), NEVER)])
        rows, steps = np.nonzero(batch.floats)
        np.minimum.at(self.first_float, group[rows] * self.steps + steps, self.series + rows)

    def _keep(self, histograms: Histograms, cells: I64, weights: F64, names: Strings, numbers: I64) -> None:
        self.histograms.append(histograms)
        self.cells.append(cells)
        self.weights.append(weights)
        self.names.append(names)
        self.numbers.append(numbers)
        self.waiting_bytes += histograms.size_bytes

    def _reduce(self) -> None:
        """Add up what waits, so that one histogram is left for each cell; those of incompatible cells go."""
        if not self.histograms:
            return
        cells, weights, names = np.concatenate(self.cells), np.concatenate(self.weights), np.concatenate(self.names)
        numbers, histograms = np.concatenate(self.numbers), concat_histograms(self.histograms)
        keep = np.flatnonzero(~np.isin(cells, _joined(self.incompatible)))
        order = keep[np.argsort(cells[keep], kind="stable")]
        used, starts = np.unique(cells[order], return_index=True)
        job = np.repeat(np.arange(len(used)), np.diff(np.append(starts, len(order))))
        ended, stops = _fitting(histograms.schema[order] == CUSTOM_BUCKETS_SCHEMA, starts, job)
        first, misfits = order[starts], order[stops[ended]]
        looked_at = numbers[first] < self.first_float[used]
        self.incompatible.append(used[ended])
        self.incompatible_first.append(used[ended][numbers[misfits] < self.first_float[used[ended]]])
        self.incompatible_names.update(dict.fromkeys(names[misfits[looked_at[ended]]].tolist()))
        means, rows = self.node.op == "avg", order[np.arange(len(order)) < stops[job]]
        offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        sums = (mean if means else combine)(histograms, Terms(offsets, rows, weights[rows] if means else np.ones(len(rows))))
        fit = ~ended
        self.reconciled |= bool((sums.reconciled & looked_at).any())
        self.collided.append(used[sums.collision & fit])
        self.histograms, self.cells, self.weights, self.names, self.numbers, self.waiting_bytes = [], [], [], [], [], 0
        if fit.any():
            weight = np.add.reduceat(weights[order], starts)[fit]
            self._keep(sums.histograms.take(np.flatnonzero(fit)), used[fit], weight, names[first[fit]], numbers[first[fit]])

    def _tell(self, mixed: Bool, notes: Annotations) -> None:
        span = self.node.expr.span
        told = mixed.copy()
        told[_joined(self.incompatible_first)] = False
        if told.any():
            notes.warn("encountered a mix of histograms and floats for aggregation", span)
        for name in self.incompatible_names:
            text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
            notes.warn(f"{text} {quote(name)}", span)
        if self.reconciled:
            notes.info("mismatched custom buckets were reconciled during aggregation", span)
        if not mixed[_joined(self.collided)].all():
            notes.warn("conflicting counter resets during histogram aggregation", span)


def _fitting(custom: Bool, starts: I64, job: I64) -> tuple[Bool, I64]:
    """(jobs bool[j] that mix exponential and custom buckets, i64[j] the first term of each that is not of the kind of its first, or
    its end). Terms are in the order of their jobs, job i64[t], which begin at starts i64[j].
    """
    other = np.flatnonzero(custom != custom[starts][job])
    jobs, first = np.unique(job[other], return_index=True)
    ended, stops = np.zeros(len(starts), bool), np.append(starts[1:], len(job))
    ended[jobs], stops[jobs] = True, other[first]
    return ended, stops


def _joined(cells: list[I64]) -> I64:
    return np.concatenate([*cells, np.empty(0, np.int64)])

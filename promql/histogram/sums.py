"""`NativeSums`: the histograms of an aggregation, added up for each group and step as batches arrive."""

from dataclasses import dataclass, field

import numpy as np

from promql.annotations import Annotations
from promql.histogram.arithmetic import Terms, combine, compact, mean
from promql.matrix import F64, I64, Bool, Matrix
from promql.syntax.ast import Aggregate
from promql.syntax.gotext import quote
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import Strings, strings

MAX_WAITING_BYTES = 48 << 20
"""Of histograms kept before they are added up, which takes as much once more."""


@dataclass(slots=True)
class NativeSums:
    """Sums (or means) under way. Each waiting histogram belongs to a cell, group times steps plus step, and has a weight."""

    node: Aggregate
    steps: int
    histograms: list[Histograms] = field(default_factory=list)
    cells: list[I64] = field(default_factory=list)
    weights: list[F64] = field(default_factory=list)
    names: list[Strings] = field(default_factory=list)
    waiting_bytes: int = 0
    room_bytes: int = MAX_WAITING_BYTES
    incompatible: list[I64] = field(default_factory=list)
    incompatible_names: dict[str, None] = field(default_factory=dict)
    reconciled: bool = False
    collided: bool = False

    @property
    def seen(self) -> bool:
        """Whether any histogram has come."""
        return len(self.histograms) > 0 or len(self.incompatible) > 0

    def add(self, batch: Matrix, group: I64) -> None:
        """Take the histograms of a batch; series i is of group[i]."""
        rows, steps = np.nonzero(batch.natives)
        if len(rows) == 0 or batch.cells is None or batch.histograms is None:
            return
        names = batch.series.values(METRIC_NAME)[rows]
        self._keep(batch.histograms.take(batch.cells[rows, steps]), group[rows] * self.steps + steps, np.ones(len(rows)), names)
        if self.waiting_bytes > self.room_bytes:
            self._reduce(np.empty(0, np.int64))
            self.room_bytes = max(MAX_WAITING_BYTES, 2 * self.waiting_bytes)  # where most groups are single, adding up frees little

    def finish(self, groups: int, floats: Bool, notes: Annotations) -> tuple[I64, Histograms, Bool]:
        """(cells i64[g, k], histograms, which cells have both histograms and floats, which have none then).

        floats bool[g, k] says where the group has floats. What did not fit together is told in `notes`.
        """
        all_cells = np.concatenate([*self.cells, *self.incompatible, np.empty(0, np.int64)])
        mixed = np.zeros(groups * self.steps, bool)
        mixed[all_cells] = floats.ravel()[all_cells]
        self._reduce(np.flatnonzero(mixed))
        out = np.full(groups * self.steps, -1, np.int64)
        histograms = concat_histograms(self.histograms)
        if len(histograms):
            out[np.concatenate(self.cells)] = np.arange(len(histograms))
        out[np.concatenate([*self.incompatible, np.empty(0, np.int64)])] = -1
        self._tell(mixed, notes)
        return out.reshape(groups, self.steps), compact(histograms), mixed.reshape(groups, self.steps)

    def _keep(self, histograms: Histograms, cells: I64, weights: F64, names: Strings) -> None:
        self.histograms.append(histograms)
        self.cells.append(cells)
        self.weights.append(weights)
        self.names.append(names)
        self.waiting_bytes += histograms.size_bytes

    def _reduce(self, without: I64) -> None:
        """Add up what waits, so that one histogram is left for each cell; drop the cells `without`."""
        if not self.histograms:
            return
        cells, weights, names = np.concatenate(self.cells), np.concatenate(self.weights), np.concatenate(self.names)
        keep = np.flatnonzero(~np.isin(cells, without))
        order = keep[np.argsort(cells[keep], kind="stable")]
        used, starts = np.unique(cells[order], return_index=True)
        means = self.node.op == "avg"
        terms = Terms(np.append(starts, len(order)).astype(np.int64), order, weights[order] if means else np.ones(len(order)))
        sums = (mean if means else combine)(concat_histograms(self.histograms), terms)
        first_names = names[order][starts] if len(order) else strings([])
        self.reconciled |= bool((sums.reconciled & ~sums.incompatible).any())
        self.collided |= bool((sums.collision & ~sums.incompatible).any())
        self.incompatible.append(used[sums.incompatible])
        self.incompatible_names.update(dict.fromkeys(first_names[sums.incompatible].tolist()))
        self.histograms, self.cells, self.weights, self.names, self.waiting_bytes = [], [], [], [], 0
        if len(used):
            self._keep(sums.histograms, used, np.add.reduceat(weights[order], starts), first_names)

    def _tell(self, mixed: Bool, notes: Annotations) -> None:
        span = self.node.expr.span
        if mixed.any():
            notes.warn("encountered a mix of histograms and floats for aggregation", span)
        for name in self.incompatible_names:
            text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
            notes.warn(f"{text} {quote(name)}", span)
        if self.reconciled:
            notes.info("mismatched custom buckets were reconciled during aggregation", span)
        if self.collided:
            notes.warn("conflicting counter resets during histogram aggregation", span)

"""Aggregation operators: many series to one for each group, step by step, in the order of the series as Prometheus does.

The operators of one number for each group run over batches (`Accumulator`), so that `sum(rate(x[5m]))` over a million series
holds one batch and one result. The others choose among all series or need all values at once (`promql.operators.aggregate_whole`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from promql.annotations import Annotations
from promql.histogram.sums import NativeSums
from promql.matrix import F64, I64, Bool, Matrix, Scalar, Steps
from promql.matrix_rows import non_empty
from promql.operators.aggregate_whole import count_values, limit_count, limit_ratio, quantile, top
from promql.operators.grouping import GroupNumbers
from promql.syntax.ast import Aggregate
from tsdb.kernel import aggregate as kernel

FOLDS = {
    "sum": (kernel.SUM, -0.0),
    "avg": (kernel.AVG, -0.0),
    "min": (kernel.MIN, np.nan),
    "max": (kernel.MAX, np.nan),
    "count": (kernel.COUNT, 0.0),
    "group": (kernel.COUNT, 0.0),
    "stddev": (kernel.VARIANCE, 0.0),
    "stdvar": (kernel.VARIANCE, 0.0),
}
"""The kernel's code of each operator that folds, and the total it starts from."""

COUNTS_ANYTHING = ("count", "group")
ADDS_HISTOGRAMS = ("sum", "avg")


def aggregate(
    node: Aggregate, value: Matrix, param: Scalar | str | None, notes: Annotations, check: Callable[[], None] = lambda: None
) -> Matrix:
    """The aggregation `node` of `value`; `param` is the evaluated parameter of topk, quantile, count_values and the like.

    `check` is called now and then where that takes long, and ends it by raising.

    Groups stand in the order of their first series; topk and bottomk of an instant query in the order of their values.
    QueryFailed for a parameter that is NaN or no int64.
    """
    if isinstance(param, str):
        return count_values(node, value, param)
    if param is None:
        accumulator = Accumulator.start(node, value.steps)
        accumulator.add(value)
        return accumulator.finish(notes)
    match node.op:
        case "quantile":
            return quantile(node, value, param.values, notes, check)
        case "topk" | "bottomk":
            return top(node, value, param.values, notes, check)
        case "limitk":
            return limit_count(node, value, param.values)
        case _:
            return limit_ratio(node, value, param.values, notes)


def folds(op: str) -> bool:
    """Whether an `Accumulator` can run the operator."""
    return op in FOLDS


@dataclass(slots=True)
class Accumulator:
    """One aggregation under way: batches go in, in the order of series, and the result comes out.

    count, total, rest f64[g, k] and mean bool[g, k] are the state of `tsdb.kernel.aggregate.fold`, with room for more groups than
    there are. Where the operator adds histograms they are in `natives`.
    """

    node: Aggregate
    steps: Steps
    groups: GroupNumbers
    count: F64
    total: F64
    rest: F64
    mean: Bool
    drop_name: Bool
    natives: NativeSums
    ignored: bool = False

    @classmethod
    def start(cls, node: Aggregate, steps: Steps) -> "Accumulator":
        none = np.empty((0, len(steps)))
        flags = np.empty((0, len(steps)), bool)
        return cls(node, steps, GroupNumbers(node), none, none, none, flags, np.empty(0, bool), NativeSums(node, len(steps)))

    def add(self, batch: Matrix) -> None:
        """Fold one batch of whole series in."""
        if len(batch) == 0:
            return
        group = self.groups.assign(batch.series)
        self._make_room(len(self.groups))
        if batch.drop_name is not None:
            self.drop_name[group[batch.drop_name & batch.present.any(axis=1)]] = True
        present = batch.present if self.node.op in COUNTS_ANYTHING else batch.floats
        if present is not batch.present:
            self._set_aside(batch, group)
        values = np.ascontiguousarray(batch.values)
        code = FOLDS[self.node.op][0]
        kernel.fold(code, group, values, np.ascontiguousarray(present), self.count, self.total, self.rest, self.mean)

    def finish(self, notes: Annotations) -> Matrix:
        """The result: one series for each group that has a sample."""
        size = len(self.groups)
        if self.ignored:
            notes.info(f"ignored histogram in {self.node.op} aggregation", self.node.expr.span)
        count, total, rest = self.count[:size], self.total[:size], self.rest[:size]
        with np.errstate(all="ignore"):
            values = _result(self.node.op, count, total, rest, self.mean[:size])
        drop = self.drop_name[:size]
        out = Matrix(self.groups.series(), self.steps, values, count > 0, drop_name=drop if drop.any() else None)
        return non_empty(self._with_natives(out, notes) if self.natives.seen else out)

    def _set_aside(self, batch: Matrix, group: I64) -> None:
        if self.node.op in ADDS_HISTOGRAMS:
            self.natives.add(batch, group)
        else:
            self.ignored = self.ignored or bool(batch.natives.any())

    def _with_natives(self, out: Matrix, notes: Annotations) -> Matrix:
        """The result with the groups' histograms; a group that has floats too at a step has neither there."""
        cells, histograms, mixed = self.natives.finish(len(out), out.present, notes)
        present = (out.present & ~mixed) | (cells >= 0)
        return replace(out, values=np.where(cells >= 0, np.nan, out.values), present=present, histograms=histograms, cells=cells)

    def _make_room(self, size: int) -> None:
        if size <= len(self.count):
            return
        more = max(size, len(self.count) * 5 // 4) - len(self.count)
        self.count = _extend(self.count, more, 0.0)
        self.total = _extend(self.total, more, FOLDS[self.node.op][1])
        self.rest = _extend(self.rest, more, 0.0)
        self.mean = np.concatenate([self.mean, np.zeros((more, len(self.steps)), bool)])
        self.drop_name = np.concatenate([self.drop_name, np.zeros(more, bool)])


def _extend(rows: F64, more: int, value: float) -> F64:
    return np.concatenate([rows, np.full((more, rows.shape[1]), value)])


def _result(op: str, count: F64, total: F64, rest: F64, mean: Bool) -> F64:
    match op:
        case "sum":
            return total + rest
        case "avg":
            return np.where(mean, total + rest, total / count + rest / count)
        case "count":
            return count.copy()
        case "group":
            return np.ones_like(count)
        case "stdvar":
            return rest / count
        case "stddev":
            return np.asarray(np.sqrt(rest / count))
        case _:
            return total.copy()

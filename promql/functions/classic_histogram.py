"""histogram_quantile, histogram_quantiles and histogram_fraction: over classic buckets (label `le`) and native histograms.

A classic histogram is all series that differ in `le` only. A step where it has buckets and a native histogram has the same
labels is ambiguous: it gives nothing but a warning.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from promql.annotations import Annotations
from promql.functions.label_columns import set_label
from promql.histogram.cells import fractions, quantiles
from promql.histogram.stats import for_metric
from promql.matrix import F64, I64, Bool, Matrix, Steps
from promql.matrix_rows import concat_matrices, non_empty
from promql.message_text import general, open_metrics, parse_float
from promql.names import mark, merge_equal
from promql.operators.aggregate_whole import warn_each_quantile
from promql.operators.set_operators import group_presence
from promql.syntax.ast import Call, Span
from promql.syntax.gotext import quote
from tsdb.kernel import classic
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable, concat_tables

MONOTONICITY = (
    "input to histogram_quantile needed to be fixed for monotonicity "
    "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)


@dataclass(frozen=True, slots=True)
class _Repair:
    """Counts that were made monotonic: of which buckets, by how much at most, how often, and when."""

    lowest: float
    highest: float
    difference: float
    samples: int
    first_ms: int
    last_ms: int

    def merge(self, other: "_Repair") -> "_Repair":
        return _Repair(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.difference, other.difference),
            self.samples + other.samples,
            min(self.first_ms, other.first_ms),
            max(self.last_ms, other.last_ms),
        )

    def __str__(self) -> str:
        return (
            f", from buckets {general(self.lowest)} to {general(self.highest)}, with a max diff of {self.difference:.2g}"
            f", over {self.samples} samples from {_rfc3339(self.first_ms)} to {_rfc3339(self.last_ms)}"
        )


@dataclass(frozen=True, slots=True)
class _Classics:
    """g classic histograms: `series` without le, buckets of i in rows starts[i]:starts[i+1] of upper f64[b], counts f64[b, k]."""

    series: SeriesTable
    starts: I64
    upper: F64
    counts: F64
    present: Bool


def histogram_quantile(node: Call, q: F64, vector: Matrix, notes: Annotations, *, named: bool) -> Matrix:
    """The q[j]-quantile of each histogram at step j. Notes of repairs tell the metric if it is `named`."""
    warn_each_quantile(q, node.args[0].span, notes)
    classics, natives = _split(vector, node.args[1].span, notes)
    return _quantile(q, classics, natives, node.args[1].span, notes, named=named)


def histogram_quantiles(node: Call, vector: Matrix, label: str, qs: list[F64], notes: Annotations, *, named: bool) -> Matrix:
    """Several quantiles at once, told apart by `label`."""
    for q, arg in zip(qs, node.args[2:], strict=True):
        warn_each_quantile(q, arg.span, notes)
    classics, natives = _split(vector, node.args[0].span, notes)
    parts = []
    for q in qs:
        out = _quantile(q, classics, natives, node.args[0].span, notes, named=named)
        for value in np.unique(q).tolist():
            there = out.present & ((q == value) | (np.isnan(q) & np.isnan(value)))
            series = set_label(out.series, label, [open_metrics(value)], np.zeros(len(out), np.int64))
            parts.append(non_empty(replace(out, series=series, present=there)))
    return merge_equal(concat_matrices(parts))


def histogram_fraction(node: Call, vector: Matrix, *, low: F64, high: F64, notes: Annotations) -> Matrix:
    """The share of each histogram's observations between low[j] and high[j] at step j."""
    classics, natives = _split(vector, node.args[2].span, notes)
    values, present, _ = _kernel(classics, low, high, fraction=True)
    native = fractions(natives, low=low, high=high, span=node.args[2].span, notes=notes)
    return _together(native, Matrix(classics.series, vector.steps, values, present))


def _quantile(q: F64, classics: _Classics, natives: Matrix, span: Span, notes: Annotations, *, named: bool) -> Matrix:
    values, present, repair = _kernel(classics, q, q, fraction=False)
    _tell_repairs(classics.series, repair, natives.steps, span, notes, named=named)
    native = quantiles(natives, q, span=span, notes=notes)
    return _together(native, Matrix(classics.series, natives.steps, values, present))


def _kernel(classics: _Classics, low: F64, high: F64, *, fraction: bool) -> tuple[F64, Bool, F64]:
    """What `tsdb.kernel.classic.buckets` gives; the copies make one signature of arrays of any kind."""
    edges = np.array(low, np.float64), np.array(high, np.float64)
    out: tuple[F64, Bool, F64] = classic.buckets(
        fraction, *edges, classics.starts, classics.upper, classics.counts, classics.present
    )
    return out


def _together(native: Matrix, classics: Matrix) -> Matrix:
    return mark(merge_equal(non_empty(concat_matrices([native, classics]))))


def _split(vector: Matrix, span: Span, notes: Annotations) -> tuple[_Classics, Matrix]:
    """The classic and the native histograms of a vector, without the steps where both are there."""
    classics = _collect(vector, span, notes)
    natives = non_empty(replace(vector, present=vector.natives))
    if len(natives) == 0 or len(classics.series) == 0:
        return classics, natives
    group, first = concat_tables([natives.series, classics.series]).group()
    native_group, classic_group = group[: len(natives)], group[len(natives) :]
    owner = np.repeat(np.arange(len(classics.series)), np.diff(classics.starts))
    there = group_presence(owner, classics.present, len(classics.series))
    clash = group_presence(native_group, natives.present, len(first)) & group_presence(classic_group, there, len(first))
    for row in np.flatnonzero((clash[native_group] & natives.present).any(axis=1)).tolist():
        notes.warn("vector contains a mix of classic and native histograms" + _of_metric(natives.series, row), span)
    classics = replace(classics, present=classics.present & ~clash[classic_group][owner])
    return classics, non_empty(replace(natives, present=natives.present & ~clash[native_group]))


def _collect(vector: Matrix, span: Span, notes: Annotations) -> _Classics:
    """The series with a bucket bound, ordered by histogram and bound; those without a readable one are told of."""
    floats = vector.floats
    used, which = np.unique(vector.series.column("le"), return_inverse=True)
    bounds = [parse_float(text) for text in vector.series.texts(used)]
    upper = np.array([np.nan if bound is None else bound for bound in bounds])[which]
    readable = np.array([bound is not None for bound in bounds], bool)[which]
    seen = floats.any(axis=1)
    for row in np.flatnonzero(seen & ~readable).tolist():
        text = quote(str(vector.series.values("le")[row]))
        notes.warn(f'bucket label "le" is missing or has a malformed value of {text}' + _of_metric(vector.series, row), span)
    rows = np.flatnonzero(seen & readable)
    labels = vector.series.take(rows).drop(["le"])
    group, first = labels.group()
    order = np.lexsort((upper[rows], group))
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(first)))]).astype(np.int64)
    rows = rows[order]
    values = np.ascontiguousarray(vector.values[rows])
    return _Classics(labels.take(first), starts, upper[rows], values, np.ascontiguousarray(floats[rows]))


def _tell_repairs(series: SeriesTable, repair: F64, steps: Steps, span: Span, notes: Annotations, *, named: bool) -> None:
    """One info for each metric whose counts had to be made monotonic: where, by how much, how often."""
    rows = np.flatnonzero(repair[:, classic.STEPS])
    names, which = np.unique(series.column(METRIC_NAME)[rows], return_inverse=True)
    for i in range(len(names)):
        mine = repair[rows[which == i]]
        first, last = int(mine[:, classic.FIRST].min()), int(mine[:, classic.LAST].max())
        detail = _Repair(
            mine[:, classic.LOWEST].min(),
            mine[:, classic.HIGHEST].max(),
            mine[:, classic.DIFFERENCE].max(),
            int(mine[:, classic.STEPS].sum()),
            steps.start_ms + first * steps.step_ms,
            steps.start_ms + last * steps.step_ms,
        )
        notes.info(MONOTONICITY + (_of_metric(series, int(rows[which == i][0])) if named else ""), span, detail)


def _rfc3339(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_metric(series: SeriesTable, row: int) -> str:
    return for_metric(series.labels(row).get(METRIC_NAME))

"""Aggregations that choose among all series of a group or need all their values at once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from promql.annotations import Annotations
from promql.functions.label_columns import set_label
from promql.histogram.cells import cell_texts
from promql.matrix import F64, I64, Bool, Matrix
from promql.matrix_rows import non_empty
from promql.message_text import general, is_label_name
from promql.names import merge_equal
from promql.operators.grouping import grouped_labels
from promql.operators.set_operators import group_presence
from promql.pieces import step_slices
from promql.syntax.ast import Aggregate, Span
from promql.syntax.gotext import format_number, quote
from tsdb.kernel import aggregate as kernel
from tsdb.kernel.hash import hash_bytes
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesTable

U64 = npt.NDArray[np.uint64]

LOWEST_COUNT, HIGHEST_COUNT = -(2.0**63), 2.0**63 - 1024
"""A count must lie between them: what Prometheus takes for the limits of an int64."""


def top(node: Aggregate, value: Matrix, counts: F64, notes: Annotations, check: Callable[[], None]) -> Matrix:
    """topk and bottomk: the counts[j] largest or smallest floats of each group at step j; NaN is chosen last.

    Series keep their labels. A single step is ordered by value within each group.
    """
    limits = _limits(counts)
    if value.natives[:, limits > 0].any():
        notes.info(f"ignored histogram in {node.op} aggregation", node.span)
    group, first = grouped_labels(node, value.series).group()
    sizes = np.bincount(group, minlength=len(first)) if len(group) else np.zeros(0, np.int64)
    room = np.concatenate([[0], np.cumsum(np.minimum(sizes, max(int(limits.max(initial=0)), 0)))]).astype(np.int64)
    sign = 1.0 if node.op == "topk" else -1.0
    chosen, present = np.empty(value.present.shape, bool), value.floats
    for at in step_slices(value, check):
        values, floats = np.ascontiguousarray(value.values[:, at].T), np.ascontiguousarray(present[:, at].T)
        picked, heap, size = kernel.top(sign, limits[at], group, room, values, floats)
        chosen[:, at] = picked.T
    if len(value.steps) > 1:
        return _only(value, chosen)
    heaps = [_best_first(heap[room[g] : room[g] + size[g]], sign * value.values[:, 0]) for g in range(len(first))]
    rows = np.concatenate(heaps) if heaps else np.empty(0, np.int64)
    return value.take(rows)


def limit_count(node: Aggregate, value: Matrix, counts: F64) -> Matrix:
    """limitk: the first counts[j] samples of each group at step j, floats and histograms alike."""
    limits = _limits(counts)
    group, first = grouped_labels(node, value.series).group()
    order = np.argsort(group, kind="stable")
    seen = np.cumsum(value.present[order], axis=0)
    starts = np.searchsorted(group[order], np.arange(len(first)))
    before = np.where(starts[:, None] > 0, seen[starts - 1], 0) if len(first) else seen[:0]
    rank = np.empty_like(seen)
    rank[order] = seen - before[group[order]]
    return _only(value, value.present & (rank <= limits))


def limit_ratio(node: Aggregate, value: Matrix, ratios: F64, notes: Annotations) -> Matrix:
    """limit_ratio: the share ratios[j] of all series at step j, by a hash of their labels; -r chooses what 1-r leaves."""
    if np.isnan(ratios).any():
        raise QueryFailed("Ratio value is NaN")
    span = node.param.span if node.param else node.span
    for worst, limit in ((float(ratios.max()), 1.0), (float(ratios.min()), -1.0)):
        if worst * limit > 1.0:
            notes.warn(f"ratio value should be between -1 and 1, got {general(worst)}, capping to {general(limit)}", span)
    ratios = np.clip(ratios, -1.0, 1.0)
    place = (labels_hash(value.series).astype(np.float64) / 2.0**64)[:, None]
    chosen = np.where(ratios >= 0, place < ratios, place >= 1.0 + ratios)
    return _only(value, value.present & chosen)


def quantile(node: Aggregate, value: Matrix, q: F64, notes: Annotations, check: Callable[[], None]) -> Matrix:
    """The q[j]-quantile of each group's floats at step j, interpolated between neighbours; NaN counts as the smallest."""
    _warn_quantiles(q, node.param.span if node.param else node.span, notes)
    if value.natives.any():
        notes.info("ignored histogram in quantile aggregation", node.expr.span)
    labels = grouped_labels(node, value.series)
    group, first = labels.group()
    floats = value.floats
    values = np.full((len(first), len(value.steps)), np.nan)
    sizes = np.bincount(group, minlength=len(first))
    order = np.argsort(group, kind="stable")
    for size in np.unique(sizes).tolist():  # at most sqrt(2 n) sizes
        alike = np.flatnonzero(sizes == size)
        rows = order[np.isin(group[order], alike)].reshape(len(alike), size)
        for at in step_slices(value, check):
            x, known = value.values[:, at][rows], floats[:, at][rows]
            values[alike, at] = _quantiles(np.where(known, x, np.nan), known, q[at])
    present = group_presence(group, floats, len(first))
    return non_empty(Matrix(labels.take(first), value.steps, values, present, drop_name=_group_drops(value, group, len(first))))


def count_values(node: Aggregate, value: Matrix, label: str) -> Matrix:
    """How many series of a group have each value at each step; the value, as text, is the label `label`."""
    if not is_label_name(label):
        raise QueryFailed(f"invalid label name {quote(label)}")
    rows, steps = np.nonzero(value.present)
    texts, which = _texts(value, rows, steps)
    pair, at = np.unique(rows * max(len(texts), 1) + which, return_inverse=True)
    series = set_label(value.series.take(pair // max(len(texts), 1)), label, texts, pair % max(len(texts), 1))
    by = node if node.without else Aggregate(node.op, node.expr, None, (*node.grouping, label), False, node.span)
    labels = grouped_labels(by, series)
    group, first = labels.group()
    shape = (len(first), len(value.steps))
    counts = np.bincount(group[at] * shape[1] + steps, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    return merge_equal(Matrix(labels.take(first), value.steps, counts, counts > 0))


def warn_each_quantile(q: F64, span: Span, notes: Annotations) -> None:
    """Warn of every quantile outside of [0, 1]."""
    wrong = q[~((q >= 0) & (q <= 1))]
    for value in dict.fromkeys(map(general, wrong.tolist())):
        notes.warn(f"quantile value should be between 0 and 1, got {value}", span)


def _warn_quantiles(q: F64, span: Span, notes: Annotations) -> None:
    """Warn of what is worst on each side of [0, 1], of NaN only where one is."""
    worst = np.array([np.nan]) if np.isnan(q).any() else np.array([q.max(initial=0), q.min(initial=0)])
    warn_each_quantile(worst, span, notes)


def labels_hash(series: SeriesTable) -> U64:
    """u64[n] hash of each label set, from the bytes of its names and values only: equal in every process."""
    out = np.zeros(len(series), np.uint64)
    for name, column in zip(series.names, series.ids, strict=True):
        used, which = np.unique(column, return_inverse=True)
        hashes = [_text_hash(f"{name}\xff{series.symbols[i]}") if i >= 0 else 0 for i in used.tolist()]
        out += np.array(hashes, np.uint64)[which]  # wraps around, and does not depend on columns that a series lacks
    out ^= out >> np.uint64(31)
    out *= np.uint64(0x9E3779B185EBCA87)
    return out ^ (out >> np.uint64(29))


def _text_hash(text: str) -> int:
    data = np.frombuffer(text.encode(errors="surrogateescape"), np.uint8)
    return int(hash_bytes(data, 0, len(data)))


def _limits(counts: F64) -> I64:
    """The counts as int64. QueryFailed for NaN and for what no int64 holds, unless none is as large as 1."""
    if len(counts) == 0 or counts.max() < 1:
        return np.zeros(len(counts), np.int64)
    if np.isnan(counts).any():
        raise QueryFailed("Parameter value is NaN")
    if counts.min() <= LOWEST_COUNT:
        raise QueryFailed(f"Scalar value {general(float(counts.min()))} underflows int64")
    if counts.max() >= HIGHEST_COUNT:
        raise QueryFailed(f"Scalar value {general(float(counts.max()))} overflows int64")
    return counts.astype(np.int64)


def _only(value: Matrix, chosen: Bool) -> Matrix:
    """The chosen samples, of the series that have any left."""
    return non_empty(replace(value, present=chosen))


def _best_first(heap: I64, keys: F64) -> I64:
    """Rows of a heap by falling key; equal keys stay in the order of the heap."""
    return heap[nan_last(-keys[heap])]


def nan_last(keys: F64) -> I64:
    """The rising order i64[n] of the keys, equal ones as they are; behind them each NaN before those that came before it, which is
    how Prometheus's sort leaves them."""
    numbers = ~np.isnan(keys)
    return np.concatenate([np.flatnonzero(numbers)[np.argsort(keys[numbers], kind="stable")], np.flatnonzero(~numbers)[::-1]])


def _quantiles(x: F64, floats: Bool, q: F64) -> F64:
    """f64[g, k] quantiles over the s series of each group: x f64[g, s, k], NaN where bool[g, s, k] `floats` has none."""
    ordered = np.sort(np.ascontiguousarray(x.transpose(0, 2, 1)), axis=2)  # NaN comes last, but counts as the smallest
    size = floats.sum(axis=1)
    nans = size - np.sum(~np.isnan(x), axis=1)
    rank = np.where((q >= 0) & (q <= 1) & (size > 0), q, 0.0) * np.maximum(size - 1, 0)
    low = np.floor(rank)
    weight = rank - low

    def at(place: F64) -> F64:
        found = np.take_along_axis(ordered, np.maximum(place.astype(np.int64) - nans, 0)[:, :, None], axis=2)[:, :, 0]
        return np.where(place < nans, np.nan, found)

    with np.errstate(all="ignore"):
        out = at(low) * (1 - weight) + at(np.minimum(np.maximum(size - 1, 0), low + 1)) * weight
    out = np.where(q < 0, -np.inf, np.where(q > 1, np.inf, out))
    return np.where(np.isnan(q), np.nan, out)


def _texts(value: Matrix, rows: I64, steps: I64) -> tuple[list[str], I64]:
    """(the distinct texts, the text number of each sample i64[m])."""
    floats = value.floats[rows, steps]
    bits, which_float = np.unique(value.values[rows[floats], steps[floats]].view(np.uint64), return_inverse=True)
    texts = [format_number(x) for x in bits.view(np.float64).tolist()]
    natives = cell_texts(value, rows[~floats], steps[~floats])
    number = {text: i for i, text in enumerate(dict.fromkeys([*texts, *natives]))}
    which = np.empty(len(rows), np.int64)
    which[floats] = np.array([number[text] for text in texts], np.int64)[which_float]
    which[~floats] = [number[text] for text in natives]
    return list(number), which


def _group_drops(value: Matrix, group: I64, groups: int) -> Bool | None:
    if value.drop_name is None or not value.drop_name.any():
        return None
    drop = np.zeros(groups, bool)
    drop[group[value.drop_name & value.present.any(axis=1)]] = True
    return drop

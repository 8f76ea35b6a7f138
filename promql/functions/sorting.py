"""`sort`, `sort_desc`, `sort_by_label` and `sort_by_label_desc`: the order of an instant query's series."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cmp_to_key

import numpy as np

from promql.annotations import Annotations
from promql.matrix import I64, Matrix
from promql.matrix_rows import non_empty
from promql.operators.aggregate_whole import nan_last
from promql.syntax.ast import Call
from tsdb.model.series import SeriesTable

CHUNK = re.compile(r"[0-9]+|[^0-9]+", re.ASCII)


def sort_by_value(node: Call, vector: Matrix, notes: Annotations) -> Matrix:
    """The floats in rising or falling order, NaN last; histograms go."""
    out = non_empty(replace(vector, present=vector.floats, histograms=None, cells=None))
    if _is_range(node, vector, notes):
        return out
    keys = -out.values[:, 0] if node.func == "sort_desc" else out.values[:, 0]
    return out.take(nan_last(keys))


def sort_by_label(node: Call, vector: Matrix, names: Sequence[str], notes: Annotations) -> Matrix:
    """Series in natural order of the labels named (a2 before a10), then of all labels; with _desc backwards."""
    if _is_range(node, vector, notes):
        return vector
    keys = [*reversed(_all_labels(vector.series)), *(_natural_ranks(vector.series, name) for name in reversed(names))]
    order = np.lexsort(keys) if keys else np.arange(len(vector))
    return vector.take(order[::-1] if node.func.endswith("_desc") else order)


def _is_range(node: Call, vector: Matrix, notes: Annotations) -> bool:
    if len(vector.steps) == 1:
        return False
    notes.warn("sort is ineffective for range queries since results are always ordered by labels", node.span)
    return True


def _natural_ranks(series: SeriesTable, name: str) -> I64:
    """i64[n] the place of each row's value among the values of one label, in natural order."""
    texts = series.values(name)
    order = sorted(set(texts.tolist()), key=cmp_to_key(_compare_naturally))
    rank = {text: i for i, text in enumerate(order)}
    return np.array([rank[text] for text in texts], np.int64)


def _compare_naturally(left: str, right: str) -> int:
    """-1 or 1: runs of digits compare as numbers, all else as text, as the Go package natsort does it."""
    lefts, rights = CHUNK.findall(left), CHUNK.findall(right)
    for a, b in zip(lefts, rights, strict=False):
        x, y = (int(a), int(b)) if _is_int(a) and _is_int(b) else (a, b)
        if x != y:
            return -1 if x < y else 1
    return -1 if len(lefts) <= len(rights) else 1


def _is_int(chunk: str) -> bool:
    return "0" <= chunk[0] <= "9" and int(chunk) < 1 << 63


def _all_labels(series: SeriesTable) -> list[I64]:
    """Keys that order rows by their whole label sets, as text."""
    rank = np.empty(len(series), np.int64)
    rows = [series.labels(i).pairs for i in range(len(series))]
    rank[sorted(range(len(rows)), key=rows.__getitem__)] = np.arange(len(rows))
    return [rank]

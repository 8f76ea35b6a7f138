"""Samples in any order to batches of series in their order."""

import numpy as np

from treering.transfer.import_part import in_order
from tsdb.head.fragment import Fragment, settle
from tsdb.model.histogram import Histograms
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable


def batch_of_rows(
    series: SeriesTable, row: I64, t_ms: I64, values: F64, histograms: Histograms | None = None, histogram_at: I64 | None = None
) -> SeriesBatch:
    """Sample j is of series row[j]: i64[m], t_ms i64[m], values f64[m]; of equal times of a series the merge rule keeps one.

    Equal rows of `series` become one series.
    """
    order = np.argsort(row, kind="stable")
    lengths = np.bincount(row, minlength=len(series)).astype(np.int64)
    some = np.flatnonzero(lengths)
    fragment = Fragment(
        some, lengths[some], t_ms[order], np.ascontiguousarray(values[order]).view(np.int64), histograms,
        None if histogram_at is None else histogram_at[order],
    )  # fmt: skip
    columns = settle([fragment], len(series))
    batch = SeriesBatch(series, columns.offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at)
    return in_order(batch.take(np.flatnonzero(np.diff(columns.offsets))))


def group_rows(keys: np.ndarray[tuple[int, int], np.dtype[np.int32]]) -> tuple[I64, I64]:
    """(group i64[m], first i64[g]) of equal columns of keys int32[k, m]; cheap where equal ones are neighbours."""
    size = keys.shape[1]
    fresh = np.ones(size, bool)
    fresh[1:] = np.any(keys[:, 1:] != keys[:, :-1], axis=0)
    at = np.flatnonzero(fresh)
    group, first = SeriesTable(np.empty(0, object), tuple(map(str, range(len(keys)))), keys[:, at]).group()
    return np.repeat(group, np.diff(np.append(at, size))), at[first]

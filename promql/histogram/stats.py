"""What one number can say of a native histogram: quantiles, fractions, mean, deviation."""

import numpy as np
import numpy.typing as npt

from promql.annotations import Annotations
from promql.histogram.buckets import ZERO, bucket_rows
from promql.histogram.layout import columns
from promql.syntax.ast import Span
from tsdb.kernel import histogram as kernel
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Histograms
from tsdb.model.labels import quote

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.object_]


def quantile(q: F64, histograms: Histograms) -> F64:
    """The q[i]-quantile of histogram i, f64[n].

    Interpolates exponentially inside exponential buckets, linearly inside the zero bucket and custom ones; -Inf below q = 0,
    +Inf above 1, NaN without observations and where it falls among observations of NaN.
    """
    return np.asarray(kernel.quantiles(columns(histograms), np.ascontiguousarray(q, np.float64)))


def fraction(lower: F64, upper: F64, histograms: Histograms) -> F64:
    """The share f64[n] of histogram i's observations between lower[i] and upper[i], interpolated as by `quantile`."""
    lower, upper = np.ascontiguousarray(lower, np.float64), np.ascontiguousarray(upper, np.float64)
    return np.asarray(kernel.fractions(columns(histograms), lower, upper))


def average(histograms: Histograms) -> F64:
    """sum / count, f64[n]."""
    with np.errstate(all="ignore"):
        return histograms.sum / histograms.count


def variance(histograms: Histograms) -> F64:
    """The estimated variance f64[n]: each bucket's observations at its geometric (custom: arithmetic) mean, zero's at 0."""
    rows = bucket_rows(histograms)
    row = rows.row
    with np.errstate(all="ignore"):
        middle = np.where(rows.lower < 0, -1.0, 1.0) * np.sqrt(np.abs(rows.lower)) * np.sqrt(np.abs(rows.upper))
        custom = histograms.schema[row] == CUSTOM_BUCKETS_SCHEMA
        middle = np.where(custom, (rows.lower + rows.upper) / 2, middle)
        middle[~custom & ((rows.side == ZERO) | ((rows.lower <= 0) & (rows.upper >= 0)))] = 0.0
        weighted = rows.counts * (middle - average(histograms)[row]) ** 2
        total = np.bincount(row, weighted, len(histograms))
        return np.where(np.isnan(histograms.sum), np.nan, total / histograms.count)


def deviation(histograms: Histograms) -> F64:
    """The square root of `variance`."""
    return np.sqrt(variance(histograms))


def note_nan_quantiles(
    histograms: Histograms, q: F64, result: F64, names: Strings, span: Span, notes: Annotations
) -> None:  # fmt: skip
    """Infos of `histogram_quantile` for histograms with observations of NaN; names object[n]: the metric names.

    None where the result is but the bound of a custom bucket without end.
    """
    odd = np.flatnonzero(np.isnan(histograms.sum) & (histograms.count != 0) & (q >= 0) & (q <= 1))
    if len(odd) == 0:
        return
    histograms, q, names = histograms.take(odd), q[odd], names[odd]
    asked = ~np.asarray(kernel.in_endless(columns(histograms), np.ascontiguousarray(q, np.float64)))
    beyond = np.isnan(result[odd]) & (q > 0)
    skewed = ~beyond & _has_nan(histograms)
    for told, text in ((beyond, "result is NaN"), (skewed, "result is skewed higher")):
        for name in _distinct(names[asked & told]):
            notes.info(f"input to histogram_quantile has NaN observations, {text}{for_metric(name)}", span)


def note_nan_fractions(
    histograms: Histograms, lower: F64, upper: F64, names: Strings, span: Span, notes: Annotations
) -> None:  # fmt: skip
    """Infos of `histogram_fraction` for histograms with observations of NaN."""
    asked = np.isnan(histograms.sum) & (histograms.count != 0) & (lower < upper)
    if not asked.any():
        return
    for name in _distinct(names[asked & _has_nan(histograms)]):
        text = "input to histogram_fraction has NaN observations, which are excluded from all fractions"
        notes.info(f"{text}{for_metric(name)}", span)


def for_metric(name: str) -> str:
    """How annotations end that are about a metric."""
    return f" for metric name {quote(name)}" if name else ""


def _has_nan(histograms: Histograms) -> Bool:
    """bool[n]: whether observations are in no bucket, which is so of NaN alone. A sum of NaN may come of +Inf and -Inf as well."""
    rows = bucket_rows(histograms)
    return np.asarray(np.bincount(rows.row, rows.counts, len(histograms)) < histograms.count)


def _distinct(names: Strings) -> list[str]:
    return list(dict.fromkeys(names.tolist()))

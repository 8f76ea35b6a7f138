"""The trim operators `h </ x` and `h >/ x`: histograms with only the observations below or above a value.

A bucket that the value cuts is split by interpolation, exponential or (zero and custom buckets) linear. A bucket without end
cannot be split: it goes, unless the value is on its outer side. The sum is estimated anew from the middles of what is left,
once anything has been taken away.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from promql.histogram.arithmetic import compact
from promql.histogram.buckets import NEGATIVE, POSITIVE, ZERO, BucketRows, bucket_rows
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Histograms

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def trim(histograms: Histograms, at: F64, *, upper: bool) -> Histograms:
    """`h[i] </ at[i]` (upper: drop what is above) or `h[i] >/ at[i]` (drop what is below)."""
    rows = bucket_rows(histograms, meet_zero=False)
    row = rows.row
    size = len(histograms)
    value = at[row]
    custom = histograms.schema[row] == CUSTOM_BUCKETS_SCHEMA
    lower, end = _sided(rows, histograms)
    with np.errstate(all="ignore"):
        kept, middle = _split(lower, end, rows.counts, value, custom | (rows.side == ZERO), upper)
        endless = np.isinf(lower) | np.isinf(end)
        if endless.any():
            inf_kept, inf_middle = _split_endless(rows, value, upper)
            kept, middle = np.where(endless, inf_kept, kept), np.where(endless, inf_middle, middle)
        kept = np.where(np.isnan(value) & (rows.side != ZERO), 0.0, kept)  # no bound is below NaN or above it
        weighted = np.where(kept == 0, 0.0, kept * middle)
    touched = np.bincount(row[kept != rows.counts], minlength=size) > 0
    out = compact(_with_counts(histograms, rows, kept))
    return replace(
        out,
        count=np.where(touched, np.bincount(row, kept, size), histograms.count),
        sum=np.where(touched, np.bincount(row, weighted, size), histograms.sum),
    )


def _sided(rows: BucketRows, histograms: Histograms) -> tuple[F64, F64]:
    """The bounds with the zero bucket cut at 0 where all other buckets are on one side."""
    has_positive = np.diff(histograms.positive.offsets) > 0
    has_negative = np.diff(histograms.negative.offsets) > 0
    zero, row = rows.side == ZERO, rows.row
    lower = np.where(zero & (has_positive & ~has_negative)[row], 0.0, rows.lower)
    upper = np.where(zero & (has_negative & ~has_positive)[row], 0.0, rows.upper)
    return lower, upper


def _split(lower: F64, end: F64, counts: F64, value: F64, linear: Bool, upper: bool) -> tuple[F64, F64]:
    """(observations kept, where they are on average) of buckets with two finite bounds."""
    low, high, at = np.log2(np.abs(lower)), np.log2(np.abs(end)), np.log2(np.abs(value))
    exponential = np.where(lower >= 0, (at - low) / (high - low), 1 - (at - high) / (low - high))
    share = np.where(linear, (value - lower) / (end - lower), exponential)
    share = np.where(value <= lower, 0.0, np.where(value >= end, 1.0, share))
    below = counts * share
    cut = np.clip(value, lower, end)
    left, right = (lower, cut) if upper else (cut, end)
    geometric = np.where(lower < 0, -1.0, 1.0) * np.sqrt(np.abs(left)) * np.sqrt(np.abs(right))
    return below if upper else counts - below, np.where(linear, (left + right) / 2, geometric)


def _split_endless(rows: BucketRows, value: F64, upper: bool) -> tuple[F64, F64]:
    """(observations kept, where they are taken to be) of custom buckets that reach to -Inf or +Inf."""
    counts, end = rows.counts, rows.upper
    none = np.zeros(len(counts))
    first = np.isneginf(rows.lower)
    if upper:
        inside = first & (end > 0) & np.isfinite(end) & (value > 0) & (value < end)
        whole = (first & (value >= end)) | (first & (end <= 0) & (value > rows.lower)) | np.isposinf(value)
        kept = np.select([whole, inside], [counts, counts * value / end], 0.0)
        return kept, np.select([first & (value >= end), inside, whole], [_middle(rows), value / 2, value], none)
    inside = first & (end > 0) & np.isfinite(end) & (value >= 0) & (value < end)
    whole = np.where(first, np.isneginf(value), True)
    beyond = ~first & (value >= rows.lower)
    whole = whole & ~np.isposinf(value)
    kept = np.select([inside, whole], [counts * (1 - value / end), counts], 0.0)
    return kept, np.select([inside, beyond, whole], [(value + end) / 2, value, _middle(rows)], none)


def _middle(rows: BucketRows) -> F64:
    """Where the observations of a bucket without end are taken to be: halfway from 0, else at its finite bound."""
    low, high = rows.lower, rows.upper
    from_below = np.where(high > 0, high / 2, high)
    return np.where(np.isinf(low), np.where(np.isinf(high), 0.0, from_below), low)


def _with_counts(histograms: Histograms, rows: BucketRows, counts: F64) -> Histograms:
    """The histograms with new counts for their populated buckets."""
    zero_count = histograms.zero_count.copy()
    positive, negative = histograms.positive.counts.copy(), histograms.negative.counts.copy()
    for side, out in ((NEGATIVE, negative), (ZERO, zero_count), (POSITIVE, positive)):
        here = rows.side == side
        out[rows.source[here]] = counts[here]
    return replace(
        histograms,
        zero_count=zero_count,
        integer=np.zeros(len(histograms), bool),
        positive=replace(histograms.positive, counts=positive),
        negative=replace(histograms.negative, counts=negative),
    )

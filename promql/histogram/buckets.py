"""All buckets of native histograms from the lowest to the highest, with their bounds; and histograms as text."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.kernel import histogram as kernel
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Buckets, Histograms

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

OPEN_LEFT, OPEN_RIGHT, OPEN, CLOSED = 0, 1, 2, 3
"""Which bounds belong to a bucket, numbered as in the JSON of the HTTP API: (a,b] [a,b) (a,b) [a,b]."""
NEGATIVE, ZERO, POSITIVE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BucketRows:
    """The populated buckets of n histograms: those of histogram i are rows offsets[i]:offsets[i+1], from low to high.

    offsets i64[n+1]; bounds u8[b] (OPEN_LEFT …); lower, upper, counts f64[b]; side u8[b] (NEGATIVE, ZERO or POSITIVE);
    source i64[b]: the row in that side's `Buckets` (in zero_count for ZERO).
    """

    offsets: I64
    bounds: U8
    lower: F64
    upper: F64
    counts: F64
    side: U8
    source: I64

    @property
    def row(self) -> I64:
        """i64[b]: the histogram that each bucket belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def bucket_rows(histograms: Histograms, *, meet_zero: bool = True) -> BucketRows:
    """All populated buckets with their bounds; with meet_zero no bucket reaches into the zero bucket (as in JSON, not in text)."""
    start, order = _ascending(histograms)
    parts = [_side(histograms, NEGATIVE, meet_zero), _zero(histograms), _side(histograms, POSITIVE, meet_zero)]
    bounds, lower, upper, counts, side, source = (np.concatenate(column)[order] for column in zip(*parts, strict=True))
    keep = counts != 0
    offsets = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)[start]
    return BucketRows(offsets, bounds[keep], lower[keep], upper[keep], counts[keep], side[keep], source[keep])


def to_text(histograms: Histograms, row: int) -> str:
    """One histogram as Prometheus prints it: `{count:4, sum:5, (0.5,1]:1, (1,2]:3}`."""
    one = histograms.take(np.array([row]))
    rows = bucket_rows(one, meet_zero=False)
    parts = [f"count:{go_float(one.count[0])}", f"sum:{go_float(one.sum[0])}"]
    for i in range(len(rows.counts)):
        left = "[" if rows.bounds[i] in (OPEN_RIGHT, CLOSED) else "("
        right = "]" if rows.bounds[i] in (OPEN_LEFT, CLOSED) else ")"
        parts.append(f"{left}{go_float(rows.lower[i])},{go_float(rows.upper[i])}{right}:{go_float(rows.counts[i])}")
    return "{" + ", ".join(parts) + "}"


def go_float(value: float) -> str:
    """A float as Go's %g writes it: shortest digits, an exponent below 1e-4 and from 1e+06 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    mantissa, exponent = np.format_float_scientific(value, unique=True, trim="-").split("e")
    power = int(exponent)
    if -4 <= power < 6:
        return str(np.format_float_positional(value, unique=True, trim="-"))
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _ascending(histograms: Histograms) -> tuple[I64, I64]:
    """(start i64[n+1] of each histogram, order i64[b]) that bring negative, zero and positive buckets, one after another
    in this way for all histograms, to ascending order inside each."""
    negative, positive = np.diff(histograms.negative.offsets), np.diff(histograms.positive.offsets)
    start = np.concatenate([[0], np.cumsum(negative + 1 + positive)]).astype(np.int64)
    zero_at = start[:-1] + negative
    below = np.repeat(zero_at + histograms.negative.offsets[:-1] - 1, negative) - np.arange(len(histograms.negative.index))
    above = np.repeat(zero_at - histograms.positive.offsets[:-1] + 1, positive) + np.arange(len(histograms.positive.index))
    place = np.concatenate([below, zero_at, above])
    order = np.empty(len(place), np.int64)
    order[place] = np.arange(len(place))
    return start, order


def _side(histograms: Histograms, side: int, meet_zero: bool) -> tuple[npt.NDArray[np.generic], ...]:
    buckets: Buckets = histograms.positive if side == POSITIVE else histograms.negative
    row = np.repeat(np.arange(len(histograms)), np.diff(buckets.offsets))
    source = np.arange(len(row))
    schema = histograms.schema[row].astype(np.int64)
    index = buckets.index.astype(np.int64)
    exponential = np.where(schema == CUSTOM_BUCKETS_SCHEMA, 0, schema)
    lower, upper = kernel.upper_bounds(index - 1, exponential), kernel.upper_bounds(index, exponential)
    bounds = np.full(len(row), OPEN_LEFT if side == POSITIVE else OPEN_RIGHT, np.uint8)
    if meet_zero:
        lower = np.maximum(lower, histograms.zero_threshold[row])
    custom = np.flatnonzero(schema == CUSTOM_BUCKETS_SCHEMA)
    if len(custom):
        lower[custom], upper[custom] = _custom_bounds(histograms, row[custom], index[custom])
        bounds[custom] = np.where(index[custom] <= 0, CLOSED, OPEN_LEFT)
    if side == NEGATIVE:
        return bounds, -upper, -lower, buckets.counts, np.full(len(row), NEGATIVE, np.uint8), source
    return bounds, lower, upper, buckets.counts, np.full(len(row), POSITIVE, np.uint8), source


def _custom_bounds(histograms: Histograms, row: I64, index: I64) -> tuple[F64, F64]:
    """(lower, upper) of custom buckets `index` of histograms `row`; infinite at both ends."""
    start, stop = histograms.bounds_offsets[row], histograms.bounds_offsets[row + 1]
    padded = np.append(histograms.bounds, np.inf)
    last = stop - start
    index = np.clip(index, 0, last)
    upper = np.where(index < last, padded[np.minimum(start + index, len(padded) - 1)], np.inf)
    lower = np.where(index > 0, padded[start + index - 1], -np.inf)
    return lower, upper


def _zero(histograms: Histograms) -> tuple[npt.NDArray[np.generic], ...]:
    row = np.arange(len(histograms))
    threshold = histograms.zero_threshold
    closed, zero = np.full(len(row), CLOSED, np.uint8), np.full(len(row), ZERO, np.uint8)
    return closed, -threshold, threshold, histograms.zero_count, zero, row

"""Arithmetic on native histograms, n at a time: sums of any length, scaling, equality.

Where operands differ, Prometheus's rules hold: the coarser schema wins, the zero bucket grows until it cuts no populated
bucket, custom bounds shrink to those that all have, and exponential histograms never mix with custom ones. Results have no
empty buckets. Sums are compensated (Neumaier) throughout, which for two operands is the plain sum.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from promql.histogram.layout import on_common_bounds, on_common_threshold
from tsdb.kernel import histogram as kernel
from tsdb.model.histogram import (
    COUNTER_RESET,
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    NOT_COUNTER_RESET,
    UNKNOWN_RESET,
    Buckets,
    Histograms,
    concat_histograms,
)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Terms:
    """Sums to make: job j adds rows[t] of some histograms times factors[t], for t in offsets[j]:offsets[j+1] (never none).

    offsets i64[j+1]; rows i64[t]; factors f64[t]. A term of factor 0 takes part only in the choice of schema and bounds.
    """

    offsets: I64
    rows: I64
    factors: F64

    @property
    def job(self) -> I64:
        """i64[t]: the job of each term."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class Combined:
    """Results, one for each job, and what was odd about each.

    incompatible: exponential met custom buckets, the histogram is empty. reconciled: custom bounds differed.
    collision: a counter reset met a not-reset.
    """

    histograms: Histograms
    incompatible: Bool
    reconciled: Bool
    collision: Bool


def combine(histograms: Histograms, terms: Terms) -> Combined:
    """The sums that `terms` describe over rows of `histograms`. Cost: one pass over the buckets of all terms."""
    starts = terms.offsets[:-1]
    if len(starts) == 0:
        none = np.empty(0, bool)
        return Combined(Histograms.empty(), none, none, none)
    schemas = histograms.schema[terms.rows]
    schema = np.minimum.reduceat(schemas, starts)
    incompatible = (schema == CUSTOM_BUCKETS_SCHEMA) & (np.maximum.reduceat(schemas, starts) != CUSTOM_BUCKETS_SCHEMA)
    schema = np.where(incompatible, 0, schema).astype(np.int8)
    job = terms.job
    if incompatible.any():
        terms = replace(terms, factors=np.where(incompatible[job], 0.0, terms.factors))
    live = terms.factors != 0
    hint, collision = _hints(histograms.hint[terms.rows], live, starts)
    histograms, rows, threshold = on_common_threshold(histograms, terms.rows, job, live, len(starts))
    histograms, rows, bounds, reconciled = on_common_bounds(histograms, rows, job, schema == CUSTOM_BUCKETS_SCHEMA)
    terms = replace(terms, rows=rows)
    numbers = np.stack([histograms.count, histograms.sum, histograms.zero_count])
    count, total, zero_count = kernel.add_columns(numbers, terms.offsets, terms.rows, terms.factors)
    shifts = np.maximum(histograms.schema[rows].astype(np.int64) - schema[job], 0)
    positive = _add_side(histograms.positive, terms, shifts)
    negative = _add_side(histograms.negative, terms, shifts)
    whole = np.zeros(len(starts), bool)
    result = Histograms(schema, hint, whole, count, total, threshold, zero_count, positive, negative, *bounds)
    return Combined(result, incompatible, reconciled, collision)


def mean(histograms: Histograms, terms: Terms) -> Combined:
    """The means that `terms` describe, factors being weights; where a sum overflows, terms are divided before adding."""
    weight = np.add.reduceat(terms.factors, terms.offsets[:-1]) if len(terms.offsets) > 1 else np.empty(0)
    out = combine(histograms, terms)
    means = divide(out.histograms, weight)
    big = _overflowed(out.histograms)
    if big.any():
        again = combine(histograms, replace(terms, factors=terms.factors / weight[terms.job]))
        at = np.arange(len(weight))
        means = concat_histograms([means, again.histograms]).take(np.where(big, at + len(weight), at))
    return replace(out, histograms=means)


def add(a: Histograms, b: Histograms) -> Combined:
    """a[i] + b[i]."""
    return combine(concat_histograms([a, b]), pairs(len(a), 1.0))


def subtract(a: Histograms, b: Histograms) -> Combined:
    """a[i] - b[i]: gauges."""
    out = combine(concat_histograms([a, b]), pairs(len(a), -1.0))
    return replace(out, histograms=as_gauges(out.histograms))


def pairs(size: int, factor: float) -> Terms:
    """Terms that add row size + i times `factor` to row i, for each i below `size`."""
    rows = np.arange(2 * size).reshape(2, size).T.ravel()
    return Terms(np.arange(0, 2 * size + 1, 2), rows, np.tile([1.0, factor], size))


def as_gauges(histograms: Histograms) -> Histograms:
    """The same with the hint of gauges."""
    return replace(histograms, hint=np.full(len(histograms), GAUGE, np.uint8))


def scale(histograms: Histograms, factor: F64) -> Histograms:
    """Each histogram times its factor f64[n]; a negative factor makes a gauge."""
    return _map_counts(histograms, factor, np.multiply, factor < 0)


def divide(histograms: Histograms, by: F64) -> Histograms:
    """Each histogram divided by its f64[n]; a negative divisor makes a gauge, a zero divisor leaves no buckets."""
    out = _map_counts(histograms, by, np.divide, by < 0)
    zero = by == 0
    if not zero.any():
        return out
    keep = ~zero
    return replace(
        out, positive=out.positive.where(rows_of(out.positive, keep)), negative=out.negative.where(rows_of(out.negative, keep))
    )


def negate(histograms: Histograms) -> Histograms:
    """Each histogram times -1: gauges."""
    return scale(histograms, np.full(len(histograms), -1.0))


def compact(histograms: Histograms) -> Histograms:
    """The same without empty buckets."""
    positive, negative = histograms.positive, histograms.negative
    return replace(
        histograms, positive=positive.where(positive.counts != 0), negative=negative.where(negative.counts != 0)
    )  # fmt: skip


def equal(a: Histograms, b: Histograms) -> Bool:
    """bool[n]: whether a[i] and b[i] are the same in all but the hint, bit for bit; empty buckets do not count."""
    a, b = compact(a), compact(b)
    same: Bool = (a.schema == b.schema) & (a.zero_threshold == b.zero_threshold)
    for left, right in ((a.count, b.count), (a.sum, b.sum), (a.zero_count, b.zero_count)):
        same &= _bits(left) == _bits(right)
    for ours, theirs in ((a.positive, b.positive), (a.negative, b.negative)):
        same &= _ragged_equal(ours.offsets, ours.index, theirs.offsets, theirs.index)
        same &= _ragged_equal(ours.offsets, _bits(ours.counts), theirs.offsets, _bits(theirs.counts))
    return same & _ragged_equal(a.bounds_offsets, a.bounds, b.bounds_offsets, b.bounds)


def resets(histograms: Histograms, before: I64, after: I64) -> Bool:
    """bool[p]: whether a counter reset lies between rows before[p] and after[p] (Prometheus's DetectReset).

    A hint of the later one decides; else any count or bucket that falls, a bucket that vanishes, a finer schema, a smaller
    zero threshold or a change between exponential and custom buckets is a reset.
    """
    hint = histograms.hint[after]
    out: Bool = hint == COUNTER_RESET
    open_ = np.flatnonzero((hint != COUNTER_RESET) & (hint != NOT_COUNTER_RESET))
    if len(open_):
        out[open_] = _fell(histograms, before[open_], after[open_])
    return out


def rows_of(side: Buckets, chosen: Bool) -> Bool:
    """bool[b]: whether each bucket belongs to a chosen histogram."""
    return np.repeat(chosen, np.diff(side.offsets))


def _fell(histograms: Histograms, before: I64, after: I64) -> Bool:
    old, new = histograms.schema[before], histograms.schema[after]
    mixed = (old == CUSTOM_BUCKETS_SCHEMA) != (new == CUSTOM_BUCKETS_SCHEMA)
    out: Bool = histograms.count[after] < histograms.count[before]
    out |= mixed | (new > old) | (histograms.zero_threshold[after] < histograms.zero_threshold[before])
    left = np.flatnonzero(~out)
    if len(left) == 0:
        return out
    before, after = before[left], after[left]
    alike = (old == new)[left] & (histograms.zero_threshold[before] == histograms.zero_threshold[after])
    if not alike.all() or (new == CUSTOM_BUCKETS_SCHEMA).any():
        histograms, before, after, cut = _aligned(histograms, before, after)
        out[left] = cut
    out[left] |= histograms.zero_count[after] < histograms.zero_count[before]
    for side in (histograms.positive, histograms.negative):
        if len(side.index):
            out[left] |= kernel.decreases(side.offsets, side.index, side.counts, before, after)
    return out


def _aligned(histograms: Histograms, before: I64, after: I64) -> tuple[Histograms, I64, I64, Bool]:
    """(histograms, before, after) with each pair on one layout, the later one's; bool[p] where a bucket would be cut."""
    size = len(before)
    rows = np.concatenate([before, after])
    job = np.tile(np.arange(size), 2)
    wanted = histograms.zero_threshold[after]
    histograms, rows, threshold = on_common_threshold(histograms, rows, job, np.ones(2 * size, bool), size)
    custom = histograms.schema[rows[size:]] == CUSTOM_BUCKETS_SCHEMA
    histograms, rows, _, _ = on_common_bounds(histograms, rows, job, custom)
    shifts = np.maximum(histograms.schema[rows] - np.tile(histograms.schema[rows[size:]], 2), 0).astype(np.int64)
    each = Terms(np.arange(2 * size + 1), rows, np.ones(2 * size))
    positive, negative = (_add_side(side, each, shifts) for side in (histograms.positive, histograms.negative))
    histograms = replace(histograms.take(rows), positive=positive, negative=negative)
    return histograms, np.arange(size), np.arange(size, 2 * size), threshold != wanted


def _add_side(side: Buckets, terms: Terms, shifts: I64) -> Buckets:
    if len(side.index) == 0:
        return Buckets.empty(len(terms.offsets) - 1)
    return Buckets(*kernel.add_buckets(side.offsets, side.index, side.counts, terms.offsets, terms.rows, terms.factors, shifts))


def _hints(hints: npt.NDArray[np.uint8], live: Bool, starts: I64) -> tuple[npt.NDArray[np.uint8], Bool]:
    """(hint u8[j], collision bool[j]) of sums: a gauge makes all gauge, what all agree on stays, the rest is unknown."""
    seen = np.bitwise_or.reduceat(np.where(live, np.uint8(1) << hints, np.uint8(0)), starts)
    out = np.full(len(starts), UNKNOWN_RESET, np.uint8)
    out[seen == 1 << COUNTER_RESET] = COUNTER_RESET
    out[seen == 1 << NOT_COUNTER_RESET] = NOT_COUNTER_RESET
    out[seen & (1 << GAUGE) != 0] = GAUGE
    both = (1 << COUNTER_RESET) | (1 << NOT_COUNTER_RESET)
    return out, seen & both == both


def _map_counts(histograms: Histograms, by: F64, how: np.ufunc, gauge: Bool) -> Histograms:
    def side(buckets: Buckets) -> Buckets:
        return replace(buckets, counts=how(buckets.counts, np.repeat(by, np.diff(buckets.offsets))))

    with np.errstate(all="ignore"):
        return replace(
            histograms,
            hint=np.where(gauge, np.uint8(GAUGE), histograms.hint),
            integer=np.zeros(len(histograms), bool),
            count=how(histograms.count, by),
            sum=how(histograms.sum, by),
            zero_count=how(histograms.zero_count, by),
            positive=side(histograms.positive),
            negative=side(histograms.negative),
        )


def _overflowed(histograms: Histograms) -> Bool:
    """bool[n]: whether any number of a histogram is infinite."""
    out = np.isinf(histograms.count) | np.isinf(histograms.sum) | np.isinf(histograms.zero_count)
    for side in (histograms.positive, histograms.negative):
        at = np.flatnonzero(np.isinf(side.counts))
        out[np.searchsorted(side.offsets, at, side="right") - 1] = True
    return out


def _bits(values: F64) -> I64:
    return np.ascontiguousarray(values).view(np.int64)


def _ragged_equal(
    a_offsets: I64, a: npt.NDArray[np.generic], b_offsets: I64, b: npt.NDArray[np.generic]
) -> Bool:  # fmt: skip
    """bool[n]: whether the ragged rows are equal."""
    lengths = np.diff(a_offsets)
    same: Bool = lengths == np.diff(b_offsets)
    at = np.repeat(b_offsets[:-1] - a_offsets[:-1], lengths) + np.arange(a_offsets[-1])
    inside = np.repeat(same, lengths)
    wrong = np.flatnonzero(inside)[a[inside] != b[at[inside]]]
    row = np.searchsorted(a_offsets, wrong, side="right") - 1
    same[row] = False
    return same

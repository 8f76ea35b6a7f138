"""Loops over the ragged buckets of native histograms: weighted sums, comparisons, quantiles and fractions."""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

CUSTOM = -53
_MAX_FLOAT = 1.7976931348623157e308

MAX_INDEX = 1 << 19
"""No float64 lies in a bucket beyond this; a wilder index is clamped, so that sums never need more than 16 MB of room."""

FRACTIONS = np.exp2(np.arange(256) / 256) / 2
"""f64[256]: the bounds of schema 8 in [0.5, 1); those of schema s are every 2^(8-s)th."""


class Columns(NamedTuple):
    """The columns of `tsdb.model.histogram.Histograms`, flat, as kernels want them."""

    schema: Any
    count: Any
    sum: Any
    zero_threshold: Any
    zero_count: Any
    pos_offsets: Any
    pos_index: Any
    pos_counts: Any
    neg_offsets: Any
    neg_index: Any
    neg_counts: Any
    bounds_offsets: Any
    bounds: Any


@register_jitable
def upper_bound(index, schema):
    """The upper bound of exponential bucket `index`; the last one is cut to the largest float, as Prometheus does."""
    if schema <= 0:
        exponent = index << -schema
        return _MAX_FLOAT if exponent >= 1024 else math.ldexp(1.0, int(exponent))
    fraction = FRACTIONS[(index & ((1 << schema) - 1)) << (8 - schema)]
    exponent = (index >> schema) + 1
    return _MAX_FLOAT if exponent >= 1025 else math.ldexp(fraction, int(exponent))


@njit(nogil=True, cache=True)
def spread_runs(run_size, sizes, index, by_bucket, counts, buckets):
    """counts f64[...] and bucket numbers i32[...] of histograms one after another, from runs of alike ones.

    Run r is run_size[r] histograms with sizes[r] buckets, i64[r] each; index i32[...] are its buckets; by_bucket f64[...] holds the
    counts of its first bucket in all its histograms, then those of the second and so on.
    """
    at = known = 0
    for r in range(len(run_size)):
        n, k = run_size[r], sizes[r]
        for i in range(n):
            for b in range(k):
                counts[at + i * k + b] = by_bucket[at + b * n + i]
                buckets[at + i * k + b] = index[known + b]
        at += n * k
        known += k


@njit(nogil=True, cache=True)
def upper_bounds(index, schema):
    """f64[b] upper bounds of exponential buckets index i64[b] of schema i64[b]."""
    out = np.empty(len(index))
    for i in range(len(index)):
        out[i] = upper_bound(_legal(index[i], schema[i]), schema[i])
    return out


@register_jitable
def _legal(index, schema):
    """`index` as an i64 within what bounds in the range of float64 need."""
    if schema >= 0:
        low, high = -(1075 << schema), (1024 << schema) + 1
    else:
        low, high = -(1075 >> -schema) - 1, (1024 >> -schema) + 1
    return min(max(np.int64(index), low), high)


@register_jitable
def _coarser(index, shift):
    """The bucket that `index` falls into where the resolution is halved `shift` times."""
    return ((min(max(np.int64(index), -MAX_INDEX), MAX_INDEX) - 1) >> shift) + 1


@register_jitable
def _add(sums, errors, at, value):
    """Compensated summation into sums[at], the lost low part (Knuth's TwoSum, without branches) into errors[at]."""
    old = sums[at]
    new = old + value
    back = new - old
    errors[at] += (old - (new - back)) + (value - back)
    sums[at] = new


@register_jitable
def _total(total, error):
    """A compensated sum; an infinite one has lost its error to NaN."""
    return total if math.isnan(error) else total + error


@njit(nogil=True, cache=True)
def add_columns(columns, offsets, rows, factors):
    """f64[s, j]: the compensated sums of columns f64[s, n] at rows times factors; job j is terms offsets[j]:offsets[j+1]."""
    out = np.zeros((len(columns), len(offsets) - 1))
    sums, errors = np.zeros(1), np.zeros(1)
    for s in range(len(columns)):
        for j in range(len(offsets) - 1):
            sums[0], errors[0] = 0.0, 0.0
            for t in range(offsets[j], offsets[j + 1]):
                _add(sums, errors, 0, columns[s, rows[t]] * factors[t])
            out[s, j] = _total(sums[0], errors[0])
    return out


@njit(nogil=True, cache=True)
def add_buckets(side_offsets, index, counts, offsets, rows, factors, shifts):
    """Buckets of histograms times factors, added up without the empty ones.

    side_offsets i64[n+1], index i32[b], counts f64[b]: one side of n histograms. Job j adds rows[t] * factors[t] for t in
    offsets[j]:offsets[j+1], where shifts i64[t] (>= 0) halves the resolution of that term so many times.
    Returns (offsets i64[j+1], index i32[...], counts f64[...]).
    """
    jobs, room = len(offsets) - 1, 0  # no job gives more buckets than its terms have; what stays untouched costs no memory
    for t in range(len(rows)):
        room += side_offsets[rows[t] + 1] - side_offsets[rows[t]]
    ends, out_index, out_counts = np.zeros(jobs + 1, np.int64), np.empty(room, np.int32), np.empty(room)
    sums, errors = np.zeros(1024), np.zeros(1024)
    for j in range(jobs):
        low, high = 1 << 40, -(1 << 40)
        for t in range(offsets[j], offsets[j + 1]):
            first, last = side_offsets[rows[t]], side_offsets[rows[t] + 1]
            if first < last and factors[t] != 0:
                low = min(low, _coarser(index[first], shifts[t]))
                high = max(high, _coarser(index[last - 1], shifts[t]))
        ends[j + 1] = ends[j]
        if high < low:
            continue
        if high - low >= len(sums):
            sums, errors = np.zeros(2 * (high - low + 1)), np.zeros(2 * (high - low + 1))
        for t in range(offsets[j], offsets[j + 1]):
            if factors[t] != 0:
                for b in range(side_offsets[rows[t]], side_offsets[rows[t] + 1]):
                    _add(sums, errors, _coarser(index[b], shifts[t]) - low, counts[b] * factors[t])
        ends[j + 1] = _emit(sums, errors, low, high, out_index, out_counts, ends[j])
    return ends, out_index[: ends[jobs]], out_counts[: ends[jobs]]


@register_jitable
def _emit(sums, errors, low, high, index, counts, at):
    """Move the populated sums of buckets low..high behind index[:at], counts[:at] and clear them; the new end."""
    for i in range(high - low + 1):
        value = _total(sums[i], errors[i])
        if value != 0:
            index[at] = low + i
            counts[at] = value
            at += 1
        sums[i] = 0.0
        errors[i] = 0.0
    return at


@njit(nogil=True, cache=True)
def decreases(side_offsets, index, counts, before, after):
    """bool[p]: whether any bucket of histogram before[p] is larger than the same bucket of histogram after[p]."""
    out = np.zeros(len(before), np.bool_)
    for p in range(len(before)):
        a, a_end = side_offsets[after[p]], side_offsets[after[p] + 1]
        for b in range(side_offsets[before[p]], side_offsets[before[p] + 1]):
            while a < a_end and index[a] < index[b]:
                a += 1
            now = counts[a] if a < a_end and index[a] == index[b] else 0.0
            if now < counts[b]:
                out[p] = True
                break
    return out


@register_jitable
def _bounds_of(c, row):
    return c.bounds[c.bounds_offsets[row] : c.bounds_offsets[row + 1]]


@register_jitable
def _size(c, row):
    """How many buckets a histogram has, the zero bucket always counted among them."""
    return c.neg_offsets[row + 1] - c.neg_offsets[row] + 1 + c.pos_offsets[row + 1] - c.pos_offsets[row]


@register_jitable
def _count(c, row, at):
    """The observations in bucket `at` in ascending order; a negative zero bucket counts for nothing."""
    negative = c.neg_offsets[row + 1] - c.neg_offsets[row]
    if at < negative:
        return c.neg_counts[c.neg_offsets[row + 1] - 1 - at]
    return max(c.zero_count[row], 0.0) if at == negative else c.pos_counts[c.pos_offsets[row] + at - negative - 1]


@register_jitable
def _bucket(c, row, at):
    """(lower, upper, count, whether it is the zero bucket) of bucket `at` in ascending order; bounds end at the zero bucket."""
    negative = c.neg_offsets[row + 1] - c.neg_offsets[row]
    schema, threshold = c.schema[row], c.zero_threshold[row]
    if at == negative:
        return -threshold, threshold, c.zero_count[row], True
    if at < negative:
        b = c.neg_offsets[row + 1] - 1 - at
        index = _legal(c.neg_index[b], schema)
        return -upper_bound(index, schema), min(-upper_bound(index - 1, schema), -threshold), c.neg_counts[b], False
    b = c.pos_offsets[row] + at - negative - 1
    if schema == CUSTOM:
        bounds = _bounds_of(c, row)
        index = min(max(c.pos_index[b], 0), len(bounds))
        lower = -np.inf if index == 0 else bounds[index - 1]
        upper = np.inf if index == len(bounds) else bounds[index]
        return lower, upper, c.pos_counts[b], False
    index = _legal(c.pos_index[b], schema)
    return max(upper_bound(index - 1, schema), threshold), upper_bound(index, schema), c.pos_counts[b], False


@register_jitable
def _sided(c, row, lower, upper, zero):
    """Bounds of a bucket with the zero bucket cut at 0 where all other buckets are on one side, and a custom one's -Inf at 0."""
    if zero:
        positive = c.pos_offsets[row] < c.pos_offsets[row + 1]
        negative = c.neg_offsets[row] < c.neg_offsets[row + 1]
        if positive and not negative:
            return 0.0, upper
        if negative and not positive:
            return lower, 0.0
    elif lower == -np.inf and upper > 0:
        return 0.0, upper
    return lower, upper


@register_jitable
def _ranked(c, row, rank, forward):
    """(the bucket that a rank falls into, counted up or else down; observations up to its far end), the last populated one where
    none reaches the rank, -1 where none is populated."""
    size, last, seen = _size(c, row), -1, 0.0
    for i in range(size):
        at = i if forward else size - 1 - i
        count = _count(c, row, at)
        if count != 0:
            last = at
            seen += count
            if seen >= rank:
                break
    return last, seen


@register_jitable
def _quantile(c, row, q):
    if math.isnan(q):
        return np.nan
    if q < 0:
        return -np.inf
    if q > 1:
        return np.inf
    total = c.count[row]
    if total == 0:
        return np.nan
    forward = math.isnan(c.sum[row]) or q < 0.5  # observations of NaN are in no bucket, so only counting up is right
    rank = q * total if forward else (1 - q) * total
    last, seen = _ranked(c, row, rank, forward)
    if last < 0:
        return np.nan if math.isnan(c.sum[row]) or rank == 0 else 0.0
    lower, upper, count, zero = _bucket(c, row, last)
    custom = c.schema[row] == CUSTOM
    if custom and _endless(lower, upper):
        return upper if lower == -np.inf else lower
    lower, upper = _sided(c, row, lower, upper, zero)
    seen = min(seen, total)
    if seen < rank:
        return np.nan if math.isnan(c.sum[row]) else upper
    part = (rank - (seen - count)) / count if forward else (seen - rank) / count
    if custom or (lower <= 0 and upper >= 0):
        return lower + (upper - lower) * part
    log_lower, log_upper = math.log2(abs(lower)), math.log2(abs(upper))
    if lower > 0:
        return 2.0 ** (log_lower + (log_upper - log_lower) * part)
    return -(2.0 ** (log_upper + (log_lower - log_upper) * (1 - part)))


@njit(nogil=True, cache=True)
def quantiles(c, q):
    """f64[n]: the q[i]-quantile of histogram i, interpolated exponentially (linearly in zero and custom buckets)."""
    out = np.empty(len(q))
    for row in range(len(q)):
        out[row] = _quantile(c, row, q[row])
    return out


@register_jitable
def _endless(lower, upper):
    """Whether nothing can be interpolated in a custom bucket: it reaches to +Inf, or from -Inf up to 0 at most."""
    return upper <= 0 if lower == -np.inf else upper == np.inf


@njit(nogil=True, cache=True)
def in_endless(c, q):
    """bool[n]: whether the q[i]-quantile of histogram i, counted up, falls into a custom bucket without an end."""
    out = np.zeros(len(q), np.bool_)
    for row in range(len(q)):
        last, _ = _ranked(c, row, q[row] * c.count[row], True)
        if c.schema[row] == CUSTOM and last >= 0:
            lower, upper, _, _ = _bucket(c, row, last)
            out[row] = _endless(lower, upper)
    return out


@register_jitable
def _share(lower, upper, value, linear):
    """The share of a bucket's observations that are below `value`, which is inside it."""
    if linear:
        return 1.0 if lower == -np.inf else (value - lower) / (upper - lower)
    low, high, at = math.log2(abs(lower)), math.log2(abs(upper)), math.log2(abs(value))
    return (at - low) / (high - low) if value > 0 else 1 - (at - high) / (low - high)


@register_jitable
def _below(c, row, value, total):
    """How many observations of a histogram are estimated to be below `value`."""
    rank = 0.0
    for i in range(_size(c, row)):
        lower, upper, count, zero = _bucket(c, row, i)
        if count == 0 or (zero and count < 0):
            continue
        lower, upper = _sided(c, row, lower, upper, zero)
        if c.schema[row] == CUSTOM and lower <= 0 and upper >= 0:
            lower = 0.0  # as Prometheus does here, though not for quantiles
        if lower >= value:
            return min(rank, total)
        if upper > value:
            linear = c.schema[row] == CUSTOM or (lower <= 0 and upper >= 0)
            return min(rank + count * _share(lower, upper, value, linear), total)
        rank += count
    return total


@njit(nogil=True, cache=True)
def fractions(c, lower, upper):
    """f64[n]: the share of histogram i's observations between lower[i] and upper[i]; those of NaN are in no share."""
    out = np.empty(len(lower))
    for row in range(len(lower)):
        if c.count[row] == 0 or math.isnan(lower[row]) or math.isnan(upper[row]):
            out[row] = np.nan
            continue
        if lower[row] >= upper[row]:
            out[row] = 0.0
            continue
        total = c.count[row]
        if math.isnan(c.sum[row]):
            total = 0.0
            for i in range(_size(c, row)):
                total += _bucket(c, row, i)[2]
        out[row] = (_below(c, row, upper[row], total) - _below(c, row, lower[row], total)) / c.count[row]
    return out

"""Sliding time windows over the samples of many series: their bounds, and the samples at their ends.

All window kernels share these arguments. Series i is rows offsets[i]:offsets[i+1] of t_ms i64[m] and values f64[m] (no stale
markers); offsets i64[n+1] need not start at 0. Window j of every series is (ends_ms[j] - range_ms, ends_ms[j]]; ends_ms i64[k]
never falls. Results are f64[n, k] `out` and bool[n, k] `present`; where present is False, out says nothing.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

STALE_BITS = np.uint64(0x7FF0000000000002)


@njit(nogil=True, cache=True, error_model="numpy")
def latest_samples(offsets, t_ms, values, bits, ends_ms, lookback_ms, index, out, present):
    """The newest sample in (end - lookback_ms, end] of each step: its row (index i64[n, k], -1 = none), value and presence.

    A stale marker makes the series absent. `bits` u64[m] are the bits of `values`.
    """
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        hi = start
        for j in range(len(ends_ms)):
            end = ends_ms[j]
            while hi < stop and t_ms[hi] <= end:
                hi += 1
            found = hi > start and t_ms[hi - 1] > end - lookback_ms and bits[hi - 1] != STALE_BITS
            present[s, j] = found
            index[s, j] = hi - 1 if found else -1
            out[s, j] = values[hi - 1] if found else 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def window_bounds(offsets, t_ms, ends_ms, range_ms, anchor_ms, lo, hi):
    """The rows lo:hi (i64[n, k] each) of every window; see `first_row` for anchor_ms."""
    for s in range(len(offsets) - 1):
        low = high = offsets[s]
        for j in range(len(ends_ms)):
            low, high = slide(t_ms, low, high, offsets[s + 1], ends_ms[j], range_ms)
            lo[s, j] = first_row(t_ms, offsets[s], low, ends_ms[j] - range_ms, anchor_ms)
            hi[s, j] = high


@njit(nogil=True, cache=True, error_model="numpy")
def smoothed_samples(offsets, t_ms, values, ends_ms, lookback_ms, before, after, out, present):
    """Values at ends_ms, interpolated between the neighbours within lookback_ms; the one before is carried where none follows.

    before and after, i64[n, k], are the rows of those neighbours: the same row at an exact hit or a carried value.
    """
    for s in range(len(offsets) - 1):
        hi = offsets[s]
        for j in range(len(ends_ms)):
            at = ends_ms[j]
            while hi < offsets[s + 1] and t_ms[hi] <= at:
                hi += 1
            present[s, j] = hi > offsets[s] and t_ms[hi - 1] > at - lookback_ms
            if present[s, j]:
                exact = t_ms[hi - 1] == at or hi == offsets[s + 1] or t_ms[hi] > at + lookback_ms
                before[s, j], after[s, j] = hi - 1, hi - 1 if exact else hi
                out[s, j] = values[hi - 1] if exact else interpolate(t_ms, values, hi - 1, hi, at, False)


@register_jitable(error_model="numpy")
def slide(t_ms, low, high, stop, end, range_ms):
    while high < stop and t_ms[high] <= end:
        high += 1
    while low < high and t_ms[low] <= end - range_ms:
        low += 1
    return low, high


@register_jitable(error_model="numpy")
def first_row(t_ms, start, low, left, anchor_ms):
    """The first row of a window that begins behind `left`: one earlier where that sample is less than anchor_ms older."""
    return low - 1 if anchor_ms > 0 and low > start and t_ms[low - 1] > left - anchor_ms else low


@register_jitable(error_model="numpy")
def interpolate(t_ms, values, a, b, at, counter):
    base = 0.0 if counter and values[b] < values[a] else values[a]
    return base + (values[b] - base) * float(at - t_ms[a]) / float(t_ms[b] - t_ms[a])


@register_jitable(error_model="numpy")
def resets_by_start(before_start, before_t, start, t):
    """Whether the start timestamp of a sample tells of a reset since the sample before."""
    if start == 0 or start >= t or start < before_t:
        return False
    if start > before_t:
        return True
    # the start is the previous sample itself: a delta series, unless that sample's own start was unknown or absurd
    return before_start != 0 and before_start < before_t

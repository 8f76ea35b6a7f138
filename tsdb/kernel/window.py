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

    A stale marker makes the series absent. `bits` u64[m] are the bits of `values`. Rows are told only where index has room for
    them: it may be i64[0, k].
    """
    newest = np.empty(len(ends_ms), np.int64)  # the row that each step sees, counted from the start of the series; -1 = none
    known, size = np.int64(0), np.int64(-1)
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        if stop - start != size or not same_times(t_ms, start, known, size):
            hi = start
            for j in range(len(ends_ms)):
                while hi < stop and t_ms[hi] <= ends_ms[j]:
                    hi += 1
                newest[j] = hi - 1 - start if hi > start and t_ms[hi - 1] > ends_ms[j] - lookback_ms else -1
        known, size = start, stop - start
        if size == 0:
            present[s] = False
        else:
            own, marks, row, here = values[start:stop], bits[start:stop], out[s], present[s]
            for j in range(len(ends_ms)):
                at = np.uint64(max(newest[j], 0))  # unsigned: no wrapping of negative numbers, which would not vectorise
                row[j] = own[at]
                here[j] = (newest[j] >= 0) & (marks[at] != STALE_BITS)
        for j in range(len(ends_ms) if len(index) else 0):
            index[s, j] = start + newest[j] if present[s, j] else -1


@njit(nogil=True, cache=True, error_model="numpy")
def window_bounds(offsets, t_ms, ends_ms, range_ms, anchor_ms, lo, hi):
    """The rows lo:hi (i64[n, k] each) of every window; see `first_row` for anchor_ms."""
    lows, highs = np.empty(len(ends_ms), np.int64), np.empty(len(ends_ms), np.int64)
    known, size = np.int64(0), np.int64(-1)
    for s in range(len(offsets) - 1):
        start, stop = offsets[s], offsets[s + 1]
        if stop - start != size or not same_times(t_ms, start, known, size):
            sweep(t_ms, start, stop, ends_ms, range_ms, lows, highs)
            for j in range(len(ends_ms) if anchor_ms > 0 else 0):
                lows[j] = first_row(t_ms, start, start + lows[j], ends_ms[j] - range_ms, anchor_ms) - start
        known, size = start, stop - start
        for j in range(len(ends_ms)):
            lo[s, j], hi[s, j] = start + lows[j], start + highs[j]


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
def sweep(t_ms, start, stop, ends_ms, range_ms, lows, highs):
    """The bounds of every window of one series, i64[k] each, counted from `start`."""
    low = high = start
    for j in range(len(ends_ms)):
        low, high = slide(t_ms, low, high, stop, ends_ms[j], range_ms)
        lows[j], highs[j] = low - start, high - start


@register_jitable(error_model="numpy")
def same_times(t_ms, a, b, size):
    """Whether t_ms[a:a+size] equals t_ms[b:b+size]: series that are scraped together have the same windows."""
    if size and (t_ms[a] != t_ms[b] or t_ms[a + size - 1] != t_ms[b + size - 1]):
        return False
    for at in range(0, size, 256):  # in stretches: the inner loop vectorises, the outer one leaves early
        length = min(256, size - at)
        one, other = t_ms[a + at : a + at + length], t_ms[b + at : b + at + length]
        different = 0
        for i in range(length):  # from 0 on: an index that might be negative would not vectorise
            different |= one[i] ^ other[i]
        if different:
            return False
    return True


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

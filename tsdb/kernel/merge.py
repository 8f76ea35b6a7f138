"""The merge of sorted runs of samples, by the rule of `tsdb.merge`."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

STALE_BITS = np.int64(0x7FF0000000000002)


@njit(nogil=True, cache=True)
def merge_runs(t_ms, bits, start_ms, rank, run_at, run_end, groups, pick):
    """i64[g] how many samples each output series keeps; which of the input samples, into pick i64[m].

    Run r is the samples run_at[r]:run_end[r] of t_ms and bits i64[m] (the bits of floats), strictly rising in time; those of output
    series i are groups[i]:groups[i+1], ordered by their first time. start_ms i64[m] or i64[0]: of equal samples the larger start
    is kept; rank i64[m] or i64[0]: the place of a histogram in the order of histograms, -1 of a float. The runs are used up.
    """
    kept = np.empty(len(groups) - 1, np.int64)
    used = 0
    for g in range(len(groups) - 1):
        before = used
        first, last = groups[g], groups[g + 1]
        last = _drop_copies(t_ms, bits, start_ms, rank, run_at, run_end, first, last)
        while first < last:
            until = run_end[first]
            if first + 1 < last and t_ms[run_at[first + 1]] <= t_ms[until - 1]:
                used = _merge_overlapping(t_ms, bits, start_ms, rank, run_at, run_end, first, last, pick, used)
                break
            for i in range(run_at[first], until):
                pick[used] = i
                used += 1
            first += 1
        kept[g] = used - before
    return kept


@register_jitable
def _drop_copies(t_ms, bits, start_ms, rank, run_at, run_end, first, last):
    """Leave out every run that equals the one before it; the new `last`. Replicas mostly agree; comparing is five times faster."""
    kept = first
    for r in range(first + 1, last):
        a, b, size = run_at[kept], run_at[r], run_end[r] - run_at[r]
        different = np.int64(0 if run_end[kept] - a == size and t_ms[a] == t_ms[b] else 1)
        if different == 0:
            for i in range(size):
                different |= (t_ms[a + i] ^ t_ms[b + i]) | (bits[a + i] ^ bits[b + i])
            for i in range(size if len(start_ms) else 0):
                different |= start_ms[a + i] ^ start_ms[b + i]
            for i in range(size if len(rank) else 0):
                different |= rank[a + i] ^ rank[b + i]
        if different != 0:
            kept += 1
            run_at[kept], run_end[kept] = b, run_end[r]
    return min(kept + 1, last)


@register_jitable
def _merge_overlapping(t_ms, bits, start_ms, rank, run_at, run_end, first, last, pick, used):
    """Merge runs first:last to their end, one time after another; how full pick is then."""
    while True:
        best = -1
        for r in range(first, last):
            if run_at[r] >= run_end[r]:
                continue
            i = run_at[r]
            if best < 0 or t_ms[i] < t_ms[best] or (t_ms[i] == t_ms[best] and _beats(bits, start_ms, rank, i, best)):
                best = i
        if best < 0:
            return used
        pick[used] = best
        used += 1
        for r in range(first, last):
            if run_at[r] < run_end[r] and t_ms[run_at[r]] == t_ms[best]:
                run_at[r] += 1


@register_jitable
def _beats(bits, start_ms, rank, a, b):
    """Whether sample a is kept rather than b at the same time."""
    if len(rank) and rank[a] != rank[b]:
        return rank[a] > rank[b]
    if bits[a] != bits[b]:
        return _order(bits[a]) > _order(bits[b])
    return len(start_ms) > 0 and start_ms[a] > start_ms[b]


@register_jitable
def _order(bits):
    """A float's place in the IEEE total order as a signed integer, the stale marker before all."""
    if bits == STALE_BITS:
        return np.int64(-0x8000000000000000)
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))

"""Quantiles and fractions of classic histograms: runs of cumulative bucket counts, step by step."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

SMALL_DELTA = 1e-12
"""Relative differences of neighbouring counts below this are noise of float sums, not observations (Prometheus's value)."""
MIN_NORMAL = 2.2250738585072014e-308
LOWEST, HIGHEST, DIFFERENCE, STEPS, FIRST, LAST = range(6)


@register_jitable
def _almost_equal(a, b):
    if a == b or (a != a and b != b):
        return True
    total = abs(a) + abs(b)
    if a == 0.0 or b == 0.0 or total < MIN_NORMAL:
        return abs(a - b) < SMALL_DELTA * MIN_NORMAL
    return abs(a - b) / min(total, 1.7976931348623157e308) < SMALL_DELTA


@register_jitable
def _gather(start, end, j, upper, counts, present, bound, count):
    """How many buckets there are at step j: those present, equal bounds added up, into bound and count."""
    n = 0
    for b in range(start, end):
        if not present[b, j]:
            continue
        if n > 0 and bound[n - 1] == upper[b]:
            count[n - 1] += counts[b, j]
        else:
            bound[n], count[n] = upper[b], counts[b, j]
            n += 1
    return n


@register_jitable
def _make_monotonic(n, bound, count, found):
    """Falling counts raised to the one before; whether any was. Which bounds and by how much goes into found f64[3]."""
    before = count[0]
    fixed = False
    found[LOWEST], found[HIGHEST], found[DIFFERENCE] = np.inf, -np.inf, 0.0
    for b in range(1, n):
        now = count[b]
        if now == before:
            continue
        if not _almost_equal(before, now):
            if not now < before:
                before = now
                continue
            fixed = True
            found[LOWEST] = min(found[LOWEST], bound[b])
            found[HIGHEST] = max(found[HIGHEST], bound[b])
            found[DIFFERENCE] = max(found[DIFFERENCE], before - now)
        count[b] = before
    return fixed


@register_jitable
def _note(found, j, repair):
    """Add what was repaired at step j to repair f64[6]."""
    repair[LOWEST] = min(repair[LOWEST], found[LOWEST])
    repair[HIGHEST] = max(repair[HIGHEST], found[HIGHEST])
    repair[DIFFERENCE] = max(repair[DIFFERENCE], found[DIFFERENCE])
    if repair[STEPS] == 0.0:
        repair[FIRST] = j
    repair[LAST] = j
    repair[STEPS] += 1.0


@register_jitable
def _quantile(q, n, bound, count):
    rank = q * count[n - 1]
    b = 0
    while b < n - 1 and not count[b] >= rank:
        b += 1
    if b == n - 1:
        return bound[n - 2]
    if b == 0:
        if bound[0] <= 0.0:
            return bound[0]
        return bound[0] * (rank / count[0])
    return bound[b - 1] + (bound[b] - bound[b - 1]) * ((rank - count[b - 1]) / (count[b] - count[b - 1]))


@register_jitable
def _rank_below(v, n, bound, count):
    """How many observations lie below v, interpolated inside its bucket."""
    rank = 0.0
    lower = -np.inf if bound[0] <= 0.0 else 0.0
    for b in range(n):
        if b > 0:
            lower = bound[b - 1]
        if lower >= v:
            return min(rank, count[n - 1])
        if bound[b] > v:
            if lower == -np.inf:
                return min(count[b], count[n - 1])
            return min(rank + (count[b] - rank) * (v - lower) / (bound[b] - lower), count[n - 1])
        rank = count[b]
    return count[n - 1]


@njit(nogil=True, cache=True, error_model="numpy")
def buckets(fraction, low, high, starts, upper, counts, present):
    """(values f64[g, k], present bool[g, k], repair f64[g, 6]) of g histograms: the low[j]-quantile at step j, or with
    `fraction` the share of observations in low[j]..high[j].

    Histogram i has buckets starts[i]:starts[i+1], ascending in upper f64[b]; counts f64[b, k] are cumulative. `repair` holds
    the lowest and highest bound whose count fell, the largest fall, how many steps had one, the first and the last of them.
    """
    g, k = len(starts) - 1, counts.shape[1]
    out = np.full((g, k), np.nan)
    exists = np.zeros((g, k), np.bool_)
    repair = np.zeros((g, 6))
    repair[:, LOWEST], repair[:, HIGHEST] = np.inf, -np.inf
    widest = 0
    for i in range(g):
        widest = max(widest, starts[i + 1] - starts[i])
    bound, count, found = np.empty(widest), np.empty(widest), np.empty(3)
    for i in range(g):
        for j in range(k):
            n = _gather(starts[i], starts[i + 1], j, upper, counts, present, bound, count)
            if n == 0:
                continue
            exists[i, j] = True
            a, z = low[j], high[j]
            if fraction:
                if bound[n - 1] != np.inf or count[n - 1] == 0.0 or a != a or z != z:
                    continue
                below = _rank_below(z, n, bound, count) - _rank_below(a, n, bound, count)
                out[i, j] = 0.0 if a >= z else below / count[n - 1]
            elif a != a:
                continue
            elif a < 0.0 or a > 1.0:
                out[i, j] = -np.inf if a < 0.0 else np.inf
            elif bound[n - 1] == np.inf:
                fixed = _make_monotonic(n, bound, count, found)
                if n < 2 or count[n - 1] == 0.0:  # no observations, no quantile, and nothing to tell of
                    continue
                if fixed:
                    _note(found, j, repair[i])
                out[i, j] = _quantile(a, n, bound, count)
    return out, exists, repair

"""Folding many series into groups, step by step, and picking the largest of each group: exactly in the order of the rows."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

SUM, AVG, MIN, MAX, COUNT, VARIANCE = 0, 1, 2, 3, 4, 5

ABSENT = -0.0
"""The one float that leaves every sum as it is, the sum -0.0 included."""


@njit(nogil=True, cache=True, error_model="numpy")
def fold(op, group, values, present, count, total, rest, mean):
    """Fold rows values f64[n, k] where present bool[n, k] into their group i64[n]: count, total, rest f64[g, k] change.

    Start with count 0; total -0.0 (SUM, AVG), NaN (MIN, MAX) or 0; rest 0; mean bool[g, k] False.
    SUM: total + rest is the sum, summed as Kahan and Neumaier do; AVG: the same until total would overflow, from where on
    mean is True and total + rest is the mean; VARIANCE: total is the mean and rest / count the variance (Welford).
    """
    n, k = values.shape
    for i in range(n):
        g = group[i]
        v, p = values[i], present[i]
        c, t, r = count[g], total[g], rest[g]
        if op == SUM:
            for j in range(k):
                x = v[j] if p[j] else ABSENT
                s = t[j]
                new = s + x
                lost = (s - new) + x if abs(s) >= abs(x) else (x - new) + s
                r[j] = 0.0 if abs(new) == np.inf else r[j] + lost
                t[j] = new
                c[j] += p[j]
        elif op == MIN:
            for j in range(k):
                take = p[j] & ((t[j] > v[j]) | (t[j] != t[j]))
                t[j] = v[j] if take else t[j]
                c[j] += p[j]
        elif op == MAX:
            for j in range(k):
                take = p[j] & ((t[j] < v[j]) | (t[j] != t[j]))
                t[j] = v[j] if take else t[j]
                c[j] += p[j]
        elif op == COUNT:
            for j in range(k):
                c[j] += p[j]
        elif op == VARIANCE:
            for j in range(k):
                if p[j]:
                    c[j] += 1.0
                    delta = v[j] - t[j]
                    t[j] += delta / c[j]
                    r[j] += delta * (v[j] - t[j])
        else:
            if not _add_row(v, p, c, t, r, mean[g]):
                _mean_row(v, p, c, t, r, mean[g])


@register_jitable(error_model="numpy")
def _add_row(v, p, count, total, rest, mean):
    """Whether AVG has added the row to sums none of which is a mean or overflows; else nothing has changed."""
    bad = 0
    for j in range(len(v)):
        bad += mean[j] | (p[j] & (abs(total[j] + v[j]) == np.inf))
    if bad:
        return False
    for j in range(len(v)):
        x = v[j] if p[j] else ABSENT
        s = total[j]
        new = s + x
        rest[j] += (s - new) + x if abs(s) >= abs(x) else (x - new) + s
        total[j] = new
        count[j] += p[j]
    return True


@register_jitable(error_model="numpy")
def _mean_row(v, p, count, total, rest, mean):
    """The same from where a sum overflows: the incremental mean."""
    for j in range(len(v)):
        if not p[j]:
            continue
        x = v[j]
        count[j] += 1.0
        s = total[j]
        scale = 1.0
        if not mean[j]:
            new = s + x
            if abs(new) != np.inf or count[j] == 1.0:
                if abs(new) != np.inf:
                    rest[j] += (s - new) + x if abs(s) >= abs(x) else (x - new) + s
                total[j] = new
                continue
            mean[j] = True
            s /= count[j] - 1.0
            rest[j] /= count[j] - 1.0
        scale = (count[j] - 1.0) / count[j]
        s, x = scale * s, x / count[j]
        new = s + x
        lost = (s - new) + x if abs(s) >= abs(x) else (x - new) + s
        rest[j] = 0.0 if abs(new) == np.inf else scale * rest[j] + lost
        total[j] = new


@njit(nogil=True, cache=True, error_model="numpy")
def top(sign, limits, group, room, values, present):
    """(chosen bool[k, n], heap i64[room[-1]], size i64[g] of the last step): the limits[j] largest of each group at step j.

    sign 1.0 picks the largest, -1.0 the smallest; NaN comes last. values f64[k, n] and present bool[k, n] are transposed: steps
    first. Group g owns heap[room[g]:room[g+1]]. Which of equal values stay is decided by a binary heap that is Go's
    container/heap, so the answer is that of Prometheus.
    """
    k, n = values.shape
    chosen = np.zeros((k, n), np.bool_)
    heap = np.empty(room[-1], np.int64)
    size = np.zeros(len(room) - 1, np.int64)
    for j in range(k):
        size[:] = 0
        limit, v = limits[j], values[j]
        if limit < 1:
            continue
        for i in range(n):
            if not present[j, i]:
                continue
            g = group[i]
            base = room[g]
            if size[g] < limit:
                at = size[g]  # sift up
                heap[base + at] = i
                size[g] += 1
                while at > 0:
                    parent = (at - 1) // 2
                    a, b = sign * v[heap[base + at]], sign * v[heap[base + parent]]
                    if not (a < b or a != a):
                        break
                    heap[base + at], heap[base + parent] = heap[base + parent], heap[base + at]
                    at = parent
                continue
            lowest = sign * v[heap[base]]
            x = sign * v[i]
            if not (lowest < x or (lowest != lowest and x == x)):
                continue
            heap[base] = i
            at = 0  # sift down
            while True:
                child = 2 * at + 1
                if child >= size[g]:
                    break
                if child + 1 < size[g]:
                    a, b = sign * v[heap[base + child + 1]], sign * v[heap[base + child]]
                    if a < b or a != a:
                        child += 1
                a, b = sign * v[heap[base + child]], sign * v[heap[base + at]]
                if not (a < b or a != a):
                    break
                heap[base + at], heap[base + child] = heap[base + child], heap[base + at]
                at = child
        for g in range(len(size)):
            for at in range(room[g], room[g] + size[g]):
                chosen[j, heap[at]] = True
    return chosen, heap, size

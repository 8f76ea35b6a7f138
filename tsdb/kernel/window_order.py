"""What follows from the order of the values in sliding windows of one series: extremes, their times, quantiles, deviations.

own f64[m] the samples; lows, highs i64[k] the rows of each window; out f64[k], of which windows without a sample say nothing.
"""

import numpy as np
from numba.extending import register_jitable

MIN, MAX, TS_OF_MIN, TS_OF_MAX, QUANTILE, MAD = range(11, 17)


@register_jitable(error_model="numpy", _nrt=False)
def has_nan(own):
    """Whether any value is NaN."""
    found = 0
    for i in range(len(own)):
        found += own[i] != own[i]
    return found > 0


@register_jitable(error_model="numpy", _nrt=False)
def stretch_places(lows, highs, room, left, right):
    """How many levels `extremes` needs; left and right u64[k] get the places in them, of `room` f64 each, that cover each window:

    the longest stretch of a power of two that fits, from its first row on and up to its last.
    """
    levels = 1
    for j in range(len(lows)):
        level, length = 0, 1
        while 2 * length <= highs[j] - lows[j]:
            level, length = level + 1, 2 * length
        levels = max(levels, level + 1)
        empty = highs[j] == lows[j]
        left[j] = 0 if empty else level * room + lows[j]
        right[j] = 0 if empty else level * room + highs[j] - length
    return levels


@register_jitable(error_model="numpy", _nrt=False)
def extremes(code, own, left, right, levels, room, table, out):
    """MIN or MAX of values without NaN; the first of equal ones. table f64[levels * room], room >= m, is scratch.

    Level l of the table is the extreme of each stretch of 2^l samples, made of two of the level before: O(m log range + k).
    """
    size = len(own)
    for i in range(size):
        table[i] = own[i]
    for level in range(1, levels):
        half = 1 << (level - 1)
        before = table[(level - 1) * room : (level - 1) * room + size]
        later = before[half:]
        level_row = table[level * room : level * room + max(size - 2 * half + 1, 0)]
        if code == MIN:
            for i in range(len(level_row)):
                level_row[i] = later[i] if later[i] < before[i] else before[i]
        else:
            for i in range(len(level_row)):
                level_row[i] = later[i] if later[i] > before[i] else before[i]
    for j in range(len(out)):
        a, b = table[left[j]], table[right[j]]
        out[j] = b if (b < a if code == MIN else b > a) else a


@register_jitable(error_model="numpy", _nrt=False)
def extremes_by_queue(code, own, own_ms, lows, highs, queue, out):
    """MIN, MAX and their times in seconds, of any values: NaN is never one while a number is there. queue i64[m] is scratch."""
    head = tail = high = 0  # queue[head:tail] are the rows that may still become the extreme, best first
    for j in range(len(lows)):
        head, tail = _slide_queue(code, own, high, lows[j], highs[j], queue, head, tail)
        high = highs[j]
        if high > lows[j]:
            row = queue[head] if head < tail else high - 1  # only NaN: the last one
            out[j] = own[row] if code <= MAX else own_ms[row] / 1000.0


@register_jitable(error_model="numpy", _nrt=False)
def ranks(code, own, lows, highs, q, window, out):
    """QUANTILE, the q[j]-quantile, and MAD, the median absolute deviation. window f64[m] is scratch."""
    low = high = size = 0
    numbers = not has_nan(own)
    for j in range(len(lows)):
        size = _slide_sorted(own, numbers, low, high, lows[j], highs[j], window, size)
        low, high = lows[j], highs[j]
        if high > low:
            out[j] = _quantile(q[j], window, size) if code == QUANTILE else _deviation(window, size)


@register_jitable(error_model="numpy", _nrt=False)
def _slide_queue(code, own, was_high, low, high, queue, head, tail):
    """The queue with the window low:high; the first of equals wins for MIN and MAX, the last for their times."""
    while head < tail and queue[head] < low:
        head += 1
    if head == tail:
        head = tail = 0
    for i in range(max(was_high, low), high):
        v = own[i]
        if np.isnan(v):
            continue
        while head < tail:
            back = own[queue[tail - 1]]
            if (
                (code == MAX and back < v)
                or (code == MIN and back > v)
                or (code == TS_OF_MAX and back <= v)
                or (code == TS_OF_MIN and back >= v)
            ):
                tail -= 1
            else:
                break
        queue[tail] = i
        tail += 1
    return head, tail


@register_jitable(error_model="numpy", _nrt=False)
def _slide_sorted(own, numbers, was_low, was_high, low, high, window, size):
    """window[:size], sorted with NaN first, moved from rows was_low:was_high to low:high; the new size.

    `numbers` says that no value is NaN.
    """
    if low >= was_high:
        size, was_low, was_high = 0, low, low
    both = min(low - was_low, high - was_high) if numbers else 0
    for i in range(both):  # one goes and one comes: only what is between their places moves
        _replace(window[:size], own[was_low + i], own[was_high + i])
    for i in range(was_low + both, low):
        at = _place(own[i], window, size)
        for p in range(at, size - 1):
            window[p] = window[p + 1]
        size -= 1
    for i in range(was_high + both, high):
        at = _place(own[i], window, size)
        for p in range(size, at, -1):
            window[p] = window[p - 1]
        window[at] = own[i]
        size += 1
    return size


@register_jitable(error_model="numpy", _nrt=False)
def _replace(window, old, new):
    """One value of a sorted window without NaN by another."""
    at, to = _count_less(window, old), _count_less(window, new)
    if at < to:
        moved = window[at:to]
        for p in range(len(moved) - 1):
            moved[p] = moved[p + 1]
        window[to - 1] = new
    else:
        for p in range(at, to, -1):
            window[p] = window[p - 1]
        window[to] = new


@register_jitable(error_model="numpy", _nrt=False)
def _count_less(window, value):
    """How many are less. Counting all vectorises; a search, whose every branch is a guess, is no faster in windows of hundreds."""
    if len(window) > 512:
        return _place(value, window, len(window))
    count = 0
    for i in range(len(window)):
        count += window[i] < value
    return count


@register_jitable(error_model="numpy", _nrt=False)
def _place(value, window, size):
    """The first place in window[:size] that is not less than value."""
    if np.isnan(value):
        return 0
    a, b = 0, size
    while a < b:
        middle = (a + b) // 2
        if np.isnan(window[middle]) or window[middle] < value:
            a = middle + 1
        else:
            b = middle
    return a


@register_jitable(error_model="numpy", _nrt=False)
def _quantile(q, window, size):
    """Linear interpolation between the two nearest ranks of sorted window[:size]."""
    if np.isnan(q):
        return np.nan
    if q < 0.0:
        return -np.inf
    if q > 1.0:
        return np.inf
    rank = q * (size - 1.0)
    below = int(np.floor(rank))
    above = min(size - 1, below + 1)
    weight = rank - np.floor(rank)
    return window[below] * (1.0 - weight) + window[above] * weight


@register_jitable(error_model="numpy", _nrt=False)
def _deviation(window, size):
    """The median absolute deviation of sorted window[:size]; NaN if one of them is, or the median is no finite number."""
    median = _quantile(0.5, window, size)
    if np.isnan(window[0]) or not np.isfinite(median):
        return np.nan
    right = _place(median, window, size)
    left = right - 1
    below = (size - 1) // 2
    lower = away = 0.0
    for rank in range(min(size - 1, below + 1) + 1):  # the nearest value to the median is on one of two sides
        if right >= size or (left >= 0 and median - window[left] <= window[right] - median):
            away = abs(window[left] - median)
            left -= 1
        else:
            away = abs(window[right] - median)
            right += 1
        if rank == below:
            lower = away
    weight = 0.5 * (size - 1.0) - below
    return lower * (1.0 - weight) + away * weight

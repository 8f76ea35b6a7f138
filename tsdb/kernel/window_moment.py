"""Sums, means, variances and regressions of the sliding windows of one series, in PromQL's order of summation, bit for bit.

Each sum is a chain of additions in which every one waits for the one before, so all windows of a series are added up side by
side: the i-th sample of each, then the next. Shared arguments: own f64[m] the samples; lows, highs i64[k] the rows of each window,
longest the most that any has; scratch f64[7, k]; out f64[k], of which windows without a sample say nothing.
"""

import numpy as np
from numba.extending import register_jitable

from tsdb.kernel.aggregate import ABSENT
from tsdb.kernel.downsample import add

FEWEST = 8
"""So many windows are worth being added up side by side."""


@register_jitable(error_model="numpy", _nrt=False)
def sums(mean, own, lows, highs, longest, scratch, out):
    """SUM, infinite beyond what a float holds; or AVG, the sum by the count, where that overflows the incremental `mean`."""
    x, total, rest = scratch[0], scratch[1], scratch[2]
    side_by_side = len(lows) >= FEWEST
    total[:] = ABSENT if mean else 0.0
    rest[:] = 0.0
    for i in range(longest if side_by_side else 0):
        pick(own, lows, highs, i, x)
        _add_each(x, total, rest)
    for j in range(len(lows)):
        if mean:
            count = np.float64(highs[j] - lows[j])
            if side_by_side and np.isfinite(total[j]):
                out[j] = total[j] / count + rest[j] / count
            elif highs[j] > lows[j]:
                out[j] = _mean(own, lows[j], highs[j])
        elif side_by_side:
            out[j] = total[j] if np.isinf(total[j]) else total[j] + rest[j]
        else:
            out[j] = _sum(own, lows[j], highs[j])


@register_jitable(error_model="numpy", _nrt=False)
def variances(root, own, lows, highs, longest, scratch, out):
    """STDVAR or its `root`, by Welford's method with compensated sums."""
    x, mean, mean_rest, squares, squares_rest = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    if len(lows) >= FEWEST:
        scratch[1:5] = 0.0
        for i in range(longest):
            for j in range(len(lows)):  # a window that is at its end goes on with its mean, which changes nothing
                x[j] = own[np.uint64(lows[j] + i)] if lows[j] + i < highs[j] else mean[j] + mean_rest[j]
            _move_means(x, float(i + 1), mean, mean_rest)
            _add_each(x, squares, squares_rest)
        for j in range(len(lows)):
            out[j] = (squares[j] + squares_rest[j]) / np.float64(highs[j] - lows[j])
    for j in range(len(lows)):
        if highs[j] > lows[j] and (len(lows) < FEWEST or not np.isfinite(out[j])):
            out[j] = _variance(own, lows[j], highs[j])
        if root:
            out[j] = np.sqrt(out[j])


@register_jitable(error_model="numpy", _nrt=False)
def time_sums(predict, own_ms, lows, highs, at_ms, origins_ms, x_sums, xx_sums):
    """The sums over each window of the seconds from its origin and of their squares: of series with the same times the same.

    The origins_ms i64[k] that are set are at_ms to `predict`, else the first samples' times.
    """
    for j in range(len(lows)):
        origins_ms[j] = at_ms[j] if predict or highs[j] == lows[j] else own_ms[lows[j]]
        x_sum = x_rest = xx_sum = xx_rest = 0.0
        for i in range(lows[j], highs[j]):
            x = (own_ms[i] - origins_ms[j]) / 1000.0
            x_sum, x_rest = add(x, x_sum, x_rest)
            xx_sum, xx_rest = add(x * x, xx_sum, xx_rest)
        x_sums[j], xx_sums[j] = x_sum + x_rest, xx_sum + xx_rest


@register_jitable(error_model="numpy", _nrt=False)
def regressions(predict, own, own_ms, lows, highs, longest, origins_ms, seconds, x_sums, xx_sums, scratch, changes, out):
    """The slope a second by least squares or, to `predict`, the value so many `seconds` after the origin. Of at least two samples.

    changes i64[m] is scratch.
    """
    y, xy, y_sum, y_rest, xy_sum, xy_rest = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5]
    origin = scratch[6]
    scratch[2:6] = 0.0
    for j in range(len(lows)):
        origin[j] = float(origins_ms[j])
    for i in range(longest):
        pick(own, lows, highs, i, y)
        pick(own_ms, lows, highs, i, xy)
        for j in range(len(y)):
            xy[j] = (xy[j] - origin[j]) / 1000.0 * y[j]
        _add_each(y, y_sum, y_rest)
        _add_each(xy, xy_sum, xy_rest)
    _count_changes(own, changes)
    for j in range(len(lows)):
        if highs[j] - lows[j] < 2:
            continue
        if changes[highs[j] - 1] == changes[lows[j]]:
            oldest = own[lows[j]]
            slope, intercept = (np.nan, np.nan) if np.isinf(oldest) else (0.0, oldest)
        else:
            n, x_sum, total = np.float64(highs[j] - lows[j]), x_sums[j], y_sum[j] + y_rest[j]
            slope = ((xy_sum[j] + xy_rest[j]) - x_sum * total / n) / (xx_sums[j] - x_sum * x_sum / n)
            intercept = total / n - slope * x_sum / n
        out[j] = slope * seconds[j] + intercept if predict else slope


@register_jitable(error_model="numpy", _nrt=False)
def _count_changes(own, changes):
    """changes[i] i64 is how many samples up to the i-th are not equal to the one before."""
    changes[0] = 0
    for i in range(1, len(own)):
        changes[i] = changes[i - 1] + (1 if own[i] != own[i - 1] else 0)


@register_jitable(error_model="numpy", _nrt=False)
def pick(own, lows, highs, i, x):
    """x[j] is the i-th sample of window j, or what leaves every sum as it is."""
    for j in range(len(lows)):
        x[j] = own[np.uint64(lows[j] + i)] if lows[j] + i < highs[j] else ABSENT


@register_jitable(error_model="numpy", _nrt=False)
def _add_each(x, total, rest):
    """One step of Kahan's summation with Neumaier's improvement for each window. (Few arrays a loop: only so does it vectorise.)"""
    for j in range(len(x)):
        added = total[j] + x[j]
        lost = (total[j] - added) + x[j] if abs(total[j]) >= abs(x[j]) else (x[j] - added) + total[j]
        rest[j] = 0.0 if abs(added) == np.inf else rest[j] + lost
        total[j] = added


@register_jitable(error_model="numpy", _nrt=False)
def _move_means(x, count, mean, rest):
    """The means with one sample more; x becomes what each adds to the squares."""
    for j in range(len(x)):
        delta = x[j] - (mean[j] + rest[j])
        step = delta / count
        added = mean[j] + step
        lost = (mean[j] - added) + step if abs(mean[j]) >= abs(step) else (step - added) + mean[j]
        rest[j] = 0.0 if abs(added) == np.inf else rest[j] + lost
        mean[j] = added
        x[j] = delta * (x[j] - (added + rest[j]))


@register_jitable(error_model="numpy", _nrt=False)
def _sum(own, low, high):
    total = rest = 0.0
    for i in range(low, high):
        total, rest = add(own[i], total, rest)
    return total if np.isinf(total) else total + rest


@register_jitable(error_model="numpy", _nrt=False)
def _mean(own, low, high):
    total, rest, mean, count = own[low], 0.0, 0.0, 1.0
    incremental = False
    for i in range(low + 1, high):
        count = float(i - low + 1)
        if not incremental:
            new_total, new_rest = add(own[i], total, rest)
            if not np.isinf(new_total):
                total, rest = new_total, new_rest
                continue
            incremental = True
            mean = total / (count - 1.0)
            rest /= count - 1.0
        share = (count - 1.0) / count
        mean, rest = add(own[i] / count, share * mean, share * rest)
    return mean + rest if incremental else total / count + rest / count


@register_jitable(error_model="numpy", _nrt=False)
def _variance(own, low, high):
    count = mean = mean_rest = squares = squares_rest = 0.0
    for i in range(low, high):
        count += 1.0
        delta = own[i] - (mean + mean_rest)
        mean, mean_rest = add(delta / count, mean, mean_rest)
        squares, squares_rest = add(delta * (own[i] - (mean + mean_rest)), squares, squares_rest)
    return (squares + squares_rest) / count

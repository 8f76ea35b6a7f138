"""Thanos' downsampled counters as one rising series each.

A counter chunk is: the first raw value; the counter at the end of each window, with resets made up for since that first value;
and once more the last time, with the last raw value. So the step between two chunks is the next chunk's first value less that
last raw value, or the next first value itself where that is smaller (the counter was reset between them).
"""

from dataclasses import replace

import numpy as np

from tsdb.model.series import F64, I64
from tsdb.prometheus.chunk import ChunkSamples


def join_counters(samples: ChunkSamples, row: I64) -> ChunkSamples:
    """The counters without each chunk's last sample, every reset made up for; chunk j is of series row[j], chunks in time order.

    Native histograms are left as they are, but for that last sample.
    """
    sizes = np.diff(samples.at)
    last = samples.at[1:][sizes > 1] - 1
    keep = np.ones(len(samples.t_ms), bool)
    keep[last[samples.t_ms[last] == samples.t_ms[last - 1]]] = False
    values = _totals(samples, row)
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(
        samples, at=kept[samples.at], t_ms=samples.t_ms[keep], values=values[keep],
        start_ms=None if samples.start_ms is None else samples.start_ms[keep],
        histogram_at=None if samples.histogram_at is None else samples.histogram_at[keep],
    )  # fmt: skip


def _totals(samples: ChunkSamples, row: I64) -> F64:
    """f64[m] the values moved so that each chunk goes on where the one before it ended."""
    sizes = np.diff(samples.at)
    filled = np.flatnonzero(sizes)
    if len(filled) == 0:
        return samples.values
    row, start, end = row[filled], samples.at[:-1][filled], samples.at[1:][filled]
    first, raw = samples.values[start], samples.values[end - 1]
    gained = samples.values[np.maximum(end - 2, start)] - first
    step = np.where(first[1:] >= raw[:-1], first[1:] - raw[:-1], first[1:])
    rise = gained[:-1] + step
    begins = np.concatenate([[True], row[1:] != row[:-1]])
    base = np.concatenate([[0.0], np.cumsum(np.where(begins[1:], 0.0, rise))])
    base -= np.repeat(base[begins], np.diff(np.append(np.flatnonzero(begins), len(row))))
    base += np.repeat(first[begins], np.diff(np.append(np.flatnonzero(begins), len(row))))
    moved = samples.values + np.repeat(base - first, sizes[filled])
    return np.where(np.isnan(samples.values), samples.values, moved)

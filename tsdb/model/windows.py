"""Windows: what a downsampled sample knows of the raw samples that it stands for, exact enough to answer as they would.

A window of resolution r is (end - r, end], its end a multiple of r; its time is its end. So the windows (t - range, t] of a query
whose times and ranges are multiples of r consist of whole ones. Its value is that of its newest sample, stale marker included;
the other columns are about its samples without stale markers:

    count         how many they are; 0 in a window of stale markers only, where the rest but last_ms says nothing
    sum           of their values
    squares       sum of their squared distances from the first: whole numbers stay whole, others have 11 digits; NaN where the sum
                  is not finite
    min, max      NaN where all are NaN
    first         the value of the oldest one
    correction    sum of the values before each counter reset: the increase is last - first + correction
    resets        how often a value is smaller than the one before it
    changes       how often it is another one
    first_ms      how long before the end the oldest one was
    last_ms       how long before the end the newest one was; in a window of stale markers only, the newest of those
    before_stale  the value of the newest one where a stale marker follows it in the window, else 0

Native histograms are not put together: of each window its first, its last and those beside a counter reset are kept as they are,
at their own times, and the count of each says how many samples it and those left out behind it are.
"""

from collections.abc import Sequence

import numpy as np

from tsdb.kernel.downsample import BEFORE_STALE, LAST_MS, single_windows
from tsdb.model.series import F64, I64, Bool, SeriesBatch, is_stale

COLUMNS = (
    "count",
    "sum",
    "squares",
    "min",
    "max",
    "first",
    "correction",
    "resets",
    "changes",
    "first_ms",
    "last_ms",
    "before_stale",
)
"""The window columns by their rows in f64[12, m]."""

RESOLUTIONS_MS = (300_000, 3_600_000)
"""The lengths of windows that are made: 5 minutes and 1 hour. Each is a multiple of the one before it."""


def wanted_columns(columns: Sequence[str] | None) -> Bool:
    """bool[12]: the window columns that are named, None = all."""
    return np.array([columns is None or name in columns for name in COLUMNS])


def windows_of(batch: SeriesBatch, columns: Sequence[str] | None = None) -> F64:
    """f64[12, m]: the window columns of a batch; each raw sample is a window of one, that ends when it was taken, with those
    columns only that are named."""
    if batch.windows is not None:
        return batch.windows
    out = np.empty((len(COLUMNS), batch.samples))
    values = np.require(batch.values, np.float64, ["C", "W"])
    first, size = np.zeros(1, np.int64), np.full(1, batch.samples, np.int64)
    single_windows(values, values.view(np.uint64), wanted_columns(columns), first, size, out)
    return out


def last_values(batch: SeriesBatch, windows: F64) -> F64:
    """f64[m]: the newest value of each window that is no stale marker; of no meaning where the count is 0."""
    return np.where(is_stale(batch.values), windows[BEFORE_STALE], batch.values)


def last_times(batch: SeriesBatch, windows: F64) -> I64:
    """i64[m]: when the newest sample of each window was taken."""
    return np.asarray(batch.t_ms - windows[LAST_MS].astype(np.int64))

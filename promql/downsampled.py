"""Selectors over downsampled samples: what functions see of them, and the notes where that is an approximation."""

from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.matrix import F64, I64, Bool
from promql.resolution import EXACT_NATIVE, INSTANT, Read
from promql.syntax.ast import Span
from promql.syntax.gotext import format_duration_ms
from promql.window.windows import Windows, keep_samples
from tsdb.kernel import window_merge as kernel
from tsdb.kernel.downsample import COUNT, MAX, MIN, SUM
from tsdb.model.series import SeriesBatch
from tsdb.model.windows import last_times, last_values

CODES: dict[str, int] = {
    "count_over_time": kernel.COUNT,
    "sum_over_time": kernel.SUM,
    "avg_over_time": kernel.AVG,
    "stdvar_over_time": kernel.STDVAR,
    "stddev_over_time": kernel.STDDEV,
    "min_over_time": kernel.MIN,
    "max_over_time": kernel.MAX,
    "changes": kernel.CHANGES,
    "resets": kernel.RESETS,
    "first_over_time": kernel.FIRST,
    "last_over_time": kernel.LAST,
    "ts_of_first_over_time": kernel.TS_OF_FIRST,
    "ts_of_last_over_time": kernel.TS_OF_LAST,
    "present_over_time": kernel.PRESENT,
    "absent_over_time": kernel.PRESENT,
    "rate": kernel.RATE,
    "increase": kernel.INCREASE,
    "delta": kernel.DELTA,
}
"""The functions that put whole windows together. All others take the newest sample of each window for a raw one."""
USED: dict[str, tuple[str, ...]] = {
    "sum_over_time": ("sum",),
    "avg_over_time": ("sum", "min", "max"),
    "stdvar_over_time": ("sum", "squares", "first", "min", "max"),
    "stddev_over_time": ("sum", "squares", "first", "min", "max"),
    "min_over_time": ("min",),
    "max_over_time": ("max",),
    "changes": ("changes", "first"),
    "resets": ("resets", "first"),
    "first_over_time": ("first",),
    "rate": ("first", "correction"),
    "increase": ("first", "correction"),
    "delta": ("first",),
}
"""The window columns that functions look at beside those that all do."""
USED_BY_ALL = ("count", "first_ms", "last_ms", "before_stale")
"""Whether a window has a sample, when its newest was taken, and what it is; merging with raw samples asks when its first was."""
MEANS = ("avg_over_time", "stddev_over_time", "stdvar_over_time")
"""Functions that raw samples answer even where their sum overflows."""


def columns_for(func: str) -> tuple[str, ...]:
    """The window columns that a function over ranges, or INSTANT, looks at."""
    return (*USED_BY_ALL, *USED.get(func, ()))


def as_points(batch: SeriesBatch) -> SeriesBatch:
    """The newest sample of each window as a raw one at its own time, stale markers included; a raw batch as it is."""
    if batch.windows is None:
        return batch
    return replace(batch, t_ms=last_times(batch, batch.windows), windows=None)


def for_function(func: str, batch: SeriesBatch, windows: Windows) -> SeriesBatch:
    """What a function over ranges sees of a batch: whole windows, or their newest samples. None that has stale markers only."""
    if batch.windows is None:
        return batch
    batch = replace(batch, values=last_values(batch, batch.windows))
    batch = keep_samples(batch, batch.windows[COUNT] > 0)  # type: ignore[index]
    return batch if func in CODES and not windows.anchored and not windows.smoothed else as_points(batch)


def merge_windows(func: str, batch: SeriesBatch, columns: F64, offsets: I64, windows: Windows, values: F64, present: Bool) -> None:
    """Fill values f64[n, k] and present bool[n, k] with a function of CODES over the series at offsets i64[n+1]."""
    kernel.merge_windows(
        CODES[func], windows.range_s, offsets, batch.t_ms, batch.values, columns, windows.ends_ms, windows.range_ms,
        values, present,
    )  # fmt: skip


def note_approximated(func: str, batch: SeriesBatch, read: Read, span: Span, notes: Annotations) -> None:
    """An info where a batch holds samples that are too coarse for an exact answer; func is INSTANT for a selector alone."""
    if batch.resolution_ms == 0:
        return
    native = batch.histogram_at is not None and bool(np.any(batch.histogram_at >= 0))
    rough = native and func != INSTANT and func not in EXACT_NATIVE
    if batch.resolution_ms > read.exact_ms or rough or (func in MEANS and _overflowed(batch)):
        what = func if func == INSTANT else f"{func}()"
        notes.info(f"{what} over samples downsampled to {format_duration_ms(batch.resolution_ms)} is approximated", span)


def _overflowed(batch: SeriesBatch) -> bool:
    """Whether the sum of any window is infinite though none of its values is."""
    if batch.windows is None:
        return False
    sums, low, high = batch.windows[SUM], batch.windows[MIN], batch.windows[MAX]
    return bool(np.any(np.isinf(sums) & np.isfinite(low) & np.isfinite(high)))

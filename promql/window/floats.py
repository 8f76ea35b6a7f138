"""Functions over the float samples of range vectors: each name with its kernel and the least samples it needs."""

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from promql.downsampled import merge_windows
from promql.matrix import F64, I64, Bool
from promql.window.windows import NO_STARTS, Windows
from tsdb.kernel import window, window_rise
from tsdb.kernel import window_reduce as kernel
from tsdb.model.series import SeriesBatch
from tsdb.model.work import submit

REDUCTIONS: dict[str, tuple[int, int]] = {
    "sum_over_time": (kernel.SUM, 1),
    "avg_over_time": (kernel.AVG, 1),
    "stdvar_over_time": (kernel.STDVAR, 1),
    "stddev_over_time": (kernel.STDDEV, 1),
    "min_over_time": (kernel.MIN, 1),
    "max_over_time": (kernel.MAX, 1),
    "ts_of_min_over_time": (kernel.TS_OF_MIN, 1),
    "ts_of_max_over_time": (kernel.TS_OF_MAX, 1),
    "quantile_over_time": (kernel.QUANTILE, 1),
    "mad_over_time": (kernel.MAD, 1),
    "changes": (kernel.CHANGES, 1),
    "resets": (kernel.RESETS, 1),
    "irate": (kernel.IRATE, 2),
    "idelta": (kernel.IDELTA, 2),
    "deriv": (kernel.DERIV, 2),
    "predict_linear": (kernel.PREDICT_LINEAR, 2),
    "double_exponential_smoothing": (kernel.SMOOTHING, 2),
}
"""The kernel's code of each reduction, and how many samples a window must hold at least."""

EXTRAPOLATED: dict[str, tuple[bool, bool]] = {"rate": (True, True), "increase": (True, False), "delta": (False, False)}
"""Whether the function is about counters, and whether its result is per second."""

PICKS = frozenset(
    [
        "count_over_time",
        "present_over_time",
        "absent_over_time",
        "first_over_time",
        "last_over_time",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
    ]
)
"""What follows from the bounds of a window alone."""

COSTLY = frozenset(
    [
        "deriv",
        "double_exponential_smoothing",
        "mad_over_time",
        "predict_linear",
        "quantile_over_time",
        "stddev_over_time",
        "stdvar_over_time",
    ]
)
"""Functions that look at a sample again for each window that it is in."""

MIN_PART_SAMPLES = 75_000
"""Fewer samples to look at than this take about as little time as handing them to a thread."""
MAX_PARTS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Floats:
    """values f64[n, k] where present bool[n, k]; overlap bool[n]: series whose start timestamps contradict one another."""

    values: F64
    present: Bool
    overlap: Bool


def float_windows(
    func: str, batch: SeriesBatch, windows: Windows, params: Sequence[F64], executor: Executor | None = None
) -> Floats:
    """The function over each window of float samples; params are its scalar arguments, f64[k] each.

    `batch` has neither stale markers nor histograms. With an executor the series are shared among its threads.
    """
    shape = (len(batch), len(windows.ends_ms))
    if batch.windows is not None:
        batch = replace(batch, windows=np.require(batch.windows, np.float64, ["C", "W"]))
    out = Floats(np.zeros(shape), np.empty(shape, bool), np.zeros(len(batch), bool))
    run = partial(_run, func, batch, windows, params, out)
    if executor is None:
        run(0, len(batch))
        return out
    own, *others = _parts(batch, batch.samples * (windows.overlap if func in COSTLY else 1.0))
    waiting = [submit(executor, partial(run, *part)) for part in others]
    run(*own)
    for part in waiting:
        part.result()
    return out


def _parts(batch: SeriesBatch, work: float) -> list[tuple[int, int]]:
    """Ranges of series of about equal numbers of samples; `work` samples are looked at in all."""
    size = min(MAX_PARTS, int(work // MIN_PART_SAMPLES))
    if size < 2:
        return [(0, len(batch))]
    wanted = np.linspace(batch.offsets[0], batch.offsets[-1], size + 1)
    edges = np.unique(np.searchsorted(batch.offsets, wanted)).tolist()
    return list(pairwise(edges))


def _run(func: str, batch: SeriesBatch, windows: Windows, params: Sequence[F64], whole: Floats, first: int, stop: int) -> None:
    """Fill the rows first:stop of `whole`."""
    out = Floats(whole.values[first:stop], whole.present[first:stop], whole.overlap[first:stop])
    offsets = batch.offsets[first : stop + 1]
    if batch.windows is not None:
        merge_windows(func, batch, batch.windows, offsets, windows, out.values, out.present)
    elif func in EXTRAPOLATED:
        _run_extrapolated(func, batch, offsets, windows, out)
    elif func in PICKS:
        _run_pick(func, batch, offsets, windows, out)
    else:
        _run_reduction(func, batch, offsets, windows, params, out)


def _run_extrapolated(func: str, batch: SeriesBatch, offsets: I64, windows: Windows, out: Floats) -> None:
    counter, per_second = EXTRAPOLATED[func]
    if windows.anchored or windows.smoothed:
        window_rise.extended_windows(
            windows.smoothed, counter, windows.range_s if per_second else 1.0, offsets, batch.t_ms, batch.values,
            windows.ends_ms, windows.range_ms, windows.lookback_ms, out.values, out.present,
        )  # fmt: skip
        return
    window_rise.counter_windows(
        counter, per_second, windows.range_s, offsets, batch.t_ms, batch.values, _starts(batch),
        windows.ends_ms, windows.range_ms, out.values, out.present, out.overlap,
    )  # fmt: skip


def _run_reduction(func: str, batch: SeriesBatch, offsets: I64, windows: Windows, params: Sequence[F64], out: Floats) -> None:
    code, smallest = REDUCTIONS[func]
    none = np.zeros(len(windows.ends_ms))
    first, second = (*params, none, none)[:2]
    if code in kernel.FITTED:
        kernel.fit_windows(
            code, offsets, batch.t_ms, batch.values, windows.ends_ms, windows.range_ms, windows.steps.ms, first, smallest,
            out.values, out.present,
        )  # fmt: skip
        return
    kernel.reduce_windows(
        code, offsets, batch.t_ms, batch.values, _starts(batch), windows.ends_ms, windows.range_ms,
        windows.lookback_ms if windows.anchored else 0, first, second, smallest, out.values, out.present,
    )  # fmt: skip


def _run_pick(func: str, batch: SeriesBatch, offsets: I64, windows: Windows, out: Floats) -> None:
    lo, hi = np.empty(out.values.shape, np.int64), np.empty(out.values.shape, np.int64)
    window.window_bounds(offsets, batch.t_ms, windows.ends_ms, windows.range_ms, 0, lo, hi)
    np.greater(hi, lo, out=out.present)
    if func == "count_over_time":
        np.subtract(hi, lo, out=out.values, casting="unsafe")
    elif func in ("present_over_time", "absent_over_time"):
        out.values.fill(1.0)
    else:
        row = lo if "first" in func else hi - 1
        row[~out.present] = 0
        if batch.samples:
            out.values[:] = batch.t_ms[row] / 1000.0 if func.startswith("ts_of") else batch.values[row]


def _starts(batch: SeriesBatch) -> I64:
    return NO_STARTS if batch.start_ms is None else batch.start_ms

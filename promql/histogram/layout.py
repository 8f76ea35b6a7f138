"""Bringing native histograms onto one layout: zero thresholds and custom bounds. Schemas are coarsened where buckets are added.

Nearly always all histograms of a sum have one layout, and then these functions return at once what they were given.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tsdb.kernel import histogram as kernel
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Buckets, Histograms, ragged

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def columns(histograms: Histograms) -> kernel.Columns:
    """The columns as kernels take them."""
    return kernel.Columns(
        histograms.schema.astype(np.int64), histograms.count, histograms.sum, histograms.zero_threshold, histograms.zero_count,
        histograms.positive.offsets, histograms.positive.index, histograms.positive.counts,
        histograms.negative.offsets, histograms.negative.index, histograms.negative.counts,
        histograms.bounds_offsets, histograms.bounds,
    )  # fmt: skip


def on_common_threshold(
    histograms: Histograms, rows: I64, job: I64, live: Bool, jobs: int
) -> tuple[Histograms, I64, F64]:  # fmt: skip
    """(histograms, rows i64[t], threshold f64[jobs]) with all live terms of a job on one zero threshold.

    It is the smallest that is no less than any term's and cuts no populated bucket of any term.
    """
    own = np.where(live, histograms.zero_threshold[rows], 0.0)
    threshold = np.zeros(jobs)
    np.maximum.at(threshold, job, own)
    differs = live & (own != threshold[job]) & (histograms.schema[rows] != CUSTOM_BUCKETS_SCHEMA)
    if not differs.any():
        return histograms, rows, threshold
    histograms = histograms.take(rows)
    sides = (histograms.positive, histograms.negative)
    bounds = [_bounds(side, histograms.schema) for side in sides]
    odd = np.zeros(jobs, bool)
    odd[job[differs]] = True
    cut = True
    while cut:
        cut = False
        for side, (lower, upper) in zip(sides, bounds, strict=True):
            smaller = live & odd[job] & (histograms.zero_threshold < threshold[job])  # who has this threshold may overlap it
            at = np.repeat(np.where(smaller, job, -1), np.diff(side.offsets))
            inside = (at >= 0) & (side.counts != 0) & (lower < threshold[at]) & (threshold[at] < upper)
            np.maximum.at(threshold, at[inside], upper[inside])
            cut = cut or bool(inside.any())
    return with_threshold(histograms, np.where(live, threshold[job], histograms.zero_threshold)), np.arange(len(rows)), threshold


def with_threshold(histograms: Histograms, threshold: F64) -> Histograms:
    """The same with larger zero thresholds f64[n], the buckets below them counted in the zero bucket."""
    zero_count = histograms.zero_count.copy()
    grown = threshold > histograms.zero_threshold
    sides = []
    for side in (histograms.positive, histograms.negative):
        row = np.repeat(np.arange(len(histograms)), np.diff(side.offsets))
        gone = grown[row] & (_bounds(side, histograms.schema)[1] <= threshold[row])
        zero_count += np.bincount(row[gone], side.counts[gone], len(histograms))
        sides.append(side.where(~gone))
    return replace(
        histograms,
        zero_threshold=np.where(grown, threshold, histograms.zero_threshold),
        zero_count=zero_count,
        positive=sides[0],
        negative=sides[1],
    )


def on_common_bounds(
    histograms: Histograms, rows: I64, job: I64, custom: Bool
) -> tuple[Histograms, I64, tuple[I64, F64], Bool]:  # fmt: skip
    """(histograms, rows i64[t], bounds (offsets, values) of each job, where they differed bool[jobs]).

    Terms of jobs that are `custom` bool[jobs] are brought onto the bounds that all terms of the job have.
    """
    jobs = len(custom)
    reconciled = np.zeros(jobs, bool)
    if not custom.any():
        return histograms, rows, (np.zeros(jobs + 1, np.int64), np.empty(0)), reconciled
    layout, layouts = bounds_layouts(histograms)
    own = layout[rows]
    low, high = np.full(jobs, len(layouts), np.int64), np.zeros(jobs, np.int64)
    np.minimum.at(low, job, own)
    np.maximum.at(high, job, own)
    reconciled = custom & (low != high)
    target = low
    if reconciled.any():
        target = _shared_layouts(own, job, low, reconciled, layouts)
        histograms = _with_layout(histograms.take(rows), own, np.where(custom[job], target[job], own), layouts)
        rows = np.arange(len(rows))
    offsets, at = ragged(_offsets([len(bounds) for bounds in layouts]), np.where(custom, target, 0))
    return histograms, rows, (offsets, np.concatenate(layouts)[at]), reconciled


def bounds_layouts(histograms: Histograms) -> tuple[I64, list[F64]]:
    """(layout number i64[n], the distinct custom bounds); number 0 is no bounds. A loop over runs of equal neighbours only."""
    lengths = np.diff(histograms.bounds_offsets)
    fresh = np.ones(len(histograms), bool)
    fresh[1:] = lengths[1:] != lengths[:-1]
    row = np.repeat(np.arange(len(histograms)), lengths)
    before = np.arange(len(row)) - lengths[row - 1]  # of the same place in the row before, where that is as long
    differs = (row > 0) & ~fresh[row]
    differs[differs] = histograms.bounds[differs] != histograms.bounds[before[differs]]
    fresh[row[differs]] = True
    known: dict[bytes, int] = {b"": 0}
    layouts: list[F64] = [np.empty(0)]
    starts = np.flatnonzero(fresh)
    numbers = np.empty(len(starts), np.int64)
    for i, start in enumerate(starts.tolist()):
        bounds = histograms.bounds[histograms.bounds_offsets[start] : histograms.bounds_offsets[start + 1]]
        numbers[i] = known.setdefault(bounds.tobytes(), len(layouts))
        if numbers[i] == len(layouts):
            layouts.append(bounds)
    return numbers[np.cumsum(fresh) - 1], layouts


def _bounds(side: Buckets, schema: npt.NDArray[np.int8]) -> tuple[F64, F64]:
    """(lower, upper) f64[b] bounds of exponential buckets, by their absolute value; of custom ones nothing useful."""
    of = np.repeat(np.maximum(schema, -4).astype(np.int64), np.diff(side.offsets))
    index = side.index.astype(np.int64)
    return kernel.upper_bounds(index - 1, of), kernel.upper_bounds(index, of)


def _shared_layouts(own: I64, job: I64, low: I64, reconciled: Bool, layouts: list[F64]) -> I64:
    """The layout number of each job's shared bounds; new ones are appended to `layouts`."""
    out = low.copy()
    odd = np.flatnonzero(reconciled[job])
    members: dict[int, set[int]] = {}
    for at, number in zip(job[odd].tolist(), own[odd].tolist(), strict=True):
        members.setdefault(at, set()).add(number)
    known: dict[frozenset[int], int] = {}
    for at, numbers in members.items():
        key = frozenset(numbers)
        if key not in known:
            shared = layouts[min(numbers)]
            for number in numbers:
                shared = np.intersect1d(shared, layouts[number])
            known[key] = next((i for i, bounds in enumerate(layouts) if np.array_equal(bounds, shared)), len(layouts))
            if known[key] == len(layouts):
                layouts.append(shared)
        out[at] = known[key]
    return out


def _with_layout(histograms: Histograms, own: I64, target: I64, layouts: list[F64]) -> Histograms:
    """The custom histograms with coarser bounds: from layout numbers `own` to `target`, i64[n] each."""
    side = histograms.positive
    index = side.index.astype(np.int64)
    row = np.repeat(np.arange(len(histograms)), np.diff(side.offsets))
    changed = own != target
    for source, wanted in np.unique(np.stack([own[changed], target[changed]], axis=1), axis=0).tolist():
        to = np.searchsorted(layouts[wanted], layouts[source])  # the first wanted bound that is not below
        here = ((own == source) & (target == wanted))[row]
        index[here] = np.append(to, len(layouts[wanted]))[np.clip(index[here], 0, len(to))]
    offsets, at = ragged(_offsets([len(bounds) for bounds in layouts]), target)
    bounds = np.concatenate(layouts)[at]
    merged = kernel.add_buckets(
        side.offsets, index.astype(np.int32), side.counts,
        np.arange(len(own) + 1), np.arange(len(own)), np.ones(len(own)), np.zeros(len(own), np.int64),
    )  # fmt: skip
    return replace(histograms, positive=Buckets(*merged), bounds_offsets=offsets, bounds=bounds)


def _offsets(lengths: list[int]) -> I64:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

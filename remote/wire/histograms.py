"""Native histograms of a write: scanned messages become `HistogramSamples`, stale ones float markers, bad ones words."""

from dataclasses import dataclass

import numpy as np

from tsdb.kernel import scan_histogram as scan
from tsdb.kernel.scan_histogram import COUNT, SUM, ZERO_COUNT, ZERO_THRESHOLD, HistogramColumns, scan_histograms
from tsdb.model.errors import BadData
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.write import I32, I64, U8, HistogramSamples, PushResult


@dataclass(frozen=True, slots=True)
class DecodedHistograms:
    """The good ones; the stale markers' row i32[s] and t_ms i64[s]; whether any was left out."""

    samples: HistogramSamples | None
    stale_row: I32
    stale_t_ms: I64
    lost: bool


def decode_histograms(buffer: U8, ranges: I64, rejected: PushResult) -> DecodedHistograms:
    """The histograms whose messages are in ranges i64[h, 4] (kind, row, start, end); what is wrong is told to `rejected`."""
    columns = _columns(ranges)
    broken = scan_histograms(buffer, ranges, columns)
    if broken >= 0:
        raise BadData(f"remote write: broken histogram at byte {broken}")
    fault = columns.fault
    for code in np.unique(fault).tolist():
        if code not in (scan.GOOD, scan.STALE):
            rows = np.flatnonzero(fault == code)
            reason = "out-of-bounds" if code == scan.BAD_TIME else "invalid-histogram"
            rejected.reject(reason, len(rows), _describe(code, columns, int(rows[0])))
    row = ranges[:, 1].astype(np.int32)
    good, stale = np.flatnonzero(fault == scan.GOOD), np.flatnonzero(fault == scan.STALE)
    samples = None
    if len(good):
        whole = _histograms(columns)
        picked = whole if len(good) == len(whole) else whole.take(good)
        samples = HistogramSamples(row[good], columns.t_ms[good], columns.start_ms[good], picked)
    return DecodedHistograms(samples, row[stale], columns.t_ms[stale], len(good) + len(stale) < len(fault))


def _columns(ranges: I64) -> HistogramColumns:
    sizes = ranges[:, 3] - ranges[:, 2]
    h, total, largest = len(ranges), int(sizes.sum()), int(sizes.max())
    numbers, raw, bounds = np.empty((4, h)), np.empty((4, largest + 1), np.int64), np.empty(total // 8 + 1)
    i64 = np.int64
    return HistogramColumns(
        fault=np.empty(h, np.uint8), detail=np.zeros((h, 2)), schema=np.empty(h, i64), hint=np.empty(h, np.uint8),
        integer=np.empty(h, bool), numbers=numbers, bits=numbers.view(np.uint64), t_ms=np.empty(h, i64), start_ms=np.empty(h, i64),
        offsets=np.empty((2, h + 1), i64), buckets=np.empty((2, total + 1), np.int32), counts=np.empty((2, total + 1)),
        bounds_offsets=np.empty(h + 1, i64), bounds=bounds, bound_bits=bounds.view(np.int64),
        spans=np.empty((2, largest // 2 + 1, 2), i64), raw=raw, raw_floats=raw.view(np.float64), used=np.empty(6, i64),
        integers=np.empty(2, np.uint64),
    )  # fmt: skip


def _histograms(columns: HistogramColumns) -> Histograms:
    negative, positive = (_buckets(columns, side) for side in (0, 1))
    numbers = columns.numbers
    return Histograms(
        columns.schema.astype(np.int8), columns.hint, columns.integer, numbers[COUNT], numbers[SUM], numbers[ZERO_THRESHOLD],
        numbers[ZERO_COUNT], positive, negative, columns.bounds_offsets, columns.bounds[: columns.bounds_offsets[-1]].copy(),
    )  # fmt: skip


def _buckets(columns: HistogramColumns, side: int) -> Buckets:
    size = columns.offsets[side, -1]
    return Buckets(columns.offsets[side], columns.buckets[side, :size].copy(), columns.counts[side, :size].copy())


def _describe(code: int, columns: HistogramColumns, j: int) -> str:
    """Prometheus's words (model/histogram/generic.go) for the rule that histogram j breaks."""
    first, second = columns.detail[j].tolist()
    if code == scan.BAD_TIME:
        return f"timestamp {columns.t_ms[j]} of a histogram is out of bounds"
    if code == scan.SCHEMA:
        return (
            "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom "
            f"buckets, got schema {columns.schema[j]}"
        )
    if code == scan.SPAN_COUNT:
        return f"spans need {first:.0f} buckets, have {second:.0f} buckets: {_WORDS[code]}"
    if code == scan.NEGATIVE_BUCKET:
        return f"bucket number {first:.0f} has observation count of {second:g}: {_WORDS[code]}"
    if code in (scan.COUNT_SMALL, scan.COUNT_MISMATCH):
        return f"{first:.0f} observations found in buckets, but the Count field is {second:.0f}: {_WORDS[code]}"
    if code == scan.CUSTOM_FEW:
        few = f"only {first:.0f} custom bounds defined which is insufficient to cover total span length of {second:.0f}"
        return f"{few}: {_WORDS[code]}"
    return _WORDS[code]


_WORDS = {
    scan.SPAN_OFFSET: "histogram has a span whose offset is negative",
    scan.SPAN_COUNT: "histogram spans specify different number of buckets than provided",
    scan.NEGATIVE_BUCKET: "histogram has a bucket whose observation count is negative",
    scan.NEGATIVE_COUNT: "histogram's observation count is negative",
    scan.COUNT_SMALL: ("histogram's observation count should be at least the number of observations found in the buckets"),
    scan.COUNT_MISMATCH: (
        "histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    ),
    scan.CUSTOM_ZERO: "custom buckets: must have zero count of 0 and zero threshold of 0",
    scan.CUSTOM_NEGATIVE: "custom buckets: must not have negative spans or negative buckets",
    scan.CUSTOM_FEW: "histogram custom bounds are too few",
    scan.CUSTOM_ORDER: "histogram custom bounds must be in strictly increasing order",
    scan.CUSTOM_INFINITE: "histogram custom bounds must be finite",
    scan.CUSTOM_NAN: "histogram custom bounds must not be NaN",
    scan.EXPONENTIAL_BOUNDS: "histogram with exponential schema must not have custom bounds",
}

"""Native histograms back from the JSON of the HTTP API, which tells bounds and counts but no schema.

The schema is the one whose bounds those are; bounds of no exponential schema make a histogram with custom buckets. What
comes back has the same buckets, bounds, count and sum; custom bounds that only bound empty buckets are not known.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, MAX_SCHEMA, MIN_SCHEMA, Buckets, Histograms, concat_histograms

ZERO_BUCKET = 3
"""The code of a bucket closed at both ends."""

_CLOSE = 1e-6
"""A bound's place among the powers of 2^(2^-schema) is a whole number but for rounding."""

Bucket = tuple[int, float, float, float]


class HistogramBody(msgspec.Struct):
    """A native histogram in the API's JSON: numbers are strings, buckets [code, lower, upper, count]."""

    count: str
    sum: str
    buckets: list[tuple[int, str, str, str]] = []


def parse_histograms(told: Sequence[HistogramBody]) -> Histograms:
    """n histograms. ValueError where a number is none."""
    return concat_histograms([_parse(one) for one in told])


def _parse(told: HistogramBody) -> Histograms:
    buckets = [(code, float(low), float(high), float(count)) for code, low, high, count in told.buckets]
    zero = [b for b in buckets if b[0] == ZERO_BUCKET and b[1] == -b[2] and math.isfinite(b[2])]
    rest = [b for b in buckets if b not in zero]
    schema = _schema(rest)
    if schema is None:
        return _custom(told, buckets)
    threshold, zero_count = (zero[0][2], zero[0][3]) if zero else (0.0, 0.0)
    positive = [(_place(high, schema), count) for _, low, high, count in rest if high > 0]
    negative = [(_place(-low, schema), count) for _, low, high, count in rest if high <= 0]
    return _one(told, schema, positive, negative, threshold=threshold, zero_count=zero_count, bounds=[])


def _custom(told: HistogramBody, buckets: Sequence[Bucket]) -> Histograms:
    bounds = sorted({bound for _, low, high, _ in buckets for bound in (low, high) if math.isfinite(bound)})
    place = {bound: i for i, bound in enumerate(bounds)}
    positive = [(place.get(high, len(bounds)), count) for _, _, high, count in buckets]
    return _one(told, CUSTOM_BUCKETS_SCHEMA, positive, [], threshold=0.0, zero_count=0.0, bounds=bounds)


def _one(
    told: HistogramBody, schema: int, positive: list[tuple[int, float]], negative: list[tuple[int, float]],
    *, threshold: float, zero_count: float, bounds: list[float],
) -> Histograms:  # fmt: skip
    count, total = float(told.count), float(told.sum)
    f64 = np.float64
    return Histograms(
        np.array([schema], np.int8), np.array([GAUGE], np.uint8), np.array([False]), np.array([count], f64), np.array([total], f64),
        np.array([threshold], f64), np.array([zero_count], f64), _side(positive), _side(negative),
        np.array([0, len(bounds)], np.int64), np.array(bounds, f64),
    )  # fmt: skip


def _side(buckets: list[tuple[int, float]]) -> Buckets:
    index, counts = zip(*sorted(buckets), strict=True) if buckets else ((), ())
    return Buckets(np.array([0, len(index)], np.int64), np.array(index, np.int32), np.array(counts, np.float64))


def _schema(buckets: Sequence[Bucket]) -> int | None:
    """The schema whose buckets these are, or None. The widest tells it: one that meets the zero bucket may be cut short."""
    outer = [max(abs(low), abs(high)) for _, low, high, _ in buckets]
    inner = [min(abs(low), abs(high)) for _, low, high, _ in buckets]
    if any(not math.isfinite(bound) for bound in outer) or any(bound <= 0 for bound in inner):
        return None
    if any(low < 0 < high for _, low, high, _ in buckets):
        return None
    if not buckets:
        return 0
    width = max(math.log2(high / low) for low, high in zip(inner, outer, strict=True))
    schema = round(-math.log2(width)) if width > 0 else MAX_SCHEMA + 1
    places = [math.log2(bound) * 2.0**schema for bound in outer]
    fits = abs(width * 2.0**schema - 1) < _CLOSE and all(abs(p - round(p)) < _CLOSE * max(abs(p), 1) for p in places)
    return schema if fits and MIN_SCHEMA <= schema <= MAX_SCHEMA else None


def _place(bound: float, schema: int) -> int:
    return round(math.log2(bound) * 2.0**schema)

"""The histogram literals of test scripts, `{{schema:0 sum:5 buckets:[1 2]}}`, with arithmetic of their own as an oracle."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from promql.syntax.gotext import format_number
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, UNKNOWN_RESET, Buckets, Histograms

EPSILON = 1e-6
"""Relative error that Prometheus's own suite allows."""
_HINTS = {"unknown": 0, "reset": 1, "not_reset": 2, "gauge": 3}
_FIELD = re.compile(r"(\w+):(\[[^\]]*\]|[^\s\]]+)")


@dataclass(frozen=True, slots=True)
class HistogramLiteral:
    """One native histogram; buckets map index to count. `hint` is None where the literal gives none."""

    schema: int = 0
    count: float = 0.0
    sum: float = 0.0
    zero_count: float = 0.0
    zero_threshold: float = 0.0
    positive: dict[int, float] = field(default_factory=dict)
    negative: dict[int, float] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    hint: int | None = None


def parse_histogram(text: str) -> HistogramLiteral:
    """The literal between `{{` and `}}`. ValueError on a key or a value that the language does not know."""
    fields = dict(_FIELD.findall(text))
    unknown = fields.keys() - _KEYS
    if unknown or len(_FIELD.findall(text)) != len(fields):
        raise ValueError(f"histogram {text!r}: unknown or repeated keys {sorted(unknown)}")
    number = {key: _number(value) for key, value in fields.items() if key in _NUMBERS}
    return HistogramLiteral(
        schema=int(fields.get("schema", "0")),
        count=number.get("count", 0.0),
        sum=number.get("sum", 0.0),
        zero_count=number.get("z_bucket", 0.0),
        zero_threshold=number.get("z_bucket_w", 0.0),
        positive=_buckets(fields.get("buckets", ""), int(fields.get("offset", "0"))),
        negative=_buckets(fields.get("n_buckets", ""), int(fields.get("n_offset", "0"))),
        bounds=tuple(_list(fields.get("custom_values", ""))),
        hint=_HINTS[fields["counter_reset_hint"]] if "counter_reset_hint" in fields else None,
    )


def combine(a: HistogramLiteral, b: HistogramLiteral, sign: float) -> HistogramLiteral:
    """a + sign·b, where b is at least as fine as a and of the same kind; a keeps its zero threshold.

    Its hint is gauge where either is one, else what both agree on.
    """
    if a.schema > b.schema or a.bounds != b.bounds:
        raise ValueError(f"cannot combine schema {a.schema} with {b.schema}")
    shift = b.schema - a.schema
    return replace(
        a,
        count=a.count + sign * b.count,
        sum=a.sum + sign * b.sum,
        zero_count=a.zero_count + sign * b.zero_count,
        zero_threshold=max(a.zero_threshold, b.zero_threshold),
        positive=_combine_buckets(a.positive, b.positive, sign, shift),
        negative=_combine_buckets(a.negative, b.negative, sign, shift),
        hint=GAUGE if GAUGE in (a.hint, b.hint) else a.hint if a.hint == b.hint else None,
    )


def to_histograms(literals: Sequence[HistogramLiteral]) -> Histograms:
    """All literals as one struct of arrays."""

    def column(name: str) -> np.ndarray:
        return np.array([getattr(literal, name) for literal in literals], np.float64)

    return Histograms(
        np.array([literal.schema for literal in literals], np.int8),
        np.array([UNKNOWN_RESET if literal.hint is None else literal.hint for literal in literals], np.uint8),
        np.zeros(len(literals), bool),
        column("count"),
        column("sum"),
        column("zero_threshold"),
        column("zero_count"),
        _to_buckets([literal.positive for literal in literals]),
        _to_buckets([literal.negative for literal in literals]),
        np.cumsum([0, *(len(literal.bounds) for literal in literals)]).astype(np.int64),
        np.array([bound for literal in literals for bound in literal.bounds], np.float64),
    )


def from_histograms(histograms: Histograms, row: int) -> HistogramLiteral:
    """One row as a literal."""

    def side(buckets: Buckets) -> dict[int, float]:
        at = slice(int(buckets.offsets[row]), int(buckets.offsets[row + 1]))
        return dict(zip(buckets.index[at].tolist(), buckets.counts[at].tolist(), strict=True))

    bounds = histograms.bounds[histograms.bounds_offsets[row] : histograms.bounds_offsets[row + 1]]
    return HistogramLiteral(
        int(histograms.schema[row]),
        float(histograms.count[row]),
        float(histograms.sum[row]),
        float(histograms.zero_count[row]),
        float(histograms.zero_threshold[row]),
        side(histograms.positive),
        side(histograms.negative),
        tuple(bounds.tolist()),
        int(histograms.hint[row]),
    )


def almost_equal(a: float, b: float) -> bool:
    """Prometheus's comparison of sample values in tests: relative EPSILON; NaN equals NaN."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return False
    total, smallest = abs(a) + abs(b), 2.2250738585072014e-308
    if a == 0 or b == 0 or total < smallest:
        return abs(a - b) < EPSILON * smallest
    return abs(a - b) / min(total, 1.7976931348623157e308) < EPSILON


def same_histogram(expected: HistogramLiteral, actual: HistogramLiteral) -> bool:
    """Equal within EPSILON; empty buckets do not count, and the hint only where `expected` gives one."""
    return (
        expected.schema == actual.schema
        and (expected.schema != CUSTOM_BUCKETS_SCHEMA or expected.bounds == actual.bounds)
        and expected.zero_threshold == actual.zero_threshold
        and all(almost_equal(getattr(expected, f), getattr(actual, f)) for f in ("count", "sum", "zero_count"))
        and _same_buckets(expected.positive, actual.positive)
        and _same_buckets(expected.negative, actual.negative)
        and expected.hint in (None, actual.hint)
    )


def show(literal: HistogramLiteral) -> str:
    """The literal's text, for messages."""
    parts = [f"schema:{literal.schema} count:{format_number(literal.count)} sum:{format_number(literal.sum)}"]
    parts += [f"z_bucket:{format_number(literal.zero_count)} z_bucket_w:{literal.zero_threshold}"] if literal.zero_count else []
    for name, side in (("", literal.positive), ("n_", literal.negative)):
        filled = {i: c for i, c in sorted(side.items()) if c}
        parts += [f"{name}buckets:{filled}"] if filled else []
    parts += [f"custom_values:{list(literal.bounds)}"] if literal.bounds else []
    parts += [f"hint:{literal.hint}"] if literal.hint is not None else []
    return "{{" + " ".join(parts) + "}}"


_NUMBERS = {"count", "sum", "z_bucket", "z_bucket_w"}
_KEYS = _NUMBERS | {"schema", "offset", "n_offset", "buckets", "n_buckets", "custom_values", "counter_reset_hint"}


def _number(text: str) -> float:
    return float(text)


def _list(text: str) -> list[float]:
    return [_number(part) for part in text.strip("[]").split()]


def _buckets(text: str, offset: int) -> dict[int, float]:
    return {offset + i: count for i, count in enumerate(_list(text))}


def _combine_buckets(a: dict[int, float], b: dict[int, float], sign: float, shift: int) -> dict[int, float]:
    out = dict(a)
    for index, count in b.items():
        coarse = ((index - 1) >> shift) + 1
        out[coarse] = out.get(coarse, 0.0) + sign * count
    return out


def _to_buckets(sides: Sequence[dict[int, float]]) -> Buckets:
    pairs = [sorted(side.items()) for side in sides]
    return Buckets(
        np.cumsum([0, *map(len, pairs)]).astype(np.int64),
        np.array([index for side in pairs for index, _ in side], np.int32),
        np.array([count for side in pairs for _, count in side], np.float64),
    )


def _same_buckets(a: dict[int, float], b: dict[int, float]) -> bool:
    left, right = ({i: c for i, c in side.items() if c} for side in (a, b))
    return left.keys() == right.keys() and all(almost_equal(c, right[i]) for i, c in left.items())

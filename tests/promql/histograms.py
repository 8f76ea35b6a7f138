"""Native histograms for tests: strategies, and a plain one-at-a-time model of their arithmetic to check against."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from tests.promql.histogram_literal import HistogramLiteral, parse_histogram, to_histograms
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Histograms

counts = st.integers(0, 1000).map(float)


def histograms(*literals: str) -> Histograms:
    """The histograms of literals as in test scripts, without their braces."""
    return to_histograms([parse_histogram(literal) for literal in literals])


@st.composite
def exponential(
    draw: st.DrawFn,
    *,
    schemas: Sequence[int] = (-2, 0, 1, 3),
    thresholds: Sequence[float] = (0.0,),
    zeros: st.SearchStrategy[float] = counts,
    least: int = 0,
) -> HistogramLiteral:
    """An exponential histogram of whole counts whose count is that of its buckets, positive ones `least` or more."""
    positive = draw(st.dictionaries(st.integers(-20, 40), st.integers(least, 1000).map(float), min_size=least, max_size=6))
    negative = draw(st.dictionaries(st.integers(-20, 40), counts, max_size=4))
    zero = draw(zeros)
    return HistogramLiteral(
        schema=draw(st.sampled_from(schemas)),
        count=zero + sum(positive.values()) + sum(negative.values()),
        sum=float(draw(st.integers(-1000, 1000))),
        zero_count=zero,
        zero_threshold=draw(st.sampled_from(thresholds)),
        positive=positive,
        negative=negative,
    )


@st.composite
def custom(draw: st.DrawFn, *, bounds: Sequence[float] = (1.0, 2.0, 5.0, 10.0, 20.0), least: int = 0) -> HistogramLiteral:
    """A histogram with some of `bounds` as its custom ones."""
    own = tuple(sorted(draw(st.sets(st.sampled_from(bounds), min_size=1))))
    positive = draw(st.dictionaries(st.integers(0, len(own)), st.integers(least, 1000).map(float), min_size=least))
    count, total = sum(positive.values()), float(draw(st.integers(0, 100)))
    return HistogramLiteral(CUSTOM_BUCKETS_SCHEMA, count, total, positive=positive, bounds=own)


def filled(side: dict[int, float]) -> dict[int, float]:
    """Only the populated buckets."""
    return {index: count for index, count in side.items() if count}


def coarser(side: dict[int, float], shift: int) -> dict[int, float]:
    """The buckets at a resolution halved `shift` times."""
    out: dict[int, float] = {}
    for index, count in side.items():
        at = -((-index) // (1 << shift))  # bucket i ends at base^i: rounding up keeps its end inside
        out[at] = out.get(at, 0.0) + count
    return out


def as_f64(*values: float) -> np.ndarray:
    return np.array(values, np.float64)

"""Series batches for the tests of storage: built from rows, drawn by Hypothesis, and compared bit for bit."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from tsdb.model.histogram import Buckets, Histograms, concat_histograms
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_BITS, SeriesBatch, SeriesTable

Sample = tuple[int, int]
"""Time in ms and the bits of a float as a signed integer."""


def float_bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


NASTY = [
    float_bits(value)
    for value in (
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        0.3,
        1e-9,
        123456.789,
        2.0**53,
        2.0**53 + 2,
        -(2.0**63),
        1e300,
        5e-324,
        np.inf,
        -np.inf,
        np.nan,
    )
] + [STALE_BITS, STALE_BITS + 1, -1, -(1 << 63) + 5, (1 << 63) - 1]
"""Bits that codecs get wrong: signed zero, denormals, NaNs with payloads, integers at the edge of 53 bits."""

BITS = st.one_of(
    st.sampled_from(NASTY),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-(10**6), 10**6).map(lambda i: float_bits(float(i))),
    st.integers(-(10**12), 10**12).map(lambda i: float_bits(i / 1000)),
)


def batch_of(series: Mapping[Labels, Sequence[Sample]]) -> SeriesBatch:
    """The batch of these samples, in the order of series."""
    rows = list(series)
    points = [sorted(series[row]) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in points])]).astype(np.int64)
    t_ms = np.array([t for one in points for t, _ in one], np.int64)
    bits = np.array([b for one in points for _, b in one], np.int64)
    batch = SeriesBatch(SeriesTable.of(rows), offsets, t_ms, bits.view(np.float64))
    return batch.take(batch.series.order())


def grid_batch(
    series: int, samples: int, *, metric: str = "m", start_ms: int = 0, step_ms: int = 15_000, seed: int = 0
) -> SeriesBatch:
    """Counters and noisy gauges that are scraped together, in the order of series."""
    rng = np.random.default_rng(seed)
    t_ms = np.tile(start_ms + np.arange(samples) * step_ms, series)
    counters = np.cumsum(rng.integers(0, 100, (series, samples)), axis=1).astype(float)
    gauges = np.round(rng.normal(100, 5, (series, samples)), 2)
    values = np.where((np.arange(series) % 2)[:, None] == 0, counters, gauges).ravel()
    table = SeriesTable.of([Labels.of({"__name__": metric, "instance": f"host-{i:06d}", "job": "node"}) for i in range(series)])
    return SeriesBatch(table, np.arange(series + 1, dtype=np.int64) * samples, t_ms, values)


def histogram(
    count: float, buckets: Mapping[int, float], *, schema: int = 3, bounds: Sequence[float] = (), hint: int = 0
) -> Histograms:
    """One histogram with positive buckets and one negative one."""
    index = np.array(sorted(buckets), np.int32)
    positive = Buckets(np.array([0, len(index)]), index, np.array([buckets[int(i)] for i in index], np.float64))
    negative = Buckets(np.array([0, 1]), np.array([2], np.int32), np.array([float(count)]))
    return Histograms(
        np.array([schema], np.int8), np.array([hint], np.uint8), np.array([True]), np.array([float(count)]), np.array([count / 3]),
        np.array([1e-128]), np.array([1.0]), positive, negative, np.array([0, len(bounds)]), np.array(bounds, np.float64),
    )  # fmt: skip


def histogram_batch(series: int, samples: int) -> SeriesBatch:
    """Histograms whose buckets change now and then, with a float sample at the start of every other series."""
    parts, at, values = [], [], []
    for i in range(series):
        for j in range(samples):
            if j == 0 and i % 2:
                at.append(-1)
                values.append(7.0)
                continue
            buckets = {b: float(j * b + i) for b in range(1, 5 + j // 7)}
            bounds = (0.5, 1.0, 2.5) if i % 3 == 2 else ()
            parts.append(histogram(j + i, buckets, schema=-53 if bounds else 3, bounds=bounds, hint=j % 4))
            at.append(len(parts) - 1)
            values.append(np.nan)
    table = SeriesTable.of([Labels.of({"__name__": "h", "pod": f"p{i:04d}"}) for i in range(series)])
    t_ms = np.tile(np.arange(samples, dtype=np.int64) * 15_000, series)
    offsets = np.arange(series + 1, dtype=np.int64) * samples
    return SeriesBatch(table, offsets, t_ms, np.array(values), concat_histograms(parts), np.array(at, np.int64))


@st.composite
def label_sets(draw: st.DrawFn, names: Sequence[str] = ("__name__", "a", "b")) -> Labels:
    return Labels.of({name: draw(st.sampled_from(["", "x", "y", "zz", "é"])) for name in names})


@st.composite
def batches(draw: st.DrawFn, *, max_series: int = 5, max_samples: int = 12, max_ms: int = 40) -> SeriesBatch:
    """A small batch; times are few, so that series share them and batches overlap."""
    rows = draw(st.lists(label_sets(), max_size=max_series, unique=True))
    times = st.lists(st.integers(0, max_ms), min_size=1, max_size=max_samples, unique=True)
    return batch_of({row: [(t, draw(BITS)) for t in draw(times)] for row in rows})


def samples_of(batch: SeriesBatch) -> dict[Labels, list[Sample]]:
    """Each series' samples as plain values."""
    bits = batch.values.view(np.int64).tolist()
    times = batch.t_ms.tolist()
    offsets = batch.offsets.tolist()
    return {
        row: list(zip(times[a:b], bits[a:b], strict=True))
        for row, a, b in zip(batch.series.rows(), offsets, offsets[1:], strict=False)
    }


def histogram_texts(batch: SeriesBatch) -> list[str]:
    """A text for every sample that tells its histogram exactly, or "" for a float."""
    texts = []
    for place in [] if batch.histogram_at is None else batch.histogram_at.tolist():
        if place < 0 or batch.histograms is None:
            texts.append("")
            continue
        h = batch.histograms.take(np.array([place]))
        fields = [h.schema, h.hint, h.integer, h.count, h.sum, h.zero_threshold, h.zero_count, h.positive.index, h.positive.counts]
        texts.append(" ".join(str(field.tolist()) for field in [*fields, h.negative.index, h.negative.counts, h.bounds]))
    return texts


def same_samples(a: SeriesBatch, b: SeriesBatch) -> bool:
    """Whether two batches hold the same series with the same samples, bit for bit."""
    starts = [x.start_ms if x.start_ms is not None else np.zeros(x.samples, np.int64) for x in (a, b)]
    return (
        samples_of(a) == samples_of(b)
        and a.series.rows() == b.series.rows()
        and [t for t in histogram_texts(a) if t] == [t for t in histogram_texts(b) if t]
        and bool(np.array_equal(*starts))
    )

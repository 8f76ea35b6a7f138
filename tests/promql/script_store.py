"""Where test scripts load their series: points to a `WriteBatch`, and that into a real head."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.promql.histogram_literal import HistogramLiteral, to_histograms
from tests.promql.script import Clear, Command, Load
from tsdb.head.head import Head, HeadOptions
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import STALE_NAN, is_stale
from tsdb.model.write import HistogramSamples, WriteBatch

OPTIONS = HeadOptions(wal_sync="os")
NOW_MS = 1 << 45
"""Later than any sample of a script."""


@dataclass(frozen=True, slots=True)
class Sample:
    t_ms: int
    value: float | HistogramLiteral
    start_ms: int = 0


Samples = dict[Labels, list[Sample]]


class Store:
    """A head in a directory of its own, loaded with what commands leave in the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._head: Head | None = None

    def load(self, commands: Sequence[Command]) -> Head:
        """A head with all samples after the commands; the one before is closed."""
        self.close()
        self._count += 1
        self._head = Head.open(self._directory / str(self._count), options=OPTIONS, now_ms=NOW_MS)
        samples = loaded(commands)
        if samples:
            result = self._head.append(to_write(samples), now_ms=NOW_MS)
            assert not result.rejected, result.message
        return self._head

    def close(self) -> None:
        if self._head is not None:
            self._head.close()
            self._head = None


def loaded(commands: Sequence[Command]) -> Samples:
    """All samples after the commands: series by labels, times rising."""
    samples: dict[Labels, dict[int, Sample]] = defaultdict(dict)
    for command in commands:
        if isinstance(command, Clear):
            samples.clear()
        elif isinstance(command, Load):
            for labels, points in _load(command).items():
                samples[labels].update((sample.t_ms, sample) for sample in points)
    return {labels: [by_time[t] for t in sorted(by_time)] for labels, by_time in samples.items() if by_time}


def to_write(samples: Samples) -> WriteBatch:
    """One write with the samples, series by series."""
    encoded = [labels.encode() for labels in samples]
    ends = np.cumsum([len(data) for data in encoded]).astype(np.int64)
    flat = [(row, sample) for row, points in enumerate(samples.values()) for sample in points]
    floats = [(row, sample) for row, sample in flat if not isinstance(sample.value, HistogramLiteral)]
    native = [(row, sample) for row, sample in flat if isinstance(sample.value, HistogramLiteral)]
    histograms = None
    if native:
        literals = [sample.value for _, sample in native if isinstance(sample.value, HistogramLiteral)]
        histograms = HistogramSamples(
            np.array([row for row, _ in native], np.int32),
            np.array([sample.t_ms for _, sample in native], np.int64),
            np.array([sample.start_ms for _, sample in native], np.int64),
            to_histograms(literals),
        )
    return WriteBatch(
        np.frombuffer(b"".join(encoded), np.uint8),
        ends - np.array([len(data) for data in encoded], np.int64),
        ends,
        np.array([labels.stable_hash() for labels in samples], np.uint64),
        np.array([row for row, _ in floats], np.int32),
        np.array([sample.t_ms for _, sample in floats], np.int64),
        _values([sample for _, sample in floats]),
        _starts([sample for _, sample in floats]),
        histograms,
    )


def _load(command: Load) -> dict[Labels, list[Sample]]:
    out = {}
    for series in command.series:
        timed = zip(range(len(series.points)), series.points, series.start_ms, strict=True)
        points = [Sample(i * command.gap_ms, _stored(point), start) for i, point, start in timed if point is not None]
        out[series.labels] = points
    if command.with_nhcb:
        out.update(_custom_bucket_histograms(out))
    return out


def _stored(point: float | HistogramLiteral) -> float | HistogramLiteral:
    """A point as Prometheus's TSDB keeps it: of reset hints only gauge lasts, what is a reset is found by comparing."""
    return replace(point, hint=None) if isinstance(point, HistogramLiteral) and point.hint != GAUGE else point


def _values(samples: Sequence[Sample]) -> np.ndarray:
    """f64[m], NaN where the sample is a histogram; the stale marker keeps its bits."""
    values = np.array([math.nan if isinstance(s.value, HistogramLiteral) else s.value for s in samples], np.float64)
    stale = np.array([s.value is STALE_NAN for s in samples], bool)
    values[stale] = STALE_NAN
    assert bool(np.all(is_stale(values) == stale))
    return values


def _starts(samples: Sequence[Sample]) -> np.ndarray | None:
    starts = np.array([sample.start_ms for sample in samples], np.int64)
    return starts if starts.any() else None


def _custom_bucket_histograms(series: dict[Labels, list[Sample]]) -> dict[Labels, list[Sample]]:
    """The custom-bucket histograms that classic ones convert to, by their base labels."""
    bases: dict[Labels, dict[int, dict[str | float, float]]] = defaultdict(lambda: defaultdict(dict))
    for labels, points in series.items():
        name, _, suffix = labels.get(METRIC_NAME).rpartition("_")
        if suffix not in ("bucket", "count", "sum"):
            continue
        key: str | float = suffix
        if suffix == "bucket":
            try:
                key = float(labels.get("le"))
            except ValueError:
                continue
            if math.isnan(key):
                continue
        base = Labels.of([(n, v) for n, v in labels if n not in (METRIC_NAME, "le")] + [(METRIC_NAME, name)])
        for sample in points:
            if not isinstance(sample.value, HistogramLiteral):
                bases[base][sample.t_ms].setdefault(key, sample.value)
    return {labels: [Sample(t, _convert(parts)) for t, parts in sorted(times.items())] for labels, times in bases.items()}


def _convert(parts: dict[str | float, float]) -> HistogramLiteral:
    """Cumulative counts by upper bound, with "count" and "sum" where known, as absolute counts of custom buckets."""
    cumulative = sorted((key, value) for key, value in parts.items() if isinstance(key, float))
    count = parts.get("count", cumulative[-1][1] if cumulative else 0.0)
    if not cumulative or cumulative[-1][0] != math.inf:
        cumulative.append((math.inf, count))
    counts = np.diff([0.0, *(value for _, value in cumulative)]).tolist()
    return HistogramLiteral(
        schema=CUSTOM_BUCKETS_SCHEMA,
        count=count,
        sum=parts.get("sum", 0.0),
        positive=dict(enumerate(counts)),
        bounds=tuple(bound for bound, _ in cumulative[:-1]),
    )

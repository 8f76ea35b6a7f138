"""The exemplars of a head: the newest `capacity` of them, found by the labels of their series and by time.

Not thread-safe: the head's lock guards it.
"""

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsdb.model.labels import Labels, decode_labels
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesTable
from tsdb.model.write import Exemplar

CAPACITY = 100_000
"""About 40 MB where every exemplar has a trace id; Prometheus keeps as many by default."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One exemplar without its series."""

    labels: Labels
    value: float
    t_ms: int


@dataclass(frozen=True, slots=True)
class ExemplarSeries:
    """The exemplars of one series, by rising time."""

    labels: Labels
    exemplars: tuple[Observation, ...]


_Key = tuple[int, Labels, bytes]
"""What makes two exemplars of a series one: time, labels and value bits (so that NaN equals itself)."""


class Exemplars:
    """A ring: a new exemplar pushes the oldest one out."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._by_series: dict[bytes, dict[_Key, Observation]] = {}
        self._arrived: deque[bytes] = deque()
        self._labels: dict[bytes, Labels] = {}

    def __len__(self) -> int:
        return len(self._arrived)

    def add(self, series: bytes, exemplar: Exemplar) -> bool:
        """Keeps an exemplar of the series with those label bytes; false where an equal one is there already."""
        seen = self._by_series.get(series)
        if seen is None:
            if self._capacity == 0:
                return False
            self._labels[series] = decode_labels(series)
            seen = self._by_series[series] = {}
        key = exemplar.t_ms, exemplar.labels, struct.pack("<d", exemplar.value)
        if key in seen:
            return False
        seen[key] = Observation(exemplar.labels, exemplar.value, exemplar.t_ms)
        self._arrived.append(series)
        if len(self._arrived) > self._capacity:
            self._drop_oldest()
        return True

    def query(self, selectors: Sequence[Sequence[Matcher]], *, start_ms: int, end_ms: int) -> list[ExemplarSeries]:
        """Those with times in [start_ms, end_ms], as Prometheus asks, of series that match a selector, in the order of labels."""
        keys = list(self._by_series)
        table = SeriesTable.of([self._labels[key] for key in keys])
        keep = np.zeros(len(keys), bool)
        for matchers in selectors:
            keep |= select_rows(table, matchers)
        found = []
        for i in np.flatnonzero(keep).tolist():
            inside = [o for o in self._by_series[keys[i]].values() if start_ms <= o.t_ms <= end_ms]
            if inside:
                found.append(ExemplarSeries(self._labels[keys[i]], tuple(sorted(inside, key=lambda o: o.t_ms))))
        return sorted(found, key=lambda series: series.labels)

    def rows(self) -> list[tuple[bytes, Exemplar]]:
        """All (label bytes, exemplar), series by series: what the log must still hold."""
        return [(key, Exemplar(0, o.labels, o.value, o.t_ms)) for key, kept in self._by_series.items() for o in kept.values()]

    def _drop_oldest(self) -> None:
        oldest = self._arrived.popleft()
        kept = self._by_series[oldest]
        del kept[next(iter(kept))]
        if not kept:
            del self._by_series[oldest], self._labels[oldest]

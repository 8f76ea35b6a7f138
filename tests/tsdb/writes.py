"""Write batches for the tests of the head: built from rows, and what a head answers as plain values."""

from collections.abc import Mapping, Sequence

import numpy as np

from tsdb.kernel.append import hash_ranges
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.source import MAX_MS, MIN_MS, Selection, Source
from tsdb.model.write import WriteBatch

Samples = Mapping[Labels, Sequence[tuple[int, float]]]

ALL = Selection((), MIN_MS, MAX_MS)


def series(name: str, **labels: str) -> Labels:
    return Labels.of({"__name__": name, **labels})


def label_ranges(rows: Sequence[Labels]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(label_bytes, start, end, hash) of a batch of these series."""
    encoded = [row.encode() for row in rows]
    data = np.frombuffer(b"".join(encoded), np.uint8).copy()
    end = np.cumsum([len(one) for one in encoded]).astype(np.int64)
    start = end - np.array([len(one) for one in encoded], np.int64)
    return data, start, end, hash_ranges(data, start, end)


def write_of(samples: Samples, start_ms: int | None = None) -> WriteBatch:
    """The write of these float samples, series by series."""
    rows = list(samples)
    points = [(i, t, value) for i, row in enumerate(rows) for t, value in samples[row]]
    row = np.array([i for i, _, _ in points], np.int32)
    t_ms = np.array([t for _, t, _ in points], np.int64)
    values = np.array([value for _, _, value in points], np.float64)
    starts = None if start_ms is None else np.full(len(row), start_ms, np.int64)
    return WriteBatch(*label_ranges(rows), row, t_ms, values, starts)


def contents(source: Source, selection: Selection = ALL) -> dict[Labels, list[tuple[int, float]]]:
    """All float samples of a source; checks on the way that batches keep the promises of `SeriesBatch`."""
    found: dict[Labels, list[tuple[int, float]]] = {}
    order: list[Labels] = []
    for batch in source.select(selection):
        for i, labels in enumerate(batch.series.rows()):
            part = slice(int(batch.offsets[i]), int(batch.offsets[i + 1]))
            t_ms = batch.t_ms[part]
            assert len(t_ms) > 0, f"{labels} has no sample"
            assert np.all(np.diff(t_ms) > 0), f"{labels}: times do not rise: {t_ms}"
            assert labels not in found, f"{labels} is in two batches"
            found[labels] = list(zip(t_ms.tolist(), batch.values[part].tolist(), strict=True))
            order.append(labels)
    assert order == sorted(order, key=lambda one: (one.get("__name__"), _rest(one, order))), "not in the order of series"
    return found


def by_name(name: str, start_ms: int = MIN_MS, end_ms: int = MAX_MS) -> Selection:
    return Selection((Matcher("__name__", "=", name),), start_ms, end_ms)


def _rest(labels: Labels, every: Sequence[Labels]) -> list[str]:
    names = sorted({name for one in every for name, _ in one} - {"__name__"})
    return [labels.get(name) for name in names]

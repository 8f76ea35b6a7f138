"""A `Source` in memory that remembers what it was asked, filled from the `load` lines of test scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tests.promql.histogram_literal import HistogramLiteral, to_histograms
from tests.promql.script import parse_script
from tests.promql.script_store import Sample, loaded
from tsdb.model.matcher import select_rows
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Grid, Selection
from tsdb.model.windows import COLUMNS


class MemorySource:
    """A source over batches; `asked` are its selections so far. It gives no more than it must, or `all_samples` in the range."""

    all_samples = False

    def __init__(self, batches: Sequence[SeriesBatch]) -> None:
        self.batches = batches
        self.asked: list[Selection] = []

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        self.asked.append(selection)
        for batch in self.batches:
            chosen = batch.take(np.flatnonzero(select_rows(batch.series, selection.matchers)))
            chosen = chosen.clip(selection.start_ms, selection.end_ms)
            if len(chosen) or chosen.warnings:
                asked = _only_asked(chosen, selection)
                yield asked if self.all_samples else _only_seen(asked, selection.grid)

    def series(self, selection: Selection) -> SeriesTable:
        raise AssertionError("evaluation reads samples")


def _only_asked(batch: SeriesBatch, selection: Selection) -> SeriesBatch:
    """The batch with its window columns spoilt that were not asked for."""
    if batch.windows is None or selection.columns is None:
        return batch
    asked = np.array([name in selection.columns for name in COLUMNS])
    return replace(batch, windows=np.where(asked[:, None], batch.windows, -9.75e77))


def _only_seen(batch: SeriesBatch, grid: Grid | None) -> SeriesBatch:
    """The batch without raw floats that are not seen from the grid."""
    if grid is None or any(part is not None for part in (batch.windows, batch.histograms, batch.start_ms)):
        return batch
    if grid.range_ms:
        seen = (grid.at_ms - batch.t_ms) % grid.every_ms < grid.range_ms
    else:
        before = (grid.at_ms - batch.t_ms) // grid.every_ms
        seen = np.ones(batch.samples, bool)
        seen[:-1] = before[1:] != before[:-1]
        seen[batch.offsets[1:][np.diff(batch.offsets) > 0] - 1] = True
    offsets = np.concatenate([[0], np.cumsum(seen)])[batch.offsets]
    return replace(batch, offsets=offsets, t_ms=batch.t_ms[seen], values=batch.values[seen], histogram_at=None)


def batch_of(script: str) -> SeriesBatch:
    """The series of `load <gap>` lines as one batch, in the order of series."""
    samples = loaded(parse_script(script))
    labels = list(samples)
    table = SeriesTable.of(labels)
    rows = [samples[labels[i]] for i in table.order().tolist()]
    flat = [sample for row in rows for sample in row]
    native = [sample.value for sample in flat if isinstance(sample.value, HistogramLiteral)]
    at = np.cumsum([isinstance(sample.value, HistogramLiteral) for sample in flat]) - 1
    starts = np.array([sample.start_ms for sample in flat], np.int64)
    return SeriesBatch(
        table.take(table.order()),
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        np.array([sample.t_ms for sample in flat], np.int64),
        np.array([_value(sample) for sample in flat], np.float64),
        to_histograms(native) if native else None,
        np.array([at[i] if isinstance(s.value, HistogramLiteral) else -1 for i, s in enumerate(flat)], np.int64)
        if native
        else None,
        starts if starts.any() else None,
    )


def source_of(script: str, batch_size: int = 1 << 30) -> MemorySource:
    """A source of the series of `load` lines, batch_size of them a batch."""
    batch = batch_of(script)
    return MemorySource([batch.take(np.arange(i, min(i + batch_size, len(batch)))) for i in range(0, len(batch), batch_size)])


def texts(series: SeriesTable) -> list[str]:
    """The label sets as text, row by row."""
    return [str(labels) for labels in series.rows()]


def _value(sample: Sample) -> float:
    return float("nan") if isinstance(sample.value, HistogramLiteral) else float(sample.value)

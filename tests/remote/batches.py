"""Series batches for tests, from label sets and samples."""

from collections.abc import Mapping, Sequence

import numpy as np

from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable


def series_batch(series: Mapping[Labels, Sequence[tuple[int, float]]]) -> SeriesBatch:
    """The batch of these float samples; brought into the order of series."""
    points = list(series.values())
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in points])]).astype(np.int64)
    t_ms = np.array([t for one in points for t, _ in one], np.int64)
    values = np.array([value for one in points for _, value in one], np.float64)
    batch = SeriesBatch(SeriesTable.of(list(series)), offsets, t_ms, values)
    return batch.take(batch.series.order())

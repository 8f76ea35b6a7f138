"""Write batches for tests, from label sets and samples."""

from collections.abc import Mapping, Sequence

import numpy as np

from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch


def write_batch(series: Mapping[Labels, Sequence[tuple[int, float]]]) -> WriteBatch:
    """The batch of these float samples, as a request would carry them."""
    encoded = [labels.encode() for labels in series]
    ends = np.cumsum([len(one) for one in encoded]).astype(np.int64)
    samples = [(row, t, value) for row, points in enumerate(series.values()) for t, value in points]
    return WriteBatch(
        np.frombuffer(b"".join(encoded), np.uint8),
        np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)],
        ends,
        np.array([labels.stable_hash() for labels in series], np.uint64),
        np.array([row for row, _, _ in samples], np.int32),
        np.array([t for _, t, _ in samples], np.int64),
        np.array([value for _, _, value in samples], np.float64),
    )

"""Raw samples as a result: what an instant query of a range selector gives."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.matrix import I64
from promql.windows import Windows, bounds
from tsdb.kernel import window_rise
from tsdb.kernel.window import smoothed_samples
from tsdb.model.histogram import concat_histograms
from tsdb.model.series import SeriesBatch, concat_tables


def in_window(batch: SeriesBatch, windows: Windows) -> SeriesBatch:
    """The samples in the only window. An `anchored` or `smoothed` one has a sample at each of its edges, made if need be."""
    if windows.anchored or windows.smoothed:
        return _extended(batch, windows)
    end_ms = int(windows.ends_ms[0])
    return batch.clip(end_ms - windows.range_ms + 1, end_ms + 1)


def concat_batches(batches: Sequence[SeriesBatch]) -> SeriesBatch:
    """All series of all batches, one after another."""
    batches = [batch for batch in batches if len(batch)]
    if len(batches) < 2:
        return batches[0] if batches else SeriesBatch.empty()
    lengths = np.concatenate([np.diff(batch.offsets) for batch in batches])
    out = SeriesBatch(
        concat_tables([batch.series for batch in batches]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([batch.t_ms for batch in batches]),
        np.concatenate([batch.values for batch in batches]),
    )
    known = [batch.histograms for batch in batches if batch.histograms is not None]
    if not known:
        return out
    bases = np.cumsum([0] + [0 if batch.histograms is None else len(batch.histograms) for batch in batches])
    at = [_shifted(batch, int(base)) for batch, base in zip(batches, bases[:-1], strict=True)]
    return replace(out, histograms=concat_histograms(known), histogram_at=np.concatenate(at))


def _shifted(batch: SeriesBatch, base: int) -> I64:
    if batch.histogram_at is None:
        return np.full(batch.samples, -1, np.int64)
    return np.where(batch.histogram_at >= 0, batch.histogram_at + base, -1)


def _extended(batch: SeriesBatch, windows: Windows) -> SeriesBatch:
    """Float samples strictly inside the window, and the values at both of its edges."""
    end_ms = int(windows.ends_ms[0])
    start_ms = end_ms - windows.range_ms
    shape = (len(batch), 1)
    rise, present = np.empty(shape), np.empty(shape, bool)
    window_rise.extended_windows(
        windows.smoothed, False, 1.0, batch.offsets, batch.t_ms, batch.values,
        windows.ends_ms, windows.range_ms, windows.lookback_ms, rise, present,
    )  # fmt: skip
    rows = np.flatnonzero(present[:, 0])
    chosen = bounds(batch, windows, windows.lookback_ms)
    left = _edge(batch, windows, start_ms, chosen.lo[:, 0])[rows]
    inside = (batch.t_ms > start_ms) & (batch.t_ms < end_ms)
    inner = np.add.reduceat(np.concatenate([inside, [False]]).astype(np.int64), batch.offsets[:-1])[rows] if batch.samples else rows
    kept = batch.take(rows)
    inside = (kept.t_ms > start_ms) & (kept.t_ms < end_ms)
    offsets = np.concatenate([[0], np.cumsum(inner + 2)]).astype(np.int64)
    t_ms, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
    edge = np.zeros(offsets[-1], bool)
    edge[offsets[:-1]] = edge[offsets[1:] - 1] = True
    t_ms[~edge], values[~edge] = kept.t_ms[inside], kept.values[inside]
    t_ms[offsets[:-1]], t_ms[offsets[1:] - 1] = start_ms, end_ms
    values[offsets[:-1]], values[offsets[1:] - 1] = left, left + rise[rows, 0]
    return SeriesBatch(kept.series, offsets, t_ms, values)


def _edge(batch: SeriesBatch, windows: Windows, at_ms: int, first: I64) -> np.ndarray:
    """f64[n] value at the start of the window: interpolated where smoothed and known on both sides, else the first sample's."""
    shape = (len(batch), 1)
    before, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    values, present = np.empty(shape), np.empty(shape, bool)
    smoothed_samples(
        batch.offsets, batch.t_ms, batch.values, np.array([at_ms]), windows.lookback_ms, before, after, values, present
    )
    plain = batch.values[np.minimum(first, max(batch.samples - 1, 0))]
    return np.where(present[:, 0], values[:, 0], plain) if windows.smoothed else plain

"""Raw samples as a result: what an instant query of a range selector gives."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.matrix import F64, I64
from promql.window.windows import Windows, edge_rows, keep_samples
from tsdb.model.errors import QueryFailed
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
    """The samples strictly inside the window, and the values at both of its edges."""
    if batch.histogram_at is not None and np.any(batch.histogram_at >= 0):
        raise QueryFailed("smoothed and anchored range selectors of native histograms need a function around them")
    first, last = (rows[:, 0] for rows in edge_rows(batch, windows))
    end_ms = int(windows.ends_ms[0])
    start_ms = end_ms - windows.range_ms
    known = np.flatnonzero(last >= first)
    kept, first, last = batch.take(known), first[known], last[known]
    inside = (kept.t_ms > start_ms) & (kept.t_ms < end_ms)
    inner = keep_samples(kept, inside)
    offsets = inner.offsets + 2 * np.arange(len(known) + 1)
    edge = np.zeros(offsets[-1], bool)
    edge[offsets[:-1]] = edge[offsets[1:] - 1] = True
    t_ms, values = np.empty(len(edge), np.int64), np.empty(len(edge))
    t_ms[~edge], values[~edge] = inner.t_ms, inner.values
    t_ms[offsets[:-1]], t_ms[offsets[1:] - 1] = start_ms, end_ms
    before, after = (first, np.minimum(first + 1, last)), (np.maximum(last - 1, first), last)
    values[offsets[:-1]] = _value_at(batch, before, start_ms, pick=first, smoothed=windows.smoothed)
    values[offsets[1:] - 1] = _value_at(batch, after, end_ms, pick=last, smoothed=windows.smoothed)
    return SeriesBatch(kept.series, offsets, t_ms, values)


def _value_at(batch: SeriesBatch, rows: tuple[I64, I64], at_ms: int, *, pick: I64, smoothed: bool) -> F64:
    """The values of the rows `pick`, or, smoothed, what lies at at_ms between the two rows of each series around it."""
    a, b = rows
    t_ms, v = batch.t_ms, batch.values
    between = smoothed & (t_ms[a] < at_ms) & (at_ms < t_ms[b])
    share = (at_ms - t_ms[a]) / np.where(between, t_ms[b] - t_ms[a], 1)
    return np.where(between, v[a] + (v[b] - v[a]) * share, v[pick])

"""Where the windows of a range selector lie, and the samples in them: bounds, and batches split into floats and histograms."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from promql.matrix import I64, Bool, Steps
from tsdb.kernel import window as kernel
from tsdb.model.series import SeriesBatch, is_stale

NO_STARTS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Windows:
    """One window a step: window j is (ends_ms[j] - range_ms, ends_ms[j]], ends_ms i64[k] never falling.

    The result of window j stands at step j of `steps`. `anchored` and `smoothed` selectors look lookback_ms past their edges.
    """

    steps: Steps
    ends_ms: I64
    range_ms: int
    lookback_ms: int = 0
    anchored: bool = False
    smoothed: bool = False

    @property
    def start_ms(self) -> int:
        """The first millisecond whose sample any window may use."""
        reach_ms = self.lookback_ms if self.anchored or self.smoothed else 0
        return int(self.ends_ms[0]) - self.range_ms - reach_ms + 1

    @property
    def end_ms(self) -> int:
        """The millisecond after the last one whose sample any window may use."""
        return int(self.ends_ms[-1]) + (self.lookback_ms if self.smoothed else 0) + 1

    @property
    def overlap(self) -> float:
        """In about how many windows a sample is, at least 1; in one where all windows are the same."""
        first_ms, last_ms = int(self.ends_ms[0]), int(self.ends_ms[-1])
        return max(1.0, self.range_ms * (len(self.ends_ms) - 1) / (last_ms - first_ms)) if last_ms > first_ms else 1.0

    @property
    def range_s(self) -> float:
        """The range in seconds, rounded as Go's Duration.Seconds does."""
        return float(self.range_ms // 1000) + (self.range_ms % 1000) * 1e6 / 1e9


@dataclass(frozen=True, slots=True)
class Bounds:
    """The rows lo:hi (i64[n, k] each) of a batch that stand in each window of each series."""

    lo: I64
    hi: I64

    @property
    def counts(self) -> I64:
        """i64[n, k] samples in each window."""
        return self.hi - self.lo


def bounds(batch: SeriesBatch, windows: Windows, anchor_ms: int = 0) -> Bounds:
    """The windows of a batch without stale markers; with anchor_ms also the sample at or before the start, if that young."""
    shape = (len(batch), len(windows.ends_ms))
    lo, hi = np.empty(shape, np.int64), np.empty(shape, np.int64)
    kernel.window_bounds(batch.offsets, batch.t_ms, windows.ends_ms, windows.range_ms, anchor_ms, lo, hi)
    return Bounds(lo, hi)


def edge_rows(batch: SeriesBatch, windows: Windows) -> tuple[I64, I64]:
    """(first, last) row i64[n, k] that each `anchored` or `smoothed` window needs; last < first where there is nothing to tell.

    The first is the newest sample at or before the start, the last of a smoothed one the oldest at or after the end, if there
    are such within the lookback.
    """
    own = bounds(batch, windows)
    first = bounds(batch, windows, windows.lookback_ms).lo
    last = own.hi - 1
    if batch.samples == 0:
        return first, first - 1
    end_ms, left_ms = windows.ends_ms[None, :], windows.ends_ms[None, :] - windows.range_ms
    if windows.smoothed:
        stop = batch.offsets[1:, None]
        following = np.minimum(own.hi, batch.samples - 1)
        near = (own.hi < stop) & (batch.t_ms[following] <= end_ms + windows.lookback_ms)
        last = np.where(near & ((last < first) | (batch.t_ms[np.maximum(last, 0)] < end_ms)), own.hi, last)
    ok = (last >= first) & (batch.t_ms[np.maximum(last, 0)] > left_ms)
    if windows.smoothed:
        ok &= batch.t_ms[np.minimum(first, batch.samples - 1)] <= end_ms
    return np.where(ok, first, 0), np.where(ok, last, -1)


def without_stale(batch: SeriesBatch) -> SeriesBatch:
    """The same series without their stale markers; range selectors never see those."""
    stale = is_stale(batch.values)
    return keep_samples(batch, ~stale) if stale.any() else batch


def only_floats(batch: SeriesBatch) -> SeriesBatch:
    """The same series with their float samples only."""
    if batch.histogram_at is None:
        return batch
    return replace(keep_samples(batch, batch.histogram_at < 0), histograms=None, histogram_at=None)


def only_histograms(batch: SeriesBatch) -> SeriesBatch:
    """The same series with their histogram samples only."""
    assert batch.histogram_at is not None, "asked only of batches with histograms"
    return keep_samples(batch, batch.histogram_at >= 0)


def rows_with_histograms(batch: SeriesBatch) -> npt.NDArray[np.int64]:
    """i64[r]: the series that have a histogram sample."""
    if batch.histogram_at is None:
        return np.empty(0, np.int64)
    before = np.concatenate([[0], np.cumsum(batch.histogram_at >= 0)])
    return np.flatnonzero(np.diff(before[batch.offsets]))


def keep_samples(batch: SeriesBatch, keep: Bool) -> SeriesBatch:
    """All series, with only the samples that bool[m] says."""
    if keep.all():
        return batch
    before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return replace(
        batch,
        offsets=before[batch.offsets],
        t_ms=batch.t_ms[keep],
        values=batch.values[keep],
        histogram_at=None if batch.histogram_at is None else batch.histogram_at[keep],
        start_ms=None if batch.start_ms is None else batch.start_ms[keep],
        windows=None if batch.windows is None else np.ascontiguousarray(batch.windows[:, keep]),
    )

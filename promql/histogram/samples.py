"""Windows that hold native histograms, and the results of range functions over them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from promql.annotations import Annotations
from promql.histogram.stats import for_metric
from promql.matrix import F64, I64, Bool
from promql.syntax.ast import Span
from tsdb.kernel.downsample import COUNT
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesBatch

MIXED = "encountered a mix of histograms and floats"
MIXED_SCHEMAS = "vector contains a mix of histograms with exponential and custom buckets schemas"


@dataclass(slots=True)
class WindowResult:
    """What a range function gives for n series and k windows, filled in as it is found.

    handled bool[n, k]: windows that this is about; elsewhere the rest says nothing. present bool[n, k]: those with a result,
    which is row cells i64[n, k] of `histograms`, or where that is -1 the float in values f64[n, k].
    """

    handled: Bool
    present: Bool
    values: F64
    cells: I64
    histograms: Histograms

    @classmethod
    def nothing(cls, handled: Bool) -> "WindowResult":
        shape = handled.shape
        return cls(handled, np.zeros(shape, bool), np.full(shape, np.nan), np.full(shape, -1, np.int64), Histograms.empty())

    def put_floats(self, at: tuple[I64, ...], floats: F64) -> None:
        """Floats as the results of windows at (series, step)."""
        self.present[at] = True
        self.values[at] = floats

    def put_histograms(self, at: tuple[I64, ...], histograms: Histograms, rows: I64 | None = None) -> None:
        """Rows (all, in order, if None) of `histograms` as the results of windows at (series, step)."""
        base = len(self.histograms)
        self.present[at] = True
        self.cells[at] = base + (np.arange(len(histograms)) if rows is None else rows)
        self.histograms = concat_histograms([self.histograms, histograms]) if base else histograms

    def leave(self, at: tuple[I64, ...]) -> None:
        """Windows at (series, step) are not for this after all."""
        self.handled[at] = False


@dataclass(frozen=True, slots=True)
class HistogramWindows:
    """w windows with a histogram: rows lo:hi (i64[w]) of a batch without stale markers, ending at end_ms i64[w].

    series i64[w] is the series of each, natives i64[w] how many of its samples are histograms.
    """

    batch: SeriesBatch
    lo: I64
    hi: I64
    series: I64
    end_ms: I64
    range_ms: int
    natives: I64
    notes: Annotations
    span: Span

    @property
    def at(self) -> I64:
        """i64[m]: the histogram of each sample of the batch, -1 for a float."""
        assert self.batch.histogram_at is not None, "windows with histograms come from batches with them"
        return self.batch.histogram_at

    @property
    def histograms(self) -> Histograms:
        assert self.batch.histograms is not None, "windows with histograms come from batches with them"
        return self.batch.histograms

    @property
    def mixed(self) -> Bool:
        """bool[w]: windows that hold floats as well."""
        return np.asarray(self.natives != self.hi - self.lo)

    @property
    def counts(self) -> F64:
        """f64[w]: the samples in each window, with those that downsampled ones stand for."""
        if self.batch.windows is None:
            return (self.hi - self.lo).astype(np.float64)
        before = np.concatenate([[0.0], np.cumsum(self.batch.windows[COUNT])])
        return np.asarray(before[self.hi] - before[self.lo])

    def take(self, which: Bool) -> "HistogramWindows":
        """The windows that bool[w] says."""
        return replace(
            self, lo=self.lo[which], hi=self.hi[which], series=self.series[which],
            end_ms=self.end_ms[which], natives=self.natives[which],
        )  # fmt: skip

    def names(self, which: Bool) -> list[str]:
        """The distinct metric names of the windows that bool[w] says."""
        column = self.batch.series.column(METRIC_NAME)
        return list(dict.fromkeys(self.batch.series.texts(column[np.unique(self.series[which])]).tolist()))

    def warn(self, text: str, which: Bool) -> None:
        """A warning `text for metric name …` for each metric of the windows that bool[w] says."""
        if which.any():
            for name in self.names(which):
                self.notes.warn(f"{text}{for_metric(name)}", self.span)

    def note_reconciled(self, reconciled: Bool, doing: str) -> None:
        """The info that custom bounds differed in any window."""
        if reconciled.any():
            self.notes.info(f"mismatched custom buckets were reconciled during {doing}", self.span)


def only_used(histograms: Histograms, cells: I64) -> tuple[Histograms, I64]:
    """(the histograms that any of cells i64[...] names, -1 naming none; the cells that name them there)."""
    used = np.zeros(len(histograms), bool)
    used[cells[cells >= 0]] = True
    if used.all():
        return histograms, cells
    numbers = np.append(np.cumsum(used) - 1, -1)  # the last is for -1
    return histograms.take(np.flatnonzero(used)), numbers[cells]


def prefix(flags: npt.NDArray[np.bool_]) -> I64:
    """i64[m+1]: how many flags are set before each position."""
    return np.concatenate([[0], np.cumsum(flags)]).astype(np.int64)


def count_natives(batch: SeriesBatch, lo: I64, hi: I64) -> I64:
    """i64[...]: the histograms in rows lo:hi (i64[...], lo >= hi: none) of a batch."""
    if batch.histogram_at is None:
        return np.zeros(lo.shape, np.int64)
    before = prefix(batch.histogram_at >= 0)
    return np.where(hi > lo, before[np.maximum(hi, lo)] - before[lo], 0)


def follows_histogram(batch: SeriesBatch) -> Bool:
    """bool[m]: whether a sample and the one before it in the same series both are histograms."""
    if batch.histogram_at is None:
        return np.zeros(batch.samples, bool)
    native = batch.histogram_at >= 0
    out: Bool = native.copy()
    out[1:] &= native[:-1]
    out[batch.offsets[:-1][np.diff(batch.offsets) > 0]] = False
    return out

"""`Matrix`, the currency of the language: n series by k steps. Range vectors exist only inside `promql.window.over_time`."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Steps:
    """The times of a query: start_ms, start_ms + step_ms, … up to and including end_ms. An instant query is one step."""

    start_ms: int
    end_ms: int
    step_ms: int

    @classmethod
    def instant(cls, at_ms: int) -> "Steps":
        return cls(at_ms, at_ms, 1)

    def __len__(self) -> int:
        return (self.end_ms - self.start_ms) // self.step_ms + 1

    @property
    def ms(self) -> I64:
        """i64[k]"""
        return self.start_ms + np.arange(len(self), dtype=np.int64) * self.step_ms


@dataclass(frozen=True, slots=True)
class Matrix:
    """series n, steps k, values f64[n, k], present bool[n, k]; absent is not NaN: 0/0 is a sample.

    Where `cells` i64[n, k] is not -1, the sample is that row of `histograms` instead of a float (its value is NaN).
    `drop_name` bool[n] marks series that lose their metric name when the answer is made (delayed name removal).
    """

    series: SeriesTable
    steps: Steps
    values: F64
    present: Bool
    histograms: Histograms | None = None
    cells: I64 | None = None
    drop_name: Bool | None = None

    @classmethod
    def empty(cls, steps: Steps) -> "Matrix":
        shape = (0, len(steps))
        return cls(SeriesTable.empty(), steps, np.empty(shape), np.empty(shape, bool))

    def __len__(self) -> int:
        return len(self.series)

    @property
    def floats(self) -> Bool:
        """bool[n, k] where the sample is a float."""
        return self.present if self.cells is None else self.present & (self.cells < 0)

    @property
    def natives(self) -> Bool:
        """bool[n, k] where the sample is a native histogram."""
        return np.zeros(self.present.shape, bool) if self.cells is None else self.present & (self.cells >= 0)

    def take(self, rows: npt.NDArray[np.integer] | Bool) -> "Matrix":
        """The chosen series, in the order given."""
        return replace(
            self,
            series=self.series.take(rows),
            values=self.values[rows],
            present=self.present[rows],
            cells=None if self.cells is None else self.cells[rows],
            drop_name=None if self.drop_name is None else self.drop_name[rows],
        )


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar expression: one float on each step, values f64[k]."""

    steps: Steps
    values: F64


Value = Matrix | Scalar | str
"""What an expression evaluates to; a range vector never leaves the call that reads it."""

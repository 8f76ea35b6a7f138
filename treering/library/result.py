"""`Result`: the answer of a query for Python users, as columns that become a DataFrame, an Arrow table, a plot or JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from promql.answer import Answer, QueryStats
from promql.matrix import Matrix, Scalar, Steps
from treering.http.json_text import go_text, query_response
from treering.library import result_frames, result_html
from treering.library.result_json import parse_answer
from tsdb.model.histogram import Histograms
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
    from matplotlib.axes import Axes

MAX_SHOWN = 20
"""Series in the text of a result."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its labels, and its samples: t_ms i64[m] (epoch milliseconds), values f64[m].

    A native histogram is a NaN in `values`; `histogram_at` i64[m] tells its row in `histograms` (-1 = a float).
    """

    labels: Labels
    t_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    histograms: Histograms | None = None
    histogram_at: npt.NDArray[np.int64] | None = None

    @property
    def times(self) -> npt.NDArray[np.datetime64]:
        """datetime64[ms][m], UTC."""
        return self.t_ms.astype("datetime64[ms]")

    def __len__(self) -> int:
        return len(self.t_ms)

    def __getitem__(self, name: str) -> str:
        """The value of a label, "" if the series lacks it."""
        return self.labels.get(name)

    def __str__(self) -> str:
        return str(self.labels)


@dataclass(frozen=True, eq=False)
class Result:
    """What a query gave. `kind` is "matrix", "vector", "scalar" or "string"; an empty result is no error.

    A sequence of `Series`: `len(r)`, `r[0]`, `for series in r`, and `r[{"job": "node"}]` for the one with these labels.
    Anything that reads the Arrow C stream interface (polars, pyarrow, duckdb, pandas) takes it as it is: `pl.DataFrame(r)`.
    """

    kind: str
    columns: SeriesBatch
    """All samples, series after series; the series in the order of the answer. A scalar is one series without labels."""
    text: str = ""
    """The value of a string."""
    at_ms: int = 0
    """The time of a string."""
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    stats: QueryStats | None = None
    expr: str = ""

    @classmethod
    def of(cls, answer: Answer, *, expr: str = "") -> "Result":
        """The result of an answer of the engine."""
        text = answer.value if isinstance(answer.value, str) else ""
        return cls(answer.kind, _columns(answer.value), text, 0, answer.warnings, answer.infos, answer.stats, expr)

    @classmethod
    def of_samples(cls, batch: SeriesBatch) -> "Result":
        """Raw samples as a matrix; what they lack is in the warnings."""
        return cls("matrix", batch, warnings=batch.warnings)

    @classmethod
    def from_json(cls, body: bytes, *, expr: str = "") -> "Result":
        """The result of a server's JSON body. BadData if it is none, QueryFailed if it tells an error."""
        parsed = parse_answer(body)
        return cls(parsed.kind, parsed.columns, parsed.text, parsed.at_ms, parsed.warnings, parsed.infos, None, expr)

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """All series."""
        c = self.columns
        labels = c.series.rows()
        ranges = zip(c.offsets[:-1].tolist(), c.offsets[1:].tolist(), strict=True)
        cuts = [slice(a, b) for a, b in ranges]
        at = [None if c.histogram_at is None else c.histogram_at[cut] for cut in cuts]
        rows = zip(labels, cuts, at, strict=True)
        return tuple(Series(row, c.t_ms[cut], c.values[cut], c.histograms, native) for row, cut, native in rows)

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    def __getitem__(self, which: int | Mapping[str, str]) -> Series:
        """The series at a place, or the only one that has these labels. KeyError where none or several have."""
        if isinstance(which, int):
            return self.series[which]
        found = [series for series in self.series if all(series[name] == value for name, value in which.items())]
        if len(found) != 1:
            raise KeyError(f"{len(found)} of {len(self)} series have {dict(which)}, want one")
        return found[0]

    @property
    def value(self) -> float | str:
        """The value of a scalar, a string, or a vector of one series. ValueError for anything else."""
        if self.kind == "string":
            return self.text
        if self.columns.samples != 1:
            raise ValueError(f"a {self.kind} with {self.columns.samples} samples has no single value")
        return float(self.columns.values[0])

    def to_numpy(
        self,
    ) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64], list[dict[str, str]]]:
        """(times datetime64[ms][k] (UTC), values f64[n, k] with NaN where a series has no sample, labels of n series)."""
        times, values = result_frames.grid(self.columns)
        return times, values, [labels.as_dict() for labels in self.columns.series.rows()]

    def to_arrow(self) -> "pyarrow.Table":
        """A long table: `time` (timestamp[ms, UTC]), one dictionary column a label (null = absent), `value`.

        Native histograms add a column `histogram` with their JSON. A label named `time`, `value` or `histogram` is `label_…` here.
        """
        return result_frames.to_arrow(self.columns, self._notes())

    def to_pandas(self, shape: str = "long") -> "pandas.DataFrame":
        """A DataFrame: "long" (one row a sample: time, value, a categorical column a label) or "wide" (see `wide`)."""
        if shape not in ("long", "wide"):
            raise ValueError(f"shape {shape!r} is not known, want 'long' or 'wide'")
        return self.wide() if shape == "wide" else result_frames.to_pandas(self.columns)

    def wide(self) -> "pandas.DataFrame":
        """A DataFrame with a UTC time index and one column a series, named by what tells the series apart."""
        return result_frames.wide(self.columns, self.names())

    def to_polars(self) -> "polars.DataFrame":
        """The long table as a polars DataFrame, labels categorical."""
        return result_frames.to_polars(self.to_arrow())

    def to_parquet(self, path: str) -> None:
        """Write the long table to a Parquet file."""
        result_frames.write_parquet(self.to_arrow(), path)

    def to_ipc(self) -> bytes:
        """The long table as an Arrow IPC stream; kind, warnings and infos are in the metadata of its schema."""
        return result_frames.to_ipc(self.to_arrow())

    def to_batch(self) -> SeriesBatch:
        """The samples with the series in the order of series."""
        return self.columns.take(self.columns.series.order())

    def json(self) -> bytes:
        """The body that the HTTP API answers with."""
        value: Scalar | str | SeriesBatch = self.columns
        if self.kind == "string":
            value = self.text
        elif self.kind == "scalar":
            value = Scalar(Steps.instant(int(self.columns.t_ms[-1])), self.columns.values)
        answer = Answer(self.kind, value, self.warnings, self.infos, self.stats)  # type: ignore[arg-type]
        return query_response(answer, at_ms=self.at_ms, stats="all")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The series as lines over time with matplotlib, on new axes unless some are given."""
        return result_html.plot(self.wide(), self.expr, ax)

    def names(self) -> list[str]:
        """A short name a series: the value of the one label that differs, else the differing labels, else the metric or query."""
        return short_names(self.columns.series, self.expr)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        return result_html.page(self.columns, self.kind, str(self), [*self.warnings, *self.infos])

    def __str__(self) -> str:
        if self.kind == "string":
            return self.text
        if self.kind == "scalar":
            return go_text(float(self.columns.values[-1]))
        lines = [_line(series) for series in self.series[:MAX_SHOWN]]
        return "\n".join([*lines, *([f"… {len(self) - MAX_SHOWN} more series"] if len(self) > MAX_SHOWN else [])])

    def __repr__(self) -> str:
        return f"<Result {self.kind}: {len(self)} series, {self.columns.samples} samples>"

    def _notes(self) -> dict[str, object]:
        return {"kind": self.kind, "warnings": self.warnings, "infos": self.infos, "expr": self.expr}


def short_names(series: SeriesTable, expr: str) -> list[str]:
    """What tells each series apart from the others; unique because label sets are."""
    differs = [name for name, ids in zip(series.names, series.ids, strict=True) if len(np.unique(ids)) > 1]
    if not differs:
        return [expr or str(labels) for labels in series.rows()]
    if len(differs) == 1 and bool(np.all(series.column(differs[0]) >= 0)):
        return [str(text) for text in series.values(differs[0])]
    return [str(labels) for labels in series.keep(differs).rows()]


def _columns(value: Matrix | Scalar | str | SeriesBatch) -> SeriesBatch:
    if isinstance(value, SeriesBatch):
        return value
    if isinstance(value, str):
        return SeriesBatch.empty()
    if isinstance(value, Scalar):
        return SeriesBatch(SeriesTable.empty(1), np.array([0, len(value.values)]), value.steps.ms, value.values)
    offsets = np.concatenate([[0], np.cumsum(value.present.sum(axis=1))]).astype(np.int64)
    times = np.broadcast_to(value.steps.ms, value.present.shape)[value.present]
    at = None if value.cells is None else value.cells[value.present]
    return SeriesBatch(value.series, offsets, times, value.values[value.present], value.histograms, at)


def _line(series: Series) -> str:
    last = f"{go_text(float(series.values[-1]))} @ {series.times[-1]}Z" if len(series) else "no sample"
    more = f" ({len(series)} samples)" if len(series) > 1 else ""
    return f"{series.labels} => {last}{more}"

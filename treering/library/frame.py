"""A DataFrame, Arrow table or dict of columns as a `WriteBatch`."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from treering.times import to_ms
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable, Strings, strings
from tsdb.model.source import MAX_MS
from tsdb.model.write import WriteBatch


def batch_of_frame(frame: object, *, metric: str | None, time: str, value: str) -> WriteBatch:
    """The rows as samples, in time order inside each series. BadData names the column that is missing or cannot be read."""
    columns = columns_of(frame)
    for name in (time, value):
        if name not in columns:
            raise BadData(f"no column {name!r}; there are {', '.join(sorted(columns))}")
    if len(columns[time]) == 0:
        none = np.empty(0, np.int64)
        return WriteBatch.of([], row=none.astype(np.int32), t_ms=none, values=none.astype(np.float64))
    t_ms, values = _times(columns.pop(time), time), _numbers(columns.pop(value), value)
    table = _labels(columns, metric, rows=len(values))
    group, first = table.group()
    order = np.lexsort((t_ms, group))
    return WriteBatch.of(
        table.take(first).rows(), row=group[order].astype(np.int32), t_ms=t_ms[order], values=np.ascontiguousarray(values[order])
    )


def columns_of(frame: object) -> dict[str, npt.NDArray[np.generic]]:
    """The columns by name, as arrays of equal length."""
    if isinstance(frame, Mapping):
        columns = {str(name): np.asarray(column) for name, column in frame.items()}
    elif hasattr(frame, "column_names") and hasattr(frame, "column"):  # pyarrow.Table
        columns = {name: frame.column(name).to_numpy() for name in frame.column_names}
    elif hasattr(frame, "columns"):  # pandas, polars
        columns = {str(name): _array(frame[name]) for name in frame.columns}  # type: ignore[index]
    else:
        raise BadData(f"cannot read columns from a {type(frame).__name__}; give a DataFrame, an Arrow table or a dict of arrays")
    for name, column in columns.items():
        if column.ndim != 1:
            raise BadData(f"column {name!r} has {column.ndim} dimensions, want one")
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise BadData(f"columns differ in length: {sizes}")
    return columns


def _array(column: object) -> npt.NDArray[np.generic]:
    """A pandas or polars column; times with a zone as UTC, which pandas would give as Python objects."""
    zone = getattr(getattr(column, "dtype", None), "tz", None)
    return np.asarray(column, "datetime64[ms]") if zone is not None else np.asarray(column)


def _labels(columns: Mapping[str, npt.NDArray[np.generic]], metric: str | None, *, rows: int) -> SeriesTable:
    texts = {name: _texts(column) for name, column in columns.items()}
    if metric is not None:
        texts[METRIC_NAME] = strings([metric] * rows)
    if METRIC_NAME not in texts:
        raise BadData(f"no metric name: pass metric=… or a column {METRIC_NAME!r}")
    nameless = np.flatnonzero(texts[METRIC_NAME] == "")
    if len(nameless):
        raise BadData(f"row {nameless[0]} has no metric name")
    if "" in texts:
        raise BadData("a column has an empty name, which no label can have")
    table = SeriesTable.empty(rows)
    for name, column in texts.items():
        table = table.with_column(name, column)
    return table


def _texts(column: npt.NDArray[np.generic]) -> Strings:
    return strings(["" if item is None or item != item else str(item) for item in column.tolist()])


def _times(column: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.int64]:
    if column.dtype == object:  # Python objects, one by one as everywhere else
        try:
            return np.array([to_ms(moment, now_ms=0) for moment in column.tolist()], np.int64)
        except BadData as error:
            raise BadData(f"column {name!r}: {error}") from None
    if column.dtype.kind == "M":
        wrong, ms = np.isnat(column), column.astype("datetime64[ms]").astype(np.int64)
    else:
        rounded = np.round(_numbers(column, name) * 1000)
        wrong = ~(np.abs(rounded) <= MAX_MS)
        ms = np.where(wrong, 0, rounded).astype(np.int64)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadData(f"column {name!r}: {column[row]} in row {row} is no time")
    return ms


def _numbers(column: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(column, np.float64)
    except (TypeError, ValueError) as error:
        raise BadData(f"column {name!r} is not numeric: {error}") from None

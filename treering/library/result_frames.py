"""A result's columns as NumPy, Arrow, pandas and polars. Those packages are loaded only here, when they are asked for."""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import orjson

from treering.http.json_text import histogram_texts
from tsdb.model.series import F64, I32, SeriesBatch, Strings, strings

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

OWN_COLUMNS = ("time", "value", "histogram")
METADATA_KEY = b"treering"

Times = npt.NDArray[np.datetime64]


def load(module: str, extra: str) -> ModuleType:
    """An optional package. ImportError that names what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"this needs {package}: pip install 'treering[{extra}]' ({error})") from error


def grid(columns: SeriesBatch) -> tuple[Times, F64]:
    """(times datetime64[ms][k] ascending, values f64[n, k] with NaN where a series has no sample)."""
    times, at = np.unique(columns.t_ms, return_inverse=True)
    values = np.full((len(columns), len(times)), np.nan)
    values[_row_of(columns), at] = columns.values
    return times.astype("datetime64[ms]"), values


def to_arrow(columns: SeriesBatch, notes: Mapping[str, object]) -> "pyarrow.Table":
    """The long table; `notes` go into the metadata of its schema as JSON."""
    pa = load("pyarrow", "arrow")
    arrays = {"time": pa.array(columns.t_ms, pa.timestamp("ms", tz="UTC"))}
    row = _row_of(columns)
    for name, codes, texts in _label_columns(columns):
        picked = codes[row]
        indices = pa.array(picked, pa.int32(), mask=picked < 0)
        arrays[name] = pa.DictionaryArray.from_arrays(indices, pa.array(texts.tolist(), pa.string()))
    arrays["value"] = pa.array(columns.values, pa.float64())
    if columns.histograms is not None and columns.histogram_at is not None:
        arrays["histogram"] = pa.array(_histogram_column(columns), pa.string())
    return pa.table(arrays).replace_schema_metadata({METADATA_KEY: orjson.dumps(dict(notes))})


def to_ipc(table: "pyarrow.Table") -> bytes:
    """An Arrow IPC stream of the table."""
    pa = load("pyarrow", "arrow")
    sink = pa.BufferOutputStream()
    with load("pyarrow.ipc", "arrow").new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def write_parquet(table: "pyarrow.Table", path: str) -> None:
    load("pyarrow.parquet", "arrow").write_table(table, path, compression="zstd")


def to_polars(table: "pyarrow.Table") -> "polars.DataFrame":
    return load("polars", "polars").from_arrow(table)  # type: ignore[no-any-return]


def to_pandas(columns: SeriesBatch) -> "pandas.DataFrame":
    """The long table; a label is a categorical column straight from the symbol numbers, with no string made."""
    pd = load("pandas", "pandas")
    row = _row_of(columns)
    frame = {"time": _utc(pd, columns.t_ms.astype("datetime64[ms]")), "value": columns.values}
    for name, codes, texts in _label_columns(columns):
        frame[name] = pd.Categorical.from_codes(codes[row], categories=texts.tolist())
    if columns.histograms is not None and columns.histogram_at is not None:
        frame["histogram"] = _histogram_column(columns)
    return pd.DataFrame(frame)


def wide(columns: SeriesBatch, names: Sequence[str]) -> "pandas.DataFrame":
    """A row a time, a column a series."""
    pd = load("pandas", "pandas")
    times, values = grid(columns)
    return pd.DataFrame(values.T, index=_utc(pd, times).rename("time"), columns=list(names))


def _utc(pd: ModuleType, times: Times) -> "pandas.DatetimeIndex":
    return pd.DatetimeIndex(times).tz_localize("UTC")


def _row_of(columns: SeriesBatch) -> npt.NDArray[np.int64]:
    """i64[m] the series of each sample."""
    return np.repeat(np.arange(len(columns)), np.diff(columns.offsets))


def _label_columns(columns: SeriesBatch) -> list[tuple[str, I32, Strings]]:
    """(column name, codes i32[n] with -1 = absent, the distinct values ascending) of each label."""
    table = columns.series.compact()
    out = []
    for name, ids in zip(table.names, table.ids, strict=True):
        used = np.unique(ids)
        used = used[used >= 0]
        codes = np.where(ids >= 0, np.searchsorted(used, ids), -1).astype(np.int32)
        taken = name in OWN_COLUMNS or (name.startswith("label_") and name[6:] in OWN_COLUMNS)
        out.append((f"label_{name}" if taken else name, codes, table.symbols[used]))
    return out


def _histogram_column(columns: SeriesBatch) -> Strings:
    """object[m]: the JSON of each native histogram, None for a float."""
    assert columns.histograms is not None and columns.histogram_at is not None
    texts = strings([None] * columns.samples)  # type: ignore[list-item]
    which = np.flatnonzero(columns.histogram_at >= 0)
    texts[which] = strings(histogram_texts(columns.histograms.take(columns.histogram_at[which])))
    return texts

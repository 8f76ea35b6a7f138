"""Samples as Parquet and CSV: a long table, a row a sample, series after series.

time       timestamp[ms, UTC]; in CSV seconds since 1970 with three decimals
value      double, every NaN bit for bit; null where the sample is a native histogram
labels     map<string, string>, the metric name under `__name__`; or, wide, a dictionary column a label, null = absent
histogram  a struct (`treering.transfer.histogram_struct`), only in Parquet
"""

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

import numpy as np

from treering.library.result_frames import load
from treering.transfer.export_tally import Tally
from treering.transfer.histogram_struct import histogram_type, struct_column
from tsdb.model.series import I64, SeriesBatch, is_stale

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 1 << 17
"""Rows that become Arrow at once, and a row group of Parquet: some 100 MB where series have many labels."""
OWN = ("time", "value", "histogram")


def write_parquet(batches: Iterator[SeriesBatch], file: IO[bytes], names: Sequence[str] | None = None) -> None:
    """Write all batches, each as row groups of its own; with a column for each of these label names instead of a map, if given."""
    pa, parquet = load("pyarrow", "arrow"), load("pyarrow.parquet", "arrow")
    label_fields = (
        [(_column_name(name), pa.dictionary(pa.int32(), pa.string())) for name in names]
        if names is not None
        else [("labels", pa.map_(pa.string(), pa.string()))]
    )
    schema = pa.schema(
        [("time", pa.timestamp("ms", "UTC")), ("value", pa.float64()), *label_fields, ("histogram", histogram_type())]
    )
    with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in (part for whole in batches for part in pieces(whole)):
            labels = _wide_columns(batch, names) if names is not None else [_map_column(batch)]
            table = pa.Table.from_arrays([_time_column(batch), _value_column(batch), *labels, _histograms(batch)], schema=schema)
            writer.write_table(table)


def write_csv(batches: Iterator[SeriesBatch], file: IO[bytes], tally: Tally, *, names: Sequence[str]) -> None:
    """Write all batches with a column for each of these label names; what text cannot hold is left out and counted."""
    pa, csv = load("pyarrow", "arrow"), load("pyarrow.csv", "arrow")
    schema = pa.schema([("time", pa.string()), ("value", pa.string()), *((_column_name(name), pa.string()) for name in names)])
    with csv.CSVWriter(file, schema, write_options=csv.WriteOptions(quoting_style="needed")) as writer:
        for batch in (part for whole in batches for part in pieces(plain_floats(whole, tally))):
            labels = [column.cast(pa.string()) for column in _wide_columns(batch, names)]
            arrays = [pa.array(second_texts(batch.t_ms)), float_texts(batch.values), *labels]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def pieces(batch: SeriesBatch, rows: int = GROUP_ROWS) -> Iterator[SeriesBatch]:
    """The same samples in batches of at most so many, which may end inside a series."""
    for start in range(0, batch.samples, rows):
        end = min(start + rows, batch.samples)
        first = int(np.searchsorted(batch.offsets, start, side="right")) - 1
        last = int(np.searchsorted(batch.offsets, end, side="left"))
        edges: I64 = np.clip(batch.offsets[first : last + 1], start, end) - start
        at = slice(start, end)
        yield SeriesBatch(
            batch.series.take(slice(first, last)), edges, batch.t_ms[at], batch.values[at], batch.histograms,
            None if batch.histogram_at is None else batch.histogram_at[at],
        )  # fmt: skip


def plain_floats(batch: SeriesBatch, tally: Tally) -> SeriesBatch:
    """The batch without what text cannot hold, which the tally counts."""
    native = np.zeros(batch.samples, bool) if batch.histogram_at is None else batch.histogram_at >= 0
    stale = is_stale(batch.values) & ~native
    tally.histograms_left_out += int(native.sum())
    tally.stale_left_out += int(stale.sum())
    return batch.where(~(native | stale)) if bool((native | stale).any()) else batch


def second_texts(t_ms: I64) -> "pyarrow.Array":
    """The shortest exact decimals of seconds."""
    pa, compute = load("pyarrow", "arrow"), load("pyarrow.compute", "arrow")
    whole, rest = pa.array(np.abs(t_ms) // 1000).cast(pa.string()), np.abs(t_ms) % 1000
    fraction = compute.utf8_lpad(pa.array(rest).cast(pa.string()), 3, "0")
    texts = compute.if_else(pa.array(rest == 0), whole, compute.binary_join_element_wise(whole, fraction, "."))
    if bool((t_ms >= 0).all()):
        return texts
    return compute.if_else(pa.array(t_ms < 0), compute.binary_join_element_wise("-", texts, ""), texts)


def float_texts(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> "pyarrow.Array":
    """The shortest digits that read back as the same float; NaN, +Inf and -Inf as Prometheus writes them."""
    pa, compute = load("pyarrow", "arrow"), load("pyarrow.compute", "arrow")
    texts = pa.array(values).cast(pa.string())
    odd = ~np.isfinite(values)
    if not odd.any():
        return texts
    words = np.where(np.isnan(values[odd]), "NaN", np.where(values[odd] > 0, "+Inf", "-Inf"))
    return compute.replace_with_mask(texts, pa.array(odd), pa.array(words.tolist(), pa.string()))


def _column_name(name: str) -> str:
    """A label's column; one that has the name of our own column gets a prefix."""
    return f"label_{name}" if name in OWN else name


def _time_column(batch: SeriesBatch) -> "pyarrow.Array":
    pa = load("pyarrow", "arrow")
    return pa.array(batch.t_ms, pa.int64()).cast(pa.timestamp("ms", "UTC"))


def _value_column(batch: SeriesBatch) -> "pyarrow.Array":
    pa = load("pyarrow", "arrow")
    mask = None if batch.histogram_at is None else batch.histogram_at >= 0
    return pa.array(batch.values, pa.float64(), mask=mask, from_pandas=False)


def _histograms(batch: SeriesBatch) -> "pyarrow.Array":
    pa = load("pyarrow", "arrow")
    if batch.histograms is None or batch.histogram_at is None:
        return pa.nulls(batch.samples, histogram_type())
    return struct_column(batch.histograms, batch.histogram_at)


def _wide_columns(batch: SeriesBatch, names: Sequence[str]) -> list["pyarrow.Array"]:
    """A dictionary column a label."""
    pa = load("pyarrow", "arrow")
    series = batch.series
    row = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    columns = []
    for name in names:
        used, codes = np.unique(series.column(name), return_inverse=True)
        absent = int(np.count_nonzero(used < 0))
        numbers = (codes - absent).astype(np.int32)[row]
        texts = pa.array(series.texts(used[absent:]).tolist(), pa.string())
        columns.append(pa.DictionaryArray.from_arrays(pa.array(numbers, mask=numbers < 0), texts))
    return columns


def _map_column(batch: SeriesBatch) -> "pyarrow.Array":
    """A map of labels a row: made once a series, then taken for each sample."""
    pa = load("pyarrow", "arrow")
    ids = batch.series.ids.T
    there = ids >= 0
    label = np.nonzero(there)[1]
    keys = pa.array(list(batch.series.names), pa.string()).take(pa.array(label))
    symbols, codes = np.unique(ids[there], return_inverse=True)
    items = pa.array(batch.series.texts(symbols).tolist(), pa.string()).take(pa.array(codes))
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    maps = pa.MapArray.from_arrays(pa.array(offsets), keys, items)
    return maps.take(pa.array(np.repeat(np.arange(len(batch)), np.diff(batch.offsets))))

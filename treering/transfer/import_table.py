"""CSV and Parquet as parts of an import: a row a sample, in any order.

A time column, a value column, labels from a map column `labels` or from every other column (an empty text is no label), and
native histograms as `treering.transfer.export_table` writes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from treering.library.result_frames import load
from treering.transfer.histogram_struct import histograms_of
from treering.transfer.import_part import Content, Part, Wanted, content_of, fingerprint, pick
from treering.transfer.import_rows import batch_of_rows, group_rows
from treering.transfer.import_text import PART_BYTES, line_ranges
from tsdb.merge import merge_batches
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import F64, I32, I64, SeriesBatch, SeriesTable, strings

if TYPE_CHECKING:
    import pyarrow

PART_ROWS = 2 << 20
"""Rows of Parquet in a part, or of one row group if that has more."""
READ_ROWS, READ_BYTES = 1 << 17, 8 << 20
"""What of a part is Arrow at once: texts take ten times what they take as columns."""
HISTOGRAM = "histogram"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns are what: `metric` names all series, if no column `__name__` does; `time_unit` is that of plain numbers."""

    time: str = "time"
    value: str = "value"
    metric: str | None = None
    time_unit: str = "s"


def csv_parts(path: Path, wanted: Wanted, columns: TableColumns, *, delimiter: str = ",") -> Iterator[Part]:
    """Runs of whole lines below the header, each known by its bytes."""
    with path.open("rb") as file:
        header = file.readline()
    for start, end, digest in line_ranges(path, PART_BYTES, quotes=True, skip=len(header)):

        def open_content(start: int = start, end: int = end) -> Content:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
            where = f"{path} bytes {start} to {end}"
            return _content(_read_csv(header + data, columns, delimiter, where), columns, wanted, where)

        name = f"{path} bytes {start} to {end}"
        yield Part(name, fingerprint("csv", header, digest, columns, delimiter), end - start, open_content)


def parquet_parts(path: Path, wanted: Wanted, columns: TableColumns) -> Iterator[Part]:
    """Runs of row groups, each known by the file's footer, which has counts, sizes and bounds of every column of it."""
    parquet = load("pyarrow.parquet", "arrow")
    try:
        file = parquet.ParquetFile(path)
    except load("pyarrow", "arrow").ArrowException as error:
        raise Corrupt(f"{path}: is no Parquet: {error}") from None
    rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    facts = fingerprint("parquet", path.stat().st_size, file.metadata.to_dict())
    for first, last in pairwise(_cuts(rows)):

        def open_content(groups: Sequence[int] = range(first, last)) -> Content:
            where = f"{path} row groups {groups[0]} to {groups[-1]}"
            return _content(_read_groups(path, groups, where), columns, wanted, where)

        name = f"{path} row groups {first} to {last - 1}"
        yield Part(name, fingerprint(facts, first, last, columns), sum(rows[first:last]), open_content)


def batch_of_table(table: "pyarrow.Table", columns: TableColumns, *, where: str) -> SeriesBatch:
    """The samples of all rows. BadData names the column that is missing or cannot be read."""
    for name in (columns.time, columns.value):
        if name not in table.column_names:
            raise BadData(f"{where}: no column {name!r}; there are {', '.join(table.column_names)}")
    t_ms, values = _times(table, columns, where), _values(table, columns.value, where)
    symbols, names, ids = _labels(table, columns, where)
    row, first = group_rows(ids)
    series = SeriesTable(strings(symbols), tuple(names), np.ascontiguousarray(ids[:, first]), ascending=True)
    histograms = histogram_at = None
    if HISTOGRAM in table.column_names and str(table.schema.field(HISTOGRAM).type).startswith("struct"):
        histograms, histogram_at = histograms_of(table.column(HISTOGRAM))
    return batch_of_rows(series, row, t_ms, values, histograms, histogram_at)


def _content(tables: Iterator["pyarrow.Table"], columns: TableColumns, wanted: Wanted, where: str) -> Content:
    """The samples of all tables, which become columns one by one."""
    return content_of(merge_batches([pick(batch_of_table(table, columns, where=where), wanted) for table in tables]))


def _read_csv(data: bytes, columns: TableColumns, delimiter: str, where: str) -> Iterator["pyarrow.Table"]:
    pa, csv = load("pyarrow", "arrow"), load("pyarrow.csv", "arrow")
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        names = csv.read_csv(pa.BufferReader(data[: data.index(b"\n") + 1]), parse_options=parse).column_names
        kinds = {name: pa.float64() if name == columns.value else pa.string() for name in names}
        convert = csv.ConvertOptions(column_types=kinds, strings_can_be_null=False, null_values=[""])
        read = csv.ReadOptions(block_size=READ_BYTES, use_threads=False)
        with csv.open_csv(pa.BufferReader(data), read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        raise BadData(f"{where}: {error}") from None


def _read_groups(path: Path, groups: Sequence[int], where: str) -> Iterator["pyarrow.Table"]:
    pa, parquet = load("pyarrow", "arrow"), load("pyarrow.parquet", "arrow")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(READ_ROWS, row_groups=list(groups), use_threads=False):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{where}: {error}") from None


def _cuts(rows: Sequence[int]) -> list[int]:
    """Row group numbers between which parts lie."""
    cuts, count = [0], 0
    for number, size in enumerate(rows):
        if count and count + size > PART_ROWS:
            cuts.append(number)
            count = 0
        count += size
    return [*cuts, len(rows)] if rows else []


def _times(table: "pyarrow.Table", columns: TableColumns, where: str) -> I64:
    """i64[m] milliseconds."""
    pa, compute = load("pyarrow", "arrow"), load("pyarrow.compute", "arrow")
    column = table.column(columns.time)
    if column.null_count:
        raise BadData(f"{where}: {column.null_count} rows have no {columns.time!r}")
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _read_times(column)
        if pa.types.is_timestamp(column.type):
            whole = compute.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", column.type.tz))
            return np.asarray(whole.cast(pa.int64()).to_numpy(), np.int64)
        if pa.types.is_date(column.type):
            return np.asarray(column.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy(), np.int64)
        numbers = column.to_numpy()
    except pa.ArrowException as error:
        raise BadData(f"{where}: column {columns.time!r} has no times: {error}") from None
    per_second = _PER_SECOND[columns.time_unit]
    if numbers.dtype.kind in "iu":
        counts: I64 = numbers.astype(np.int64)
        return counts * (1000 // per_second) if per_second <= 1000 else counts // (per_second // 1000)
    if not np.isfinite(numbers).all():
        raise BadData(f"{where}: column {columns.time!r} has times that are no numbers")
    return np.asarray(np.round(numbers * (1000 / per_second))).astype(np.int64)


def _read_times(column: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
    """Text as integers, as decimals, or as RFC 3339 times with a zone; the error of the last if it is none of them."""
    pa = load("pyarrow", "arrow")
    for kind in (pa.int64(), pa.float64()):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column.cast(pa.timestamp("ns", "UTC"))


def _values(table: "pyarrow.Table", name: str, where: str) -> F64:
    """f64[m]; an absent value is NaN if there is a histogram column, else refused. NaNs keep their bits."""
    pa = load("pyarrow", "arrow")
    column = table.column(name)
    if column.null_count and HISTOGRAM not in table.column_names:
        raise BadData(f"{where}: {column.null_count} rows have no {name!r}")
    try:
        floats = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise BadData(f"{where}: column {name!r} is not numeric: {error}") from None
    values = np.concatenate([np.empty(0), *(_bits(chunk) for chunk in floats.chunks)])
    if column.null_count:
        values[np.asarray(column.is_null().to_numpy())] = np.nan
    return values


def _bits(chunk: "pyarrow.Array") -> F64:
    data = chunk.buffers()[1]
    return np.empty(0) if data is None else np.frombuffer(data, np.float64, len(chunk), chunk.offset * 8)


def _labels(table: "pyarrow.Table", columns: TableColumns, where: str) -> tuple[list[str], list[str], I32]:
    """(symbols ascending, label names ascending, ids int32[names, m])."""
    pa = load("pyarrow", "arrow")
    rest = [name for name in table.column_names if name not in (columns.time, columns.value, HISTOGRAM)]
    maps = [name for name in rest if pa.types.is_map(table.schema.field(name).type)]
    coded: dict[str, tuple[list[str], I32]] = {}
    for name in rest:
        if name in maps:
            coded |= _map_columns(table.column(name).combine_chunks())
        else:
            coded[name] = _codes(table.column(name), name, where)
    if columns.metric is not None:
        coded[METRIC_NAME] = ([columns.metric], np.zeros(table.num_rows, np.int32))
    if METRIC_NAME not in coded:
        raise BadData(f"{where}: nothing tells the metric name: give --metric, or a column {METRIC_NAME!r}")
    symbols = sorted({text for texts, _ in coded.values() for text in texts if text})
    number = {text: i for i, text in enumerate(symbols)}
    ids = np.full((len(coded), table.num_rows), -1, np.int32)
    for place, name in enumerate(sorted(coded)):
        texts, codes = coded[name]
        to = np.array([*(number.get(text, -1) for text in texts), -1], np.int32)
        ids[place] = to[codes]
    return symbols, sorted(coded), ids


def _codes(column: "pyarrow.ChunkedArray", name: str, where: str) -> tuple[list[str], I32]:
    """(distinct texts, their numbers i32[m], -1 where there is none)."""
    pa = load("pyarrow", "arrow")
    try:
        plain = column.cast(pa.string())
    except pa.ArrowException as error:
        raise BadData(f"{where}: column {name!r} is no text: {error}") from None
    coded = plain.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)).astype(np.int32)


def _map_columns(maps: "pyarrow.MapArray") -> dict[str, tuple[list[str], I32]]:
    """The entries of a map column as a column a key."""
    pa = load("pyarrow", "arrow")
    if isinstance(maps, pa.ChunkedArray):
        maps = pa.concat_arrays(maps.chunks) if maps.num_chunks else pa.array([], maps.type)
    offsets = np.asarray(maps.offsets.to_numpy())
    row = np.repeat(np.arange(len(maps)), np.diff(offsets))
    part = slice(int(offsets[0]), int(offsets[-1]) - int(offsets[0]))
    keys, items = (side.slice(part.start, part.stop).cast(pa.string()).dictionary_encode() for side in (maps.keys, maps.items))
    key, item = np.asarray(keys.indices.to_numpy()), np.asarray(items.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    texts = items.dictionary.to_pylist()
    columns: dict[str, tuple[list[str], I32]] = {}
    for number, name in enumerate(keys.dictionary.to_pylist()):
        here = np.flatnonzero(key == number)
        codes = np.full(len(maps), -1, np.int32)
        codes[row[here]] = item[here]
        columns[name] = (texts, codes)
    return columns

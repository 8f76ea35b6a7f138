"""Native histograms as a column of Arrow structs, and back.

struct<schema int8, hint uint8, integer bool, count double, sum double, zero_threshold double, zero_count double,
       positive list<struct<index int32, count double>>, negative list<…>, bounds list<double>>          null for a float sample
"""

from typing import TYPE_CHECKING

import numpy as np

from treering.library.result_frames import load
from tsdb.model.errors import BadData
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.series import I64

if TYPE_CHECKING:
    import pyarrow

NUMBERS = ("schema", "hint", "integer", "count", "sum", "zero_threshold", "zero_count")
SIDES = ("positive", "negative")


def histogram_type() -> "pyarrow.DataType":
    """The Arrow type of the column."""
    pa = load("pyarrow", "arrow")
    kinds = (pa.int8(), pa.uint8(), pa.bool_(), *[pa.float64()] * 4)
    side = pa.list_(pa.struct([("index", pa.int32()), ("count", pa.float64())]))
    return pa.struct([*zip(NUMBERS, kinds, strict=True), *((name, side) for name in SIDES), ("bounds", pa.list_(pa.float64()))])


def struct_column(histograms: Histograms, histogram_at: I64) -> "pyarrow.Array":
    """The column of samples whose histograms are rows histogram_at i64[m] of `histograms`, null where that is -1."""
    pa = load("pyarrow", "arrow")
    rows = np.where(histogram_at >= 0, histogram_at, 0)
    kind = histogram_type()
    if len(histograms) == 0:
        return pa.nulls(len(histogram_at), kind)
    h = histograms.take(rows)
    numbers = [pa.array(getattr(h, name)) for name in NUMBERS]
    sides = [_side_column(side) for side in (h.positive, h.negative)]
    bounds = pa.ListArray.from_arrays(pa.array(h.bounds_offsets, pa.int32()), pa.array(h.bounds))
    return pa.StructArray.from_arrays([*numbers, *sides, bounds], fields=list(kind), mask=pa.array(histogram_at < 0))


def histograms_of(column: "pyarrow.ChunkedArray") -> tuple[Histograms | None, I64 | None]:
    """(histograms, histogram_at i64[m]) of a column; (None, None) if it has none. BadData where a field is missing."""
    pa = load("pyarrow", "arrow")
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    there = np.flatnonzero(whole.is_valid().to_numpy(zero_copy_only=False))
    if len(there) == 0:
        return None, None
    known = {whole.type.field(i).name for i in range(whole.type.num_fields)}
    missing = {*NUMBERS, *SIDES, "bounds"} - known
    if missing:
        raise BadData(f"column histogram has no field {', '.join(sorted(missing))}")
    rows = whole.take(pa.array(there))
    fields = dict(zip((field.name for field in rows.type), rows.flatten(), strict=True))
    schema, hint, integer, *floats = (np.asarray(fields[name].to_numpy(zero_copy_only=False)) for name in NUMBERS)
    count, total, threshold, zero_count = (np.ascontiguousarray(number, np.float64) for number in floats)
    bounds = fields["bounds"]
    histograms = Histograms(
        schema.astype(np.int8), hint.astype(np.uint8), integer.astype(bool), count, total, threshold, zero_count,
        _side(fields["positive"]), _side(fields["negative"]), _offsets(bounds), np.asarray(bounds.flatten().to_numpy(), np.float64),
    )  # fmt: skip
    at = np.full(len(whole), -1, np.int64)
    at[there] = np.arange(len(there))
    return histograms, at


def _side_column(side: Buckets) -> "pyarrow.Array":
    pa = load("pyarrow", "arrow")
    cells = pa.StructArray.from_arrays([pa.array(side.index, pa.int32()), pa.array(side.counts)], names=["index", "count"])
    return pa.ListArray.from_arrays(pa.array(side.offsets, pa.int32()), cells)


def _side(column: "pyarrow.ListArray") -> Buckets:
    index, counts = column.flatten().flatten()
    return Buckets(_offsets(column), np.asarray(index.to_numpy()).astype(np.int32), np.asarray(counts.to_numpy(), np.float64))


def _offsets(column: "pyarrow.ListArray") -> I64:
    offsets = np.asarray(column.offsets.to_numpy()).astype(np.int64)
    return np.asarray(offsets - offsets[0])

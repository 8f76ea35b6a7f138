"""The records of the write-ahead log as values, and their payloads as bytes; docs/formats.md draws them.

A series has a number (id) that the log never uses twice. Each segment names the series it speaks of before it speaks of
them, so that any one segment can be read alone.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.model.errors import Corrupt
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import Labels
from tsdb.model.series import F64, I64
from tsdb.model.write import U8, Exemplar, Metadata

SERIES, SAMPLES, HISTOGRAMS, METADATA, EXEMPLARS = 1, 2, 3, 4, 5

MAX_PAYLOAD_BYTES = 64 << 20
"""A writer stays below a third of this; what claims more is damage."""
MAX_RECORD_SAMPLES = 1 << 20
MAX_RECORD_LABEL_BYTES = 16 << 20
PACK_BYTES = 512
"""Payloads of series and histograms from this size on are zstd-compressed: label bytes shrink tenfold at 500 MB/s."""

_PLAIN, _PACKED = 0, 1
_COUNT = struct.Struct("<I")
_COLUMN = struct.Struct("<qB")
_WIDTHS = (0, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """Series ids i64[n] have the label bytes data[end[i] - size[i] : end[i]]."""

    ids: I64
    sizes: I64
    data: U8


@dataclass(frozen=True, slots=True)
class SamplesRecord:
    """Float samples: ids, t_ms, bits i64[n]; start_ms i64[n] or None."""

    ids: I64
    t_ms: I64
    bits: I64
    start_ms: I64 | None


@dataclass(frozen=True, slots=True)
class HistogramsRecord:
    """Histogram samples: ids, t_ms, start_ms i64[n] (0 = unknown), and their values."""

    ids: I64
    t_ms: I64
    start_ms: I64
    histograms: Histograms


@dataclass(frozen=True, slots=True)
class MetadataRecord:
    metadata: tuple[Metadata, ...]


@dataclass(frozen=True, slots=True)
class ExemplarsRecord:
    """Exemplars, and the label bytes of the series that each `row` means."""

    series: tuple[bytes, ...]
    exemplars: tuple[Exemplar, ...]


Record = SeriesRecord | SamplesRecord | HistogramsRecord | MetadataRecord | ExemplarsRecord

_WireMetadata = list[tuple[str, str, str, str]]
_WireExemplars = tuple[list[bytes], list[tuple[int, list[tuple[str, str]], float, int]]]


def encode_record(record: Record) -> tuple[int, bytes]:
    """(kind, payload) of a record."""
    match record:
        case SamplesRecord():
            return SAMPLES, _encode_samples(record)
        case SeriesRecord():
            columns = [*_put(record.ids), *_put(record.sizes), record.data.tobytes()]
            return SERIES, _pack(b"".join([_COUNT.pack(len(record.ids)), *columns]))
        case HistogramsRecord():
            return HISTOGRAMS, _pack(_encode_histograms(record))
        case MetadataRecord():
            return METADATA, _pack(msgspec.msgpack.encode([(m.metric, m.kind, m.help, m.unit) for m in record.metadata]))
        case ExemplarsRecord():
            rows = [(e.row, e.labels.pairs, e.value, e.t_ms) for e in record.exemplars]
            return EXEMPLARS, _pack(msgspec.msgpack.encode((record.series, rows)))


def decode_record(kind: int, payload: bytes) -> Record | None:
    """The record of a payload, None where its kind is not known to this version. Corrupt where the bytes are no record."""
    try:
        match kind:
            case 2:
                return _decode_samples(_Reader(payload))
            case 1:
                reader = _Reader(_unpack(payload))
                count = reader.count()
                ids, sizes = reader.column(count), reader.column(count)
                if len(sizes) and (int(sizes.min()) < 0 or int(sizes.sum()) != reader.left):
                    raise Corrupt(f"series record: {int(sizes.sum())} label bytes announced, {reader.left} there")
                return SeriesRecord(ids, sizes, np.frombuffer(reader.take(reader.left), np.uint8))
            case 3:
                return _decode_histograms(_Reader(_unpack(payload)))
            case 4:
                return MetadataRecord(tuple(Metadata(*m) for m in msgspec.msgpack.decode(_unpack(payload), type=_WireMetadata)))
            case 5:
                series, rows = msgspec.msgpack.decode(_unpack(payload), type=_WireExemplars)
                exemplars = tuple(Exemplar(row, Labels(tuple(pairs)), value, t) for row, pairs, value, t in rows)
                return ExemplarsRecord(tuple(series), exemplars)
    except (msgspec.DecodeError, zstandard.ZstdError, struct.error) as error:
        raise Corrupt(f"log record of kind {kind}: {error}") from None
    return None


def split_series(ids: I64, sizes: I64, data: U8) -> Iterator[SeriesRecord]:
    """The records that name these series, none with more than MAX_RECORD_LABEL_BYTES unless one series alone has."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(ids):
        start = int(ends[first] - sizes[first])
        last = max(first + 1, int(np.searchsorted(ends, start + MAX_RECORD_LABEL_BYTES, side="right")))
        yield SeriesRecord(ids[first:last], sizes[first:last], data[start : int(ends[last - 1])])
        first = last


def split_samples(record: SamplesRecord) -> Iterator[SamplesRecord]:
    """The same samples in records of at most MAX_RECORD_SAMPLES."""
    if len(record.ids) <= MAX_RECORD_SAMPLES:
        yield record
        return
    for first in range(0, len(record.ids), MAX_RECORD_SAMPLES):
        part = slice(first, first + MAX_RECORD_SAMPLES)
        start_ms = None if record.start_ms is None else record.start_ms[part]
        yield SamplesRecord(record.ids[part], record.t_ms[part], record.bits[part], start_ms)


def split_histograms(record: HistogramsRecord) -> Iterator[HistogramsRecord]:
    """The same histograms in records that stay far below MAX_PAYLOAD_BYTES."""
    buckets = np.diff(record.histograms.positive.offsets) + np.diff(record.histograms.negative.offsets)
    size = np.cumsum(128 + 12 * buckets + 8 * np.diff(record.histograms.bounds_offsets))
    bounds = np.flatnonzero(np.diff(size // (8 << 20))) + 1
    for part in np.split(np.arange(len(record.ids)), bounds):
        yield HistogramsRecord(record.ids[part], record.t_ms[part], record.start_ms[part], record.histograms.take(part))


def _encode_samples(record: SamplesRecord) -> bytes:
    ids = record.ids
    flag = b"\0" if record.start_ms is None else b"\1"
    start = [] if record.start_ms is None else _put(record.start_ms)
    steps = _put(np.diff(ids)) if len(ids) else []
    first = int(ids[0]) if len(ids) else 0
    head = _COLUMN.pack(first, 0)
    return b"".join([_COUNT.pack(len(ids)), flag, head, *steps, *_put(record.t_ms), *start, record.bits.tobytes()])


def _decode_samples(reader: "_Reader") -> SamplesRecord:
    count = reader.count()
    with_start = reader.take(1) == b"\1"
    ids = np.full(count, reader.base(), np.int64)
    if count:
        ids[1:] += np.cumsum(reader.column(count - 1))
    t_ms = reader.column(count)
    start_ms = reader.column(count) if with_start else None
    bits = np.frombuffer(reader.take(8 * count), np.int64)
    return SamplesRecord(ids, t_ms, bits, start_ms)


def _encode_histograms(record: HistogramsRecord) -> bytes:
    parts = [_COUNT.pack(len(record.ids)), *_put(record.ids), *_put(record.t_ms), *_put(record.start_ms)]
    h = record.histograms
    for side in (h.positive, h.negative):
        parts += [*_put(np.diff(side.offsets)), *_put(side.index.astype(np.int64)), side.counts.tobytes()]
    parts += [*_put(np.diff(h.bounds_offsets)), h.bounds.tobytes(), h.schema.tobytes(), h.hint.tobytes(), h.integer.tobytes()]
    parts += [column.tobytes() for column in (h.count, h.sum, h.zero_threshold, h.zero_count)]
    return b"".join(parts)


def _decode_histograms(reader: "_Reader") -> HistogramsRecord:
    count = reader.count()
    ids, t_ms, start_ms = reader.column(count), reader.column(count), reader.column(count)
    positive, negative = _decode_buckets(reader, count), _decode_buckets(reader, count)
    bounds_offsets = _offsets(reader.column(count))
    bounds = reader.floats(int(bounds_offsets[-1]))
    schema = np.frombuffer(reader.take(count), np.int8)
    hint, integer = np.frombuffer(reader.take(count), np.uint8), np.frombuffer(reader.take(count), bool)
    total, sum_, zero_threshold, zero_count = (reader.floats(count) for _ in range(4))
    histograms = Histograms(
        schema, hint, integer, total, sum_, zero_threshold, zero_count, positive, negative, bounds_offsets, bounds
    )  # fmt: skip
    assert len(fields(histograms)) == 11, "a new column of Histograms must be logged too"
    return HistogramsRecord(ids, t_ms, start_ms, histograms)


def _decode_buckets(reader: "_Reader", count: int) -> Buckets:
    offsets = _offsets(reader.column(count))
    total = int(offsets[-1])
    return Buckets(offsets, reader.column(total).astype(np.int32), reader.floats(total))


def _offsets(lengths: I64) -> I64:
    if len(lengths) and (int(lengths.min()) < 0 or int(lengths.max()) > MAX_PAYLOAD_BYTES):
        raise Corrupt(f"log record: a ragged row of {int(lengths.min())} to {int(lengths.max())} items")
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _put(column: I64) -> list[bytes]:
    """A column as its least number and, in the narrowest width, how far each number is above it."""
    if len(column) == 0:
        return []
    low, high = int(column.min()), int(column.max())
    span = high - low
    if span >> 32:
        return [_COLUMN.pack(0, 8), column.tobytes()]
    width = 0 if span == 0 else 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4
    return [_COLUMN.pack(low, width), (column - low).astype(f"<u{width}").tobytes() if width else b""]


class _Reader:
    """A cursor over a payload that never reads past its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise Corrupt(f"log record: {size} bytes wanted at byte {self._at} of {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def count(self) -> int:
        """A number of rows. A column of equal numbers takes no space, so it is bounded by what a writer puts in one record."""
        count = int(_COUNT.unpack(self.take(4))[0])
        if count > 4 * MAX_RECORD_SAMPLES:
            raise Corrupt(f"log record: {count} rows announced, at most {4 * MAX_RECORD_SAMPLES} are ever written")
        return count

    def base(self) -> int:
        return int(_COLUMN.unpack(self.take(_COLUMN.size))[0])

    def column(self, count: int) -> I64:
        if count == 0:
            return np.empty(0, np.int64)
        low, width = _COLUMN.unpack(self.take(_COLUMN.size))
        if width not in _WIDTHS:
            raise Corrupt(f"log record: a column of width {width} at byte {self._at}")
        if width == 0:
            return np.full(count, low, np.int64)
        above: npt.NDArray[np.integer] = np.frombuffer(self.take(count * width), f"<{'i' if width == 8 else 'u'}{width}")
        return np.asarray(above.astype(np.int64) + low)

    def floats(self, count: int) -> F64:
        return np.frombuffer(self.take(8 * count), np.float64)


def _pack(payload: bytes) -> bytes:
    if len(payload) < PACK_BYTES:
        return bytes([_PLAIN]) + payload
    packed: bytes = zstandard.ZstdCompressor(level=1).compress(payload)
    return bytes([_PACKED]) + packed


def _unpack(payload: bytes) -> bytes:
    if payload[:1] == bytes([_PLAIN]):
        return payload[1:]
    unpacked: bytes = zstandard.ZstdDecompressor().decompress(payload[1:], max_output_size=MAX_PAYLOAD_BYTES)
    return unpacked

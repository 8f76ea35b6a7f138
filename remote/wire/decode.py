"""The wire of remote write: from an HTTP body to a `WriteBatch`, for messages 1.0 and 2.0.

What is broken as bytes raises; what is wrong with single series is left out and told in `Decoded.rejected`, so that the
rest of the request is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cramjam
import numpy as np

from remote.wire.extras import exemplars_v1, exemplars_v2, metadata_v1, metadata_v2, pairs_of_refs
from remote.wire.faults import Pairs, label_pairs, label_refs, reject_series
from remote.wire.histograms import decode_histograms
from remote.wire.limits import WireLimits
from tsdb.kernel import scan
from tsdb.kernel.scan import Columns, scan_v1
from tsdb.kernel.scan_v2 import Symbols, scan_v2
from tsdb.model.errors import BadData, TreeringError
from tsdb.model.series import STALE_NAN
from tsdb.model.write import I64, NO_SERIES, U8, Exemplar, KnownRefs, KnownSeries, Metadata, PushResult, WriteBatch

MEDIA_TYPE = "application/x-protobuf"
PROTOS = {"prometheus.WriteRequest": 1, "io.prometheus.write.v2.Request": 2}


class UnsupportedMedia(TreeringError):
    """A content type or encoding that is not remote write's: status 415."""


class TooLarge(TreeringError):
    """A request body over the limit: status 413."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request's good series, and how many samples were left out with which reason."""

    batch: WriteBatch
    rejected: PushResult = field(default_factory=PushResult)


def write_version(content_type: str | None) -> int:
    """1 or 2: the message that a content type names. UnsupportedMedia for any other; none at all is 1.0."""
    media, *parameters = (part.strip() for part in (content_type or MEDIA_TYPE).split(";"))
    if media.lower() != MEDIA_TYPE:
        raise UnsupportedMedia(f"content type {media[:100]!r} is not supported, want {MEDIA_TYPE}")
    version = 1
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "proto":
            proto = value.strip().strip('"')
            if proto not in PROTOS:
                raise UnsupportedMedia(f"protobuf message {proto[:100]!r} is not supported, want {' or '.join(PROTOS)}")
            version = PROTOS[proto]
    return version


def decode_write(
    body: bytes | memoryview,
    *,
    content_type: str | None,
    content_encoding: str | None,
    limits: WireLimits,
    known: KnownSeries = NO_SERIES,
) -> Decoded:
    """The series of a remote-write body. Those whose labels are `known` are checked no more, which makes it twice as fast.

    UnsupportedMedia (415) and TooLarge (413) before anything is decoded; BadData (400), with the offset, for broken bytes.
    """
    version = write_version(content_type)
    if (content_encoding or "snappy").strip().lower() != "snappy":
        raise UnsupportedMedia(f"content encoding {(content_encoding or '')[:100]!r} is not supported, want snappy")
    if len(body) > limits.max_body_bytes:
        raise TooLarge(f"request body of {len(body)} bytes is over the limit of {limits.max_body_bytes} bytes")
    buffer, size = _decompress(body, limits)
    _check_message(buffer, size, version)
    return decode_v1(buffer, size, limits, known) if version == 1 else decode_v2(buffer, size, limits)


def decode_v1(buffer: U8, size: int, limits: WireLimits, known: KnownSeries) -> Decoded:
    """The series of the prometheus.WriteRequest buffer[:size]; the buffer has room for as much again, and PADDING."""
    bounds = limits.of_labels()
    columns = _columns(limits, series=size // 96 + 64, samples=size // 16 + 64, extras=size // 64 + 64)
    code = scan_v1(buffer, size, bounds, known.labels, columns)
    if code == scan.FULL:
        columns = _columns(limits, series=size // 2 + 1, samples=size // 2 + 1, extras=size // 2 + 1)
        code = scan_v1(buffer, size, bounds, known.labels, columns)
    if code == scan.FULL:
        raise BadData(_too_many(limits))
    if code != scan.OK:
        raise BadData(f"remote write 1.0: broken protobuf at byte {columns.state[scan.OFFSET]} of {size}")
    rejected = PushResult()
    exemplars: tuple[Exemplar, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    if columns.state[scan.EXTRAS]:
        exemplars = exemplars_v1(buffer, _extras(columns, scan.EXEMPLAR), limits, rejected)
        metadata = metadata_v1(buffer, _extras(columns, scan.FAMILY), limits, rejected)
    batch = _batch(columns, buffer[: columns.state[scan.ARENA]], exemplars, metadata)
    refs = columns.series[scan.REF, : len(batch)].astype(np.int32)
    return _finish(replace(batch, known=KnownRefs(refs, known.owner)), columns, buffer, label_pairs, limits, rejected)


def decode_v2(buffer: U8, size: int, limits: WireLimits) -> Decoded:
    """The series of the io.prometheus.write.v2.Request buffer[:size], which PADDING follows."""
    columns, symbols, arena = _scan_v2(buffer, size, limits)
    rejected = PushResult()
    exemplars: tuple[Exemplar, ...] = ()
    if columns.state[scan.EXTRAS]:
        exemplars = exemplars_v2(buffer, _extras(columns, scan.EXEMPLAR), symbols, limits, rejected)
    families = symbols.families[: columns.state[scan.FAMILIES]]
    metadata = metadata_v2(buffer, symbols, families, limits, rejected) if len(families) else ()
    batch = _batch(columns, arena[: columns.state[scan.ARENA]], exemplars, metadata)
    if columns.state[scan.START_TIMES]:
        batch = replace(batch, start_ms=columns.samples[scan.START_TIME, : len(batch.row)])

    def pairs(message: bytes) -> Pairs:
        return pairs_of_refs(buffer, symbols, [ref for ref in label_refs(message) if ref < symbols.table.shape[1]])

    return _finish(batch, columns, buffer, pairs, limits, rejected)


def _scan_v2(buffer: U8, size: int, limits: WireLimits) -> tuple[Columns, Symbols, U8]:
    """What `scan_v2` fills. Room grows from what a usual request needs to the most that `size` bytes can hold."""
    series, samples, names, arena_bytes = size // 24 + 64, size // 12 + 64, size // 8 + 64, 4 * size + 4096
    while True:
        columns = _columns(limits, series=series, samples=samples, extras=series)
        symbols = Symbols(np.empty((3, names), np.int64), np.empty((names, 4), np.int64))
        arena = np.empty(arena_bytes + scan.PADDING, np.uint8)
        code = scan_v2(buffer, size, arena[:arena_bytes], limits.of_labels(), columns, symbols)
        if code == scan.OK:
            return columns, symbols, arena
        if code == scan.BROKEN:
            raise BadData(f"remote write 2.0: broken protobuf at byte {columns.state[scan.OFFSET]} of {size}")
        if arena_bytes >= limits.max_label_bytes:
            raise BadData(f"{_too_many(limits)}, or labels of over {limits.max_label_bytes} bytes when symbols are put in")
        series = samples = size // 2 + 1
        names = min(size // 2 + 1, 2 * limits.max_series)
        arena_bytes = min(4 * arena_bytes, limits.max_label_bytes)


def _too_many(limits: WireLimits) -> str:
    words = f"{limits.max_series} series (or exemplars and histograms) or {limits.max_samples} samples, the limits"
    return f"remote write: one request with over {words}"


def _columns(limits: WireLimits, *, series: int, samples: int, extras: int) -> Columns:
    """Columns for so many, or for as many as the limits allow."""
    series, samples, extras = min(series, limits.max_series), min(samples, limits.max_samples), min(extras, limits.max_series)
    return Columns(
        np.empty((scan.SERIES_ROWS, series), np.int64), np.empty((4, samples), np.int64), np.empty((extras, 4), np.int64),
        np.zeros(scan.STATES, np.int64), np.empty((limits.label_names, 4), np.int64),
    )  # fmt: skip


def _extras(columns: Columns, kind: int) -> I64:
    """i64[x, 4] the extras of one kind."""
    extras = columns.extras[: columns.state[scan.EXTRAS]]
    return np.ascontiguousarray(extras[extras[:, 0] == kind])


def _batch(columns: Columns, label_bytes: U8, exemplars: tuple[Exemplar, ...], metadata: tuple[Metadata, ...]) -> WriteBatch:
    n, m = int(columns.state[scan.SERIES]), int(columns.state[scan.SAMPLES])
    series, samples = columns.series[:, :n], columns.samples[:, :m]
    return WriteBatch(
        label_bytes, series[scan.START], series[scan.END], series[scan.HASH].view(np.uint64), samples[scan.ROW].astype(np.int32),
        samples[scan.TIME], samples[scan.VALUE].view(np.float64), exemplars=exemplars, metadata=metadata,
    )  # fmt: skip


def _finish(
    batch: WriteBatch, columns: Columns, buffer: U8, pairs: Callable[[bytes], Pairs], limits: WireLimits, rejected: PushResult
) -> Decoded:
    """The batch with its histograms and without its bad series."""
    fault = columns.series[scan.FAULT, : len(batch)]
    ranges = _extras(columns, scan.HISTOGRAM) if columns.state[scan.EXTRAS] else columns.extras[:0]
    if len(ranges):
        batch = _add_histograms(batch, buffer, ranges, fault, limits, rejected)
    if not fault.any():
        return Decoded(batch, rejected)

    def pairs_of(row: int) -> Pairs:
        return pairs(buffer[batch.start[row] : batch.end[row]].tobytes())

    return Decoded(reject_series(batch, fault, pairs_of, limits, rejected), rejected)


def _add_histograms(batch: WriteBatch, buffer: U8, ranges: I64, fault: I64, limits: WireLimits, rejected: PushResult) -> WriteBatch:
    """The batch with the good histograms; stale ones are float stale markers; `fault` learns of series left with nothing."""
    size_bytes = int((ranges[:, 3] - ranges[:, 2]).sum())
    if size_bytes > limits.max_histogram_bytes:
        raise BadData(f"histograms of {size_bytes} bytes are over the limit of {limits.max_histogram_bytes} bytes a request")
    decoded = decode_histograms(buffer, ranges, rejected)
    stale = decoded.stale_row
    if len(stale):
        start_ms = None if batch.start_ms is None else np.append(batch.start_ms, np.zeros(len(stale), np.int64))
        values = np.append(batch.values, np.full(len(stale), STALE_NAN))
        t_ms = np.append(batch.t_ms, decoded.stale_t_ms)
        batch = replace(batch, row=np.append(batch.row, stale), t_ms=t_ms, values=values, start_ms=start_ms)
    batch = replace(batch, histograms=decoded.samples)
    if decoded.lost:
        carries = np.bincount(batch.row, minlength=len(batch)) > 0
        carries[[] if decoded.samples is None else decoded.samples.row] = True
        carries[[exemplar.row for exemplar in batch.exemplars]] = True
        fault[(fault == scan.GOOD) & ~carries] = scan.EMPTY
    return batch


def _check_message(buffer: U8, size: int, version: int) -> None:
    """BadData for the other version's message: of it every field would be unknown here, passed over, and so lost in silence."""
    first = int(buffer[0]) >> 3 if size else 0
    if (version == 1 and first in (4, 5)) or (version == 2 and first in (1, 3)):
        raise BadData(f"remote write {version}.0: the body is a message of {3 - version}.0 (its first field is number {first})")


def _decompress(body: bytes | memoryview, limits: WireLimits) -> tuple[U8, int]:
    """(buffer with the decoded bytes first and room for as many more, how many they are)."""
    size = _declared_size(body)
    if size > limits.max_decoded_bytes:
        raise BadData(f"decoded size of {size} bytes is over the limit of {limits.max_decoded_bytes} bytes")
    if size > limits.ratio * len(body):
        raise BadData(f"snappy header promises {size} bytes of {len(body)}, over the limit of {limits.ratio} to 1")
    buffer = np.empty(2 * size + scan.PADDING, np.uint8)
    try:
        written = cramjam.snappy.decompress_raw_into(body, buffer.data[:size])
    except cramjam.DecompressionError as error:
        raise BadData(f"snappy: {error}") from None
    if written != size:
        raise BadData(f"snappy: {written} bytes decoded, the header promises {size}")
    return buffer, size


def _declared_size(body: bytes | memoryview) -> int:
    """The decoded size in a snappy block's header: a varint of at most 32 bits."""
    size = 0
    for i, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if size >> 32:
                break
            return size
    raise BadData(f"snappy: no length at the start of the {len(body)} bytes")

"""The sending side of remote write: a `WriteBatch` as a request body, and posting one. For senders, tests and benchmarks."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import cramjam
import numpy as np
import numpy.typing as npt
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.extras import KINDS
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, Buckets, Histograms
from tsdb.model.labels import Labels, decode_labels, varint
from tsdb.model.write import I64, U8, HistogramSamples, WriteBatch

HEADERS = {
    1: {"Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0"},
    2: {
        "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "X-Prometheus-Remote-Write-Version": "2.0.0",
    },
}
"""What a Prometheus server sends with each version, beside `Content-Encoding: snappy`."""


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """What the receiver said; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post_write(
    url: str,
    body: bytes,
    *,
    version: int = 1,
    tenant: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> PostAnswer:
    """The answer to one request, whatever its status. OSError where there is none."""
    sent = {**(headers or {}), **HEADERS[version], "Content-Encoding": "snappy", "User-Agent": "treering"}
    if tenant is not None:
        sent["X-Scope-OrgID"] = tenant
    request = urllib.request.Request(url, data=body, headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return PostAnswer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        return PostAnswer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def encode_v1(batch: WriteBatch) -> bytes:
    """The batch as a snappy-compressed prometheus.WriteRequest; label bytes go out as they are. Start times are lost."""
    label_bytes = batch.label_bytes.tobytes()
    samples = _per_series(batch, *_sample_messages(batch, None))
    extras = [b""] * len(batch)
    for exemplar in batch.exemplars:
        message = write_v1_pb2.Exemplar(value=exemplar.value, timestamp=exemplar.t_ms)
        for name, value in exemplar.labels:
            message.labels.add(name=name, value=value)
        extras[exemplar.row] += _field(3, message.SerializeToString())
    _add_histograms(extras, 4, batch.histograms)
    parts = []
    for start, end, points, rest in zip(batch.start.tolist(), batch.end.tolist(), samples, extras, strict=True):
        parts.append(_field(1, label_bytes[start:end] + points + rest))
    for told in batch.metadata:
        family = write_v1_pb2.MetricMetadata(metric_family_name=told.metric, help=told.help, unit=told.unit)
        family.type = KINDS.index(told.kind)  # type: ignore[assignment]
        parts.append(_field(3, family.SerializeToString()))
    return compress(b"".join(parts))


def encode_v2(batch: WriteBatch) -> bytes:
    """The batch as a snappy-compressed io.prometheus.write.v2.Request; metadata goes with the series of its metric name."""
    symbols = {"": 0}

    def refs(labels: Labels) -> bytes:
        numbers = [symbols.setdefault(text, len(symbols)) for pair in labels for text in pair]
        return _field(1, b"".join(map(varint, numbers)))

    label_sets = [decode_labels(batch.label_bytes[a:b].tobytes()) for a, b in zip(batch.start, batch.end, strict=True)]
    families = {told.metric: told for told in batch.metadata}
    samples = _per_series(batch, *_sample_messages(batch, batch.start_ms))
    extras = [b""] * len(batch)
    for exemplar in batch.exemplars:
        message = write_v2_pb2.Exemplar(value=exemplar.value, timestamp=exemplar.t_ms)
        extras[exemplar.row] += _field(4, refs(exemplar.labels) + message.SerializeToString())
    _add_histograms(extras, 3, batch.histograms)
    series = []
    for labels, points, rest in zip(label_sets, samples, extras, strict=True):
        told = families.get(labels.get("__name__"))
        if told is not None:
            about, unit = (symbols.setdefault(text, len(symbols)) for text in (told.help, told.unit))
            family = write_v2_pb2.Metadata(help_ref=about, unit_ref=unit)
            family.type = KINDS.index(told.kind)  # type: ignore[assignment]
            rest += _field(5, family.SerializeToString())
        series.append(_field(5, refs(labels) + points + rest))
    return compress(b"".join([*(_field(4, text.encode()) for text in symbols), *series]))


def compress(data: bytes) -> bytes:
    """A snappy block, as remote write wants it (not the framed stream format)."""
    return bytes(cramjam.snappy.compress_raw(data))


def _sample_messages(batch: WriteBatch, start_ms: I64 | None) -> tuple[bytes, I64]:
    """(the Sample fields of all samples one after another, series by series; where each of m samples ends i64[m])."""
    order = np.argsort(batch.row, kind="stable")
    m = len(order)
    columns = [np.full((m, 1), 0x09, np.uint8), np.ascontiguousarray(batch.values[order]).view(np.uint8).reshape(m, 8)]
    keep = [np.ones((m, 9), bool)]
    for tag, times in ((0x10, batch.t_ms), (0x18, start_ms)):
        if times is not None:
            varints, used = _varints(times[order])
            columns += [np.full((m, 1), tag, np.uint8), varints]
            keep += [np.ones((m, 1), bool), used]
    used_all = np.concatenate(keep, axis=1)
    sizes = used_all.sum(axis=1)
    head = np.stack([np.full(m, 0x12, np.uint8), sizes.astype(np.uint8)], axis=1)  # a message is at most 31 bytes
    data = np.concatenate([head, *columns], axis=1)
    return data[np.concatenate([np.ones((m, 2), bool), used_all], axis=1)].tobytes(), np.cumsum(sizes + 2)


def _varints(values: I64) -> tuple[U8, npt.NDArray[np.bool_]]:
    """(u8[m, 10] the varints of int64s, bool[m, 10] which bytes of them are used)."""
    rest = np.ascontiguousarray(values).view(np.uint64)
    shifted = rest[:, None] >> (np.arange(10, dtype=np.uint64) * np.uint64(7))
    more = np.concatenate([shifted[:, 1:] > 0, np.zeros((len(rest), 1), bool)], axis=1)
    used = np.concatenate([np.ones((len(rest), 1), bool), shifted[:, 1:] > 0], axis=1)
    low = (shifted & np.uint64(0x7F)).astype(np.uint8)
    return low | np.where(more, 0x80, 0).astype(np.uint8), used


def _per_series(batch: WriteBatch, data: bytes, ends: I64) -> list[bytes]:
    """The sample fields of each series."""
    counts = np.cumsum(np.bincount(batch.row, minlength=len(batch)))
    stops = np.concatenate([[0], ends])[np.concatenate([[0], counts])].tolist() if len(batch) else [0]
    return [data[a:b] for a, b in pairwise(stops)]


def _add_histograms(extras: list[bytes], field: int, samples: HistogramSamples | None) -> None:
    if samples is None:
        return
    for j, row in enumerate(samples.row.tolist()):
        message = histogram_message(samples.histograms, j)
        message.timestamp, message.start_timestamp = int(samples.t_ms[j]), (int(samples.start_ms[j]) if field == 3 else 0)
        extras[row] += _field(field, message.SerializeToString())


def histogram_message(histograms: Histograms, j: int) -> write_v2_pb2.Histogram:
    """Histogram j as a message, without its time; 1.0 and 2.0 have the same fields."""
    integer = bool(histograms.integer[j])
    message = write_v2_pb2.Histogram(
        sum=float(histograms.sum[j]), schema=int(histograms.schema[j]), zero_threshold=float(histograms.zero_threshold[j])
    )
    message.reset_hint = int(histograms.hint[j])  # type: ignore[assignment]
    if integer:
        message.count_int, message.zero_count_int = int(histograms.count[j]), int(histograms.zero_count[j])
    else:
        message.count_float, message.zero_count_float = float(histograms.count[j]), float(histograms.zero_count[j])
    index, counts = _buckets(histograms.positive, j)
    _spans(message.positive_spans, index)
    message.positive_counts.extend([] if integer else counts.tolist())
    message.positive_deltas.extend(np.diff(counts, prepend=0).astype(np.int64).tolist() if integer else [])
    index, counts = _buckets(histograms.negative, j)
    _spans(message.negative_spans, index)
    message.negative_counts.extend([] if integer else counts.tolist())
    message.negative_deltas.extend(np.diff(counts, prepend=0).astype(np.int64).tolist() if integer else [])
    if histograms.schema[j] == CUSTOM_BUCKETS_SCHEMA:
        message.custom_values.extend(histograms.bounds[histograms.bounds_offsets[j] : histograms.bounds_offsets[j + 1]].tolist())
    return message


def _buckets(buckets: Buckets, j: int) -> tuple[I64, npt.NDArray[np.float64]]:
    rows = slice(buckets.offsets[j], buckets.offsets[j + 1])
    return buckets.index[rows].astype(np.int64), buckets.counts[rows]


def _spans(spans: RepeatedCompositeFieldContainer[write_v2_pb2.BucketSpan], index: I64) -> None:
    """Appends the runs of neighbouring buckets; an offset counts from the end of the run before, the first from 0."""
    starts = np.flatnonzero(np.diff(index, prepend=index[:1] - 2) != 1)
    lengths = np.diff(starts, append=len(index))
    before = np.concatenate([[0], index[starts[1:] - 1] + 1]) if len(starts) else starts
    for offset, length in zip((index[starts] - before).tolist(), lengths.tolist(), strict=True):
        spans.add(offset=offset, length=length)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data

"""The wire of remote write against the generated protobuf code: whole, odd, broken and hostile bodies."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.protos import write_v1_pb2 as v1
from remote.protos import write_v2_pb2 as v2
from remote.wire.client import encode_v1, encode_v2
from remote.wire.decode import Decoded, TooLarge, UnsupportedMedia, WireLimits, decode_write, write_version
from tsdb.model.errors import BadData
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import Labels, decode_labels
from tsdb.model.series import STALE_BITS, is_stale
from tsdb.model.write import Exemplar, HistogramSamples, Metadata, WriteBatch

TYPES = {1: "application/x-protobuf", 2: "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
LIMITS = WireLimits()
NAMED = {"__name__": "m", "job": "a"}


def decode(raw: bytes, version: int = 1, limits: WireLimits = LIMITS) -> Decoded:
    body = bytes(cramjam.snappy.compress_raw(raw))
    return decode_write(body, content_type=TYPES[version], content_encoding="snappy", limits=limits)


def labels_of(batch: WriteBatch) -> list[Labels]:
    return [decode_labels(batch.label_bytes[a:b].tobytes()) for a, b in zip(batch.start, batch.end, strict=True)]


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values).view(np.uint64).tolist()


def request(*series: list[tuple[str, str]], t: int = 1000) -> bytes:
    message = v1.WriteRequest()
    for pairs in series:
        row = message.timeseries.add(labels=[v1.Label(name=name, value=value) for name, value in pairs])
        row.samples.add(value=1.5, timestamp=t)
    return message.SerializeToString()


def request_v2(*series: list[tuple[str, str]]) -> bytes:
    message = v2.Request(symbols=[""])
    for pairs in series:
        row = message.timeseries.add()
        for text in (text for pair in pairs for text in pair):
            if text not in message.symbols:
                message.symbols.append(text)
            row.labels_refs.append(list(message.symbols).index(text))
        row.samples.add(value=1.5, timestamp=1000)
    return message.SerializeToString()


BUILDERS = {1: request, 2: request_v2}


@pytest.mark.parametrize(
    ("content_type", "version"),
    [
        (None, 1),
        ("", 1),
        ("application/x-protobuf", 1),
        ("Application/X-Protobuf; charset=utf-8", 1),
        ("application/x-protobuf;proto=prometheus.WriteRequest", 1),
        ("application/x-protobuf; proto=io.prometheus.write.v2.Request", 2),
        ('application/x-protobuf;proto="io.prometheus.write.v2.Request"', 2),
        ("application/json", None),
        ("application/x-protobuf;proto=other.Message", None),
    ],
)
def test_content_types(content_type: str | None, version: int | None) -> None:
    if version is None:
        with pytest.raises(UnsupportedMedia):
            write_version(content_type)
    else:
        assert write_version(content_type) == version


def test_the_other_versions_message_is_refused() -> None:
    body = bytes(cramjam.snappy.compress_raw(request([("__name__", "m")])))
    with pytest.raises(BadData, match=r"2\.0: the body is a message of 1\.0"):
        decode_write(
            body, content_type="application/x-protobuf;proto=io.prometheus.write.v2.Request", content_encoding=None, limits=LIMITS
        )
    symbols = v2.Request(symbols=["", "__name__", "m"], timeseries=[v2.TimeSeries(labels_refs=[1, 2])])
    body = bytes(cramjam.snappy.compress_raw(symbols.SerializeToString()))
    with pytest.raises(BadData, match=r"1\.0: the body is a message of 2\.0"):
        decode_write(body, content_type=None, content_encoding=None, limits=LIMITS)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "snappy, gzip"])
def test_encodings_are_refused_before_decoding(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="content encoding"):
        decode_write(b"\xff corrupt", content_type=None, content_encoding=encoding, limits=LIMITS)


@pytest.mark.parametrize("encoding", [None, "", "snappy", "Snappy"])
def test_snappy_is_the_default(encoding: str | None) -> None:
    body = bytes(cramjam.snappy.compress_raw(request([("__name__", "m")])))
    assert len(decode_write(body, content_type=None, content_encoding=encoding, limits=LIMITS).batch) == 1


def test_sizes_are_limited_before_they_are_allocated() -> None:
    limits = WireLimits(max_body_bytes=100, max_decoded_bytes=1000)
    for body, error, words in (
        (b"x" * 101, TooLarge, "over the limit of 100"),
        (b"\xe9\x07" + b"x" * 90, BadData, "1001 bytes is over the limit of 1000"),
        (b"\xe8\x07x", BadData, "1000 bytes of 3, over the limit of 25 to 1"),
        (b"\xff\xff\xff\xff\x1f", BadData, "no length"),
        (b"", BadData, "no length"),
        (b"\x80\x80", BadData, "no length"),
        (b"\x05\x01", BadData, "snappy"),
    ):
        with pytest.raises(error, match=words):
            decode_write(body, content_type=None, content_encoding=None, limits=limits)


@pytest.mark.parametrize("version", [1, 2])
def test_any_order_of_labels_gives_the_same_bytes_and_hash(version: int) -> None:
    pairs = [("__name__", "m"), ("A", "x"), ("job", "node"), ("abcdefgh1", "1"), ("abcdefgh2", "2"), ("empty", "")]
    want = Labels.of(pairs)
    for seed in range(20):
        random.Random(seed).shuffle(pairs)
        batch = decode(BUILDERS[version](pairs, [("__name__", "other")]), version).batch
        assert labels_of(batch) == [want, Labels.of({"__name__": "other"})]
        assert batch.label_bytes[batch.start[0] : batch.end[0]].tobytes() == want.encode()
        assert batch.hash.tolist()[0] == want.stable_hash()


@pytest.mark.parametrize("version", [1, 2])
def test_utf8_names_and_long_values_are_kept(version: int) -> None:
    pairs = [("__name__", "my.metric with\nspace"), ("größe", "日本 \U0001f600"), ("v", "x" * 5000), ("z" * 200, "y" * 127)]
    batch = decode(BUILDERS[version](pairs), version).batch
    assert labels_of(batch) == [Labels.of(pairs)]
    assert batch.hash.tolist() == [Labels.of(pairs).stable_hash()]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("pairs", "reason", "words"),
    [
        ([("job", "a")], "missing-metric-name", "sample missing metric name"),
        ([], "missing-metric-name", "sample missing metric name"),
        ([("__name__", ""), ("job", "a")], "missing-metric-name", "missing metric name"),
        ([("__name__", "m"), ("", "a")], "label-invalid", "a name is empty"),
        ([("__name__", "m"), ("a", "1"), ("a", "2")], "duplicate-label-name", 'duplicate label name: "a" metric "m"'),
        ([("__name__", "m"), *((f"l{i}", "v") for i in range(8))], "max-label-names-per-series", "actual: 9, limit: 8"),
        ([("__name__", "m"), ("n" * 33, "a")], "label-name-too-long", "actual: 33, limit: 32"),
        ([("__name__", "m"), ("a", "v" * 65)], "label-value-too-long", "actual: 65, limit: 64"),
    ],
)
def test_a_bad_series_is_told_and_the_rest_is_kept(version: int, pairs: list[tuple[str, str]], reason: str, words: str) -> None:
    limits = WireLimits(label_names=8, name_bytes=32, value_bytes=64)
    for order in (pairs, pairs[::-1]):
        decoded = decode(BUILDERS[version]([("__name__", "good")], order, [("__name__", "also")]), version, limits)
        assert [labels.get("__name__") for labels in labels_of(decoded.batch)] == ["good", "also"]
        assert decoded.batch.row.tolist() == [0, 1]
        assert decoded.rejected.rejected == {reason: 1}
        assert words in decoded.rejected.message


def test_labels_that_are_not_utf8_are_told() -> None:
    raw = request([("__name__", "good")]) + request([("__name__", "m"), ("job", "ab")]).replace(b"ab", b"a\xff")
    decoded = decode(raw)
    assert decoded.rejected.rejected == {"invalid-utf8": 1}
    assert "�" in decoded.rejected.message
    assert len(decoded.batch) == 1
    raw = request_v2([("__name__", "good")], [("__name__", "m"), ("job", "ab")]).replace(b"ab", b"a\xff")
    assert decode(raw, 2).rejected.rejected == {"invalid-utf8": 1}


@pytest.mark.parametrize("t", [1 << 53, -(1 << 53), (1 << 63) - 1, -(1 << 63)])
def test_times_out_of_bounds_are_told(t: int) -> None:
    assert decode(request([("__name__", "m")], t=t)).rejected.rejected == {"out-of-bounds": 1}


@pytest.mark.parametrize("refs", [[1], [1, 2, 1], [1, 9], [9, 1], [1, 0xFFFFFFFF]])
def test_bad_refs_are_told(refs: list[int]) -> None:
    message = v2.Request.FromString(request_v2([("__name__", "m")]))
    message.timeseries.add(labels_refs=refs).samples.add(value=1, timestamp=1)
    decoded = decode(message.SerializeToString(), 2)
    assert decoded.rejected.rejected == {"invalid-label-refs": 1}
    assert len(decoded.batch) == 1


def test_values_keep_their_bits() -> None:
    odd = [0x7FF0000000000002, 0x7FF8000000000001, 0xFFF8000000000123, 1 << 63, 0x7FF0000000000000, 0, 1]
    values = np.array(odd, np.uint64).view(np.float64)
    row = np.zeros(len(odd), np.int32)
    batch = WriteBatch.of([Labels.of(NAMED)], row=row, t_ms=np.arange(len(odd)) - 3, values=values)
    for version, body in ((1, encode_v1(batch)), (2, encode_v2(batch))):
        got = decode_write(body, content_type=TYPES[version], content_encoding=None, limits=LIMITS).batch
        assert bits(got.values) == odd
        assert got.t_ms.tolist() == list(range(-3, len(odd) - 3))
        assert got.start_ms is None


def test_a_series_without_anything_is_left_out_silently() -> None:
    message = v1.WriteRequest.FromString(request([("__name__", "a")], [("__name__", "b")]))
    del message.timeseries[0].samples[:]
    decoded = decode(message.SerializeToString())
    assert [labels.get("__name__") for labels in labels_of(decoded.batch)] == ["b"]
    assert decoded.rejected.rejected == {}


def test_many_empty_series_find_room() -> None:
    assert len(decode(b"\x0a\x00" * 10_000).batch) == 0
    many = v1.WriteRequest()
    row = many.timeseries.add(labels=[v1.Label(name="__name__", value="m")])
    for _ in range(30_000):
        row.samples.add()
    assert len(decode(many.SerializeToString()).batch.row) == 30_000


def test_limits_are_limited() -> None:
    with pytest.raises(ValueError, match="cannot be over 1048576"):
        WireLimits(value_bytes=(1 << 20) + 1)
    pairs = [("__name__", "m"), ("v", "x" * (1 << 20)), ("w", "y" * 16384), ("x", "z" * 16383)]
    for version in (1, 2):
        for order in (pairs, pairs[::-1]):
            batch = decode(BUILDERS[version](order), version, WireLimits(value_bytes=1 << 20, ratio=10_000)).batch
            assert labels_of(batch) == [Labels.of(pairs)]
            assert batch.label_bytes[batch.start[0] : batch.end[0]].tobytes() == Labels.of(pairs).encode()


def test_counts_are_limited() -> None:
    two = {1: request([("__name__", "a")], [("__name__", "b")]), 2: request_v2([("__name__", "a")], [("__name__", "b")])}
    for version, raw in two.items():
        for limits in (WireLimits(max_series=1), WireLimits(max_samples=1)):
            with pytest.raises(BadData, match=r"over 1 series|or 1 samples"):
                decode(raw, version, limits)
        assert len(decode(raw, version, WireLimits(max_series=2, max_samples=2)).batch) == 2
    row = v1.TimeSeries(labels=[v1.Label(name="__name__", value="h")], histograms=[one_histogram()])
    with pytest.raises(BadData, match="over the limit of 10 bytes a request"):
        decode(v1.WriteRequest(timeseries=[row]).SerializeToString(), 1, WireLimits(max_histogram_bytes=10))


def fields_of(message: bytes) -> list[bytes]:
    """The top-level fields of a message whose fields are all length-delimited and short."""
    out, at = [], 0
    while at < len(message):
        end = at + 2 + message[at + 1]
        out.append(message[at:end])
        at = end
    return out


@pytest.mark.parametrize("seed", range(20))
def test_fields_in_any_order_mean_the_same(seed: int) -> None:
    rng = random.Random(seed)
    row = v1.TimeSeries(labels=[v1.Label(name=n, value="v" + n) for n in ("__name__", "a", "b")], histograms=[one_histogram()])
    row.samples.add(value=1.5, timestamp=-7)
    row.samples.add(timestamp=8)
    parts = [*fields_of(row.SerializeToString()), b"\x3a\x01x", b"\x0a\x06\x0a\x01z\x12\x01z", b"\x0a\x06\x12\x01y\x0a\x01y"]
    rng.shuffle(parts)
    body = b"".join(parts)
    batch = decode(b"\x10\x05" + b"\x0a" + bytes([len(body) | 0x80, 0]) + body).batch if len(body) < 128 else None
    assert batch is not None
    assert labels_of(batch) == [Labels.of({"__name__": "v__name__", "a": "va", "b": "vb", "y": "y", "z": "z"})]
    assert sorted(zip(batch.t_ms.tolist(), batch.values.tolist(), strict=True)) == [(-7, 1.5), (8, 0.0)]
    assert batch.histograms is not None and batch.histograms.histograms.count.tolist() == [3.0]


def test_unpacked_and_split_histogram_fields() -> None:
    spans = b"\x5a\x04\x08\x02\x10\x01" + b"\x5a\x02\x10\x01"  # offsets 1 and 0, one bucket each
    deltas = b"\x60\x02" + b"\x62\x01\x02"  # +1 unpacked, +1 packed
    message = deltas[:2] + spans + b"\x08\x03" + deltas[2:] + b"\x78\x05"
    row = b"\x0a\x0d\x0a\x08__name__\x12\x01h" + b"\x22" + bytes([len(message)]) + message
    batch = decode(b"\x0a" + bytes([len(row)]) + row).batch
    assert batch.histograms is not None
    got = batch.histograms.histograms.positive
    assert (got.index.tolist(), got.counts.tolist(), batch.histograms.t_ms.tolist()) == ([1, 2], [1.0, 2.0], [5])


def test_metadata_only_requests() -> None:
    message = v1.WriteRequest()
    message.metadata.add(type=v1.MetricMetadata.COUNTER, metric_family_name="m_total", help="h", unit="bytes")
    message.metadata.add(type=v1.MetricMetadata.COUNTER, metric_family_name="m_total", help="h", unit="bytes")
    message.metadata.add(type=77, metric_family_name="x")  # type: ignore[arg-type]
    batch = decode(message.SerializeToString()).batch
    assert batch.metadata == (Metadata("m_total", "counter", "h", "bytes"), Metadata("x", "unknown", "", ""))
    assert len(batch) == 0


def test_metadata_of_version_2_is_told_once_a_family() -> None:
    message = v2.Request(symbols=["", "__name__", "h_bucket", "h_sum", "help", "le", "1"])
    for metric, more in ((2, [5, 6]), (2, []), (3, [])):
        row = message.timeseries.add(labels_refs=[1, metric, *more])
        row.samples.add(value=1, timestamp=1)
        row.metadata.type = v2.Metadata.METRIC_TYPE_HISTOGRAM
        row.metadata.help_ref = 4
    assert decode(message.SerializeToString(), 2).batch.metadata == (Metadata("h", "histogram", "help", ""),)
    message.timeseries[0].metadata.help_ref = 99
    assert decode(message.SerializeToString(), 2).rejected.rejected == {"invalid-label-refs": 1}


def test_symbols_cannot_blow_up_the_labels() -> None:
    message = v2.Request(symbols=["", "__name__", "m", "a", "v" * 8000])
    for _ in range(2000):
        message.timeseries.add(labels_refs=[1, 2, 3, 4]).samples.add(value=1, timestamp=1)
    raw = message.SerializeToString()
    assert len(decode(raw, 2).batch) == 2000
    with pytest.raises(BadData, match="labels of over 1000000 bytes"):
        decode(raw, 2, WireLimits(max_label_bytes=1_000_000))


def one_histogram(**fields: object) -> v1.Histogram:
    base: dict[str, object] = {"schema": 0, "sum": 1.0, "timestamp": 5, "count_int": 3, "positive_deltas": [1, 1]}
    return v1.Histogram(**{"positive_spans": [v1.BucketSpan(offset=1, length=2)], **base, **fields})  # type: ignore[arg-type]


def decode_histogram(histogram: v1.Histogram) -> Decoded:
    row = v1.TimeSeries(labels=[v1.Label(name="__name__", value="h")], histograms=[histogram])
    return decode(v1.WriteRequest(timeseries=[row]).SerializeToString())


SPAN = v1.BucketSpan
CUSTOM: dict[str, object] = {"schema": -53, "custom_values": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"count_int": 4}, "3 observations found in buckets, but the Count field is 4"),
        ({"count_int": 2, "sum": math.nan}, "should be at least the number of observations"),
        ({"positive_spans": [SPAN(offset=1, length=3)]}, "spans need 3 buckets, have 2 buckets"),
        ({"positive_spans": [SPAN(offset=1, length=1), SPAN(offset=-1, length=1)]}, "span whose offset is negative"),
        ({"positive_deltas": [1, -2]}, "bucket number 2 has observation count of -1"),
        ({"schema": 53}, "invalid schema, which must be between -4 and 8 .* got schema 53"),
        ({"schema": -5}, "got schema -5"),
        ({"custom_values": [1.0]}, "exponential schema must not have custom bounds"),
        ({**CUSTOM, "custom_values": [2.0, 1.0]}, "strictly increasing"),
        ({**CUSTOM, "custom_values": [1.0, math.inf]}, "must be finite"),
        ({**CUSTOM, "custom_values": [1.0, math.nan]}, "must not be NaN"),
        ({**CUSTOM, "custom_values": [1.0]}, "only 1 custom bounds defined which is insufficient .* span length of 3"),
        ({**CUSTOM, "zero_count_int": 1}, "zero count of 0"),
        ({**CUSTOM, "negative_spans": [SPAN(offset=0, length=0)]}, "must not have negative spans"),
        ({**CUSTOM, "positive_spans": [SPAN(offset=-1, length=2)]}, "span whose offset is negative"),
        ({"timestamp": 1 << 60}, "out of bounds"),
        ({"positive_spans": [SPAN(offset=2147483647, length=2)]}, "span whose offset"),
    ],
)
def test_histograms_are_validated_as_prometheus_does(fields: dict[str, object], words: str) -> None:
    decoded = decode_histogram(one_histogram(**fields))
    assert len(decoded.batch) == 0
    (count,) = decoded.rejected.rejected.values()
    assert count == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(decoded.rejected.message)


def test_float_histograms_hold_negative_counts_to_account() -> None:
    fields = {"count_float": -1.0, "positive_counts": [1.0, 2.0], "positive_deltas": []}
    assert "observation count is negative" in decode_histogram(one_histogram(**fields)).rejected.message


def test_a_stale_histogram_is_a_float_stale_marker() -> None:
    stale = float(np.uint64(STALE_BITS).view(np.float64))
    batch = decode_histogram(v1.Histogram(sum=stale, timestamp=9)).batch
    assert batch.histograms is None
    assert is_stale(batch.values).tolist() == [True]
    assert (batch.row.tolist(), batch.t_ms.tolist()) == ([0], [9])


def test_reserved_schemas_lose_resolution() -> None:
    spans, deltas = [SPAN(offset=-3, length=6)], [1, 0, 0, 0, 0, 0]
    decoded = decode_histogram(one_histogram(schema=9, count_int=6, positive_spans=spans, positive_deltas=deltas)).batch
    assert decoded.histograms is not None
    got = decoded.histograms.histograms
    assert got.schema.tolist() == [8]
    assert dict(zip(got.positive.index.tolist(), got.positive.counts.tolist(), strict=True)) == {-1: 2.0, 0: 2.0, 1: 2.0}


def some_histograms(seed: int, size: int) -> Histograms:
    rng = np.random.default_rng(seed)

    def side(rows: int) -> Buckets:
        lengths = rng.integers(0, 6, rows)
        index = [np.sort(rng.choice(np.arange(-20, 20), n, replace=False)) for n in lengths]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Buckets(offsets, np.concatenate(index).astype(np.int32), rng.integers(1, 1000, offsets[-1]).astype(float))

    positive, negative = side(size), side(size)
    zero = rng.integers(0, 5, size).astype(float)
    totals = [np.add.reduceat(np.append(b.counts, 0), b.offsets[:-1]) * (np.diff(b.offsets) > 0) for b in (positive, negative)]
    integer = rng.random(size) < 0.5
    return Histograms(
        rng.integers(-4, 9, size).astype(np.int8), rng.integers(0, 4, size).astype(np.uint8), integer, zero + totals[0] + totals[1],
        rng.normal(size=size), np.full(size, 1e-128), zero, positive, negative, np.zeros(size + 1, np.int64), np.empty(0),
    )  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_a_whole_batch_survives_the_wire(version: int) -> None:
    rng = np.random.default_rng(version)
    series = [Labels.of({"__name__": f"m{i % 7}", "instance": f"host-{i}", "umlaut": "ä" * (i % 3)}) for i in range(50)]
    row = rng.integers(0, 50, 300).astype(np.int32)
    t_ms, values = rng.integers(0, 1 << 41, 300), rng.normal(size=300)
    at = rng.integers(0, 50, 40).astype(np.int32)
    samples = HistogramSamples(at, rng.integers(0, 1 << 41, 40), np.zeros(40, np.int64), some_histograms(version, 40))
    batch = WriteBatch.of(series, row=row, t_ms=t_ms, values=values)
    exemplars = (Exemplar(3, Labels.of({"trace_id": "abc"}), 0.5, 77), Exemplar(4, Labels.of({}), -1.0, 78))
    metadata = (Metadata("m0", "gauge", "help", "seconds"),)
    batch = replace(batch, start_ms=t_ms - 5, histograms=samples, exemplars=exemplars, metadata=metadata)
    body = encode_v1(batch) if version == 1 else encode_v2(batch)
    decoded = decode_write(body, content_type=TYPES[version], content_encoding="snappy", limits=LIMITS)
    assert decoded.rejected.rejected == {}
    assert as_rows(decoded.batch, version) == as_rows(batch, version)
    assert set(decoded.batch.exemplars) == set(exemplars) or empty_rows_left(batch)
    assert decoded.batch.metadata == metadata


def empty_rows_left(batch: WriteBatch) -> bool:
    """Whether some series carries nothing, so that rows are numbered anew."""
    used = {*batch.row.tolist(), *(batch.histograms.row.tolist() if batch.histograms else []), *(e.row for e in batch.exemplars)}
    return len(used) < len(batch)


def as_rows(batch: WriteBatch, version: int) -> tuple[object, ...]:
    """The batch as plain values that do not depend on the order of series."""
    names = [str(labels) for labels in labels_of(batch)]
    starts = batch.start_ms.tolist() if batch.start_ms is not None and version == 2 else [0] * len(batch.row)
    floats = zip(batch.row.tolist(), batch.t_ms.tolist(), bits(batch.values), starts, strict=True)
    exemplars = sorted((names[e.row], str(e.labels), e.value, e.t_ms) for e in batch.exemplars)
    assert batch.histograms is not None
    rows = []
    for j, (row, t) in enumerate(zip(batch.histograms.row.tolist(), batch.histograms.t_ms.tolist(), strict=True)):
        one = batch.histograms.histograms.take(np.array([j]))
        fields = [one.schema, one.hint, one.integer, one.count, one.sum, one.zero_threshold, one.zero_count]
        sides = [(b.index.tolist(), b.counts.tolist()) for b in (one.positive, one.negative)]
        rows.append((names[row], t, str([f.tolist() for f in fields]), str(sides)))
    return sorted((names[row], *rest) for row, *rest in floats), exemplars, sorted(rows)


text = st.text(st.characters(codec="utf-8"), max_size=12)
name = st.one_of(st.sampled_from(["__name__", "job", "a", "abcdefgh", "abcdefghi"]), text)
pairs = st.lists(st.tuples(name, text), max_size=8)
sample = st.tuples(st.floats(allow_nan=True), st.integers(-(1 << 63), (1 << 63) - 1))
series = st.lists(st.tuples(pairs, st.lists(sample, max_size=3)), max_size=5)


@settings(max_examples=150)
@given(series, st.sampled_from([1, 2]))
def test_the_scan_agrees_with_protobuf(rows: list[tuple[list[tuple[str, str]], list[tuple[float, int]]]], version: int) -> None:
    raw = (_message_v1 if version == 1 else _message_v2)(rows).SerializeToString()
    decoded = decode(raw, version)
    want = [row for row in rows if row[1] and _is_good(row)]
    assert labels_of(decoded.batch) == [Labels.of([p for p in pairs if p[1]]) for pairs, _ in want]
    points = [(i, t, bits(np.array([v]))[0]) for i, (_, samples) in enumerate(want) for v, t in samples]
    got = decoded.batch
    assert list(zip(got.row.tolist(), got.t_ms.tolist(), bits(got.values), strict=True)) == points
    assert got.hash.tolist() == [labels.stable_hash() for labels in labels_of(got)]


def _is_good(row: tuple[list[tuple[str, str]], list[tuple[float, int]]]) -> bool:
    kept = [n for n, v in row[0] if v or not n]
    return "" not in kept and "__name__" in kept and len(set(kept)) == len(kept) and all(abs(t) < 1 << 53 for _, t in row[1])


def _message_v1(rows: list[tuple[list[tuple[str, str]], list[tuple[float, int]]]]) -> v1.WriteRequest:
    message = v1.WriteRequest()
    for pairs, samples in rows:
        row = message.timeseries.add(labels=[v1.Label(name=n, value=v) for n, v in pairs])
        for value, t in samples:
            row.samples.add(value=value, timestamp=t)
    return message


def _message_v2(rows: list[tuple[list[tuple[str, str]], list[tuple[float, int]]]]) -> v2.Request:
    symbols = list(dict.fromkeys(["", *(s for pairs, _ in rows for pair in pairs for s in pair)]))
    message = v2.Request(symbols=symbols)
    for pairs, samples in rows:
        row = message.timeseries.add(labels_refs=[symbols.index(s) for pair in pairs for s in pair])
        for value, t in samples:
            row.samples.add(value=value, timestamp=t)
    return message


def mutate(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data))
        how = rng.randrange(5)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12, rng.randrange(256)))
        elif how == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            del data[at:]
        if not data:
            return b""
    return bytes(data)


def seeds(version: int) -> list[bytes]:
    batch = WriteBatch.of(
        [Labels.of({"__name__": "m", "job": "abc"}), Labels.of({"__name__": "ü", "z": "1" * 130})],
        row=np.array([0, 1, 1], np.int32), t_ms=np.array([1, -2, 1 << 41]), values=np.array([1.0, math.nan, 0.0]),
    )  # fmt: skip
    batch = replace(
        batch,
        start_ms=np.array([1, 2, 3]),
        histograms=HistogramSamples(np.zeros(4, np.int32), np.arange(4), np.arange(4), some_histograms(5, 4)),
        exemplars=(Exemplar(0, Labels.of({"trace_id": "x"}), 1.0, 5),),
        metadata=(Metadata("m", "counter", "h", ""),),
    )
    encoders: dict[int, Callable[[WriteBatch], bytes]] = {1: encode_v1, 2: encode_v2}
    return [bytes(cramjam.snappy.decompress_raw(encoders[version](batch))), BUILDERS[version]([("job", "a"), ("__name__", "m")])]


def survive(count: int, seed: int) -> None:
    """Mutated bodies are decoded or BadData; what is decoded is inside the buffer and canonical."""
    rng = random.Random(seed)
    bodies = [(version, raw) for version in (1, 2) for raw in seeds(version)]
    broken = 0
    for _ in range(count):
        version, raw = rng.choice(bodies)
        try:
            batch = decode(mutate(raw, rng), version).batch
        except BadData:
            broken += 1
            continue
        assert np.all(batch.start <= batch.end) and np.all(batch.end <= len(batch.label_bytes))
        assert np.all((batch.row >= 0) & (batch.row < max(len(batch), 1)))
        for labels, a, b in zip(labels_of(batch), batch.start, batch.end, strict=True):
            assert Labels.of(labels).encode() == batch.label_bytes[a:b].tobytes()
    assert count * 0.1 < broken < count * 0.95


def test_mutated_bodies_do_no_harm() -> None:
    survive(20_000, seed=1)


@pytest.mark.slow
def test_many_mutated_bodies_do_no_harm() -> None:
    survive(200_000, seed=2)


@pytest.mark.parametrize("version", [1, 2])
def test_every_truncation_is_decoded_or_refused(version: int) -> None:
    for raw in seeds(version):
        for size in range(len(raw)):
            try:
                decode(raw[:size], version)
            except BadData as error:
                assert "byte" in str(error)

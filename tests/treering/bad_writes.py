"""Remote-write bodies that no sender should send, by name."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import cramjam

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.client import HEADERS, compress

V1 = {**HEADERS[1], "Content-Encoding": "snappy"}
V2 = {**HEADERS[2], "Content-Encoding": "snappy"}
Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class BadWrite:
    """A body, the status it must be answered with, and words that the answer must hold."""

    name: str
    body: bytes
    status: int
    words: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=lambda: V1)


def request(labels: Pairs, *, t_ms: int, value: float = 1.0) -> bytes:
    """A 1.0 request of one series with one sample, not compressed; the labels go out as they are."""
    message = write_v1_pb2.WriteRequest()
    series = message.timeseries.add()
    for name, text in labels:
        series.labels.add(name=name, value=text)
    series.samples.add(value=value, timestamp=t_ms)
    return message.SerializeToString()


def with_histogram(t_ms: int, **fields: object) -> bytes:
    """A 1.0 request of one histogram of these fields, compressed."""
    message = write_v1_pb2.WriteRequest()
    series = message.timeseries.add()
    series.labels.add(name="__name__", value="bad_histogram")
    native = series.histograms.add(timestamp=t_ms, **{k: v for k, v in fields.items() if not k.endswith("_spans")})
    for name in ("positive_spans", "negative_spans"):
        for offset, length in fields.get(name, ()):  # type: ignore[attr-defined]
            getattr(native, name).add(offset=offset, length=length)
    return compress(message.SerializeToString())


def with_refs(t_ms: int, symbols: Iterable[str], refs: Iterable[int]) -> bytes:
    """A 2.0 request of one series, compressed."""
    message = write_v2_pb2.Request(symbols=list(symbols))
    series = message.timeseries.add(labels_refs=list(refs))
    series.samples.add(value=1.0, timestamp=t_ms)
    return compress(message.SerializeToString())


def bad_writes(now_ms: int) -> list[BadWrite]:
    """All of them, for a server whose limits are the defaults."""
    return [
        *_broken(now_ms),
        *_bombs(now_ms),
        *_labels(now_ms),
        *_times(now_ms),
        *_histograms(now_ms),
        *_headers(now_ms),
        *_v2(now_ms),
    ]


def _broken(now_ms: int) -> list[BadWrite]:
    whole = request([("__name__", "up"), ("job", "x")], t_ms=now_ms)
    packed = compress(whole)
    return [
        BadWrite("empty body", b"", 400, ("snappy", "0 bytes")),
        BadWrite("snappy cut", packed[:-3], 400, ("snappy",)),
        BadWrite("snappy with rubbish behind", packed + b"rubbish", 400, ("snappy",)),
        BadWrite("no snappy at all", b"\xff" * 40, 400, ("snappy",)),
        BadWrite("plain protobuf", whole, 400, ("snappy",)),
        BadWrite("snappy in frames", bytes(cramjam.snappy.compress(whole)), 400, ("snappy",)),
        BadWrite("protobuf cut", compress(whole[:-1]), 400, ("broken protobuf", "byte", f"of {len(whole) - 1}")),
        BadWrite("protobuf of another kind", compress(b"\x0b" + whole), 400, ("broken protobuf at byte 0",)),
        BadWrite("a length past the end", compress(b"\x0a\x7f" + whole), 400, ("broken protobuf",)),
        BadWrite("a varint of 11 bytes", compress(b"\x0a" + b"\x80" * 10 + b"\x01"), 400, ("broken protobuf",)),
        BadWrite("a length of 2^63", compress(b"\x0a" + b"\xff" * 9 + b"\x01"), 400, ("broken protobuf",)),
        BadWrite("text", compress(b'{"timeseries": []}'), 400, ("broken protobuf",)),
    ]


def _bombs(now_ms: int) -> list[BadWrite]:
    large = request([("__name__", "up"), ("job", "x" * 50_000_000)], t_ms=now_ms)
    return [
        BadWrite("4 GiB promised", b"\xff\xff\xff\xff\x0f" + b"\x00" * 100, 400, ("4294967295", "33554432")),
        BadWrite("over 4 GiB promised", b"\xff\xff\xff\xff\x7f" + b"\x00" * 100, 400, ("snappy", "length")),
        BadWrite("30 MiB promised of 100 bytes", b"\x80\x80\x80\x0f" + b"\x00" * 96, 400, ("31457280", "25 to 1")),
        BadWrite("33 MiB of zeros", compress(bytes(33 << 20)), 400, ("34603008", "33554432")),
        BadWrite("30 MiB of zeros", compress(bytes(30 << 20)), 400, ("broken protobuf",)),
        BadWrite("a label of 50 MB", compress(large), 400, (str(len(large)), "33554432")),
        BadWrite("a body of 17 MiB", bytes(17 << 20), 413, (str(17 << 20), "16777216")),
    ]


def _labels(now_ms: int) -> list[BadWrite]:
    def series(name: str, labels: Pairs, *words: str) -> BadWrite:
        return BadWrite(name, compress(request(labels, t_ms=now_ms)), 400, words)

    def raw(name: str, value: bytes) -> bytes:
        label = b"\x0a\x01" + name.encode() + b"\x12" + bytes([len(value)]) + value
        body = b"\x0a\x0e\x0a\x08__name__\x12\x02up" + b"\x0a" + bytes([len(label)]) + label + b"\x12\x04\x10\x80\xc0\x01"
        return compress(b"\x0a" + bytes([len(body)]) + body)

    up = ("__name__", "up")
    many = [(f"l{i}", "x") for i in range(300)]
    return [
        series("a label of 20 MB", [up, ("job", "x" * 20_000_000)], "label value too long", "20000000", "limit:"),
        series("a label name of 2,000 bytes", [up, ("n" * 2000, "x")], "label name too long", "2000", "limit: 1024"),
        series("300 labels", [up, *many], "too many labels", "301", "limit:"),
        series("a label name twice", [up, ("job", "a"), ("job", "b")], "duplicate label name", '"job"'),
        series("a label name twice, unsorted", [("job", "a"), up, ("job", "a")], "duplicate label name", '"job"'),
        series("the metric name twice", [up, up], "duplicate label name", "__name__"),
        series("an empty label name", [up, ("", "x")], "a name is empty"),
        series("an empty metric name", [("__name__", ""), ("job", "x")], "missing metric name"),
        series("no metric name", [("job", "x")], "missing metric name", 'job="x"'),
        series("no label", [], "missing metric name"),
        BadWrite("a label that is not UTF-8", raw("a", b"\xff\xfe"), 400, ("not UTF-8",)),
        BadWrite("a surrogate in a label", raw("a", b"\xed\xa0\x80"), 400, ("not UTF-8",)),
    ]


def _times(now_ms: int) -> list[BadWrite]:
    def at(name: str, t_ms: int, *words: str) -> BadWrite:
        return BadWrite(name, compress(request([("__name__", "up")], t_ms=t_ms)), 400, words)

    return [
        at("an hour in the future", now_ms + 3_600_000, "too-far-in-future", str(now_ms + 3_600_000)),
        at("the year 5000", 95_617_584_000_000, "too-far-in-future", "95617584000000"),
        at("the last time there is", (1 << 63) - 1, "out of bounds", "limit"),
        at("the first time there is", -(1 << 63), "out of bounds", "limit"),
    ]


def _histograms(now_ms: int) -> list[BadWrite]:
    def native(name: str, *words: str, t_ms: int = now_ms, **fields: object) -> BadWrite:
        return BadWrite("histogram: " + name, with_histogram(t_ms, **fields), 400, words)

    return [
        native("schema 99", "schema", "99", schema=99, count_int=1, positive_spans=[(0, 1)], positive_deltas=[1]),
        native("schema -9", "schema", "-9", schema=-9, count_int=1, positive_spans=[(0, 1)], positive_deltas=[1]),
        native("spans without buckets", "spans need 4 buckets", count_int=1, positive_spans=[(0, 4)], positive_deltas=[1]),
        native("a span of 4 billion", "spans need 4294967295 buckets", count_int=1, positive_spans=[(0, 0xFFFFFFFF)],
               positive_deltas=[1]),
        native("a negative count", "negative", count_int=1, positive_spans=[(0, 2)], positive_deltas=[1, -5]),
        native("a negative offset", "negative", count_int=2, positive_spans=[(0, 1), (-3, 1)], positive_deltas=[1, 0]),
        native("too small a count", "observations", "Count field is 1", count_int=1, positive_spans=[(0, 1)], positive_deltas=[9]),
        native("custom bounds that fall", "strictly increasing", schema=-53, count_int=1, sum=1, custom_values=[2.0, 1.0],
               positive_spans=[(0, 1)], positive_deltas=[1]),
        native("custom bounds of NaN", "NaN", schema=-53, count_int=1, sum=1, custom_values=[float("nan")],
               positive_spans=[(0, 1)], positive_deltas=[1]),
        native("bounds where there are none", "must not have custom bounds", count_int=1, custom_values=[1.0],
               positive_spans=[(0, 1)], positive_deltas=[1]),
        native("in the year 5000", "too-far-in-future", t_ms=95_617_584_000_000, count_int=1,
               positive_spans=[(0, 1)], positive_deltas=[1]),
    ]  # fmt: skip


def _headers(now_ms: int) -> list[BadWrite]:
    body = compress(request([("__name__", "up")], t_ms=now_ms))

    def sent(name: str, words: tuple[str, ...], **changed: str) -> BadWrite:
        return BadWrite(name, body, 415, words, V1 | {key.replace("_", "-"): value for key, value in changed.items()})

    return [
        sent("JSON", ("application/json", "want application/x-protobuf"), Content_Type="application/json"),
        sent("a form", ("x-www-form-urlencoded",), Content_Type="application/x-www-form-urlencoded"),
        sent("another message", ("x.Y", "want"), Content_Type="application/x-protobuf;proto=x.Y"),
        sent("a content type of 10,000 bytes", ("not supported",), Content_Type="a/" + "b" * 10_000),
        sent("gzip", ("gzip", "want snappy"), Content_Encoding="gzip"),
        sent("zstd", ("zstd", "want snappy"), Content_Encoding="zstd"),
        sent("no encoding", ("identity", "want snappy"), Content_Encoding="identity"),
    ]


def _v2(now_ms: int) -> list[BadWrite]:
    def refs(name: str, symbols: Iterable[str], numbers: Iterable[int], *words: str) -> BadWrite:
        return BadWrite("2.0: " + name, with_refs(now_ms, symbols, numbers), 400, words, V2)

    names = ["", "__name__", "up", "job", "x" * 100_000]
    blown_up = write_v2_pb2.Request(symbols=["", "__name__", "up", *(f"l{i}" for i in range(30)), "x" * 8000])
    for i in range(20_000):
        blown_up.timeseries.add(labels_refs=[1, 2, *(n for j in range(30) for n in (3 + j, 33))]).samples.add(
            value=i, timestamp=now_ms
        )
    return [
        refs("a ref past the end", names, [1, 2, 3, 99], "labelRefs"),
        refs("a ref of 4 billion", names, [1, 0xFFFFFFFF], "labelRefs"),
        refs("an odd number of refs", names, [1, 2, 3], "labelRefs"),
        refs("no symbols", [], [1, 2], "labelRefs"),
        refs("a long value", names, [1, 2, 3, 4], "label value too long", "100000"),
        refs("an empty label name", names, [1, 2, 0, 2], "empty"),
        refs("a name twice", names, [1, 2, 3, 2, 3, 2], "duplicate label name"),
        BadWrite("2.0: 5 GB of labels by refs", compress(blown_up.SerializeToString()), 400, ("134217728 bytes", "limit"), V2),
        BadWrite("2.0: a 1.0 body", compress(request([("__name__", "up")], t_ms=now_ms)), 400, ("is a message of 1.0",), V2),
        BadWrite("1.0: a 2.0 body", with_refs(now_ms, names, [1, 2]), 400, ("is a message of 2.0",), V1),
    ]  # fmt: skip

"""The requests of the Prometheus project's remote-write receiver compliance suite, as data: what is sent, and what must come of it.

Cases and values are those of `prometheus/compliance`, `remotewrite/receiver`; each is sent by both protocols.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.client import compress

HOUR_MS, MINUTE_MS = 3_600_000, 60_000

NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

Pairs = dict[str, str]


@dataclass(frozen=True, slots=True)
class Shown:
    """An exemplar; its time is `shift_ms` after the request's."""

    labels: Pairs
    value: float
    shift_ms: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """Metadata; `kind` is the number of the type in both protocols."""

    kind: int
    about: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """One series with at most one sample or histogram, `shift_ms` after the request's time; `start_ms` before it, 0 = none."""

    labels: Pairs
    value: float | None = None
    histogram: write_v2_pb2.Histogram | None = None
    shift_ms: int = 0
    start_ms: int = 0
    exemplars: tuple[Shown, ...] = ()
    family: Family | None = None

    def named(self) -> bool:
        return bool(self.labels.get("__name__"))


@dataclass(frozen=True, slots=True)
class Case:
    """A request and the samples, histograms and exemplars that must be stored of it; `fine` = 204, else 400."""

    name: str
    series: tuple[Sent, ...]
    written: tuple[int, int, int]
    fine: bool = True


def cases() -> list[Case]:
    """All of them."""
    found = [*_floats(), *_histograms(), *_exemplars(), *_metadata(), *_combined(), *_large()]
    assert len({case.name for case in found}) == len(found)
    return found


def body_v1(case: Case, now_ms: int) -> bytes:
    """The case as a 1.0 request, compressed; labels in random order. Start times have no place there."""
    message, order = write_v1_pb2.WriteRequest(), random.Random(case.name)
    for sent in case.series:
        series = message.timeseries.add()
        for name, text in _shuffled(sent.labels, order):
            series.labels.add(name=name, value=text)
        if sent.value is not None:
            series.samples.add(value=sent.value, timestamp=now_ms + sent.shift_ms)
        if sent.histogram is not None:
            native = series.histograms.add()
            native.ParseFromString(sent.histogram.SerializeToString())
            native.timestamp = now_ms + sent.shift_ms
        for shown in sent.exemplars:
            exemplar = series.exemplars.add(value=shown.value, timestamp=now_ms + shown.shift_ms)
            for name, text in _shuffled(shown.labels, order):
                exemplar.labels.add(name=name, value=text)
        if sent.family is not None:
            family = sent.family
            told = message.metadata.add(metric_family_name=sent.labels.get("__name__", ""), help=family.about, unit=family.unit)
            told.type = family.kind  # type: ignore[assignment]
    return compress(message.SerializeToString())


def body_v2(case: Case, now_ms: int) -> bytes:
    """The case as a 2.0 request, compressed; labels in random order."""
    message, order, symbols = write_v2_pb2.Request(), random.Random(case.name), {"": 0}

    def refs(labels: Pairs) -> list[int]:
        return [symbols.setdefault(text, len(symbols)) for pair in _shuffled(labels, order) for text in pair]

    for sent in case.series:
        series = message.timeseries.add(labels_refs=refs(sent.labels))
        t_ms, start_ms = now_ms + sent.shift_ms, now_ms - sent.start_ms if sent.start_ms else 0
        if sent.value is not None:
            series.samples.add(value=sent.value, timestamp=t_ms, start_timestamp=start_ms)
        if sent.histogram is not None:
            native = series.histograms.add()
            native.CopyFrom(sent.histogram)
            native.timestamp, native.start_timestamp = t_ms, start_ms
        for shown in sent.exemplars:
            series.exemplars.add(labels_refs=refs(shown.labels), value=shown.value, timestamp=now_ms + shown.shift_ms)
        if sent.family is not None:
            series.metadata.type = sent.family.kind  # type: ignore[assignment]
            series.metadata.help_ref = symbols.setdefault(sent.family.about, len(symbols))
            series.metadata.unit_ref = symbols.setdefault(sent.family.unit, len(symbols))
    message.symbols.extend(symbols)
    return compress(message.SerializeToString())


def native(total: float, sides: str, *, bad_count: bool = False) -> write_v2_pb2.Histogram:
    """An integer histogram of that sum with the sides named: "+", "-", "0", or "c" for custom buckets."""
    made = write_v2_pb2.Histogram(sum=total)
    made.count_int = 23 * ("+" in sides) + 3 * ("-" in sides) + ("0" in sides) + 30 * ("c" in sides)
    if bad_count:
        made.count_int = 99
    if "+" in sides:
        made.positive_spans.add(offset=0, length=3)
        made.positive_spans.add(offset=2, length=2)
        made.positive_deltas.extend([1, 2, 1, 3, 1])
    if "-" in sides:
        made.negative_spans.add(offset=0, length=2)
        made.negative_deltas.extend([1, 1])
    if "0" in sides:
        made.zero_count_int = 1
    if "c" in sides:
        made.schema = -53
        made.custom_values.extend([0.1, 0.5, 1.0, 2.5, 5.0, 10.0])
        made.positive_spans.add(offset=0, length=6)
        made.positive_deltas.extend([2, 1, 2, 3, -1, -2])
    return made


def float_native(total: float) -> write_v2_pb2.Histogram:
    """A float histogram with all sides."""
    made = write_v2_pb2.Histogram(sum=total, count_float=26.5, zero_count_float=0.5, zero_threshold=1e-128, schema=3)
    made.positive_spans.add(offset=-2, length=2)
    made.positive_counts.extend([10.25, 5.75])
    made.negative_spans.add(offset=4, length=1)
    made.negative_counts.append(10.0)
    return made


def _shuffled(labels: Pairs, order: random.Random) -> list[tuple[str, str]]:
    pairs = list(labels.items())
    order.shuffle(pairs)
    return pairs


def _metric(name: str, **labels: str) -> Pairs:
    return {"__name__": name, **labels}


FLOATS = {"1.0": 1.0, "StaleNaN": STALE, "its bits as a number": 9.218868437227406e18, "NaN": NAN, "Inf": np.inf, "-Inf": -np.inf}


def _floats() -> Iterator[Case]:
    up = _metric("up", job="testjob", instance="localhost:9090")
    singles: dict[str, Pairs] = {
        "simple": _metric("up"),
        "several labels": up,
        "newlines": _metric("up", job="test\njob\n", instance="localhost:9090"),
        "dots": {"__name__": "resource.cpu.usage", "job.name": "testjob", "instance.name": "localhost:9090"},
        "spaces": {"__name__": "resource cpu usage", "job name": "testjob", "instance name": "localhost:9090"},
        "no name": {"job": "testjob", "instance": "localhost:9090"},
        "no label": {},
    }
    four = [{**up, "instance": f"localhost:909{i}"} for i in range(4)]
    nameless = [{k: v for k, v in labels.items() if k != "__name__"} for labels in four]
    for word, value in FLOATS.items():
        for kind, labels in singles.items():
            named = "__name__" in labels
            yield Case(f"single {word}: {kind}", (Sent(labels, value),), (int(named), 0, 0), named)
        yield Case(f"four {word}", tuple(Sent(labels, value) for labels in four), (4, 0, 0))
        yield Case(f"four {word} without names", tuple(Sent(labels, value) for labels in nameless), (0, 0, 0), False)
        mixed = (Sent(nameless[0], value), *(Sent(labels, value) for labels in four[1:]))
        yield Case(f"four {word}, one without a name", mixed, (3, 0, 0), False)
    counter = _metric("http_requests_total", job="api")
    yield Case("a counter with its start", (Sent(counter, 100.0, start_ms=HOUR_MS),), (1, 0, 0))


def _histograms() -> Iterator[Case]:
    one = (0, 1, 0)
    api = _metric("request_duration_seconds", job="api")
    for word, labels, sides in (
        ("all sides", _metric("test_histogram"), "+-0"),
        ("custom buckets", _metric("test_histogram"), "c"),
        ("positive only", _metric("test_histogram", job="test"), "+0"),
        ("negative only", _metric("test_histogram", instance="localhost"), "-"),
        ("zero only", _metric("minimal_hist"), "0"),
        ("empty", _metric("empty_hist"), ""),
    ):
        yield Case(f"histogram, {word}", (Sent(labels, histogram=native(1.0 if sides else 0.0, sides)),), one)
    yield Case("histogram, float", (Sent(_metric("float_hist"), histogram=float_native(2.5)),), one)
    bad = native(1.0, "+", bad_count=True)
    yield Case("histogram, bad count", (Sent(_metric("minimal_hist"), histogram=bad),), (0, 0, 0), False)
    yield Case("histogram, its start", (Sent(api, histogram=native(1.5, "+-0"), start_ms=30 * MINUTE_MS),), one)
    two = (
        Sent(_metric("hist1", job="test"), histogram=native(10.5, "+0")),
        Sent(_metric("hist2", job="test"), histogram=native(5.2, "-")),
    )
    yield Case("two histograms", two, (0, 2, 0))
    usage = [
        Sent(_metric(f"{of}_usage", instance="server1"), histogram=native(8589934592.0, s))
        for of, s in (("cpu", "+0"), ("ram", "+-"))
    ]
    told = tuple(replace(sent, family=Family(3, f"{sent.labels['__name__']} distribution", "ratio")) for sent in usage)
    yield Case("two histograms, each with metadata", told, (0, 2, 0))
    many = _metric("http_request_duration_seconds", job="api", instance="h:1", method="GET", status="200", endpoint="/api/v1/users")
    yield Case("histogram, many labels and metadata", (Sent(many, histogram=native(0.25, "+-0"), family=Family(3, "D", "s")),), one)
    about = Family(3, "HTTP request duration in seconds", "seconds")
    trace = (Shown({"trace_id": "abc123def456", "span_id": "span789"}, 1.23),)
    yield Case("histogram, metadata", (Sent(api, histogram=native(2.5, "+-0"), family=about),), one)
    yield Case("histogram, exemplar", (Sent(api, histogram=native(1.23, "+0"), exemplars=trace),), (0, 1, 1))
    whole = Sent(api, histogram=native(10_485_760.0, "+-0"), family=about, exemplars=trace)
    yield Case("histogram, metadata and exemplar", (whole,), (0, 1, 1))
    custom = Sent(_metric("custom_latency_hist", version="v2"), histogram=native(0.05, "c"), exemplars=trace)
    yield Case("custom buckets, exemplar", (custom,), (0, 1, 1))


def _exemplars() -> Iterator[Case]:
    for word, labels, shown, value in (
        ("basic", _metric("http_requests_total", job="api"), {"trace_id": "abc123def456"}, 1.0),
        ("span", _metric("request_seconds", method="GET"), {"trace_id": "xyz789", "span_id": "span123"}, 0.125),
        ("no trace id", _metric("cpu_usage", instance="host1"), {"user_id": "user123"}, 0.85),
        ("several labels", _metric("latency", service="auth"), {"trace_id": "t", "user": "admin", "endpoint": "/login"}, 0.05),
        ("no labels", _metric("simple_counter"), {}, 1.0),
        ("special characters", _metric("test_metric"), {"trace_id": "trace-with-dashes_and_underscores.123"}, 42.0),
        ("unicode", _metric("unicode_test", region="🌍"), {"trace_id": "unicode_trace_测试"}, 100.0),
    ):
        yield Case(f"exemplar, {word}", (Sent(labels, value, exemplars=(Shown(shown, value),)),), (1, 0, 1))
    trace, started = {"trace_id": "abc123"}, _metric("http_requests_total", job="api")
    yield Case(
        "exemplar of a counter with its start",
        (Sent(started, 250.0, start_ms=2 * HOUR_MS, exemplars=(Shown(trace, 250.0),)),),
        (1, 0, 1),
    )
    three = [_metric("duration", method="GET"), _metric("duration", method="POST"), _metric("errors", service="payment")]
    each = tuple(Sent(labels, 0.5 + i, exemplars=(Shown({"trace_id": f"t{i}"}, 0.5),)) for i, labels in enumerate(three))
    yield Case("three exemplars", each, (3, 0, 3))
    latency, shifts = _metric("latency_hist"), (-HOUR_MS, -MINUTE_MS, 0)
    times = tuple(Sent(latency, 0.1, shift_ms=s, exemplars=(Shown({"trace_id": f"at {s}"}, 0.1, s),)) for s in shifts)
    yield Case("exemplars of three times", times, (3, 0, 3))
    for word, labels in (("no name", {"job": "test"}), ("an empty name", _metric("")), ("a name", _metric("valid_metric"))):
        fine = word == "a name"
        shown = (Shown({"trace_id": "test_trace"}, 1.0),)
        yield Case(f"exemplar, {word}", (Sent(labels, 1.0, exemplars=shown),), (int(fine), 0, int(fine)), fine)
    for value in (0.0, -123.456, 1e10, 1e-10, NAN, np.inf, -np.inf):
        shown = (Shown({"trace_id": "special"}, value),)
        yield Case(f"exemplar of {value:g}", (Sent(_metric("test_metric"), value, exemplars=shown),), (1, 0, 1))
    alone = Sent(_metric("orphan_metric"), exemplars=(Shown({"trace_id": "orphan_trace"}, 42.0),))
    yield Case("an exemplar without a sample", (alone,), (0, 0, 1))


def _metadata() -> Iterator[Case]:
    one = (1, 0, 0)
    for metric, family in (
        ("http_requests_total", Family(1, "Total number of HTTP requests", "requests")),
        ("cpu_usage_percent", Family(2, "Current CPU usage percentage", "percent")),
        ("request_duration_seconds", Family(3, "Request duration in seconds", "seconds")),
        ("simple_counter", Family(1)),
        ("special_metric", Family(2, 'Test metric with\nnewlines and "quotes"', "bytes/sec")),
        ("unknown_metric", Family(0, "Unknown metric type")),
        ("build_info", Family(6, "Build information")),
        ("node_state", Family(7, "Node state information")),
        ("request_latency_summary", Family(5, "Request latency summary", "seconds")),
        ("temperature_histogram", Family(4, "Temperature distribution gauge histogram", "celsius")),
    ):
        if family.kind == 3:
            yield Case(f"metadata of {metric}", (Sent(_metric(metric), histogram=native(1.0, "+-0"), family=family),), (0, 1, 0))
        else:
            yield Case(f"metadata of {metric}", (Sent(_metric(metric), 1.0, family=family),), one)
    requests = Family(1, "Total HTTP requests", "requests")
    started = Sent(_metric("http_requests_total", job="api"), 150.0, start_ms=HOUR_MS, family=requests)
    yield Case("metadata of a counter with its start", (started,), one)
    three = [_metric("cpu_usage"), _metric("memory_usage"), _metric("disk_usage", device="sda1")]
    about = [Family(2, f"{labels['__name__']}, told", "bytes") for labels in three]
    rows = zip(three, about, (85.5, 4096000000.0, 75.2), strict=True)
    yield Case("three metadata", tuple(Sent(labels, value, family=family) for labels, family, value in rows), (3, 0, 0))
    yield Case("metadata, no name", (Sent({"job": "test"}, 1.0, family=Family(1, "Test help", "unit")),), (0, 0, 0), False)
    yield Case("metadata, an empty name", (Sent(_metric(""), 1.0, family=Family(2, "Test help", "unit")),), (0, 0, 0), False)
    yield Case("metadata without a sample", (Sent(_metric("lonely_metric"), family=Family(1, "Orphaned", "count")),), (0, 0, 0))


def _combined() -> Iterator[Case]:
    requests = _metric("http_requests_total", job="api", method="POST")
    traced = (Shown({"trace_id": "request_trace_123", "user_id": "user789"}, 1.0),)
    told = Family(1, "Total number of HTTP requests", "requests")
    yield Case("sample, metadata and exemplar", (Sent(requests, 1.0, family=told, exemplars=traced),), (1, 0, 1))
    cpu, memory = _metric("cpu_usage", instance="server1"), _metric("memory_usage", instance="server1")
    two = (
        Sent(cpu, 0.85, family=Family(2, "CPU", "ratio"), exemplars=traced),
        Sent(memory, 8589934592.0, family=Family(2, "Memory")),
    )
    yield Case("two samples, metadata and an exemplar", two, (2, 0, 1))
    times = Sent(_metric("response_time_hist", endpoint="/api/v1/users"), histogram=native(0.125, "+0"), exemplars=traced)
    sizes = Sent(_metric("request_size_hist", method="POST"), histogram=native(1024.0, "-0"), family=Family(3, "Sizes", "bytes"))
    yield Case("two histograms, metadata and an exemplar", (times, sizes), (0, 2, 1))
    old = Sent(_metric("old_metric"), 1.0, shift_ms=-HOUR_MS, exemplars=(Shown({"trace_id": "old"}, 1.0, -30 * MINUTE_MS),))
    yield Case("mixed times", (old, Sent(_metric("new_metric"), 2.0)), (2, 0, 1))
    special = _metric("test_metric", job="test-job_with.special@chars", instance="localhost:9090", environment="test🚀")
    shown = Shown({"trace_id": "special_trace_äöü-123", "span_id": "span_with.dots-and_underscores"}, 42.0)
    words = Family(2, 'special characters: äöü, newlines\nand "quotes"', "special/units")
    yield Case("special characters", (Sent(special, 42.0, family=words, exemplars=(shown,)),), (1, 0, 1))


def _large() -> Iterator[Case]:
    counters, natives = [], []
    for i in range(50):
        shown = (Shown({"trace_id": f"trace_{i}"}, float(i)),)
        about = Family(1, f"Counter metric number {i}", "count")
        counters.append(Sent(_metric(f"counter_metric_{i}", series=f"s{i}"), i * 100.0, family=about, exemplars=shown))
        made = native(i / 10, "+-0" if i % 2 == 0 else "+0")
        natives.append(Sent(_metric(f"histogram_metric_{i}", bucket=f"b{i}"), histogram=made, family=Family(3), exemplars=shown))
    yield Case("50 samples", tuple(counters), (50, 0, 50))
    yield Case("50 histograms", tuple(natives), (0, 50, 50))

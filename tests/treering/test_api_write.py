"""The write API beyond the compliance suite: headers, parts of a request, times, duplicates, limits; over a real node."""

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.client import HEADERS, compress
from tests.treering.write_cases import HOUR_MS, NAN, STALE, Case, Family, Sent, Shown, body_v1, body_v2, native
from treering.config import Config
from treering.http.api import make_app
from treering.http.api_write import WriteApi
from treering.http.asgi import Request, Response, error_response
from treering.http.write_pool import MAX_TOGETHER, WritePool
from treering.library.listing import select_all
from treering.node import Node
from tsdb.model.errors import TreeringError
from tsdb.model.labels import Labels

NOW_MS = int(time.time() * 1000)
V1 = {name.lower(): text for name, text in HEADERS[1].items()} | {"content-encoding": "snappy"}
V2 = {name.lower(): text for name, text in HEADERS[2].items()} | {"content-encoding": "snappy"}
UP = Labels.of({"__name__": "up"})

LIMITS = {
    "windowed": {"out_of_order_time_window_ms": HOUR_MS},
    "small": {"max_global_series_per_user": 2},
    "slow": {"ingestion_rate": 10, "ingestion_burst_size": 10},
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    config = Config(data=str(tmp_path_factory.mktemp("write") / "store"), multitenancy=True, tenant_limits=LIMITS)
    with Node(config) as node:
        yield node


@dataclass(slots=True)
class Tenant:
    """One tenant's way to write and to look at what is stored."""

    node: Node
    name: str

    def post(self, body: bytes, headers: dict[str, str] = V2) -> Response:
        api = WriteApi(self.node)
        sent = {name: [text] for name, text in ({"x-scope-orgid": self.name} | headers).items()}
        try:
            return api.push(api.decode(Request("POST", "/api/v1/write", sent, "", body)))
        except TreeringError as error:
            return error_response(error, plain=True)

    def send(self, *series: Sent, version: int = 2, at_ms: int = NOW_MS) -> Response:
        case = Case("", series, (0, 0, 0))
        return self.post(body_v1(case, at_ms), V1) if version == 1 else self.post(body_v2(case, at_ms))

    def floats(self) -> dict[str, list[tuple[int, int]]]:
        """(time after NOW_MS, bits) of every float sample, by series."""
        batch = select_all(self.node.source((self.name,)), (), start_ms=0, end_ms=2 * NOW_MS)
        bits, found = batch.values.view(np.uint64).tolist(), {}
        for i, labels in enumerate(batch.series.rows()):
            rows = range(batch.offsets[i], batch.offsets[i + 1])
            found[str(labels)] = [(int(batch.t_ms[j]) - NOW_MS, bits[j]) for j in rows]
        return found


@pytest.fixture
def tenant(node: Node, request: pytest.FixtureRequest) -> Tenant:
    """A tenant that no other test writes to."""
    return Tenant(node, f"t{abs(hash(request.node.nodeid))}")


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def counts(response: Response) -> tuple[str | None, ...]:
    headers = dict(response.headers)
    return tuple(headers.get(f"x-prometheus-remote-write-{kind}-written") for kind in ("samples", "histograms", "exemplars"))


def metric(name: str, **labels: str) -> dict[str, str]:
    return {"__name__": name, **labels}


@pytest.mark.parametrize(
    ("version", "changed"),
    [
        (1, {"content-type": None}),
        (1, {"content-encoding": None}),
        (1, {"content-encoding": "SNAPPY"}),
        (1, {"content-type": "application/x-protobuf;proto=prometheus.WriteRequest"}),
        (1, {"content-type": "application/x-protobuf; charset=utf-8"}),
        (1, {"content-type": "Application/X-Protobuf"}),
        (1, {"x-prometheus-remote-write-version": None}),
        (1, {"x-prometheus-remote-write-version": "2.0.0"}),
        (1, {"retry-attempt": "3", "user-agent": "Prometheus/3.14.0"}),
        (2, {"content-type": "application/x-protobuf; proto=io.prometheus.write.v2.Request"}),
        (2, {"content-type": 'application/x-protobuf;proto="io.prometheus.write.v2.Request"'}),
        (2, {"x-prometheus-remote-write-version": None}),
        (2, {"x-prometheus-remote-write-version": "0.1.0"}),
        (2, {"retry-attempt": "7"}),
    ],
)
def test_headers_that_are_taken(tenant: Tenant, version: int, changed: dict[str, str | None]) -> None:
    case = Case("", (Sent(metric("up"), 1.0),), (1, 0, 0))
    headers = {name: text for name, text in ((V1 if version == 1 else V2) | changed).items() if text is not None}
    response = tenant.post((body_v1 if version == 1 else body_v2)(case, NOW_MS), headers)
    assert response.status == 204
    assert counts(response) == ((None,) * 3 if version == 1 else ("1", "0", "0"))
    assert tenant.floats() == {"up": [(0, bits(1.0))]}


@pytest.mark.parametrize(
    "changed",
    [
        {"content-type": "application/json"},
        {"content-type": "image/png"},
        {"content-encoding": "deflate"},
        {"content-type": "application/x-protobuf;proto=io.prometheus.write.v3.Request"},
        {"content-type": "application/x-protobuf;proto="},
        {"content-type": ""},
        {"content-encoding": "gzip"},
        {"content-encoding": "zstd"},
        {"content-encoding": "snappy, gzip"},
        {"content-encoding": "x-snappy-framed"},
    ],
)
def test_headers_are_looked_at_before_the_body(tenant: Tenant, changed: dict[str, str]) -> None:
    response = tenant.post(b"0 no snappy at all", V2 | changed)
    assert response.status == 415 or (changed == {"content-type": ""} and response.status == 400), response
    assert counts(response) == (None, None, None) and tenant.floats() == {}


@pytest.mark.parametrize("first", [b"0", b"\xff"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_corrupt_first_byte(tenant: Tenant, version: int, first: bytes) -> None:
    case = Case("", (Sent(metric("up"), 1.0),), (1, 0, 0))
    body = first + (body_v1 if version == 1 else body_v2)(case, NOW_MS)[1:]
    response = tenant.post(body, V1 if version == 1 else V2)
    assert response.status == 400 and b"snappy" in response.body
    assert counts(response) == (None, None, None) and tenant.floats() == {}


@pytest.mark.parametrize("version", [1, 2])
def test_empty_requests(tenant: Tenant, version: int) -> None:
    response = tenant.post(compress(b""), V1 if version == 1 else V2)
    assert (response.status, response.body) == (204, b"")
    assert counts(response) == ((None,) * 3 if version == 1 else ("0", "0", "0"))
    assert tenant.send(Sent(metric("nothing")), version=version).status == 204
    assert tenant.floats() == {}


@pytest.mark.parametrize("version", [1, 2])
def test_the_good_part_of_a_request_is_kept_and_counted(tenant: Tenant, version: int) -> None:
    shown, long = Shown({"trace_id": "t"}, 1.0), Shown({"trace_id": "x" * 200}, 1.0)
    response = tenant.send(
        Sent(metric("good", i="0"), 1.5, exemplars=(shown, long)),
        Sent({"job": "no name"}, 2.0, exemplars=(shown,)),
        Sent(metric("bad", **{"": "x"}), 3.0),
        Sent(metric("late"), 4.0, shift_ms=HOUR_MS),
        Sent(metric("natives"), histogram=native(1.0, "+-0"), exemplars=(shown,)),
        Sent(metric("natives", bad="count"), histogram=native(1.0, "+", bad_count=True)),
        Sent(metric("natives", bad="time"), histogram=native(1.0, "+"), shift_ms=HOUR_MS),
        Sent(metric("good", i="1"), 5.5, family=Family(2, "Good.")),
        version=version,
    )
    assert response.status == 400
    assert counts(response) == ((None,) * 3 if version == 1 else ("2", "1", "2"))
    text = response.body.decode()
    assert "(rejected: " in text and "2 too-far-in-future" in text and "1 invalid-histogram" in text
    assert "1 exemplar-labels-too-long" in text and len(text) < 1000
    found = tenant.floats()
    assert found.pop("natives")[0][0] == 0
    assert found == {'good{i="0"}': [(0, bits(1.5))], 'good{i="1"}': [(0, bits(5.5))]}
    assert [told.help for told in tenant.node.metadata((tenant.name,))] == ["Good."]


@pytest.mark.parametrize("value", [1.0, 0.0, -0.0, NAN, STALE, np.inf, -np.inf, 5e-324], ids=str)
def test_an_equal_duplicate_is_counted_and_another_value_is_told(tenant: Tenant, value: float) -> None:
    for _ in range(3):
        response = tenant.send(Sent(metric("up"), value))
        assert (response.status, counts(response)) == (204, ("1", "0", "0"))
    response = tenant.send(Sent(metric("up"), 7.0), Sent(metric("other"), 7.0))
    assert (response.status, counts(response)) == (400, ("1", "0", "0"))
    assert b"duplicate-timestamp" in response.body and b"up" in response.body
    assert tenant.floats() == {"other": [(0, bits(7.0))], "up": [(0, bits(value))]}


def test_duplicates_inside_one_request(tenant: Tenant) -> None:
    response = tenant.send(
        Sent(metric("up"), 1.0), Sent(metric("up"), 1.0), Sent(metric("up"), 2.0), Sent(metric("up"), 3.0, shift_ms=-5)
    )
    assert (response.status, counts(response)) == (400, ("3", "0", "0"))
    assert tenant.floats() == {"up": [(-5, bits(3.0)), (0, bits(1.0))]}


@pytest.mark.parametrize("version", [1, 2])
def test_samples_of_any_age_and_order_are_taken(tenant: Tenant, version: int) -> None:
    shifts = [0, -HOUR_MS, -1, -400 * 24 * HOUR_MS, 599_000, -HOUR_MS + 1, 1]
    series = [Sent(metric("up"), float(i), shift_ms=shift) for i, shift in enumerate(shifts)]
    assert tenant.send(*series, version=version).status == 204
    assert tenant.floats()["up"] == [(shift, bits(float(shifts.index(shift)))) for shift in sorted(shifts)]


def test_a_tenant_may_have_a_window(node: Node) -> None:
    tenant = Tenant(node, "windowed")
    assert tenant.send(Sent(metric("up"), 1.0)).status == 204
    response = tenant.send(
        Sent(metric("up"), 2.0, shift_ms=-HOUR_MS - 1), Sent(metric("up"), 3.0, shift_ms=-HOUR_MS + 1000), Sent(metric("new"), 4.0)
    )
    assert (response.status, counts(response)) == (400, ("2", "0", "0"))
    assert b"1 too-old" in response.body or b"1 out-of-order" in response.body, response.body
    assert [t for t, _ in tenant.floats()["up"]] == [-HOUR_MS + 1000, 0]


def test_the_series_limit_names_itself(node: Node) -> None:
    tenant = Tenant(node, "small")
    response = tenant.send(*(Sent(metric("up", i=str(i)), 1.0) for i in range(5)))
    assert (response.status, counts(response)) == (400, ("2", "0", "0"))
    assert b"3 " in response.body and b"limit" in response.body
    assert tenant.send(*(Sent(metric("up", i=str(i)), 1.0, shift_ms=1) for i in range(2))).status == 204, "known series go on"


def test_over_the_rate_is_429_with_a_time(node: Node) -> None:
    tenant = Tenant(node, "slow")
    assert tenant.send(*(Sent(metric("up", i=str(i)), 1.0) for i in range(10))).status == 204
    response = tenant.send(*(Sent(metric("up", i=str(i)), 2.0, shift_ms=1) for i in range(10)))
    assert response.status == 429 and int(dict(response.headers)["retry-after"]) >= 1
    assert b"ingestion rate limit (10) exceeded" in response.body and counts(response) == (None, None, None)
    assert all(len(samples) == 1 for samples in tenant.floats().values())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"job": "x"}, "missing metric name"),
        ({"__name__": ""}, "missing metric name"),
        ({}, "missing metric name"),
        (metric("up", **{"": "x"}), "a name is empty"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_labels_that_are_refused(tenant: Tenant, version: int, labels: dict[str, str], words: str) -> None:
    response = tenant.send(Sent(labels, 1.0), version=version)
    assert response.status == 400 and words in response.body.decode()
    assert tenant.floats() == {}


@pytest.mark.parametrize("version", [1, 2])
def test_an_empty_value_is_no_label(tenant: Tenant, version: int) -> None:
    assert tenant.send(Sent(metric("up", job=""), 1.0), Sent(metric("up"), 2.0, shift_ms=1), version=version).status == 204
    assert tenant.floats() == {"up": [(0, bits(1.0)), (1, bits(2.0))]}


def test_names_of_any_characters(tenant: Tenant) -> None:
    names = ["http.server/duration", "größe", "with space", "🚀", 'quote"\\', "new\nline", "_", "a" * 1000]
    series = [Sent({"__name__": name, name: "x" * i or "y"}, float(i)) for i, name in enumerate(names)]
    assert tenant.send(*series).status == 204
    stored = select_all(tenant.node.source((tenant.name,)), (), start_ms=0, end_ms=2 * NOW_MS).series.rows()
    assert sorted(labels.get("__name__") for labels in stored) == sorted(names)
    assert all(labels.get(labels.get("__name__")) for labels in stored)


def test_symbols_may_be_repeated_unused_and_in_any_order(tenant: Tenant) -> None:
    message = write_v2_pb2.Request(symbols=["", "x", "job", "unused", "job", "up", "__name__", "x"])
    message.timeseries.add(labels_refs=[2, 1, 6, 5]).samples.add(value=1.0, timestamp=NOW_MS)
    message.timeseries.add(labels_refs=[6, 5, 4, 7]).samples.add(value=2.0, timestamp=NOW_MS + 1)
    assert tenant.post(compress(message.SerializeToString())).status == 204
    assert tenant.floats() == {'up{job="x"}': [(0, bits(1.0)), (1, bits(2.0))]}


@pytest.mark.parametrize(
    ("symbols", "refs"),
    [(["", "__name__", "up"], [1, 3]), (["", "__name__", "up"], [1]), ([], [1, 2]), (["", "__name__", "up"], [1, 2, 0, 0])],
    ids=["past the end", "odd", "no symbols", "an empty name"],
)
def test_bad_refs_cost_their_series_only(tenant: Tenant, symbols: list[str], refs: list[int]) -> None:
    message = write_v2_pb2.Request(symbols=symbols)
    message.timeseries.add(labels_refs=refs).samples.add(value=1.0, timestamp=NOW_MS)
    good = bool(symbols)
    if good:
        message.timeseries.add(labels_refs=[1, 2]).samples.add(value=2.0, timestamp=NOW_MS)
    response = tenant.post(compress(message.SerializeToString()))
    assert (response.status, counts(response)) == (400, ("1" if good else "0", "0", "0"))
    assert tenant.floats() == ({"up": [(0, bits(2.0))]} if good else {})


def test_unknown_fields_are_passed_over(tenant: Tenant) -> None:
    message = write_v2_pb2.Request(symbols=["", "__name__", "up"])
    series = message.timeseries.add(labels_refs=[1, 2])
    series.samples.add(value=1.0, timestamp=NOW_MS)
    created = b"\x30\xc0\xc4\x07"  # field 6 of 2.0's release candidate: created_timestamp
    text = series.SerializeToString() + created
    body = b"".join(b"\x22" + bytes([len(s)]) + s.encode() for s in message.symbols) + b"\x2a" + bytes([len(text)]) + text
    assert tenant.post(compress(body)).status == 204
    assert tenant.floats() == {"up": [(0, bits(1.0))]}


def test_metadata_of_1_0_comes_alone(tenant: Tenant) -> None:
    message = write_v1_pb2.WriteRequest()
    message.metadata.add(metric_family_name="up", help="Whether it is.", type=2)  # type: ignore[arg-type]
    assert tenant.post(compress(message.SerializeToString()), V1).status == 204
    assert [(told.metric, told.kind) for told in tenant.node.metadata((tenant.name,))] == [("up", "gauge")]


def test_the_pool_answers_each_of_many_senders(node: Node) -> None:
    """Good, partly good and broken requests of two tenants at once: each gets its own answer, and what was stored is there."""
    pool = WritePool(WriteApi(node), 2)
    tenants = [Tenant(node, "pool-a"), Tenant(node, "pool-b")]
    kinds = 5

    def request(i: int) -> Request:
        good, kind = Sent(metric("up", i=str(i)), float(i)), i % kinds
        series = {0: (good,), 1: (good,), 2: (good, Sent({}, 1.0)), 3: (good, Sent(metric("far"), 1.0, shift_ms=HOUR_MS))}.get(
            kind, ()
        )
        version2 = i % 3 == 0
        body = b"broken" if kind == 4 else (body_v2 if version2 else body_v1)(Case("", series, (0, 0, 0)), NOW_MS)
        headers = (V2 if version2 else V1) | {"x-scope-orgid": tenants[i % 2].name}
        return Request("POST", "/", {name: [text] for name, text in headers.items()}, "", body)

    def status(i: int) -> int:
        try:
            response = pool.submit(request(i)).result(20)
        except TreeringError as error:
            return error_response(error, plain=True).status
        assert counts(response) == ((None,) * 3 if i % 3 else ("1", "0", "0"))
        return response.status

    n = 20 * MAX_TOGETHER
    with ThreadPoolExecutor(32) as senders:
        assert list(senders.map(status, range(n))) == [204 if i % kinds < 2 else 400 for i in range(n)]
    for j, tenant in enumerate(tenants):
        want = {f'up{{i="{i}"}}': [(0, bits(float(i)))] for i in range(n) if i % 2 == j and i % kinds != 4}
        assert tenant.floats() == want


def test_every_write_path_is_a_route(tmp_path: Path) -> None:
    with Node(Config(data=str(tmp_path / "store"))) as node:
        paths = make_app(node)._exact
        for path in ("/api/v1/write", "/api/v1/push", "/prometheus/api/v1/push", "/api/prom/api/v1/write", "/api/prom/push"):
            assert paths[path].methods == {"POST"}

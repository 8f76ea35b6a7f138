"""Bad input of every kind, against a real server process: each is refused with the right status and a sentence that names the
value and the limit; meanwhile a cheap query is always answered, and no tenant sees what is another's."""

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.peers import Program, treering
from remote.wire.client import encode_v1, post_write
from tests.treering.bad_writes import BadWrite, bad_writes, request
from tests.treering.server import Reply, call
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch

NOW_MS = int(time.time() * 1000) // 60_000 * 60_000
TENANT = {"X-Scope-OrgID": "team-a"}
SECRET = "secret_of_the_victim"


@dataclass(slots=True)
class Probe:
    """A cheap query, asked again and again on a thread of its own."""

    url: str
    worst_s: float = 0.0
    count: int = 0
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        while not self.stop.wait(0.02):
            began = time.monotonic()
            connection.request("GET", f"/api/v1/query?query=known&time={NOW_MS / 1000}", headers=TENANT)
            response = connection.getresponse()
            body = response.read()
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            self.count += 1
            if response.status != 200 or b'"value"' not in body:
                self.failures.append(f"{response.status}: {body[:200]!r}")
        connection.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder: Path = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with treering(folder / "store", "--multitenancy") as server:
            for tenant, name in (("team-a", "known"), ("victim", SECRET)):
                rows = [Labels.of({"__name__": name, "i": str(i)}) for i in range(200)]
                batch = WriteBatch.of(rows, row=np.arange(200, dtype=np.int32), t_ms=np.full(200, NOW_MS), values=np.ones(200))
                assert post_write(server.url + "/api/v1/write", encode_v1(batch), tenant=tenant).status == 204
            yield server


@pytest.fixture(scope="module", autouse=True)
def probe(program: Program) -> Iterator[Probe]:
    """Runs under all tests of this file."""
    probe = Probe(program.url)
    thread = threading.Thread(target=probe.run)
    thread.start()
    yield probe
    probe.stop.set()
    thread.join()


def ask(url: str, method: str, path: str, **params: object) -> Reply:
    text = urllib.parse.urlencode(params, doseq=True)
    if method == "GET":
        return call(url, "GET", f"/api/v1/{path}?{text}", headers=TENANT)
    headers = TENANT | {"Content-Type": "application/x-www-form-urlencoded"}
    return call(url, method, f"/api/v1/{path}", text.encode(), headers)


@pytest.mark.parametrize("bad", bad_writes(NOW_MS), ids=lambda bad: bad.name)
def test_bad_writes(program: Program, bad: BadWrite) -> None:
    reply = call(program.url, "POST", "/api/v1/write", bad.body, bad.headers | TENANT)
    text = reply.body.decode()
    assert reply.status == bad.status, text
    assert all(word in text for word in bad.words), text
    assert len(text) < 2000


QUERIES = {
    "an empty query": ("", "no expression found in input"),
    "1 MB": ("x" * (1 << 20), "1048576 bytes", "65536 bytes"),
    "a bad regex": ('x{a=~"("}', "missing"),
    "a back reference": ('x{a=~"(a)\\\\1"}', "invalid escape sequence"),
    "a look-ahead": ('x{a=~"(?=a)"}', "invalid"),
    "a regex of 5 KB": (f'x{{a=~"{"a" * 5000}"}}', "5000", "4096"),
    "a regex that repeats 100,000 times": ('x{a=~"a{100000}"}', "invalid repeat count"),
    "a regex that repeats repeats": ('x{a=~"((a{100}){100}){100}"}', ""),
    "a thousand parentheses": ("(" * 1000 + "1" + ")" * 1000, "200 levels"),
    "a thousand open parentheses": ("(" * 1000, ""),
    "a thousand sums": ("sum(" * 1000 + "x" + ")" * 1000, "200 levels"),
    "a thousand unaries": ("-" * 1000 + "x", ""),
    "five thousand operators": ("+".join(["1"] * 5000), "5000 tokens"),
    "a thousand subqueries": ("x" + "[1m:1s]" * 1000, ""),
    "a huge string": ('"' + "x" * 64_000, ""),
    "a huge number": ("9" * 5000, "value out of range"),
    "a huge duration": ("x[99999999999999999999y]", "duration"),
    "a negative range": ("x[-5m]", ""),
    "no range": ("x[0s]", "duration must be greater than 0"),
    "a NaN offset": ("x offset NaN", ""),
    "@ NaN": ("x @ NaN", "timestamp"),
    "@ Inf": ("x @ Inf", "timestamp"),
    "control bytes": ("x\x00y", "unexpected character"),
    "not ASCII": ("é", "unexpected character"),
    "an unknown function": ("nope(x)", "unknown function"),
    "a string where a vector belongs": ('sum("a")', "expected type"),
    "a label name that is none": ('label_replace(x, "", "", "a", "")', "label name"),
    "a bad regex in label_replace": ('label_replace(x, "a", "", "a", "(")', "regular expression"),
}


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in QUERIES for method in ("GET", "POST") if method == "POST" or name != "1 MB"]
)
def test_bad_queries(program: Program, name: str, method: str) -> None:
    query, *words = QUERIES[name]
    reply = ask(program.url, method, "query", query=query, time=NOW_MS / 1000)
    assert reply.status in (400, 422), reply.body[:300]
    answer = reply.json()
    assert answer["status"] == "error" and answer["errorType"] in ("bad_data", "execution")
    assert all(word in answer["error"] for word in words) and 5 < len(answer["error"]) < 1000, answer


FINE_QUERIES = {
    "a regex that ruins backtracking": 'known{i=~"(a|a)*b"}',
    "another": 'known{i=~"(.*)*(.*)*(.*)*x"}',
    "a tiny number": "0." + "0" * 5000 + "1",
    "150 parentheses": "(" * 150 + "known" + ")" * 150,
    "an offset of 200 years": "known offset 200y",
    "an offset of -200 years": "known offset -200y",
    "everything": '{__name__=~".+"}',
    "a range of 200 years": "count_over_time(known[200y])",
    "a huge k": "topk(9e15, known)",
    "a quantile of NaN": "quantile(NaN, known)",
}


@pytest.mark.parametrize("name", FINE_QUERIES)
def test_queries_that_only_look_bad(program: Program, name: str) -> None:
    reply = ask(program.url, "POST", "query", query=FINE_QUERIES[name], time=NOW_MS / 1000)
    assert reply.status == 200, reply.body[:300]


def test_costly_queries_end_at_a_limit_and_free_their_memory(program: Program) -> None:
    before = program.memory_bytes("VmRSS")
    for query in ("known[10y:1ms]", "sum_over_time((known * 1)[1y:100ms])", "max_over_time(vector(1)[100y:1s])"):
        reply = ask(program.url, "POST", "query", query=query, time=NOW_MS / 1000)
        assert reply.status in (422, 503), (query, reply.body[:300])
        assert "limit" in reply.json()["error"] or "load too many samples" in reply.json()["error"], reply.body
    assert program.memory_bytes("VmRSS") - before < 200 << 20


PARAMETERS = {
    "time of NaN": ("query", {"query": "1", "time": "NaN"}, '"time"'),
    "time of Inf": ("query", {"query": "1", "time": "Inf"}, '"time"'),
    "time of text": ("query", {"query": "1", "time": "yesterday"}, '"time"'),
    "time without a zone": ("query", {"query": "1", "time": "2026-01-01T00:00:00"}, '"time"'),
    "a timeout of text": ("query", {"query": "1", "timeout": "soon"}, '"timeout"'),
    "a lookback of text": ("query", {"query": "1", "lookback_delta": "far"}, '"lookback_delta"'),
    "a negative limit": ("query", {"query": "1", "limit": "-1"}, '"limit"'),
    "a limit of text": ("query", {"query": "1", "limit": "²"}, '"limit"'),
    "a limit of 5,000 digits": ("query", {"query": "1", "limit": "9" * 5000}, '"limit"'),
    "a time of 5,000 digits": ("query", {"query": "1", "time": "9" * 5000}, '"time"', "5000 characters", "64"),
    "a step of 5,000 digits": ("query_range", {"query": "1", "start": 1, "end": 2, "step": "9" * 5000 + "s"}, '"step"', "64"),
    "no start": ("query_range", {"query": "1", "end": 1, "step": 1}, '"start"'),
    "no end": ("query_range", {"query": "1", "start": 1, "step": 1}, '"end"'),
    "no step": ("query_range", {"query": "1", "start": 1, "end": 2}, '"step"'),
    "end before start": ("query_range", {"query": "1", "start": 2, "end": 1, "step": 1}, '"end"'),
    "a step of 0": ("query_range", {"query": "1", "start": 1, "end": 2, "step": 0}, '"step"'),
    "a step of -1": ("query_range", {"query": "1", "start": 1, "end": 2, "step": -1}, '"step"'),
    "a step of NaN": ("query_range", {"query": "1", "start": 1, "end": 2, "step": "NaN"}, '"step"'),
    "a step below 1 ms": ("query_range", {"query": "1", "start": 1, "end": 2, "step": "0.0001"}, '"step"'),
    "ten years at 1 s": ("query_range", {"query": "1", "start": 0, "end": 315_360_000, "step": 1}, "11,000 points"),
    "all of time": ("query_range", {"query": "1", "start": "-9e18", "end": "9e18", "step": "1"}, "11,000 points"),
    "series without match": ("series", {}, "match[]"),
    "series with a bad match": ("series", {"match[]": "{"}, '"match[]"'),
    "series with an empty match": ("series", {"match[]": "{}"}, "match[]"),
    "200 matches": ("series", {"match[]": ["a"] * 200}, "200 selectors", "128"),
    "labels with a bad start": ("labels", {"start": "x"}, '"start"'),
    "labels that end before they start": ("labels", {"start": 2, "end": 1}, '"end"'),
    "values with a bad match": ("label/a/values", {"match[]": 'a{b=~"("}'}, '"match[]"'),
    "exemplars of no query": ("query_exemplars", {"query": "("}, "parse error"),
    "cardinality of none": ("status/tsdb", {"limit": "0"}, '"limit"', "10000"),
    "two thousand parameters": ("query", {f"p{i}": 1 for i in range(2000)}, "2000 parameters", "1000"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_bad_parameters(program: Program, name: str) -> None:
    path, params, *words = PARAMETERS[name]
    reply = ask(program.url, "POST", path, **params)
    assert reply.status == 400, reply.body[:300]
    answer = reply.json()
    assert answer["errorType"] == "bad_data" and all(word in answer["error"] for word in words), answer
    assert len(answer["error"]) < 1000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/write", 405), ("PUT", "/api/v1/write", 405), ("DELETE", "/api/v1/push", 405),
        ("PATCH", "/api/v1/query", 405), ("DELETE", "/api/v1/series", 405), ("POST", "/metrics", 405),
        ("BREW", "/api/v1/query", 400), ("GET", "/api/v1/nothing", 404), ("GET", "/api/v1/query/", 404),
        ("GET", "//api/v1/query", 404), ("GET", "/api/v1/label//values", 400), ("GET", "/..", 404),
        ("GET", "/api/v1/../../etc/passwd", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/" + "x" * 5000, 404),
        ("GET", "/api/v1/label/%ff/values", 200), ("GET", "/api/v1/label/..%2f..%2fx/values", 200),
    ],
)  # fmt: skip
def test_methods_and_paths(program: Program, method: str, path: str, status: int) -> None:
    reply = call(program.url, method, path, headers=TENANT)
    assert reply.status == status and b"root:" not in reply.body and len(reply.body) < 1000
    assert status != 405 or reply.headers["allow"]


def test_forms_that_are_none(program: Program) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"} | TENANT
    for body in (b"query=%ff", b"query=\xff", b"query=%zz%", b"&&&===", b"\x00" * 100):
        assert call(program.url, "POST", "/api/v1/query", body, form).status == 400
    packed = gzip.compress(b"query=known")
    assert call(program.url, "POST", "/api/v1/query", packed, form | {"Content-Encoding": "gzip"}).status in (400, 415)
    assert call(program.url, "POST", "/api/v1/query", b"x" * (5 << 20), form).status == 413
    assert (
        call(program.url, "POST", "/api/v1/query", b'{"query": "known"}', TENANT | {"Content-Type": "application/json"}).status
        == 400
    )


RAW = {
    "no request": (b"hello\r\n\r\n", b"400"),
    "a header without an end": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 400_000, b"4"),
    "two lengths": (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
    "a length and chunks": (
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"
    ),
    "a negative length": (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n", b"400"),
    "a bad chunk": (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", b"400"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_http(program: Program, name: str) -> None:
    sent, status = RAW[name]
    host, _, port = urlsplit(program.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        connection.settimeout(10)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(1000)
    assert not answer or answer.startswith(b"HTTP/1.1 " + status), answer


def test_a_body_that_never_comes_holds_nothing_up(program: Program) -> None:
    host, _, port = urlsplit(program.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: team-a\r\nContent-Length: 1000\r\n\r\nabc")
        assert ask(program.url, "GET", "query", query="1").status == 200


WALL: dict[str, tuple[list[str], int]] = {
    "absent": ([], 401), "empty": ([""], 401), "two headers": (["team-a", "victim"], 400),
    "twice the same": (["victim", "victim"], 400), "empty first": (["|victim"], 400), "empty last": (["victim|"], 400),
    "empty between": (["team-a||victim"], 400), "a bar": (["|"], 400), "a slash": (["team-a/victim"], 400), "up": ([".."], 400),
    "here": (["."], 400), "up and across": (["../victim"], 400), "down and up": (["team-a/../victim"], 400),
    "percent up": (["%2e%2e%2fvictim"], 400), "percent slash": (["team-a%2fvictim"], 400),
    "percent of a letter": (["%76ictim"], 400), "backslash": (["..\\victim"], 400), "a tab within": (["team-a\tvictim"], 400),
    "a control byte": (["victim\x01"], 400), "not ASCII": (["victim\xe9"], 400), "a colon": (["team-a:victim"], 400),
    "a comma": (["team-a,victim"], 400), "151 bytes": (["v" * 151], 400), "reserved": (["__markers__"], 400),
    "a star": (["*"], 200), "another case": (["VICTIM"], 200), "a quote": (["'victim'"], 200),
    "seventeen": (["|".join(f"t{i}" for i in range(17))], 400),
}  # fmt: skip
READS = [
    f"/api/v1/query?query={SECRET}&time={NOW_MS / 1000}",
    f"/api/v1/query?query=%7B__name__%3D~%22.%2B%22%7D&time={NOW_MS / 1000}",
    f"/api/v1/query_range?query={SECRET}&start={NOW_MS / 1000 - 60}&end={NOW_MS / 1000}&step=15",
    f"/api/v1/series?match[]={SECRET}",
    "/api/v1/labels",
    "/api/v1/label/__name__/values",
    "/api/v1/metadata",
    f"/api/v1/query_exemplars?query={SECRET}&start=0&end={NOW_MS / 1000}",
    "/api/v1/status/tsdb",
]


@pytest.mark.parametrize("name", WALL)
def test_the_tenant_wall(program: Program, name: str) -> None:
    ids, status = WALL[name]
    for path in READS:
        for prefix in ("/api/v1", "/prometheus/api/v1", "/api/prom/api/v1"):
            reply = _as_tenant(program.url, "GET", path.replace("/api/v1", prefix, 1), ids)
            assert reply.status == status, (path, reply.body)
            if status == 200:
                assert not reply.json()["data"] or SECRET not in json.dumps(reply.json()["data"]), path
            else:
                assert any(word in reply.body.lower() for word in (b"org", b"tenant", b"invalid http request"))


@pytest.mark.parametrize("name", WALL)
def test_explain_is_behind_the_wall_too(program: Program, name: str) -> None:
    ids, status = WALL[name]
    path = f"/api/v1/query_explain?query={SECRET}&time={NOW_MS / 1000}"
    nobody = _as_tenant(program.url, "GET", path, ["nobody"])
    reply = _as_tenant(program.url, "GET", path, ids)
    assert reply.status == status and nobody.status == 200
    assert status != 200 or reply.body == nobody.body != _as_tenant(program.url, "GET", path, ["victim"]).body


@pytest.mark.parametrize("name", WALL)
def test_the_tenant_wall_for_writes(program: Program, name: str) -> None:
    ids, status = WALL[name]
    batch = WriteBatch.of(
        [Labels.of({"__name__": "smuggled"})], row=np.zeros(1, np.int32), t_ms=np.full(1, NOW_MS), values=np.ones(1)
    )
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
    reply = _as_tenant(program.url, "POST", "/api/v1/push", ids, encode_v1(batch), headers)
    assert reply.status == (204 if status == 200 else 400 if status == 400 else status), reply.body
    for tenant in ("victim", "team-a"):
        found = call(program.url, "GET", f"/api/v1/query?query=smuggled&time={NOW_MS / 1000}", headers={"X-Scope-OrgID": tenant})
        assert found.json()["data"]["result"] == []


def test_writes_are_of_one_tenant(program: Program) -> None:
    body = request([("__name__", "up")], t_ms=NOW_MS)
    reply = _as_tenant(program.url, "POST", "/api/v1/push", ["team-a|victim"], body, {"Content-Type": "application/x-protobuf"})
    assert reply.status == 400 and b"team-a|victim" in reply.body


def test_a_cheap_query_never_waited(program: Program, probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    """Last in this file: what the probe has seen under all of it."""
    with capsys.disabled():
        print(f"\n{probe.count} cheap queries beside all bad input: {probe.worst_s * 1000:.0f} ms at worst")
    assert program.process.poll() is None
    assert not probe.failures, probe.failures[:3]
    assert probe.count > 20


def _as_tenant(url: str, method: str, path: str, ids: list[str], body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
    """One request with as many tenant headers as there are ids, byte for byte."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.putrequest(method, path)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        for one in ids:
            connection.putheader("X-Scope-OrgID", one.encode("latin-1"))
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()

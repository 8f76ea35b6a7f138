"""The Prometheus project's remote-write receiver compliance suite against a real server, by both protocols, and what it leaves out:
what was acknowledged is read back bit for bit, from a log whose process was killed and from the blocks made of it."""

import struct
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.peers import treering
from remote.protos import write_v2_pb2
from remote.wire.client import HEADERS, histogram_message
from tests.treering.server import Reply, call
from tests.treering.write_cases import Case, Sent, body_v1, body_v2, cases
from treering.config import Config
from treering.library.listing import select_all
from treering.node import Node
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch

CASES = cases()
KINDS = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
NOW_MS = int(time.time() * 1000)
FIRST_MS = NOW_MS - 300_000
"""Case i is sent as of FIRST_MS + 2i by 1.0 and one later by 2.0: cases share series, and no two share a time."""

Stored = dict[tuple[Labels, int], tuple[int, bytes | None, int]]
"""By series and time: the float's bits, the histogram's message, the start time."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of all cases."""

    replies: dict[tuple[str, int], Reply]
    exemplars: list[tuple[Labels, Labels, int, str]]
    metadata: dict[str, list[dict[str, str]]]
    replayed: Stored
    flushed: Stored


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder: Path = tmp_path_factory.mktemp("compliance") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with treering(folder) as program:
            replies = {}
            for i, case in enumerate(CASES):
                for version in (1, 2):
                    replies[case.name, version] = send(program.url, case, version, sent_ms(i, version))
            exemplars = list(shown(program.url))
            metadata = call(program.url, "GET", "/api/v1/metadata").json()["data"]
            program.kill()
        with Node(Config(data=str(folder))) as node:
            replayed = stored(select_all(node.source(("anonymous",)), (), start_ms=0, end_ms=NOW_MS * 2))
            node.flush()
            assert node.active_series() == 0
            flushed = stored(select_all(node.source(("anonymous",)), (), start_ms=0, end_ms=NOW_MS * 2))
    yield Ran(replies, exemplars, metadata, replayed, flushed)


def send(url: str, case: Case, version: int, at_ms: int) -> Reply:
    body = (body_v1 if version == 1 else body_v2)(case, at_ms)
    return call(url, "POST", "/api/v1/write", body, HEADERS[version] | {"Content-Encoding": "snappy"})


def sent_ms(i: int, version: int) -> int:
    return FIRST_MS + 2 * i + version - 1


def shown(url: str) -> Iterator[tuple[Labels, Labels, int, str]]:
    """All exemplars that the server shows: labels of the series and their own, time, value as text."""
    query = urllib.parse.urlencode({"query": '{__name__=~".+"}', "start": 0, "end": NOW_MS})
    for series in call(url, "GET", f"/api/v1/query_exemplars?{query}").json()["data"]:
        for one in series["exemplars"]:
            yield Labels.of(series["seriesLabels"]), Labels.of(one["labels"]), round(one["timestamp"] * 1000), one["value"]


def stored(batch: SeriesBatch) -> Stored:
    found: Stored = {}
    for i, labels in enumerate(batch.series.rows()):
        for j in range(batch.offsets[i], batch.offsets[i + 1]):
            at = -1 if batch.histogram_at is None else int(batch.histogram_at[j])
            native = None if at < 0 or batch.histograms is None else text_of(histogram_message(batch.histograms, at))
            bits = struct.unpack("<Q", struct.pack("<d", batch.values[j]))[0] if native is None else 0
            start_ms = 0 if batch.start_ms is None else int(batch.start_ms[j])
            found[labels, int(batch.t_ms[j])] = (bits, native, start_ms)
    return found


def text_of(histogram: write_v2_pb2.Histogram) -> bytes:
    """A message's bytes without times and hint, an absent zero count spelt out."""
    message = write_v2_pb2.Histogram()
    message.CopyFrom(histogram)
    message.ClearField("timestamp")
    message.ClearField("start_timestamp")
    message.ClearField("reset_hint")
    if message.WhichOneof("zero_count") is None:
        message.zero_count_int = 0
    return message.SerializeToString(deterministic=True)


def kept(case: Case) -> list[Sent]:
    """The series of a case that must be stored."""
    return [sent for sent in case.series if sent.named() and (case.fine or sent.histogram is None)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer(ran: Ran, case: Case, version: int) -> None:
    reply = ran.replies[case.name, version]
    assert reply.status == (204 if case.fine else 400), reply.body
    assert bool(reply.body) != case.fine, "what is refused is told in words"
    counts = tuple(
        reply.headers.get(f"x-prometheus-remote-write-{kind}-written") for kind in ("samples", "histograms", "exemplars")
    )
    assert counts == ((None, None, None) if version == 1 else tuple(map(str, case.written)))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_acknowledged_is_there_bit_for_bit(ran: Ran, case: Case, version: int) -> None:
    samples = histograms = 0
    for sent in kept(case):
        key = Labels.of(sent.labels), sent_ms(CASES.index(case), version) + sent.shift_ms
        start_ms = key[1] - sent.start_ms if sent.start_ms and version == 2 else 0
        for found in (ran.replayed, ran.flushed):
            if sent.value is not None:
                assert found[key] == (struct.unpack("<Q", struct.pack("<d", sent.value))[0], None, start_ms)
            elif sent.histogram is not None:
                assert found[key] == (0, text_of(sent.histogram), start_ms)
            else:
                assert key not in found
        samples, histograms = samples + (sent.value is not None), histograms + (sent.histogram is not None)
    assert (samples, histograms) == case.written[:2]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", [case for case in CASES if case.written[2]], ids=lambda case: case.name)
def test_exemplars_are_shown(ran: Ran, case: Case, version: int) -> None:
    at_ms = sent_ms(CASES.index(case), version)
    for sent in kept(case):
        for one in sent.exemplars:
            key = (Labels.of(sent.labels), Labels.of(one.labels), at_ms + one.shift_ms)
            values = [value for *found, value in ran.exemplars if tuple(found) == key]
            assert len(values) == 1
            assert float(values[0]) == one.value or (one.value != one.value and values[0] == "NaN")


LAST_TOLD = {sent.labels["__name__"]: sent.family for case in CASES for sent in kept(case) if sent.family is not None}
"""A later word about a family takes the place of an earlier one."""


@pytest.mark.parametrize("metric", LAST_TOLD)
def test_metadata_is_shown(ran: Ran, metric: str) -> None:
    family = LAST_TOLD[metric]
    assert ran.metadata[metric] == [{"type": KINDS[family.kind], "help": family.about, "unit": family.unit}]


def test_nothing_else_is_there(ran: Ran) -> None:
    expected = {
        (Labels.of(sent.labels), sent_ms(i, version) + sent.shift_ms)
        for i, case in enumerate(CASES)
        for version in (1, 2)
        for sent in kept(case)
        if sent.value is not None or sent.histogram is not None
    }
    assert set(ran.replayed) == set(ran.flushed) == expected

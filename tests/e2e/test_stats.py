"""The statistics of a query beside a real Prometheus's: the same samples looked at, in all and on each step."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.peers import PROMETHEUS, Program, installed, prometheus, treering
from remote.wire.client import encode_v1
from tests.treering.server import call
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch

V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
NOW_MS = int(time.time() * 1000) // 60_000 * 60_000
OFFSET_MS = 3_337
"""No sample lies on the edge of a window: Prometheus 2 and 3 close windows on different sides."""

QUERIES = [
    "m_total",
    "rate(m_total[5m])",
    "sum by (job) (rate(m_total[5m]))",
    "sum(m_total) / sum(m_total)",
    "sum(rate(m_total[5m])) / count(rate(m_total[5m]))",
    f"sum(m_total @ {NOW_MS / 1000}) + m_total",
    f"rate(m_total[5m] @ {NOW_MS / 1000 - 60})",
    "max_over_time(rate(m_total[2m])[570s:1m])",
    "sum_over_time(sum_over_time(m_total[170s:1m])[290s:1m])",
    "max_over_time(sum by (job) (m_total)[585s:30s])",
    "topk(2, m_total offset 5m)",
    "timestamp(m_total)",
    "absent_over_time(m_total[5m])",
    "count_over_time(nothing[5m])",
    "m_total and on (job) m_total > 3",
    "1 + 2",
    "vector(time())",
]

pytestmark = pytest.mark.skipif(not installed(PROMETHEUS), reason="needs Prometheus")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Program]]:
    folder = tmp_path_factory.mktemp("stats")
    rng = np.random.default_rng(5)
    rows = [Labels.of({"__name__": "m_total", "i": str(i), "job": f"j{i % 3}"}) for i in range(7)]
    keep = rng.random((240, 7)) < 0.8
    row = np.tile(np.arange(7, dtype=np.int32), 240)[keep.ravel()]
    t_ms = np.repeat(NOW_MS - OFFSET_MS - np.arange(240)[::-1] * 15_000, 7)[keep.ravel()]
    body = encode_v1(WriteBatch.of(rows, row=row, t_ms=t_ms, values=np.arange(float(len(row)))))
    with (
        prometheus(folder / "prometheus", "--enable-feature=promql-per-step-stats,promql-at-modifier") as theirs,
        treering(folder / "treering", "--enable-feature", "promql-per-step-stats") as ours,
    ):
        for program in (theirs, ours):
            assert call(program.url, "POST", "/api/v1/write", body, V1).status in (200, 204)
        yield theirs, ours


@pytest.mark.parametrize("query", QUERIES)
def test_the_same_samples_are_looked_at(programs: tuple[Program, Program], query: str) -> None:
    form = {"query": query, "start": NOW_MS / 1000 - 1800, "end": NOW_MS / 1000, "step": 60, "stats": "all"}
    theirs, ours = (json.loads(call(p.url, "POST", "/api/v1/query_range", form).body)["data"]["stats"]["samples"] for p in programs)
    for name in ("totalQueryableSamples", "totalQueryableSamplesPerStep"):
        assert ours[name] == theirs[name], name

"""Compile or load kernels before the first request: one small journey through a throw-away store.

On the very first start of an installation a helper process compiles those of the wire and of queries at the same time, and then the
rarer ones; Numba's cache on disk brings them together.
"""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from promql.engine import query_instant, query_range
from promql.matrix import Steps
from remote.wire.client import encode_v1, encode_v2
from remote.wire.decode import decode_write
from remote.wire.limits import WireLimits
from treering.config import Config
from treering.http.json_text import query_response
from treering.node import Node, Query
from tsdb.kernel.hash import hash_bytes
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection
from tsdb.model.write import WriteBatch

QUERIES = (
    "up",
    "up + on(job) up * 0.5",
    "sum by (job) (rate(up[2m]))",
    "topk(1, max_over_time(up[2m]))",
    "quantile(0.5, quantile_over_time(0.5, up[2m]))",
    "avg_over_time(up[2m:1m])",
    "label_replace(up, 'x', '$1', 'job', '(.*)')",
)
"""Together they reach the kernels that nearly every dashboard uses."""

RARER_QUERIES = (
    "deriv(up[2m])",
    "histogram_quantile(0.9, label_replace(up, 'le', '1', 'job', 'a') or label_replace(up, 'le', '+Inf', 'job', 'b'))",
)
STEP_MS, POINTS = 5_000, 40


def warm_kernels() -> "subprocess.Popen[bytes] | None":
    """Make all that a first dashboard needs ready; some ten seconds on the very first start, tenths of a second on later ones.

    On the first start, returns the helper process that goes on with what is rarely needed; the caller ends it.
    """
    helper = None if _compiled() else subprocess.Popen([sys.executable, "-m", "treering.warm"], stdout=subprocess.PIPE)
    collecting = gc.isenabled()
    gc.disable()  # the compiler makes millions of objects that live; collecting among them takes a tenth of its time
    try:
        _store_journey()
        if helper is not None and helper.stdout is not None:
            helper.stdout.readline()  # it has compiled what the rest needs, or has failed; then that is compiled here
        _decode(1)
        query_journey(QUERIES)
    finally:
        if collecting:
            gc.enable()
    return helper


def query_journey(queries: Sequence[str]) -> None:
    """Ask everything over samples in memory: the kernels of the language and of answers, and no others."""
    steps = Steps((POINTS // 2) * STEP_MS, (POINTS - 1) * STEP_MS, 30_000)
    for text in queries:
        query_response(query_range(_Samples(), text, steps))
        query_response(query_instant(_Samples(), text, steps.end_ms))


def _compiled() -> bool:
    """Whether an earlier start has left compiled kernels where this one looks for them."""
    place = hash_bytes.stats.cache_path
    return place is not None and any(Path(place).glob("*.nbi"))


def _store_journey() -> None:
    """Write, flush, read back: the kernels of the head and of blocks."""
    with tempfile.TemporaryDirectory() as folder, Node(Config(data=folder, wal_sync="os")) as node:
        start_ms = node.now_ms() - POINTS * STEP_MS
        batch = _batch(start_ms)
        node.push("anonymous", batch)
        for _ in ("head", "block", "both"):
            node.query(("anonymous",), Query("up", start_ms, node.now_ms(), 30_000))
            node.flush()
            node.push("anonymous", batch)


def _decode(version: int) -> None:
    body = encode_v1(_batch(0)) if version == 1 else encode_v2(_batch(0))
    content_type = "application/x-protobuf" + (";proto=io.prometheus.write.v2.Request" if version == 2 else "")
    decode_write(body, content_type=content_type, content_encoding="snappy", limits=WireLimits())


def _batch(start_ms: int) -> WriteBatch:
    row = np.tile(np.arange(2, dtype=np.int32), POINTS)
    times = np.repeat(start_ms + np.arange(POINTS, dtype=np.int64) * STEP_MS, 2)
    return WriteBatch.of(_rows(), row=row, t_ms=times, values=np.arange(2 * POINTS) / 7)


def _rows() -> list[Labels]:
    return [Labels.of({METRIC_NAME: "up", "job": job}) for job in ("a", "b")]


class _Samples:
    """A `Source` of two short series."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        times = np.tile(np.arange(POINTS, dtype=np.int64) * STEP_MS, 2)
        offsets = np.array([0, POINTS, 2 * POINTS], np.int64)
        batch = SeriesBatch(SeriesTable.of(_rows()), offsets, times, np.arange(2 * POINTS) / 7)
        yield batch.clip(selection.start_ms, selection.end_ms)

    def series(self, selection: Selection) -> SeriesTable:
        return SeriesTable.of(_rows())


if __name__ == "__main__":
    gc.disable()
    _decode(1)
    query_journey(QUERIES)
    print("ready", flush=True)
    query_journey(RARER_QUERIES)
    _decode(2)

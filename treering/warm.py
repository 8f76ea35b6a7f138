"""Load kernels before the first request, by small journeys through a throw-away store.

Until all kernels are compiled, each start has helper processes compile them, half of the work each: a process that has compiled
keeps 140 MB of the compiler's. When those of a first dashboard are there, the server loads them from Numba's cache on disk and is
ready, and the helpers go on with those that are needed later. Each leaves a mark beside the kernels when its own are all there, so
that a start after an upgrade, or after one that was cut short, begins anew.
"""

import gc
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
from llvmlite import binding

import tsdb.kernel
from promql.engine import Answer, query_instant, query_range
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
from tsdb.model.windows import RESOLUTIONS_MS, windows_of
from tsdb.model.write import WriteBatch

QUERIES = (
    "sum by (job) (rate(up[2m]))",
    "topk(1, up + on(job) up * 0.5)",
    "label_replace(up, 'x', '$1', 'job', '(.*)')",
)
WINDOW_QUERIES = ("max_over_time(up[2m])",)
"""Together they reach the kernels that nearly every dashboard uses; these reach none that the others do."""

RARER_QUERIES = (
    "count_over_time(up[2m])",
    "deriv(up[2m])",
    "histogram_quantile(0.9, label_replace(up, 'le', '1', 'job', 'a') or label_replace(up, 'le', '+Inf', 'job', 'b'))",
)
STEP_MS, POINTS = 5_000, 40

HELPERS = ("memory", "wire")
"""The helper processes, by what they compile first."""


def warm_kernels() -> "list[subprocess.Popen[bytes]]":
    """Make all that a first dashboard needs ready; some ten seconds on the very first start, tenths of a second on later ones.

    On the first start, returns the helper processes that go on with what is needed later; the caller ends them.
    """
    command = [sys.executable, "-m", "treering.warm"]
    helpers = [] if _compiled() else [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in HELPERS]
    for helper in helpers:
        assert helper.stdout is not None
        helper.stdout.readline()  # its part is there, or it has failed; then that is compiled here
    _memory_and_answers()
    _wire_and_windows()
    if not helpers:
        _block_journey()
    return helpers


def load_rarer_kernels() -> None:
    """The kernels that a first dashboard may do without: they are loaded while requests are served already."""
    query_journey(RARER_QUERIES)
    _downsampled_journey()
    _decode(2)


def query_journey(queries: Sequence[str]) -> list[Answer]:
    """The answers of queries over samples in memory: the kernels of the language, and no others."""
    steps = Steps((POINTS // 2) * STEP_MS, (POINTS - 1) * STEP_MS, 30_000)
    ranges = [query_range(_Samples(), text, steps) for text in queries]
    return ranges + [query_instant(_Samples(), text, steps.end_ms) for text in queries]


def help_to_compile(name: str) -> None:
    """A helper process: says "ready" once what the server waits for is compiled, and leaves its mark once all is."""
    gc.disable()  # the compiler makes millions of objects that live; collecting among them takes a tenth of its time
    if name == "memory":
        _memory_and_answers()
        print("ready", flush=True)
        _block_journey()
    else:
        _wire_and_windows()
        print("ready", flush=True)
        load_rarer_kernels()
    with suppress(OSError):  # the next start then compiles once more
        _mark(name).write_text(_state())


def _compiled() -> bool:
    """Whether helpers have compiled all kernels, as they are now, where this process looks for them."""
    with suppress(OSError):
        return all(_mark(name).read_text() == _state() for name in HELPERS)
    return False


def _mark(name: str) -> Path:
    """The file beside the compiled kernels that says of which state of their sources, of Numba and of the machine a helper's are
    there. It is named like Numba's (nbi, nbc), to be removed together with them."""
    return Path(hash_bytes.stats.cache_path or tempfile.gettempdir()) / f"treering-{name}.nbm"


def _state() -> str:
    """A digest of what the compiled kernels depend on: their sources' sizes and times, which Numba looks at too, Numba, the CPU."""
    sources = sorted(Path(tsdb.kernel.__file__).parent.glob("*.py"))
    stamps = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sources]
    return hashlib.sha256("\n".join([numba.__version__, binding.get_host_cpu_name(), *stamps]).encode()).hexdigest()


def _memory_and_answers() -> None:
    """Write, read back from memory, and ask: the kernels of the head and of answers."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Config(data=folder, wal_sync="os"))
        start_ms = node.now_ms() - POINTS * STEP_MS
        node.push("anonymous", _batch(start_ms))
        node.query(("anonymous",), Query("up", start_ms, node.now_ms(), 30_000))
        node.close(flush=False)
    for answer in query_journey(QUERIES):
        query_response(answer)


def _block_journey() -> None:
    """Write, start again, flush, read what is in a block only, and what is in memory too: the kernels of the log and of blocks."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config(data=folder, wal_sync="os")
        node = Node(config)
        start_ms = node.now_ms() - POINTS * STEP_MS
        node.push("anonymous", _batch(start_ms))
        node.close(flush=False)
        with Node(config) as node:
            for _ in ("block", "both"):
                node.push("anonymous", _batch(start_ms))
                node.query(("anonymous",), Query("up", start_ms, node.now_ms(), 30_000))
                node.flush()
                node.query(("anonymous",), Query("up", start_ms, start_ms + POINTS // 2 * STEP_MS, 30_000))  # half of its page


def _wire_and_windows() -> None:
    _decode(1)
    query_journey(WINDOW_QUERIES)


def _downsampled_journey() -> None:
    """A function over downsampled samples."""
    window_ms = RESOLUTIONS_MS[0]
    query_range(_Samples(window_ms), "rate(up[30m])", Steps(6 * window_ms, 12 * window_ms, window_ms))


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
    """A `Source` of two short series; with a resolution, of windows."""

    def __init__(self, resolution_ms: int = 0) -> None:
        self._resolution_ms = resolution_ms

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        times = np.tile(np.arange(POINTS, dtype=np.int64) * (self._resolution_ms or STEP_MS), 2)
        offsets = np.array([0, POINTS, 2 * POINTS], np.int64)
        batch = SeriesBatch(SeriesTable.of(_rows()), offsets, times, np.arange(2 * POINTS) / 7)
        if self._resolution_ms:
            batch = replace(batch, windows=windows_of(batch), resolution_ms=self._resolution_ms)
        yield batch.clip(selection.start_ms, selection.end_ms)

    def series(self, selection: Selection) -> SeriesTable:
        return SeriesTable.of(_rows())


if __name__ == "__main__":
    help_to_compile(sys.argv[1])

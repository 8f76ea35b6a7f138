"""A cold `sum by (x) (rate(m[1h]))` over months of blocks on a bucket that adds a delay to each request: raw, 5 m and 1 h.

usage: python -m benchmarks.year [--series 500] [--days 90] [--delay-ms 20] [--bucket FOLDER]

The blocks are what compaction leaves: raw ones of 28 days, and their windows. Each run has a store gateway of its own, with nothing
read; the answers are compared with that over raw samples. Bar: 2 s at 1 h.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from promql.answer import Answer, QueryOptions
from promql.engine import query_range
from promql.matrix import Matrix, Steps
from promql.resolution import AUTO
from remote.store_gateway import StoreGateway
from tsdb.block.meta import list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import Bucket, FolderBucket, PrefixBucket
from tsdb.bucket.key import ObjectInfo
from tsdb.compaction.bucket_index import Inventory, scan_bucket, write_index
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

TENANT = "anonymous"
QUERY = "sum by (x) (rate(m_total[1h]))"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STEP_MS = 15_000
START_MS = 1_790_208_000_000 // (28 * DAY_MS) * (28 * DAY_MS)
READ_THREADS = 16
SERIES_A_BATCH = 20


@dataclass(slots=True)
class SlowBucket:
    """A bucket whose reads take delay_s longer, counted."""

    inner: Bucket
    delay_s: float
    requests: int = 0
    read_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        time.sleep(self.delay_s)
        data = self.inner.get(key, start, size)
        with self.lock:
            self.requests += 1
            self.read_bytes += len(data)
        return data

    def size(self, key: str) -> int:
        self._wait()
        return self.inner.size(key)

    def exists(self, key: str) -> bool:
        self._wait()
        return self.inner.exists(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._wait()
        return self.inner.list(prefix)

    def folders(self, prefix: str = "") -> Iterator[str]:
        self._wait()
        return self.inner.folders(prefix)

    def put(self, key: str, data: bytes) -> None:
        raise AssertionError("a query writes nothing")

    def delete(self, key: str) -> None:
        raise AssertionError("a query deletes nothing")

    def sweep(self, before_ms: int) -> int:
        raise AssertionError("a query sweeps nothing")

    def _wait(self) -> None:
        time.sleep(self.delay_s)
        with self.lock:
            self.requests += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--delay-ms", type=float, default=20)
    parser.add_argument("--bucket", type=Path, help="a folder that is filled if it is empty, and kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bucket = FolderBucket(arguments.bucket or Path(name))
        own = PrefixBucket(bucket, TENANT)
        if not list_blocks(own):
            _fill(own, arguments.series, arguments.days)
        _print_sizes(own)
        end_ms = START_MS + arguments.days * DAY_MS
        steps = Steps(START_MS + HOUR_MS, end_ms - HOUR_MS, HOUR_MS)
        _ask(bucket, steps, 0, 0)  # compiles the kernels
        raw = None
        for text, resolution_ms in (("raw", 0), ("5 m", 300_000), ("1 h", HOUR_MS), ("auto", AUTO)):
            slow = SlowBucket(bucket, arguments.delay_ms / 1000)
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            answer = _ask(slow, steps, resolution_ms, end_ms)
            wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            raw = raw or answer
            print(
                f"{text:>5}: {wall_s:6.2f} s, {cpu_s:6.2f} CPU s, {slow.requests:>4} requests, {slow.read_bytes / 1e6:8.2f} MB, "
                f"{answer.stats.samples if answer.stats else 0:>12,} samples; {_difference(raw, answer)}"
            )


def _fill(bucket: Bucket, series: int, days: int) -> None:
    for start_ms in range(START_MS, START_MS + days * DAY_MS, 28 * DAY_MS):
        end_ms = start_ms + 28 * DAY_MS
        last_ms = min(end_ms, START_MS + days * DAY_MS)
        write_block(bucket, _batches(series, start_ms, last_ms), ulid=_ulid(start_ms), min_ms=start_ms, max_ms=end_ms, level=5)
    while jobs := plan_downsample(list_blocks(bucket), now_ms=1 << 50):
        for job in jobs:
            run_downsample(job, bucket, ulid=_ulid(job.min_ms))
    write_index(bucket, scan_bucket(bucket, Inventory()).inventory, scanned_ms=START_MS + days * DAY_MS)


def _print_sizes(bucket: Bucket) -> None:
    for resolution_ms in (0, 300_000, HOUR_MS):
        metas = [meta for meta in list_blocks(bucket) if meta.resolution_ms == resolution_ms]
        size, samples = sum(meta.size_bytes for meta in metas), sum(meta.samples for meta in metas)
        print(f"{resolution_ms // 60_000:>3} m: {len(metas)} blocks, {samples:,} samples, {size / 1e6:.1f} MB")


def _batches(series: int, start_ms: int, end_ms: int) -> Iterator[SeriesBatch]:
    """Counters of requests: busy by day, restarted now and then."""
    steps = np.arange((start_ms - START_MS) // STEP_MS, (end_ms - START_MS) // STEP_MS)
    for first in range(0, series, SERIES_A_BATCH):
        rows = range(first, min(series, first + SERIES_A_BATCH))
        labels = [Labels.of({"__name__": "m_total", "instance": f"i{i:05d}", "x": f"x{i % 10}"}) for i in rows]
        values = np.concatenate([_counter(i, steps) for i in rows])
        t_ms = np.tile(START_MS + steps * STEP_MS + 137, len(rows))
        yield SeriesBatch(SeriesTable.of(labels), np.arange(len(rows) + 1) * len(steps), t_ms, values)


def _counter(number: int, steps: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([number, int(steps[0])])
    day = 1 + np.sin(steps * (2 * np.pi * STEP_MS / DAY_MS) + number)
    rises = rng.poisson(20 * day).astype(float)
    total = np.cumsum(rises)
    return total - np.maximum.accumulate(np.where(rng.random(len(steps)) < 1e-5, total, 0.0))


def _ask(bucket: Bucket, steps: Steps, resolution_ms: int, now_ms: int) -> Answer:
    with ThreadPoolExecutor(READ_THREADS) as reads, ThreadPoolExecutor(2) as work:
        gateway = StoreGateway(bucket, executor=reads)
        gateway.refresh(now_ms)
        return query_range(gateway.source(TENANT), QUERY, steps, QueryOptions(resolution_ms=resolution_ms), executor=work)


def _difference(raw: Answer, answer: Answer) -> str:
    assert isinstance(raw.value, Matrix) and isinstance(answer.value, Matrix)
    if answer.value.values.shape != raw.value.values.shape:
        return f"shape {answer.value.values.shape} instead of {raw.value.values.shape}: {answer.warnings}"
    off = np.max(np.abs(answer.value.values / raw.value.values - 1), initial=0)
    notes = [info for info in answer.infos if "approximated" in info] + list(answer.warnings)
    return f"{len(answer.value)} series, off by {off:.1e}{'; ' + '; '.join(notes) if notes else ''}"


def _ulid(at_ms: int) -> str:
    return new_ulid(at_ms, os.urandom(10))


if __name__ == "__main__":
    main()

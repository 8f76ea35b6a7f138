"""A query over a million series: time and peak memory of `sum by (job) (rate(x[5m]))` over 240 million samples in one block.

usage: python -m benchmarks.million [--series N] [--runs N]
"""

import argparse
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.peers import Program, treering
from tsdb.block.block import new_ulid, write_block
from tsdb.bucket.bucket import FolderBucket
from tsdb.model.series import SeriesBatch, SeriesTable, strings

SCRAPE_MS, SAMPLES = 15_000, 240
QUERY = "sum by (job) (rate(http_requests_total[5m]))"
BATCH_SERIES = 4096
TARGET_SERIES, JOBS = 50, 10
"""Series of one instance, which differ in `path`; instances are spread over jobs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    choice = parser.parse_args()
    end_ms = int(time.time() * 1000) // 3_600_000 * 3_600_000
    start_ms = end_ms - SAMPLES * SCRAPE_MS
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name) / "treering", time.perf_counter()
        bucket = FolderBucket(folder / "bucket" / "anonymous")
        ulid = new_ulid(end_ms, b"0123456789")
        meta = write_block(bucket, batches(choice.series, start_ms), ulid=ulid, min_ms=start_ms, max_ms=end_ms)
        assert meta is not None
        print(f"{meta.series:,} series, {meta.samples:,} samples written in {time.perf_counter() - began:.1f} s")
        with treering(folder) as program:
            time.sleep(3)
            idle = program.memory_bytes("VmRSS")
            for step_s in (60, 0):
                for run in range(choice.runs):
                    seconds, cpu_s, peak, groups = ask(program, start_ms, end_ms, step_s)
                    kind = f"range, step {step_s} s" if step_s else "instant"
                    print(
                        f"{kind:<18} run {run}: {seconds:>7.2f} s wall, {cpu_s:>7.2f} s CPU, {groups} groups, "
                        f"peak {(peak - idle) / 2**20:>6.0f} MiB above {idle / 2**20:.0f} MiB idle",
                        flush=True,
                    )


def batches(series: int, start_ms: int) -> Iterator[SeriesBatch]:
    """Counters at 15 s for an hour: six labels, in the order of series."""
    instances = -(-series // TARGET_SERIES)
    texts = [f"10-{i:06}:8080" for i in range(instances)]
    texts += [f"/api/v1/{i:02}" for i in range(TARGET_SERIES)] + [f"job-{i}" for i in range(JOBS)]
    texts += ["http_requests_total", "eu-west-1", "GET"]
    symbols = sorted(texts)
    number = np.array([np.searchsorted(np.array(symbols), text) for text in texts], np.int32)
    names = ("__name__", "cluster", "instance", "job", "method", "path")
    rng = np.random.default_rng(1)
    t_ms = start_ms + np.arange(SAMPLES, dtype=np.int64) * SCRAPE_MS
    for first in range(0, series, BATCH_SERIES):
        rows = np.arange(first, min(first + BATCH_SERIES, series))
        instance, path = rows // TARGET_SERIES, rows % TARGET_SERIES
        fixed = [np.full(len(rows), number[i], np.int32) for i in (-3, -2, -1)]
        job = number[instances + TARGET_SERIES + instance % JOBS]
        ids = np.stack([fixed[0], fixed[1], number[instance], job, fixed[2], number[instances + path]])
        values = np.cumsum(rng.integers(0, 200, (len(rows), SAMPLES)), axis=1).astype(float)
        offsets = np.arange(len(rows) + 1, dtype=np.int64) * SAMPLES
        table = SeriesTable(strings(symbols), names, ids, True)
        yield SeriesBatch(table, offsets, np.tile(t_ms, len(rows)), values.ravel())


def ask(program: Program, start_ms: int, end_ms: int, step_s: int) -> tuple[float, float, int, int]:
    """(wall seconds, CPU seconds, peak resident bytes, series answered)."""
    form = {"query": QUERY, "timeout": "300s"}
    form |= (
        {"start": str(start_ms // 1000), "end": str(end_ms // 1000), "step": str(step_s)}
        if step_s
        else {"time": str(end_ms // 1000 - 1)}
    )
    url = program.url + ("/api/v1/query_range?" if step_s else "/api/v1/query?") + urllib.parse.urlencode(form)
    peak, done = [program.memory_bytes("VmRSS")], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(program.memory_bytes("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, began = program.cpu_s(), time.perf_counter()
    try:
        with urllib.request.urlopen(url, timeout=600) as response:
            data = response.read()
    finally:
        done.set()
        watcher.join()
    return time.perf_counter() - began, program.cpu_s() - cpu, max(peak), data.count(b'"metric"')


if __name__ == "__main__":
    main()

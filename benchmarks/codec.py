"""Bytes a sample and speed of pages and blocks: on the real scrapes of a folder, and on 5,000 synthetic series.

usage: python benchmarks/codec.py FOLDER       (a folder with `load.py` that gives labels, offsets, times and values)
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tsdb.block.block import Block, BlockMeta, new_ulid, verify_block, write_block
from tsdb.bucket.bucket import FolderBucket
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection

EVERYTHING = Selection((), MIN_MS, MAX_MS)


def main(folder: Path) -> None:
    print(f"{'':34}{'samples':>12}{'B/sample':>10}{'pages':>8}{'index':>8}{'write M/s':>11}{'read M/s':>10}{'read ms':>9}")
    real = real_batch(folder)
    report("real scrapes", real)
    report("5,000 series × 1,440 at 15 s", synthetic_batch(5000, 1440))
    report("2,000 series × 480 at 15 s", synthetic_batch(2000, 480))


def report(name: str, batch: SeriesBatch) -> None:
    """Write a batch as a block and read it back; CPU seconds, the best of three."""
    with tempfile.TemporaryDirectory() as folder:
        bucket = FolderBucket(Path(folder))

        def write() -> BlockMeta | None:
            bounds = int(batch.t_ms.min()), int(batch.t_ms.max()) + 1
            return write_block(bucket, [batch], ulid=new_ulid(0, bytes(10)), min_ms=bounds[0], max_ms=bounds[1])

        meta = write()
        assert meta is not None and not verify_block(bucket, meta)
        block = Block(bucket, meta)
        write_s = best(write)
        read_s = best(lambda: sum(part.samples for part in block.select(EVERYTHING)))
    m = batch.samples
    index = next(part.size_bytes for part in meta.objects if part.name == "index")
    sizes = f"{meta.size_bytes / m:10.4f}{(meta.size_bytes - index) / m:8.4f}{index / m:8.4f}"
    print(f"{name:34}{m:12,}{sizes}{m / write_s / 1e6:11.1f}{m / read_s / 1e6:10.1f}{read_s * 1e3:9.1f}")


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def real_batch(folder: Path) -> SeriesBatch:
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    labels, offsets, t_ms, values = module.load()
    batch = SeriesBatch(SeriesTable.of([Labels.of(row) for row in labels]), offsets.astype(np.int64), t_ms, values)
    return batch.take(batch.series.order())


def synthetic_batch(series: int, samples: int) -> SeriesBatch:
    """Half counters, half noisy gauges with two decimals."""
    rng = np.random.default_rng(1)
    counters = np.cumsum(rng.integers(0, 100, (series, samples)), axis=1).astype(float)
    gauges = np.round(rng.normal(100, 5, (series, samples)), 2)
    values = np.where((np.arange(series) % 2)[:, None] == 0, counters, gauges).ravel()
    rows = [Labels.of({"__name__": f"metric_{i // 500:02d}", "instance": f"host-{i:05d}", "job": "node"}) for i in range(series)]
    t_ms = np.tile(np.arange(samples, dtype=np.int64) * 15_000, series)
    return SeriesBatch(SeriesTable.of(rows), np.arange(series + 1, dtype=np.int64) * samples, t_ms, values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

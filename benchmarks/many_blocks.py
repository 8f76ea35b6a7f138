"""10,000 blocks of 200 tenants: from nothing to a store gateway that answers: seconds, requests, memory; and what a query costs.

usage: python -m benchmarks.many_blocks [--blocks 10000] [--tenants 200] [--bucket FOLDER] [--delay-ms 0] [--only start,query]

The blocks are tiny, for their number is what is measured. The bucket is a folder whose operations may be made as slow as those of
S3. Each figure is of a process of its own, started when the bucket is complete and its indexes are written.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from remote.compaction import CompactorOptions
from remote.compactor import Compactor
from remote.limits import LimitsTable
from remote.store_gateway import StoreGateway
from tsdb.block.meta import new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, ObjectInfo, PrefixBucket
from tsdb.compaction.bucket_index import BLOCKS, Inventory, scan_bucket, write_index
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection

RANGE_MS = 2 * 3_600_000
READ_THREADS = 16
FIRST_MS = 20_000 * 86_400_000
TITLES = {
    "start": "start: know the tenants",
    "query": "first query of one tenant, all its blocks",
    "stale": "the same where the tenant has no index",
    "all": "know every block of every tenant",
    "refresh": "know what is new of every tenant",
    "compactor": "compactor: first round, listing everything",
}


class Slow(FolderBucket):
    """A folder that answers as slowly as asked, and counts."""

    requests = 0
    delay_s = 0.0
    hides_index = False

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        self._wait()
        return super().get(key, start, size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._wait()
        found = super().list(prefix)
        return (info for info in found if not info.key.endswith(BLOCKS)) if Slow.hides_index else found

    def folders(self, prefix: str = "") -> Iterator[str]:
        self._wait()
        return super().folders(prefix)

    def _wait(self) -> None:
        Slow.requests += 1
        time.sleep(Slow.delay_s)


def fill(path: Path, blocks: int, tenants: int) -> None:
    """Blocks of two hours, neighbours in time, with ten series of eight samples; the compactor's index of each tenant."""
    bucket = FolderBucket(path)
    table = SeriesTable.of([Labels.of({"__name__": "m", "host": f"host-{i}", "job": "node"}) for i in range(10)])
    for i in range(blocks):
        start_ms = FIRST_MS + i // tenants * RANGE_MS
        t_ms = np.tile(start_ms + np.arange(8) * 900_000, 10)
        batch = SeriesBatch(table, np.arange(11, dtype=np.int64) * 8, t_ms, np.arange(80.0))
        own = PrefixBucket(bucket, f"tenant-{i % tenants:03d}")
        write_block(own, [batch], ulid=new_ulid(start_ms, i.to_bytes(10)), min_ms=start_ms, max_ms=start_ms + RANGE_MS)
    for i in range(tenants):
        own = PrefixBucket(bucket, f"tenant-{i:03d}")
        write_index(own, scan_bucket(own, Inventory()).inventory, scanned_ms=now_ms())


def measure(path: Path, what: str) -> dict[str, float]:
    """One figure, in this process."""
    bucket = Slow(path)
    before, began = memory_mib(), time.perf_counter()
    if what == "compactor":
        Compactor(bucket, LimitsTable(), CompactorOptions(jobs_per_tick=0), executor=ThreadPoolExecutor(READ_THREADS)).tick(
            now_ms()
        )
    else:
        executor, scan_executor = ThreadPoolExecutor(READ_THREADS), ThreadPoolExecutor(READ_THREADS)
        Slow.hides_index = what == "stale"
        gateway = StoreGateway(bucket, executor=executor, scan_executor=scan_executor)
        gateway.refresh(now_ms())
        names = gateway.tenants()
        if what in ("query", "stale"):
            selection = Selection((Matcher("host", "=", "host-3"),), FIRST_MS, FIRST_MS + 1000 * RANGE_MS)
            list(gateway.source(names[1]).select(selection))  # kernels are loaded
            before, began, Slow.requests = memory_mib(), time.perf_counter(), 0
            found = list(gateway.source(names[0]).select(selection))
            assert len(found) == 1 and len(found[0]) == 1
        if what in ("all", "refresh"):
            for name in names:
                gateway.blocks(name)
        if what == "refresh":
            before, began, Slow.requests = memory_mib(), time.perf_counter(), 0
            gateway.refresh(now_ms())
    return {"seconds": time.perf_counter() - began, "requests": Slow.requests, "MiB": memory_mib() - before}


def memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def now_ms() -> int:
    return int(time.time() * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--bucket", type=Path)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--only", default=",".join(TITLES))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    Slow.delay_s = options.delay_ms / 1000
    if options.measure:
        print(json.dumps(measure(options.bucket, options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.bucket or Path(folder)
        if not path.exists() or not os.listdir(path):
            fill(path, options.blocks, options.tenants)
        report(path, options)


def report(path: Path, options: argparse.Namespace) -> None:
    print(f"{options.blocks} blocks of {options.tenants} tenants, {options.delay_ms:g} ms a request\n")
    print(f"{'':44}{'seconds':>9}{'requests':>10}{'MiB more':>10}")
    for what, title in ((what, TITLES[what]) for what in options.only.split(",")):
        command = [sys.executable, "-m", "benchmarks.many_blocks", "--bucket", str(path), "--measure", what]
        done = subprocess.run([*command, "--delay-ms", str(options.delay_ms)], capture_output=True, check=True, text=True)
        found = json.loads(done.stdout)
        print(f"{title:44}{found['seconds']:9.3f}{found['requests']:10.0f}{found['MiB']:10.1f}")


if __name__ == "__main__":
    main()

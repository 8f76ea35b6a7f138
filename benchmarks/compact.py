"""Bytes a sample at each level and resolution, and the speed and memory of compaction and downsampling, in one process.

usage: python -m benchmarks.compact [--data FOLDER] [--series 2000] [--days 28] [--victoria-days 2] [--apart]

Twice: the recorded scrapes of FOLDER (as in ../shared/data), and as many series and days of 15 s that repeat their shapes:
each value sequence over and over, counters going on where they were, with the decimals that were recorded. Series are in step,
as those that are scraped together; with --apart each begins at another place of its sequence, and none follows another.
VictoriaMetrics gets the recording and the first days of the other by remote write, and merges them fully. Downsampled sizes are
told per window and per raw sample that the windows stand for.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.storage import DEFAULT_DATA, load, victoria_bytes
from tsdb.block.meta import BlockMeta, list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.folder import FolderBucket
from tsdb.compaction import compact
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.compaction.lineage import live_blocks
from tsdb.compaction.reclaim import delete_block
from tsdb.model.labels import Labels
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STEP_MS = 15_000
START_MS = 1_790_208_000_000 // (28 * DAY_MS) * (28 * DAY_MS)
LEVELS = {2: "2 h", 12: "12 h", 24: "24 h", 168: "7 d", 672: "28 d"}


@dataclass(slots=True)
class Shapes:
    """Recorded value sequences f64[n, k] at 15 s; `rise` f64[n] is what a counter gains in each, 0 of a gauge; whole numbers.

    One after another: in round r series i takes the sequence of another of its kind (counter or gauge, decimals), so that nothing
    comes twice in a page.
    """

    series: SeriesTable
    values: F64
    rise: F64
    turns: I64
    """i64[n, r]: whose sequence each series takes in each round."""
    power: F64
    """f64[n]: values of each sequence are whole multiples of its inverse; NaN where they are of none."""
    ahead: I64
    """i64[n]: where in its first sequence each series begins."""

    def batch(self, start_ms: int, end_ms: int) -> SeriesBatch:
        """The samples of all series in [start_ms, end_ms)."""
        n, k = self.values.shape
        step = np.arange((start_ms - START_MS) // STEP_MS, (end_ms - START_MS) // STEP_MS)
        turn, at = np.divmod(self.ahead[:, None] + step, k)
        gained = np.cumsum(self.rise[self.turns], axis=1) - self.rise[self.turns]
        row = np.arange(n)[:, None]
        whose = self.turns[row, turn]
        values = self.values[whose, at] + gained[row, turn]
        decimal = np.rint(values * self.power[whose]) / self.power[whose]
        values = np.where(np.isfinite(decimal), decimal, values)
        t_ms = np.broadcast_to(START_MS + step * STEP_MS, values.shape)
        return SeriesBatch(self.series, np.arange(n + 1) * len(step), t_ms.ravel().copy(), values.ravel())


@dataclass(slots=True)
class Costs:
    """Samples worked on (windows of 13 numbers, where windows are), and the CPU seconds that took, by kind of work."""

    samples: dict[str, int] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, samples: int, cpu_s: float) -> None:
        self.samples[kind] = self.samples.get(kind, 0) + samples
        self.cpu_s[kind] = self.cpu_s.get(kind, 0.0) + cpu_s

    def tell(self) -> None:
        for kind, samples in self.samples.items():
            rate = samples / self.cpu_s[kind] / 1e6
            print(f"  {kind:<18}{samples / 1e6:>9,.1f} M samples read, {self.cpu_s[kind]:>7.1f} CPU s, {rate:>6.1f} M a CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--victoria-days", type=float, default=2)
    parser.add_argument("--apart", action="store_true")
    arguments = parser.parse_args()
    labels, offsets, t_ms, values = load(arguments.data)
    _warm()
    with tempfile.TemporaryDirectory() as name:
        _recorded(Path(name), labels, offsets, t_ms, values)
        rounds = arguments.days * DAY_MS // STEP_MS // 4000 + 2
        shapes = _shapes(labels, offsets, values, arguments.series, rounds, apart=arguments.apart)
        _repeated(Path(name), shapes, days=arguments.days, victoria_days=arguments.victoria_days)


def _recorded(folder: Path, labels: list[Labels], offsets: I64, t_ms: I64, values: F64) -> None:
    table = SeriesTable.of(labels)
    batch = SeriesBatch(table, offsets.astype(np.int64), t_ms, values)
    batch = batch.take(table.order())
    print(f"recorded scrapes: {len(labels):,} series, {len(values):,} samples of 1 s")
    bucket = FolderBucket(folder / "recorded")
    start, end = int(t_ms.min()) // HOUR_MS * HOUR_MS, -(-int(t_ms.max() + 1) // HOUR_MS) * HOUR_MS
    write_block(bucket, [batch], ulid=_ulid(0), min_ms=start, max_ms=end)
    costs = Costs()
    _downsample_all(bucket, costs, least_ms=1, now_ms=end + HOUR_MS)
    peer = victoria_bytes(folder / "victoria-recorded", labels, offsets, t_ms, values) / len(values)
    _table(list_blocks(bucket), peer)
    costs.tell()


def _repeated(folder: Path, shapes: Shapes, *, days: int, victoria_days: float) -> None:
    print(f"repeated shapes: {len(shapes.series):,} series, {days} days of 15 s, {len(shapes.series) * days * 5760:,} samples")
    bucket = FolderBucket(folder / "repeated")
    costs = Costs()
    for start_ms in range(START_MS, START_MS + days * DAY_MS, 2 * HOUR_MS):
        batch = shapes.batch(start_ms, start_ms + 2 * HOUR_MS)
        began_s = time.process_time()
        write_block(bucket, [batch], ulid=_ulid(start_ms), min_ms=start_ms, max_ms=start_ms + 2 * HOUR_MS)
        costs.add("write 2 h", batch.samples, time.process_time() - began_s)
    peer = _victoria_of(folder, shapes, victoria_days)
    _table(list_blocks(bucket), peer)
    costs.tell()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        alone.submit(_work_alone, folder / "repeated", days, peer).result()


def _work_alone(folder: Path, days: int, peer: float) -> None:
    """Compaction and downsampling in a process of their own, whose peak memory is theirs."""
    _warm()
    bucket, costs = FolderBucket(folder), Costs()
    for hours, text in list(LEVELS.items())[1:]:
        if hours <= 24 * days:
            _compact(bucket, hours, text, costs)
            _table([meta for meta in list_blocks(bucket) if meta.max_ms - meta.min_ms == hours * HOUR_MS], peer)
    merged_mib = _peak_mib()
    _downsample_all(bucket, costs, least_ms=None, now_ms=START_MS + days * DAY_MS + HOUR_MS)
    _table(live_blocks(list_blocks(bucket)), peer)
    costs.tell()
    peak_mib = _peak_mib()
    print(f"  peak memory of the process: {merged_mib} MiB after compaction, {peak_mib} MiB after downsampling")


def _peak_mib() -> int:
    """The most memory this process had; `ru_maxrss` would count that of the process which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))


def _warm() -> None:
    """Loads all kernels, by a merge of two small blocks and their downsampling, so that none of it is measured."""
    labels = [Labels.of({"__name__": "warm", "i": str(i)}) for i in range(20)]
    table = SeriesTable.of(labels)
    table = table.take(table.order())
    with tempfile.TemporaryDirectory() as name:
        bucket = FolderBucket(Path(name))
        for start_ms in (START_MS, START_MS + HOUR_MS):
            t_ms = np.tile(np.arange(start_ms, start_ms + HOUR_MS, STEP_MS), len(labels))
            batch = SeriesBatch(table, np.arange(len(labels) + 1) * (HOUR_MS // STEP_MS), t_ms, np.sqrt(np.arange(len(t_ms)) // 7))
            write_block(bucket, [batch], ulid=_ulid(start_ms), min_ms=start_ms, max_ms=start_ms + HOUR_MS)
        compact.run(compact.Job(compact.Kind.MERGE, tuple(list_blocks(bucket))), bucket, ulid=_ulid(0))
        _downsample_all(bucket, Costs(), least_ms=1, now_ms=START_MS + DAY_MS)


def _compact(bucket: FolderBucket, hours: int, text: str, costs: Costs) -> None:
    """Merges everything into blocks of one length, and deletes what they were made from."""
    ranges_ms = tuple(each * HOUR_MS for each in LEVELS if each <= hours)
    jobs = compact.plan(list_blocks(bucket), now_ms=1 << 50, ranges_ms=ranges_ms, max_sources=16)
    while jobs:
        for job in jobs:
            began_s = time.process_time()
            compact.run(job, bucket, ulid=_ulid(job.min_ms))
            costs.add(f"compact to {text}", sum(meta.samples for meta in job.sources), time.process_time() - began_s)
            for meta in job.sources:
                delete_block(bucket, meta.ulid)
        jobs = compact.plan(list_blocks(bucket), now_ms=1 << 50, ranges_ms=ranges_ms, max_sources=16)


def _downsample_all(bucket: FolderBucket, costs: Costs, *, least_ms: int | None, now_ms: int) -> None:
    """All windows that are due, 5 m ones first."""
    jobs = plan_downsample(list_blocks(bucket), now_ms=now_ms, final_range_ms=least_ms)
    while jobs:
        for job in jobs:
            began_s = time.process_time()
            run_downsample(job, bucket, ulid=_ulid(job.min_ms))
            kind = "downsample to 5 m" if job.to_ms < HOUR_MS else "5 m windows to 1 h"
            costs.add(kind, job.sources[0].samples, time.process_time() - began_s)
        jobs = plan_downsample(list_blocks(bucket), now_ms=now_ms, final_range_ms=least_ms)


def _table(metas: Sequence[BlockMeta], peer: float) -> None:
    """A line for each resolution and length of the blocks, beside the peer's bytes a raw sample."""
    kinds = sorted({(meta.resolution_ms, (meta.max_ms - meta.min_ms) // HOUR_MS) for meta in metas})
    raw_blocks = [meta for meta in metas if meta.resolution_ms == 0]
    per_ms = sum(meta.samples for meta in raw_blocks) / max(sum(meta.max_ms - meta.min_ms for meta in raw_blocks), 1)
    for resolution_ms, hours in kinds:
        some = [meta for meta in metas if (meta.resolution_ms, (meta.max_ms - meta.min_ms) // HOUR_MS) == (resolution_ms, hours)]
        size, samples = sum(meta.size_bytes for meta in some), sum(meta.samples for meta in some)
        covered = samples if resolution_ms == 0 else per_ms * sum(meta.max_ms - meta.min_ms for meta in some)
        text = "raw" if resolution_ms == 0 else f"{resolution_ms // 60_000} m"
        a_raw_one = size / covered
        print(
            f"  {text:>5} in {len(some):>4} blocks of {hours:>4} h: {size / samples:7.4f} bytes a stored sample, {a_raw_one:.4f} a "
            f"raw one; VictoriaMetrics raw {peer:.4f}: {a_raw_one / peer:.2f}x"
        )


def _victoria_of(folder: Path, shapes: Shapes, days: float) -> float:
    batch = shapes.batch(START_MS, START_MS + int(days * DAY_MS))
    size = victoria_bytes(folder / "victoria", shapes.series.rows(), batch.offsets, batch.t_ms, batch.values)
    return size / batch.samples


def _shapes(labels: list[Labels], offsets: I64, values: F64, count: int, rounds: int, *, apart: bool) -> Shapes:
    """The first `count` series that were there all the time."""
    lengths = np.diff(offsets)
    whole = np.flatnonzero(lengths >= int(np.median(lengths)) - 1)[:count]
    k = int(lengths[whole].min())
    table = SeriesTable.of([labels[i] for i in whole.tolist()])
    order = table.order()
    cut = np.stack([values[offsets[i] : offsets[i] + k] for i in whole[order].tolist()])
    cut = np.where(np.isnan(cut), 0.0, cut)
    rising = np.all(np.diff(cut, axis=1) >= 0, axis=1)
    turns = np.empty((len(cut), rounds), np.int64)
    power = np.array([_power(row) for row in cut])
    decimals = np.searchsorted([1.0, 1000.0], power)  # none, few, many: no series turns from bytes into nanoseconds
    for number in range(6):
        kind = np.flatnonzero(rising * 3 + decimals == number)
        turns[kind] = kind[(np.arange(len(kind))[:, None] + 389 * np.arange(rounds)) % max(len(kind), 1)]
    first = np.where(rising, cut[:, 0], 0.0)
    rise = np.ceil(np.where(rising, cut[:, -1] - cut[:, 0], 0.0))
    ahead = np.arange(len(cut)) * (97 if apart else 0) % k
    return Shapes(table.take(order), cut - first[:, None], rise, turns, power, ahead)


def _power(values: F64) -> float:
    """The least power of ten that makes all of them whole numbers, NaN where none up to 10^12 does."""
    powers = (10.0**e for e in range(13))
    return next((power for power in powers if np.array_equal(np.rint(values * power) / power, values)), np.nan)


def _ulid(at_ms: int) -> str:
    return new_ulid(abs(at_ms), os.urandom(10))


if __name__ == "__main__":
    main()

"""The data that random queries are asked over: an hour and a half of 80 series of every shape, the same on every run.

Every sample lies between whole seconds, and every window of `random_queries` begins and ends on one: Prometheus 2 closes
windows on the left, Prometheus 3 opens them, and only a sample exactly on the edge would tell.
"""

import math
from collections.abc import Iterator

import numpy as np

from remote.wire.client import encode_v1
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_NAN
from tsdb.model.write import F64, I64, WriteBatch

START_MS = 1_700_000_000_000 // 3_600_000 * 3_600_000
LENGTH_MS = 90 * 60_000
SLICE_MS = 60_000
"""Prometheus takes no sample an hour older than its newest: all series are sent together, a minute of them at a time."""

JOBS, INSTANCES = ("api", "db", "web"), ("a:1", "b:2")
BOUNDS = ("0.05", "0.1", "0.5", "1", "5", "+Inf")

OLD = 1000.0
"""Where counters start: so far above a step's rise that no extrapolation of `rate` meets 0, where Prometheus 2 and 3 differ.
The series `young` starts in the middle, at 1, for those who want to see that."""

Points = tuple[I64, F64]


def bodies() -> Iterator[bytes]:
    """Remote-write 1.0 bodies in the order of time."""
    series = all_series()
    names = list(series)
    for at_ms in range(START_MS, START_MS + LENGTH_MS, SLICE_MS):
        parts = [(t_ms >= at_ms) & (t_ms < at_ms + SLICE_MS) for t_ms, _ in series.values()]
        row = np.repeat(np.arange(len(names), dtype=np.int32), [int(part.sum()) for part in parts])
        t_ms = np.concatenate([t[part] for (t, _), part in zip(series.values(), parts, strict=True)])
        values = np.concatenate([v[part] for (_, v), part in zip(series.values(), parts, strict=True)])
        used = np.unique(row)
        batch = WriteBatch.of(names, row=row, t_ms=t_ms, values=values).take(used)
        yield encode_v1(batch)


def all_series() -> dict[Labels, Points]:
    """Every series with its (t_ms, values)."""
    chance = np.random.default_rng(42)
    series: dict[Labels, Points] = {}
    for i, job in enumerate(JOBS):
        for j, instance in enumerate(INSTANCES):
            for code in ("200", "500"):
                series[_name("req_total", job=job, instance=instance, code=code)] = _counter(chance, gap_s=15)
            if (i, j) != (2, 1):
                series[_name("err_total", job=job, instance=instance)] = _counter(chance, gap_s=30)
            series[_name("temp", job=job, instance=instance, zone="xyz"[i])] = _gauge(chance, spread=16.0, special=i == 1)
            series[_name("mem_bytes", job=job, instance=instance)] = _gauge(chance, spread=float(1 << 30), special=False)
            series[_name("build_info", job=job, instance=instance, version=f"v{i}.{j}")] = _constant(chance, 1.0)
        series[_name("quota", job=job)] = _constant(chance, 10.0 * (i + 1))
        series[_name("queue", job=job, dc="eu" if i else "us")] = _gauge(chance, spread=4.0, special=False)
        for k, v in enumerate((0.0, 3.0, -2.0)):
            series[_name("flat", job=job, shard=str(k))] = _constant(chance, v)
    series |= _histogram(chance, "lat", "api") | _histogram(chance, "lat", "web") | _histogram(chance, "size", "db", lines=False)
    for text in ('quo"te', "back\\slash", "ünïcode", "spa ce", "{brace}", "1"):
        series[_name("odd", text=text, job="api")] = _gauge(chance, spread=2.0, special=True)
    series[_name("sparse", job="api")] = _thin(_gauge(chance, spread=9.0, special=False), 19)
    t_ms = START_MS + np.arange(LENGTH_MS // 2 + 500, LENGTH_MS, 15_000, dtype=np.int64)
    series[_name("young", job="db")] = t_ms, 1.0 + np.arange(len(t_ms))
    series[_name("late", job="db")] = _thin(_counter(chance, gap_s=15), 7)
    return series


def _name(metric: str, **labels: str) -> Labels:
    return Labels.of({"__name__": metric, **labels})


def _times(chance: np.random.Generator, gap_s: int) -> I64:
    """Scrape times with holes: single misses, and an outage of some minutes."""
    phase_ms = int(chance.integers(100, 900))
    t_ms = START_MS + phase_ms + np.arange(0, LENGTH_MS, gap_s * 1000, dtype=np.int64)
    outage_ms = START_MS + int(chance.integers(20, 70)) * 60_000
    keep = (chance.random(len(t_ms)) > 0.06) & ~((t_ms > outage_ms) & (t_ms < outage_ms + int(chance.integers(1, 9)) * 60_000))
    return t_ms[keep]


def _counter(chance: np.random.Generator, *, gap_s: int) -> Points:
    """A counter in steps of 1/8 that starts again at OLD now and then, and goes stale somewhere."""
    t_ms = _times(chance, gap_s)
    rise = np.floor(chance.gamma(2.0, 40.0, len(t_ms))) / 8
    values = OLD + np.cumsum(rise)
    for at in chance.integers(0, len(t_ms), 3):
        values[at:] -= values[at] - rise[at] - OLD
    return _with_stale(chance, t_ms, values)


def _gauge(chance: np.random.Generator, *, spread: float, special: bool) -> Points:
    t_ms = _times(chance, 15)
    values = np.round(chance.normal(0.0, spread, len(t_ms)) * 8) / 8
    if special:
        for value in (math.nan, math.inf, -math.inf, -0.0, 0.0):
            values[chance.integers(0, len(t_ms), 4)] = value
    return _with_stale(chance, t_ms, values)


def _constant(chance: np.random.Generator, value: float) -> Points:
    t_ms = _times(chance, 30)
    return t_ms, np.full(len(t_ms), value)


def _with_stale(chance: np.random.Generator, t_ms: I64, values: F64) -> Points:
    values = values.copy()
    values[chance.integers(len(values) // 2, len(values), 2)] = STALE_NAN
    return t_ms, values


def _thin(points: Points, every: int) -> Points:
    t_ms, values = points
    return t_ms[::every], values[::every]


def _histogram(chance: np.random.Generator, name: str, job: str, *, lines: bool = True) -> dict[Labels, Points]:
    """A classic histogram: cumulative buckets, and `_sum` and `_count` if `lines`."""
    t_ms = _times(chance, 15)
    seen = chance.poisson(9.0, (len(BOUNDS), len(t_ms))).astype(float)
    buckets = OLD + np.cumsum(np.cumsum(seen, axis=1), axis=0)
    found = {_name(f"{name}_bucket", job=job, le=le): (t_ms, buckets[i]) for i, le in enumerate(BOUNDS)}
    if lines:
        found[_name(f"{name}_count", job=job)] = t_ms, buckets[-1]
        found[_name(f"{name}_sum", job=job)] = t_ms, OLD + np.cumsum(seen.sum(axis=0)) / 4
    return found

"""`treering demo`: a day of plausible node metrics for a handful of machines, made in seconds and written as blocks."""

import time
from collections.abc import Callable

import numpy as np

from treering.config import Config
from treering.node import Node
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.write import WriteBatch

SCRAPE_S = 15
DAY_S = 86_400


def fill_demo(config: Config, *, hours: int, hosts: int, say: Callable[[str], None]) -> None:
    """Write `hours` of history up to now for `hosts` machines and flush it."""
    began = time.perf_counter()
    rng = np.random.default_rng(1)
    with Node(config) as node:
        end_s = node.now_ms() // 1000 // SCRAPE_S * SCRAPE_S
        times_s = np.arange(end_s - hours * 3600, end_s + 1, SCRAPE_S)
        total = 0
        for host in range(hosts):
            rows, columns = _host(rng, f"node-{host:02}", times_s)
            batch = WriteBatch.of(
                rows,
                row=np.repeat(np.arange(len(rows), dtype=np.int32), len(times_s)),
                t_ms=np.tile(times_s * 1000, len(rows)),
                values=np.concatenate(columns),
            )
            total += node.push("anonymous", batch).samples
        node.flush()
    took = time.perf_counter() - began
    say(f"{total:,} samples of {hosts} machines over {hours} h written to {config.data} in {took:.1f} s.")
    say('Start `treering` and try:  sum by (instance) (rate(node_cpu_seconds_total{mode!="idle"}[5m]))')


def _host(rng: np.random.Generator, name: str, times_s: np.ndarray) -> tuple[list[Labels], list[np.ndarray]]:
    """(label sets, one f64 column each) of one machine whose load follows the time of day."""
    identity = {"instance": f"{name}:9100", "job": "node"}
    day = 0.5 + 0.4 * np.sin(2 * np.pi * (times_s % DAY_S) / DAY_S - 1.5)
    load = np.clip(day + _walk(rng, len(times_s), 0.02), 0.02, 3.9)
    memory = 16 * 2**30
    used = np.round(memory * np.clip(0.3 + 0.1 * day + _walk(rng, len(times_s), 0.002), 0.05, 0.95) / 4096) * 4096
    found: list[tuple[dict[str, str], np.ndarray]] = [
        ({METRIC_NAME: "up"}, np.ones(len(times_s))),
        ({METRIC_NAME: "node_load1"}, np.round(load, 2)),
        ({METRIC_NAME: "node_memory_MemTotal_bytes"}, np.full(len(times_s), float(memory))),
        ({METRIC_NAME: "node_memory_MemAvailable_bytes"}, memory - used),
        ({METRIC_NAME: "node_boot_time_seconds"}, np.full(len(times_s), float(times_s[0] - 86_400))),
    ]
    for cpu in range(4):
        busy = np.clip(load / 4 + rng.normal(0, 0.03, len(times_s)), 0.001, 0.999)
        for mode, share in (("user", 0.7 * busy), ("system", 0.25 * busy), ("iowait", 0.05 * busy), ("idle", 1 - busy)):
            seconds = np.round(np.cumsum(share * SCRAPE_S), 2)
            found.append(({METRIC_NAME: "node_cpu_seconds_total", "cpu": str(cpu), "mode": mode}, seconds))
    for device in ("eth0", "lo"):
        for way in ("receive", "transmit"):
            octets = np.cumsum(rng.poisson(np.maximum(1, load * 4e5))).astype(float)
            found.append(({METRIC_NAME: f"node_network_{way}_bytes_total", "device": device}, octets))
    for mount, size in (("/", 40 * 2**30), ("/data", 400 * 2**30)):
        free = np.round(size * np.clip(0.6 - np.arange(len(times_s)) * 1e-6 + _walk(rng, len(times_s), 1e-4), 0, 1) / 4096) * 4096
        labels = {"device": "/dev/vda1", "fstype": "ext4", "mountpoint": mount}
        found.append(({METRIC_NAME: "node_filesystem_size_bytes", **labels}, np.full(len(times_s), float(size))))
        found.append(({METRIC_NAME: "node_filesystem_avail_bytes", **labels}, free))
    return [Labels.of({**labels, **identity}) for labels, _ in found], [column.astype(float) for _, column in found]


def _walk(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """A random walk that is drawn back to zero."""
    steps = rng.normal(0, scale, size)
    return np.cumsum(steps) * np.exp(-np.arange(size) / max(1, size))

"""Samples per CPU second and memory per active series, beside VictoriaMetrics and Prometheus on the same bodies.

usage: python -m benchmarks.ingest [--memory] [--series N] [--rounds N]

Memory is what each program holds REST_S after the last write: until then it depends on when its collector ran last. The peak is
shown beside it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bodies import Template, fleet, rounds, send
from benchmarks.peers import Program, prometheus, treering, victoria

SERIES_A_REQUEST = 2_000
SCRAPE_MS = 15_000
REST_S = 30

PEERS: dict[str, Callable[[Path], Program]] = {
    "treering": lambda folder: treering(folder / "treering"),
    "victoria-metrics": lambda folder: victoria(folder / "victoria"),
    "prometheus": lambda folder: prometheus(folder / "prometheus"),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What writing took, without the first round, and the memory after it."""

    wall_s: float
    cpu_s: float
    rest_bytes: int
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true", help="200,000 series with 2 h of samples, memory beside the peers")
    parser.add_argument("--series", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", action="append", choices=list(PEERS))
    choice = parser.parse_args()
    series = choice.series or (200_000 if choice.memory else 20_000)
    count = choice.rounds or (480 if choice.memory else 200)
    wanted = choice.only or list(PEERS)
    with tempfile.TemporaryDirectory() as folder:
        rest_s = REST_S if choice.memory else 0
        results = {name: run(PEERS[name], Path(folder), series, count, rest_s=rest_s) for name in wanted}
    report(results, series, count, memory=choice.memory)


def run(start: Callable[[Path], Program], folder: Path, series: int, count: int, *, rest_s: float) -> Cost:
    templates = make_templates(series)
    values = counters_and_gauges(series, count)
    start_ms = int(time.time() * 1000) - count * SCRAPE_MS
    with start(folder) as program:
        send(program.url, program.write_path, rounds(templates, values, start_ms=start_ms, gap_ms=SCRAPE_MS, count=1))
        first_cpu_s, began = program.cpu_s(), time.perf_counter()
        rest = rounds(templates, lambda i, j: values(i + 1, j), start_ms=start_ms + SCRAPE_MS, gap_ms=SCRAPE_MS, count=count - 1)
        send(program.url, program.write_path, rest)
        wall_s, cpu_s = time.perf_counter() - began, program.cpu_s() - first_cpu_s
        time.sleep(rest_s)
        return Cost(wall_s, cpu_s, program.memory_bytes("VmRSS"), program.memory_bytes("VmHWM"))


def make_templates(series: int) -> list[Template]:
    labels = fleet(series)
    return [Template(labels[at : at + SERIES_A_REQUEST]) for at in range(0, series, SERIES_A_REQUEST)]


def counters_and_gauges(series: int, count: int) -> Callable[[int, int], np.ndarray]:
    """Values of round i for template j: two thirds counters, one third noisy gauges with two decimals."""
    rng = np.random.default_rng(7)
    speed = rng.integers(0, 50, series).astype(float)
    state = rng.integers(0, 10**6, series).astype(float)
    gauge = np.arange(series) % 3 == 0
    noise = [np.random.default_rng(i) for i in range(-(-series // SERIES_A_REQUEST))]

    def values(i: int, j: int) -> np.ndarray:
        part = slice(j * SERIES_A_REQUEST, (j + 1) * SERIES_A_REQUEST)
        state[part] += noise[j].poisson(speed[part])
        return np.where(gauge[part], np.round(noise[j].normal(100, 10, len(state[part])), 2), state[part])

    return values


def report(results: dict[str, Cost], series: int, count: int, *, memory: bool) -> None:
    samples = series * (count - 1)
    print(f"\n{series:,} series x {count} rounds, {SERIES_A_REQUEST:,} a request; CPU without the first round (new series)")
    print(
        f"{'':<18}{'wall s':>8}{'CPU s':>8}{'M samples/CPU s':>17}"
        + f"{'MiB at rest':>13}{'bytes/series':>14}{'peak MiB':>10}" * memory
    )
    for name, cost in results.items():
        about = f"{cost.rest_bytes / 2**20:>13.0f}{cost.rest_bytes / series:>14.0f}{cost.peak_bytes / 2**20:>10.0f}" * memory
        print(f"{name:<18}{cost.wall_s:>8.1f}{cost.cpu_s:>8.1f}{samples / cost.cpu_s / 1e6:>17.2f}{about}")
    own = results.get("treering")
    for name, other in results.items():
        if own is not None and name != "treering":
            about = f", {own.rest_bytes / other.rest_bytes:.2f}x memory" * memory
            print(f"treering / {name}: {other.cpu_s / own.cpu_s:.2f}x samples per CPU second{about}")


if __name__ == "__main__":
    main()

"""Time of queries over native histograms, beside Prometheus over the same samples, both fed by remote write.

usage: python -m benchmarks.histograms [--series N] [--hours H] [--runs N] [--cold] [--query NAME]
"""

import argparse
import math
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import cramjam
import numpy as np

from benchmarks.bodies import send
from benchmarks.ingest import SCRAPE_MS
from benchmarks.peers import Program, prometheus, treering
from benchmarks.query import SETTLE_S, Timing, ask
from remote.wire.client import histogram_message
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import METRIC_NAME, Labels, varint

METRIC = "request_seconds"
QUERIES = {
    "quantile by pod": f"histogram_quantile(0.99, sum by (pod) (rate({METRIC}[5m])))",
    "quantile of sum": f"histogram_quantile(0.99, sum(rate({METRIC}[5m])))",
    "quantile by job": f"histogram_quantile(0.9, sum by (job) (rate({METRIC}[5m])))",
    "rate of count": f"sum by (job) (histogram_count(rate({METRIC}[5m])))",
    "average": f"sum(histogram_sum(rate({METRIC}[5m]))) / sum(histogram_count(rate({METRIC}[5m])))",
    "fraction": f'histogram_fraction(0, 0.5, sum(rate({METRIC}{{job="job-1"}}[5m])))',
    "quantile of each": f'histogram_quantile(0.5, rate({METRIC}{{job="job-2"}}[5m]))',
}
KINDS = 100
"""Series i has the histograms of kind i % KINDS: making each by itself would take longer than all else."""
BUCKETS, SCHEMA = 40, 3
PROMETHEUS_FLAGS = ("--enable-feature=native-histograms", "--query.timeout=1h", "--query.max-samples=500000000")
"""Its own limits would end the queries over thousands of series."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000)
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--step", type=int, default=60, help="seconds")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="only the first answer of each: Prometheus takes minutes for thousands")
    parser.add_argument("--query", action="append", choices=list(QUERIES), help="only these")
    choice = parser.parse_args()
    queries = {name: text for name, text in QUERIES.items() if not choice.query or name in choice.query}
    count = int(choice.hours * 3_600_000 / SCRAPE_MS)
    end_ms = int(time.time() * 1000) // 60_000 * 60_000
    start_ms = end_ms - (count - 1) * SCRAPE_MS
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        settings = Path(name) / "treering.yml"
        settings.write_text("query_timeout_s: 3600\n")
        programs = {
            "treering": running.enter_context(treering(Path(name) / "treering", "--config", str(settings))),
            "prometheus": running.enter_context(prometheus(Path(name) / "prometheus", *PROMETHEUS_FLAGS)),
        }
        for peer, program in programs.items():
            load(program, peer, start_ms, count, choice.series)
        time.sleep(SETTLE_S)
        timings = {query: ask(programs, text, start_ms, end_ms, choice) for query, text in queries.items()}
    report(timings, choice)


def load(program: Program, peer: str, start_ms: int, count: int, series: int) -> None:
    keys = [
        Labels.of({METRIC_NAME: METRIC, "job": f"job-{i % 10}", "pod": f"api-{i // 10:05}", "path": f"/api/v1/{i % 10}"}).encode()
        for i in range(series)
    ]
    send(program.url, program.write_path, [bodies(keys, start_ms, count)])
    if peer == "treering":
        urllib.request.urlopen(program.url + "/ingester/flush", timeout=600).close()


def bodies(keys: Sequence[bytes], start_ms: int, count: int) -> Iterator[bytes]:
    """A request each scrape: counters of Poisson increments over 40 buckets."""
    rng = np.random.default_rng(3)
    rates = rng.gamma(1.0, 2.0, (KINDS, BUCKETS))
    counts = np.zeros((KINDS, BUCKETS))
    for i in range(count):
        counts += rng.poisson(rates)
        fields = [_field(4, message) for message in messages(counts, start_ms + i * SCRAPE_MS)]
        request = b"".join([_field(1, key + fields[j % KINDS]) for j, key in enumerate(keys)])
        yield bytes(cramjam.snappy.compress_raw(request))


def messages(counts: np.ndarray, t_ms: int) -> list[bytes]:
    """The protobuf message of each row of counts f64[n, 40] at a time."""
    n, zeros = len(counts), np.zeros(len(counts))
    index = np.tile(np.arange(-20, 20, dtype=np.int32), n)
    positive = Buckets(np.arange(n + 1, dtype=np.int64) * BUCKETS, index, counts.ravel())
    histograms = Histograms(
        np.full(n, SCHEMA, np.int8), np.zeros(n, np.uint8), np.ones(n, bool), counts.sum(axis=1), counts @ np.arange(1.0, 41.0),
        np.full(n, 1e-9), zeros, positive, Buckets.empty(n), np.zeros(n + 1, np.int64), np.empty(0),
    )  # fmt: skip
    out = []
    for j in range(n):
        message = histogram_message(histograms, j)
        message.timestamp = t_ms
        out.append(message.SerializeToString())
    return out


def report(timings: dict[str, dict[str, Timing]], choice: argparse.Namespace) -> None:
    print(f"\n{choice.series:,} native histograms x {choice.hours:g} h at 15 s, {BUCKETS} buckets, step {choice.step} s; over HTTP")
    print(f"{'query':<20}{'treering ms':>14}{'prometheus ms':>16}{'x':>8}")
    ratios = []
    for query, row in timings.items():
        own, other = row["treering"], row["prometheus"]
        ratios.append(other.seconds / own.seconds)
        differs = "" if own.series == other.series else f"   series {own.series}, {other.series}"
        print(f"{query:<20}{own.seconds * 1000:>14.1f}{other.seconds * 1000:>16.1f}{ratios[-1]:>8.2f}{differs}")
    print(f"geometric mean: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}x as fast as Prometheus")


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


if __name__ == "__main__":
    main()

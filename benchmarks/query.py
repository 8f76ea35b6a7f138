"""Time of a dashboard's queries over HTTP, beside VictoriaMetrics (its cache off) and Prometheus over the same samples.

All are loaded first and then asked in turns, query by query, so that a busy machine is as busy for each of them. Cold: all are
stopped and started again after the load, and the first answer to each kind of query counts; what their own caches keep of one kind
serves the next, and the system's file cache is warm.

usage: python -m benchmarks.query [--series N] [--hours H] [--runs N] [--all] [--head] [--cold | --both] [--only PEER]
"""

import argparse
import gzip
import http.client
import math
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bodies import Template, fleet, rounds, send
from benchmarks.ingest import SCRAPE_MS, SERIES_A_REQUEST, counters_and_gauges
from benchmarks.peers import Program, prometheus, treering, victoria

METRIC = "http_requests_total"

DASHBOARD = {
    "plain selector": f'{METRIC}{{namespace="team-3",job="job-3"}}',
    "sum": f"sum({METRIC})",
    "sum by of rate": f"sum by (job) (rate({METRIC}[5m]))",
    "increase, regex": f'increase({METRIC}{{path=~"/api/v1/resource/1.*"}}[1h])',
    "max over time": f'max_over_time({METRIC}{{job="job-1"}}[10m])',
    "avg over time": f"avg by (namespace) (avg_over_time({METRIC}[10m]))",
    "quantile over time": f'quantile_over_time(0.9, {METRIC}{{job="job-2"}}[10m])',
    "topk": f"topk(5, sum by (pod) (rate({METRIC}[5m])))",
    "comparison": f"rate({METRIC}[5m]) > 3",
    "join": f"sum by (job, namespace) (rate({METRIC}[5m])) / on (job) group_left sum by (job) (rate({METRIC}[5m]))",
    "subquery": f'max_over_time(sum by (job) (rate({METRIC}{{namespace=~"team-1.?"}}[5m]))[30m:1m])',
    "name regex": 'count({__name__=~"http_.+"}) by (__name__)',
}
"""The twelve kinds of range query that dashboards send most."""

MORE = {
    "avg by": f"avg by (status) ({METRIC})",
    "irate": f"sum by (status) (irate({METRIC}[5m]))",
    "delta": f'delta({METRIC}{{job="job-4"}}[15m])',
    "deriv": f'deriv({METRIC}{{job="job-5"}}[15m])',
    "min over time": f"min by (job) (min_over_time({METRIC}[30m]))",
    "stddev": f"stddev by (namespace) (rate({METRIC}[5m]))",
    "quantile": f"quantile by (job) (0.95, rate({METRIC}[5m]))",
    "ratio": f'sum(rate({METRIC}{{status="500"}}[5m])) / sum(rate({METRIC}[5m]))',
    "and": f"rate({METRIC}[5m]) > 1 and on (pod) {METRIC} > 100",
    "offset": f"sum(rate({METRIC}[5m])) - sum(rate({METRIC}[5m] offset 1h))",
    "label_replace": f'sum by (team) (label_replace({METRIC}, "team", "$1", "namespace", "team-(.*)"))',
    "count over time": f"sum(count_over_time({METRIC}[1h]))",
}
"""Twelve more, for the wide comparison."""


ANSWER_S = 3_600
"""How long a peer may take for one answer."""
PEERS: dict[str, Callable[[Path], Program]] = {
    "treering": lambda folder: treering(folder, ready_s=START_S),
    "victoria-metrics": victoria,
    "prometheus": prometheus,
}
START_S = 300
"""What a first start on a busy machine may take."""
SETTLE_S = 5
"""After the load: merges and compactions that it set off are done then."""
QUIET_S = 70
"""Our compactor looks for work every 30 s: after two looks without a new block there is none."""
LONG_HOURS = 48
"""Of so much there is something to compact and to downsample."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Median wall seconds, server CPU seconds and answered series of one query."""

    seconds: float
    cpu_s: float
    series: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=5_000)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--step", type=int, default=60, help="seconds")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="24 kinds instead of 12")
    parser.add_argument("--head", action="store_true", help="leave the samples in memory instead of flushing them to blocks")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--cold", action="store_true", help="the first answer of each after a restart")
    when.add_argument("--both", action="store_true", help="the medians, and then the first answers after a restart")
    parser.add_argument("--only", action="append")
    choice = parser.parse_args()
    queries = {**DASHBOARD, **(MORE if choice.all else {})}
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        wanted = [peer for peer in PEERS if not choice.only or peer in choice.only]
        programs = {peer: running.enter_context(PEERS[peer](Path(name) / peer)) for peer in wanted}
        end_ms = int(time.time() * 1000) // 60_000 * 60_000
        start_ms = end_ms - (int(choice.hours * 3_600_000 / SCRAPE_MS) - 1) * SCRAPE_MS
        for peer, program in programs.items():
            load(program, peer, start_ms, choice)
        time.sleep(SETTLE_S)
        if choice.hours > LONG_HOURS and "treering" in programs:
            wait_compacted(programs["treering"])
        if not choice.cold:
            ask_all(programs, queries, start_ms, end_ms, choice)
        if choice.cold or choice.both:
            choice.cold = True
            for peer in wanted:
                programs[peer].stop()
                programs[peer] = running.enter_context(PEERS[peer](Path(name) / peer))
            ask_all(programs, queries, start_ms, end_ms, choice)


def ask_all(programs: dict[str, Program], queries: dict[str, str], start_ms: int, end_ms: int, choice: argparse.Namespace) -> None:
    """Ask all queries and print their timings, each as it comes, and the means."""
    results: dict[str, dict[str, Timing]] = {peer: {} for peer in programs}
    tell_head(list(programs), choice)
    for query, text in queries.items():
        for peer, timing in ask(programs, text, start_ms, end_ms, choice).items():
            results[peer][query] = timing
        tell_row(query, [results[peer][query] for peer in programs])
    tell_means(results, queries)


def load(program: Program, peer: str, start_ms: int, choice: argparse.Namespace) -> None:
    """Send all samples; those of Treering are flushed to blocks unless they are wanted in memory."""
    labels = fleet(choice.series, metric=METRIC)
    count = int(choice.hours * 3_600_000 / SCRAPE_MS)
    scrapes = math.gcd(count, max(1, SERIES_A_REQUEST // choice.series))
    templates = [Template(labels[at : at + SERIES_A_REQUEST], scrapes) for at in range(0, len(labels), SERIES_A_REQUEST)]
    values = counters_and_gauges(choice.series, count)
    streams = rounds(templates, values, start_ms=start_ms, gap_ms=SCRAPE_MS, count=count, streams=1, scrapes=scrapes)
    send(program.url, program.write_path, streams)
    if peer == "treering" and not choice.head:
        urllib.request.urlopen(program.url + "/ingester/flush", timeout=600).close()


def wait_compacted(program: Program) -> None:
    """Wait until the compactor makes no more blocks."""
    seen, since_s = "", time.monotonic()
    while time.monotonic() - since_s < QUIET_S:
        time.sleep(1)
        with urllib.request.urlopen(program.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        events = "".join(line for line in lines if line.startswith("treering_compactor_blocks_total"))
        if events != seen:
            seen, since_s = events, time.monotonic()


def ask(programs: dict[str, Program], text: str, start_ms: int, end_ms: int, choice: argparse.Namespace) -> dict[str, Timing]:
    """The timing of one query at each peer, asked in turns, at multiples of the step, as Grafana does.

    The first run is not counted; cold there is only one.
    """
    start_s, end_s = -(-start_ms // 1000 // choice.step) * choice.step, end_ms // 1000 // choice.step * choice.step
    form = {"query": text, "start": start_s, "end": end_s, "step": choice.step, "nocache": 1}
    body = urllib.parse.urlencode(form)
    walls: dict[str, list[float]] = {peer: [] for peer in programs}
    cpus: dict[str, list[float]] = {peer: [] for peer in programs}
    series = {}
    for run in (1,) if choice.cold else range(choice.runs + 1):
        for peer, program in programs.items():
            cpu, began = program.cpu_s(), time.perf_counter()
            data = post(program, body)
            if run:
                walls[peer].append(time.perf_counter() - began)
                cpus[peer].append(program.cpu_s() - cpu)
            series[peer] = data.count(b'"metric"')
    return {peer: Timing(median(walls[peer]), sum(cpus[peer]) / len(cpus[peer]), series[peer]) for peer in programs}


def post(program: Program, body: str) -> bytes:
    """The answer to a range query, unpacked. RuntimeError unless it is a success."""
    connection = http.client.HTTPConnection(program.url.removeprefix("http://"), timeout=ANSWER_S)
    connection.request("POST", "/api/v1/query_range", body, {"Content-Type": "application/x-www-form-urlencoded"})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    if response.headers.get("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    if response.status != 200:
        raise RuntimeError(f"{program.url}: {body}: status {response.status}: {data[:300]!r}")
    return data


def tell_head(peers: list[str], choice: argparse.Namespace) -> None:
    how = "first answer after a restart" if choice.cold else f"median of {choice.runs} runs"
    print(f"\n{choice.series:,} series x {choice.hours:g} h at 15 s, step {choice.step} s; {how} over HTTP")
    print(f"{'query':<20}" + "".join(f"{peer + ' ms':>22}" for peer in peers) + "".join(f"{'x ' + p:>20}" for p in peers[1:]))


def tell_row(name: str, row: list[Timing]) -> None:
    ratios = "".join(f"{other.seconds / row[0].seconds:>20.2f}" for other in row[1:])
    differs = "" if len({timing.series for timing in row}) == 1 else f"   series {[timing.series for timing in row]}"
    print(f"{name:<20}" + "".join(f"{timing.seconds * 1000:>22.1f}" for timing in row) + ratios + differs, flush=True)


def tell_means(results: dict[str, dict[str, Timing]], queries: dict[str, str]) -> None:
    peers = list(results)
    for peer in peers[1:]:
        ratio = math.exp(sum(math.log(results[peer][q].seconds / results[peers[0]][q].seconds) for q in queries) / len(queries))
        cpu = math.exp(
            sum(math.log(max(results[peer][q].cpu_s, 0.005) / max(results[peers[0]][q].cpu_s, 0.005)) for q in queries)
            / len(queries)
        )
        print(f"geometric mean: treering is {ratio:.2f}x as fast as {peer} (CPU {cpu:.2f}x)")


if __name__ == "__main__":
    main()

"""Small instant queries over HTTP: at 1 and 16 clients, and one each 100 ms while eight heavy queries run, beside the peers.

usage: python -m benchmarks.latency [--series N] [--hours H] [--requests N] [--only PEER]
"""

import argparse
import http.client
import selectors
import socket
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bodies import Template, fleet, rounds, send
from benchmarks.ingest import SCRAPE_MS, SERIES_A_REQUEST, counters_and_gauges
from benchmarks.peers import Program, prometheus, treering, victoria
from tsdb.model.labels import METRIC_NAME, Labels

METRIC = "http_requests_total"
UP = [Labels.of({METRIC_NAME: "up", "job": f"job-{i % 10}", "instance": f"10.0.0.{i}:8080"}) for i in range(100)]
HEAVY = f"sum by (job, path) (rate({METRIC}[%dm]))"
CLIENTS = (1, 16)
HEAVY_CLIENTS, EVERY_S, HEAVY_S = 8, 0.1, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=5_000)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--only", action="append")
    choice = parser.parse_args()
    end_ms = int(time.time() * 1000) // 60_000 * 60_000
    start_ms = end_ms - (int(choice.hours * 3_600_000 / SCRAPE_MS) - 1) * SCRAPE_MS
    print(f"{choice.series:,} series x {choice.hours:g} h at 15 s beside {len(UP)} of `up`; milliseconds over HTTP, errors")
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        programs = {
            peer: running.enter_context(start(Path(name) / peer))
            for peer, start in {"treering": treering, "victoria-metrics": victoria, "prometheus": prometheus}.items()
            if not choice.only or peer in choice.only
        }
        for peer, program in programs.items():
            load(program, peer, start_ms, choice)
        time.sleep(5)
        for query in ('up{job="job-1"}', "up", "sum by (job) (up)"):
            for clients in CLIENTS:
                for peer, program in programs.items():
                    tell(f"{query}, {clients} clients", peer, small(program, [query] * clients, end_ms, choice.requests))
        for peer, program in programs.items():
            different = [f'up{{instance=~"10.0.0.{i}.*"}}' for i in range(max(CLIENTS))]
            tell(f"{len(different)} clients, {len(different)} queries", peer, small(program, different, end_ms, choice.requests))
        for peer, program in programs.items():
            cheap, heavy = beside_heavy(program, start_ms, end_ms)
            tell(f"up while {HEAVY_CLIENTS} heavy ones run", peer, cheap)
            tell("heavy", peer, heavy)


def load(program: Program, peer: str, start_ms: int, choice: argparse.Namespace) -> None:
    """The fleet, flushed to blocks where that can be asked for, then the last hour of `up` into memory."""
    labels = fleet(choice.series, metric=METRIC)
    templates = [Template(labels[at : at + SERIES_A_REQUEST]) for at in range(0, len(labels), SERIES_A_REQUEST)]
    count = int(choice.hours * 3_600_000 / SCRAPE_MS)
    values = counters_and_gauges(choice.series, count)
    send(program.url, program.write_path, rounds(templates, values, start_ms=start_ms, gap_ms=SCRAPE_MS, count=count, streams=1))
    if peer == "treering":
        urllib.request.urlopen(program.url + "/ingester/flush", timeout=600).close()
    recent = range(max(0, count - 240), count)
    send(program.url, program.write_path, [(Template(UP).body(start_ms + i * SCRAPE_MS, np.ones(len(UP))) for i in recent)])


def small(program: Program, queries: list[str], at_ms: int, requests: int) -> tuple[list[float], int]:
    """(seconds of each request, how many failed) of as many clients as queries, each on one connection, without pause.

    One thread watches all sockets and looks at no more of an answer than it must: sixteen clients of the standard library take
    half a millisecond each, which is then what is measured.
    """
    host, port = program.url.removeprefix("http://").split(":")
    seconds: list[float] = []
    errors, left = 0, requests - len(queries)
    selector = selectors.DefaultSelector()
    for query in queries:
        body = urllib.parse.urlencode({"query": query, "time": at_ms // 1000})
        head = f"POST /api/v1/query HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded"
        connection = socket.create_connection((host, int(port)), timeout=120)
        asked = _Asked(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        selector.register(connection, selectors.EVENT_READ, asked)
        asked.send(connection)
    while selector.get_map():
        for key, _ in selector.select():
            connection, asked = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            part = connection.recv(1 << 20)
            asked.answer += part
            if part and not asked.is_answered():
                continue
            if asked.answer.startswith(b"HTTP/1.1 200 ") and b'{"status":"success",' in asked.answer:
                seconds.append(time.perf_counter() - asked.sent_s)
            else:
                errors += 1
            if left > 0 and part:
                left -= 1
                asked.send(connection)
            else:
                selector.unregister(connection)
                connection.close()
    return seconds, errors


@dataclass(slots=True)
class _Asked:
    """A request that is sent again and again on one connection, and what came of its answer so far."""

    request: bytes
    answer: bytes = b""
    sent_s: float = 0.0

    def send(self, connection: socket.socket) -> None:
        self.answer, self.sent_s = b"", time.perf_counter()
        connection.sendall(self.request)

    def is_answered(self) -> bool:
        """Whether the answer is whole, by its length or, where it comes in chunks, by the empty one at its end."""
        head, _, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n")


def beside_heavy(program: Program, start_ms: int, end_ms: int) -> tuple[tuple[list[float], int], tuple[list[float], int]]:
    """(cheap queries, one each 100 ms; heavy ones, eight at a time) of some seconds, each as (seconds, errors)."""
    stop = time.monotonic() + HEAVY_S
    form = {"start": start_ms // 1000, "end": end_ms // 1000, "step": 60, "nocache": 1}
    heavy = [_Client(program, "/api/v1/query_range", form | {"query": HEAVY % (5 + i)}) for i in range(HEAVY_CLIENTS)]
    cheap = _Client(program, "/api/v1/query", {"query": "up", "time": end_ms // 1000})

    def paced() -> None:
        while time.monotonic() < stop:
            began = time.monotonic()
            cheap.ask(1)
            time.sleep(max(0.0, began + EVERY_S - time.monotonic()))

    def busy(client: _Client) -> None:
        while time.monotonic() < stop:
            client.ask(1)

    _together([paced, *(lambda client=client: busy(client) for client in heavy)])
    return (cheap.seconds, cheap.errors), ([s for one in heavy for s in one.seconds], sum(one.errors for one in heavy))


def tell(what: str, peer: str, measured: tuple[list[float], int]) -> None:
    seconds, errors = measured
    if not seconds:
        print(f"{what:<34}{peer:<18}nothing answered, {errors} errors")
        return
    median, late = np.percentile(np.array(seconds) * 1000, [50, 99])
    print(f"{what:<34}{peer:<18}{len(seconds):>6} answers  median {median:>8.2f}  p99 {late:>8.2f}  errors {errors}", flush=True)


class _Client:
    """One connection that asks one question again and again, and what that took."""

    def __init__(self, program: Program, path: str, form: dict[str, object]) -> None:
        self._connection = http.client.HTTPConnection(program.url.removeprefix("http://"), timeout=120)
        self._path, self._body = path, urllib.parse.urlencode(form)
        self.seconds: list[float] = []
        self.errors = 0

    def ask(self, times: int) -> None:
        for _ in range(times):
            began = time.perf_counter()
            self._connection.request("POST", self._path, self._body, {"Content-Type": "application/x-www-form-urlencoded"})
            response = self._connection.getresponse()
            ok = response.read()[:20] == b'{"status":"success",' or response.headers.get("Content-Encoding") == "gzip"
            if response.status == 200 and ok:
                self.seconds.append(time.perf_counter() - began)
            else:
                self.errors += 1


def _together(works: list[object]) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()

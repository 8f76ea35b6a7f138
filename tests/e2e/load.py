"""Writers that note what was acknowledged, and the check that all of it is there, once."""

import http.client
import json
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from benchmarks.bodies import HEADERS, Template
from tsdb.model.labels import METRIC_NAME, Labels

SERIES = 200
WRITERS = 4


@dataclass(slots=True)
class Writer:
    """One sender of one group of series: round i writes the value i at start_ms + i for all of them."""

    number: int
    start_ms: int
    next_round: int = 0
    acknowledged: set[int] = field(default_factory=set)
    uncertain: set[int] = field(default_factory=set)
    """Rounds that were sent and not answered: they may or may not be stored."""
    template: Template = field(init=False)

    def __post_init__(self) -> None:
        names = [Labels.of({METRIC_NAME: "load_total", "writer": str(self.number), "i": str(i)}) for i in range(SERIES)]
        self.template = Template(names)

    def run(self, url: str, stop: threading.Event) -> None:
        """Write until told to stop or until the server is gone; a round that was not acknowledged is not sent again."""
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        while not stop.is_set():
            i, self.next_round = self.next_round, self.next_round + 1
            body = self.template.body(self.start_ms + i, np.full(SERIES, float(i)))
            self.uncertain.add(i)
            try:
                connection.request("POST", "/api/v1/write", body, HEADERS)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                break
            self.uncertain.discard(i)
            if response.status == 204:
                self.acknowledged.add(i)
            elif response.status == 503:
                self.uncertain.add(i)
                time.sleep(0.05)
            else:
                raise AssertionError(f"status {response.status}")
        connection.close()

    def check(self, url: str) -> int:
        """Acknowledged samples found, each exactly once. AssertionError on a lost, doubled or invented one."""
        span_ms = self.next_round + 1000
        selector = f'load_total{{writer="{self.number}"}}'
        at = (self.start_ms + self.next_round) / 1000
        counts = _query(url, f"count_over_time({selector}[{span_ms}ms])", at)
        if not self.acknowledged:
            return 0
        assert len(counts) == SERIES, f"writer {self.number}: {len(counts)} of {SERIES} series"
        rows = _query(url, f'load_total{{writer="{self.number}",i=~"0|7|{SERIES - 1}"}}[{span_ms}ms]', at)
        assert len(rows) == 3
        stored = [round(float(t) * 1000) - self.start_ms for t, _ in rows[0]["values"]]
        for row in rows:
            assert [round(float(t) * 1000) - self.start_ms for t, _ in row["values"]] == stored
            assert [int(v) for _, v in row["values"]] == stored, "a value is not the one that was sent"
        assert len(set(stored)) == len(stored), "a sample is there twice"
        lost = self.acknowledged - set(stored)
        assert not lost, f"writer {self.number}: {len(lost)} acknowledged rounds are lost, the first is {min(lost)}"
        invented = set(stored) - self.acknowledged - self.uncertain
        assert not invented, f"writer {self.number}: {len(invented)} rounds were never sent"
        assert {int(row["value"][1]) for row in counts} == {len(stored)}, "series of one request differ"
        return len(self.acknowledged) * SERIES


def start_writers(writers: list[Writer], url: str) -> tuple[threading.Event, list[threading.Thread]]:
    """Run all writers in threads until the event is set."""
    stop = threading.Event()
    threads = [threading.Thread(target=writer.run, args=(url, stop)) for writer in writers]
    for thread in threads:
        thread.start()
    return stop, threads


def make_writers(now_ms: int) -> list[Writer]:
    """Writers whose rounds lie in the past hour, a millisecond apart."""
    return [Writer(number, now_ms - 3_600_000) for number in range(WRITERS)]


def _query(url: str, query: str, at: float) -> list[dict[str, list[list[float | str]]]]:
    body = urllib.parse.urlencode({"query": query, "time": at}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/query", body, timeout=60) as response:
        return json.load(response)["data"]["result"]  # type: ignore[no-any-return]

"""A full disk: the data folder lies on a small tmpfs.

While it is full writes answer 503 with Retry-After, never 2xx, and queries go on; once there is room writing resumes by itself, and
after a restart every acknowledged sample is there, once.
"""

import http.client
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.bodies import HEADERS
from benchmarks.peers import Program, treering
from tests.e2e.load import SERIES, Writer, make_writers
from tests.treering.server import call

DISK_MIB = 64
RESUME_S = 30.0


@dataclass(slots=True)
class Sender:
    """Sends a writer's rounds, each again until it is acknowledged or given up, and notes every answer with its time."""

    writer: Writer
    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    """(monotonic time when it was sent, status, Retry-After)."""

    def run(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        while not self.stop.is_set():
            i, self.writer.next_round = self.writer.next_round, self.writer.next_round + 1
            body = self.writer.template.body(self.writer.start_ms + i, np.full(SERIES, float(i)))
            sent_s = time.monotonic()
            connection.request("POST", "/api/v1/write", body, HEADERS)
            response = connection.getresponse()
            response.read()
            self.answers.append((sent_s, response.status, response.headers.get("retry-after", "")))
            if response.status == 204:
                self.writer.acknowledged.add(i)
            else:
                self.writer.uncertain.add(i)
                self.stop.wait(0.05)
        connection.close()

    def statuses(self, start_s: float, end_s: float) -> Counter[int]:
        """How often each status was the answer to what was sent in [start_s, end_s]."""
        return Counter(status for sent_s, status, _ in self.answers if start_s <= sent_s <= end_s)


@contextmanager
def tmpfs(place: Path) -> Iterator[Path]:
    """A small file system of its own. Skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """A file that takes all the room there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def is_answering(program: Program, writer: Writer) -> bool:
    """Whether the server still runs and knows the writer's first sample."""
    query = {"query": f'load_total{{writer="{writer.number}",i="0"}}', "time": writer.start_ms / 1000}
    reply = call(program.url, "POST", "/api/v1/query", query)
    return program.process.poll() is None and reply.status == 200 and b'"value"' in reply.body


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_full_disk_stops_writes_and_nothing_else(tmp_path: Path, rounds: int, capsys: pytest.CaptureFixture[str]) -> None:
    with tmpfs(tmp_path / "disk") as disk:
        writers = make_writers(int(time.time() * 1000))
        store, filler = disk / "store", disk / "filler"
        with treering(store, "--log-level", "warn", port=0) as program:
            senders = [Sender(writer, program.url) for writer in writers]
            threads = [threading.Thread(target=sender.run) for sender in senders]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            resumed_s = [one_fill(program, senders, filler, seconds=1.5) for _ in range(rounds)]
            for sender in senders:
                sender.stop.set()
            for thread in threads:
                thread.join()
            assert {status for sender in senders for _, status, _ in sender.answers} == {204, 503}
            waits = {wait for sender in senders for _, status, wait in sender.answers if status == 503}
            assert waits and all(wait.isdecimal() and 1 <= int(wait) <= 60 for wait in waits), waits
            program.kill()
        with treering(store, "--log-level", "warn") as program:
            found = sum(writer.check(program.url) for writer in writers)
    refused = sum(status == 503 for sender in senders for _, status, _ in sender.answers)
    with capsys.disabled():
        print(f"\nfull disk: {refused} writes refused, writing resumed after {max(resumed_s):.1f} s, {found} samples, 0 lost")
    assert found > 0


def test_flushing_and_starting_with_a_full_disk(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk") as disk:
        writer = make_writers(int(time.time() * 1000))[0]
        store, filler = disk / "store", disk / "filler"
        with treering(store, "--log-level", "warn") as program:
            sender = Sender(writer, program.url)
            thread = threading.Thread(target=sender.run)
            thread.start()
            time.sleep(0.5)
            fill(filler)
            flushed = call(program.url, "POST", "/ingester/flush")
            assert (flushed.status, flushed.headers["retry-after"]) == (503, "1"), flushed.body
            assert b"No space left on device" in flushed.body and str(store).encode() in flushed.body
            assert is_answering(program, writer)
            sender.stop.set()
            thread.join()
            program.stop()
            assert program.process.returncode == 0
            assert "Not all could be flushed (tenant anonymous: " in program.log.read_text()
        with treering(store, "--log-level", "warn") as program:
            assert is_answering(program, writer)
            assert writer.check(program.url) > 0
            filler.unlink()
            assert call(program.url, "POST", "/ingester/flush").status == 204
            assert writer.check(program.url) > 0
        with treering(store, "--log-level", "warn") as program:
            assert writer.check(program.url) > 0


def one_fill(program: Program, senders: list[Sender], filler: Path, *, seconds: float) -> float:
    """Fill the disk, look what happens, empty it; the seconds until writing had resumed."""
    fill(filler)
    full_s = time.monotonic()
    while time.monotonic() - full_s < seconds:
        assert is_answering(program, senders[0].writer)
        time.sleep(0.05)
    end_s = time.monotonic()
    half = sum((sender.statuses(full_s + seconds / 2, end_s) for sender in senders), Counter())
    filler.unlink()
    emptied_s = time.monotonic()
    assert half[503] > 0 and set(half) == {503}, f"answers while the disk was full: {half}"
    while True:
        took_s = time.monotonic() - emptied_s
        if all(sender.statuses(emptied_s, time.monotonic())[204] >= 3 for sender in senders):
            return took_s
        assert took_s < RESUME_S, f"no writing {RESUME_S} s after there was room"
        time.sleep(0.02)

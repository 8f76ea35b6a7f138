"""kill -9 under full write load, again and again: every acknowledged sample is there after the restart, exactly once."""

import http.client
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.peers import treering
from tests.e2e.load import make_writers, start_writers


@pytest.mark.parametrize("cycles", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_minus_nine_loses_nothing(tmp_path: Path, cycles: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(5)
    writers = make_writers(int(time.time() * 1000))
    for cycle in range(cycles):
        program = treering(tmp_path / "store", "--log-level", "warn")
        try:
            for writer in writers:
                writer.check(program.url)
            stop, threads = start_writers(writers, program.url)
            time.sleep(chance.uniform(0.3, 1.5))
            if cycle % 4 == 3:
                _flush_in_background(program.url)
            program.kill()
            stop.set()
            for thread in threads:
                thread.join()
        finally:
            program.stop()
    with treering(tmp_path / "store") as program:
        found = sum(writer.check(program.url) for writer in writers)
    with capsys.disabled():
        print(f"\n{cycles} kills -9: {found} acknowledged samples, 0 lost, 0 twice")
    assert found > 0


def _flush_in_background(url: str) -> None:
    """Ask for a flush and do not wait for it: the kill falls in the middle of writing a block."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/ingester/flush")
    time.sleep(0.05)
    connection.close()

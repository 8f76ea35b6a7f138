"""Power cuts: the data folder lies on a loop-mounted ext4 image; a copy of the image, taken in the middle of the load, is what a
disk would hold after the plug was pulled: what the system still has in its page cache is not in it. Every sample that was
acknowledged before the copy began must be in it."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.peers import treering
from tests.e2e.load import make_writers, start_writers

IMAGE_MIB = 256


def can_mount(folder: Path) -> str:
    """Why loop mounts do not work here, "" if they do."""
    if os.geteuid() != 0:
        return "loop mounts need root"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    try:
        image = make_image(folder / "probe.img", 16)
        with mounted(image, folder / "probe"):
            return ""
    except subprocess.CalledProcessError as error:
        return f"loop mounts do not work here: {error.stderr.decode().strip()}"


@pytest.mark.parametrize("cuts", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_power_cut_loses_nothing(tmp_path: Path, cuts: int, capsys: pytest.CaptureFixture[str]) -> None:
    reason = can_mount(tmp_path)
    if reason:
        pytest.skip(reason)
    chance, found = random.Random(9), 0
    for cut in range(cuts):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        found += one_cut(folder, chance.uniform(1.0, 4.0))
    with capsys.disabled():
        print(f"\n{cuts} power cuts: {found} samples acknowledged before them, 0 lost")
    assert found > 0


def one_cut(folder: Path, seconds: float) -> int:
    image, copy, place = make_image(folder / "disk.img", IMAGE_MIB), folder / "copy.img", folder / "disk"
    writers = make_writers(int(time.time() * 1000))
    with mounted(image, place), treering(place / "store", "--log-level", "warn") as program:
        stop, threads = start_writers(writers, program.url)
        time.sleep(seconds)
        program.process.send_signal(signal.SIGSTOP)  # nothing more is written while the disk is copied, as after the cut
        before = [set(writer.acknowledged) for writer in writers]
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
        stop.set()
        program.kill()
        for thread in threads:
            thread.join()
    with mounted(copy, place), treering(place / "store", "--log-level", "warn") as program:
        for writer, acknowledged in zip(writers, before, strict=True):
            writer.uncertain |= writer.acknowledged - acknowledged
            writer.acknowledged = acknowledged
        return sum(writer.check(program.url) for writer in writers)


def make_image(path: Path, size_mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True, capture_output=True)
    return path


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)

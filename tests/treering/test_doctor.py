import os
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from treering.cli import main
from treering.command import doctor
from treering.command.doctor import examine, print_findings
from treering.config import Config

CHECKS = ["data folder", "disk space", "fsync", "address", "bucket", "clock", "kernel cache"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Config(data=str(tmp_path / "store"), listen=f"127.0.0.1:{port}")


def seen(config: Config) -> dict[str, tuple[bool, str]]:
    return {finding.check: (finding.ok, finding.seen) for finding in examine(config)}


def test_all_is_well(config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "MAX_FSYNC_S", 60.0)  # others may be using this disk
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1)
    findings = examine(config)
    assert [finding.check for finding in findings] == CHECKS
    assert print_findings(findings), findings
    out = capsys.readouterr().out
    assert all(check in out for check in CHECKS) and "NOT OK" not in out
    assert [path.name for path in Path(config.data).rglob("*") if path.is_file()] == [], "nothing is left behind"


def test_a_busy_port(config: Config) -> None:
    with socket.socket() as taken:
        taken.bind(config.address())
        taken.listen()
        ok, words = seen(config)["address"]
    assert not ok and config.listen in words and "Address already in use" in words and "--listen" in words


def test_a_low_disk_and_a_slow_one(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(doctor, "MAX_FSYNC_S", 0.0)
    found = seen(config)
    assert not found["disk space"][0] and "GiB free" in found["disk space"][1]
    assert not found["fsync"][0] and "wal_sync: os" in found["fsync"][1]


def test_a_clock_behind_the_data(config: Config) -> None:
    Path(config.data).mkdir()
    (Path(config.data) / "file").touch()
    ahead_s = time.time() + 7200
    os.utime(Path(config.data) / "file", (ahead_s, ahead_s))
    ok, words = seen(config)["clock"]
    assert not ok and "s behind the newest file" in words


def test_a_folder_that_is_a_file_and_a_bucket_that_is_gone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    found = seen(config)
    assert not found["data folder"][0] and not found["bucket"][0] and config.data in found["bucket"][1]
    assert list(found) == CHECKS, "one failing check does not stop the next"


def test_a_bucket_of_an_unknown_kind(tmp_path: Path) -> None:
    ok, words = seen(Config(data=str(tmp_path / "store"), bucket="gopher://x"))["bucket"]
    assert not ok and "gopher://x" in words


def test_the_command(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with socket.socket() as taken:
        taken.bind(config.address())
        taken.listen()
        done = CliRunner().invoke(main, ["doctor", "--data", config.data, "--listen", config.listen])
    assert done.exit_code == 1 and "NOT OK" in done.output and config.listen in done.output

"""`treering doctor`: what a start needs, checked one by one, each with what to do about it."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from treering.config import Config
from tsdb import kernel
from tsdb.bucket.bucket import open_bucket
from tsdb.model.errors import TreeringError

LOW_DISK_BYTES = 1 << 30
MAX_FSYNC_S = 0.05
"""A write waits for one fsync; above this a disk will be felt by every sender."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, what was seen, and what to do if it is not."""

    check: str
    ok: bool
    seen: str


def examine(config: Config) -> list[Finding]:
    """All findings; one failing check does not stop the next."""
    checks: dict[str, Callable[[Config], tuple[bool, str]]] = {
        "data folder": _folder,
        "disk space": _space,
        "fsync": _fsync,
        "address": _port,
        "bucket": _bucket,
        "clock": _clock,
        "kernel cache": _cache,
    }
    findings = []
    for name, check in checks.items():
        try:
            ok, seen = check(config)
        except (OSError, TreeringError) as error:
            ok, seen = False, str(error)
        findings.append(Finding(name, ok, seen))
    return findings


def print_findings(findings: list[Finding]) -> bool:
    """Print the findings as a table; whether all are well."""
    table = Table("check", "", "seen", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.check, "[green]ok[/]" if finding.ok else "[red]NOT OK[/]", finding.seen)
    Console().print(table)
    return all(finding.ok for finding in findings)


def _folder(config: Config) -> tuple[bool, str]:
    folder = Path(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK | os.X_OK), f"{folder.resolve()} is writable"


def _space(config: Config) -> tuple[bool, str]:
    free = shutil.disk_usage(config.data).free
    return free >= LOW_DISK_BYTES, f"{free / 2**30:.1f} GiB free (want at least {LOW_DISK_BYTES >> 30} GiB)"


def _fsync(config: Config) -> tuple[bool, str]:
    path = Path(config.data) / ".doctor"
    with path.open("wb") as file:
        file.write(bytes(4096))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        took = time.perf_counter() - began
    path.unlink()
    return took <= MAX_FSYNC_S, f"{took * 1000:.1f} ms (want at most {MAX_FSYNC_S * 1000:.0f} ms; wal_sync: os avoids it)"


def _port(config: Config) -> tuple[bool, str]:
    with socket.socket(socket.AF_INET6 if ":" in config.address()[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(config.address())
        except OSError as error:
            return False, f"{config.listen}: {error.strerror}; choose another with --listen HOST:PORT"
    return True, f"{config.listen} is free"


def _bucket(config: Config) -> tuple[bool, str]:
    url = config.bucket or str(Path(config.data) / "bucket")
    bucket, key, text = open_bucket(url), "doctor/probe", b"treering"
    bucket.put(key, text)
    same = bucket.get(key, 2, 3) == text[2:5]
    listed = [entry.key for entry in bucket.list("doctor/")] == [key]
    bucket.delete(key)
    return same and listed and not bucket.exists(key), f"{url}: put, range get, list and delete work"


def _clock(config: Config) -> tuple[bool, str]:
    newest = max((path.stat().st_mtime for path in Path(config.data).rglob("*") if path.is_file()), default=0.0)
    ahead_s = newest - time.time()
    return (
        ahead_s < 60,
        "not behind the newest file" if ahead_s < 60 else f"{ahead_s:.0f} s behind the newest file in the data folder",
    )


def _cache(config: Config) -> tuple[bool, str]:
    folder = Path(kernel.__path__[0])
    place = os.environ.get("NUMBA_CACHE_DIR")
    if place or os.access(folder, os.W_OK):
        return True, f"compiled kernels are kept in {place or folder / '__pycache__'}"
    return True, f"{folder} is read-only: set NUMBA_CACHE_DIR, or each user's cache folder is used"

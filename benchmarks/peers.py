"""Start and stop the real programs that benchmarks and end-to-end tests compare with, on 127.0.0.1 and free ports."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parent.parent

PROMETHEUS, VICTORIA, NODE_EXPORTER = "prometheus", "victoria-metrics", "prometheus-node-exporter"


@dataclass(slots=True)
class Program:
    """A running process, its address and its log; leaving the `with` block ends it by its own process id."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    write_path: str = "/api/v1/write"

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_bytes(self, what: str) -> int:
        """VmRSS, its resident memory, or VmHWM, the most that was ever."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) * 1024

    def stop(self, *, wait_s: float = 60) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installed(program: str) -> bool:
    return shutil.which(program) is not None


def treering(folder: Path, *flags: str, ready_s: float = 60, port: int = 0) -> Program:
    """This checkout's server over `folder`."""
    port = port or free_port()
    command = [sys.executable, "-m", "treering", "serve", "--data", str(folder), "--listen", f"127.0.0.1:{port}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return start(command, folder.with_suffix(".log"), port, "/-/ready", ready_s=ready_s, environment=environment)


def victoria(folder: Path, *flags: str) -> Program:
    port = free_port()
    command = [
        VICTORIA,
        f"-storageDataPath={folder}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-search.maxPointsPerTimeseries=100000",  # a subquery of a minute's step over 30 days has more than the default allows
        *flags,
    ]
    return start(command, folder.with_suffix(".log"), port, "/health")


def prometheus(folder: Path, *flags: str, config: str = "") -> Program:
    """Debian's Prometheus with its remote-write receiver on."""
    port = free_port()
    file = folder.with_suffix(".yml")
    file.write_text(config)
    command = [
        PROMETHEUS,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        *flags,
    ]
    return start(command, folder.with_suffix(".log"), port, "/-/ready")


def node_exporter(folder: Path) -> Program:
    port = free_port()
    return start([NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"], folder / "node.log", port, "/metrics")


def start(
    command: Sequence[str],
    log: Path,
    port: int,
    ready_path: str,
    *,
    ready_s: float = 60,
    environment: dict[str, str] | None = None,
) -> Program:
    """The running program, once it answers. RuntimeError with the end of its log if it does not."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    program = Program(process, f"http://127.0.0.1:{port}", log)
    end = time.monotonic() + ready_s
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(program.url + ready_path, timeout=2) as response:
                if response.status == 200:
                    return program
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    program.stop()
    raise RuntimeError(f"{command[0]} is not ready after {ready_s} s:\n{log.read_text()[-2000:]}")


def folder_bytes(folder: Path) -> int:
    """The sum of file sizes below a folder, each file counted once however often it is linked."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())

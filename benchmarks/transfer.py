"""How fast history comes in and goes out, over real samples that Debian's promtool has put into Prometheus' own blocks.

python -m benchmarks.transfer FILE.om        FILE.om: OpenMetrics text, such as `treering export openmetrics` writes
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from treering.cli import main
from tsdb.bucket.bucket import FolderBucket
from tsdb.kernel.xor import decode_floats
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.prometheus.block import open_prometheus_block
from tsdb.prometheus.meta import find_prometheus_blocks

ROUNDS = 5


def run(text: Path) -> None:
    """Print samples per CPU second of each step."""
    with tempfile.TemporaryDirectory() as place:
        blocks, own = Path(place) / "blocks", Path(place) / "own"
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, blocks], check=True, stdout=subprocess.DEVNULL
        )
        samples = decoding(blocks)
        cli("import", "prometheus-block", blocks, "--data", Path(place) / "warm")
        tell("import prometheus-block", samples, lambda: cli("import", "prometheus-block", blocks, "--data", own))
        tell("import openmetrics", samples, lambda: cli("import", "openmetrics", text, "--data", Path(place) / "text"))
        for kind in ("parquet", "openmetrics", "csv"):
            file = Path(place) / kind
            flags = ("--match", '{__name__!=""}', "--bucket", own / "bucket", "-o", file)
            tell(f"export {kind}", samples, lambda kind=kind, flags=flags: cli("export", kind, *flags))  # type: ignore[misc]
            print(f"  {file.stat().st_size / samples:.2f} bytes a sample")
        file = Path(place) / "parquet"
        tell("import parquet", samples, lambda: cli("import", "parquet", file, "--data", Path(place) / "back"))
    print(f"peak memory of all this {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def decoding(folder: Path) -> int:
    """Print the speed of the XOR kernel and of whole reads; how many samples there are."""
    bucket, samples, kernel_s, read_s = FolderBucket(folder), 0, 0.0, 0.0
    whole = Selection((), MIN_MS, MAX_MS)
    for name in find_prometheus_blocks(bucket):
        block = open_prometheus_block(bucket, name)
        chunks = block.chunks(np.arange(len(block.index.t_min)))
        counts = chunks.data[chunks.start].astype(np.int64) << 8 | chunks.data[chunks.start + 1]
        at = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        t_ms, bits, start_ms = np.empty(at[-1], np.int64), np.empty(at[-1], np.uint64), np.empty(at[-1], np.int64)
        arguments = chunks.data, chunks.start, chunks.end, chunks.encoding, at[:-1], t_ms, bits, start_ms
        kernel_s += min(cpu_s(lambda arguments=arguments: decode_floats(*arguments)) for _ in range(ROUNDS))  # type: ignore[misc]
        read_s += min(cpu_s(lambda block=block: sum(1 for _ in block.select(whole))) for _ in range(2))  # type: ignore[misc]
        samples += int(at[-1])
    print(
        f"{samples:,} samples: XOR kernel {samples / kernel_s / 1e6:.0f} M/s, read with checksums {samples / read_s / 1e6:.1f} M/s"
    )
    return samples


def tell(what: str, samples: int, step: Callable[[], object]) -> None:
    print(f"{what}: {samples / cpu_s(step) / 1e6:.2f} M samples per CPU second")


def cpu_s(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def cli(*arguments: str | Path) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


if __name__ == "__main__":
    run(Path(sys.argv[1]))

"""Bytes a sample in the bucket for really scraped samples sent by remote write, beside VictoriaMetrics after its full merge.

usage: python -m benchmarks.storage [--data FOLDER]      FOLDER has load.py as in ../shared/data
"""

import argparse
import importlib.util
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bodies import send
from benchmarks.peers import ROOT, folder_bytes, treering, victoria
from remote.wire.client import encode_v1
from tsdb.model.labels import Labels
from tsdb.model.write import WriteBatch

SAMPLES_A_REQUEST = 20_000
DEFAULT_DATA = ROOT.parent / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    labels, offsets, t_ms, values = load(parser.parse_args().data)
    print(f"{len(labels):,} series, {len(values):,} samples")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = own_bytes(folder / "treering", labels, offsets, t_ms, values)
        peer = victoria_bytes(folder / "victoria", labels, offsets, t_ms, values)
    print(f"{'treering':<18}{own / len(values):.4f} bytes a sample ({own:,} bytes in the bucket, index included)")
    print(f"{'victoria-metrics':<18}{peer / len(values):.4f} bytes a sample ({peer:,} bytes, index included)")
    print(f"treering / victoria-metrics: {own / peer:.2f}x")


def load(folder: Path) -> tuple[list[Labels], np.ndarray, np.ndarray, np.ndarray]:
    """(labels, offsets i64[n+1], t_ms i64[m], values f64[m]) of the recorded scrapes."""
    spec = importlib.util.spec_from_file_location("recorded", folder / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    labels, offsets, t_ms, values = module.load()
    return [Labels.of(row) for row in labels], offsets, t_ms, values


def bodies(labels: list[Labels], offsets: np.ndarray, t_ms: np.ndarray, values: np.ndarray) -> Iterator[bytes]:
    """Remote-write bodies in the order of time, as a sender would send them."""
    row = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(offsets))
    order = np.argsort(t_ms, kind="stable")
    whole = WriteBatch.of(labels, row=row[order], t_ms=t_ms[order], values=values[order])
    for at in range(0, len(order), SAMPLES_A_REQUEST):
        part = slice(at, at + SAMPLES_A_REQUEST)
        rows, inside = np.unique(whole.row[part], return_inverse=True)
        yield encode_v1(
            WriteBatch(
                whole.label_bytes,
                whole.start[rows],
                whole.end[rows],
                whole.hash[rows],
                inside.astype(np.int32),
                whole.t_ms[part],
                whole.values[part],
            )
        )


def own_bytes(folder: Path, labels: list[Labels], offsets: np.ndarray, t_ms: np.ndarray, values: np.ndarray) -> int:
    with treering(folder, "--log-level", "warn") as program:
        began = time.perf_counter()
        send(program.url, program.write_path, [bodies(labels, offsets, t_ms, values)])
        urllib.request.urlopen(program.url + "/ingester/flush", timeout=300).close()
        print(f"treering: sent and flushed in {time.perf_counter() - began:.1f} s, {program.cpu_s():.1f} CPU s")
        return folder_bytes(folder / "bucket")


def victoria_bytes(folder: Path, labels: list[Labels], offsets: np.ndarray, t_ms: np.ndarray, values: np.ndarray) -> int:
    with victoria(folder) as program:
        send(program.url, program.write_path, [bodies(labels, offsets, t_ms, values)])
        urllib.request.urlopen(program.url + "/internal/force_flush", timeout=60).close()
        urllib.request.urlopen(program.url + "/internal/force_merge", timeout=60).close()
        settled, size = 0, 0
        while settled < 5:
            time.sleep(1)
            now = folder_bytes(folder / "data") + folder_bytes(folder / "indexdb")
            settled, size = (settled + 1 if now == size else 0), now
        return size


if __name__ == "__main__":
    main()

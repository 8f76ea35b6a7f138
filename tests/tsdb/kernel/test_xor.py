"""The compiled decoders and their plain Python say the same, sound bytes or not."""

import numpy as np
import pytest

from tests.tsdb import prometheus_files as files
from tests.tsdb.test_prometheus_chunk import histogram_samples
from tsdb.kernel import chunk_histogram, series_scan
from tsdb.kernel.xor import aggregate_chunks, decode_floats
from tsdb.prometheus.chunk import padded

FLOATS = {
    files.XOR: files.xor_chunk([(1000 * i + i * i % 7, files.float_bits(i / 7)) for i in range(30)]),
    files.XOR2: files.xor2_chunk([(i // 4, 1000 * i + i * i % 7, files.float_bits(i // 2)) for i in range(30)]),
}


def damaged(body: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    out = bytearray(body)
    for _ in range(seed % 3):
        out[int(rng.integers(2, len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


@pytest.mark.parametrize("encoding", FLOATS)
@pytest.mark.parametrize("seed", range(12))
def test_floats(encoding: int, seed: int) -> None:
    body = damaged(FLOATS[encoding], seed)
    answers = []
    for run in (decode_floats, decode_floats.py_func):
        t_ms, bits, start_ms = np.zeros(30, np.int64), np.zeros(30, np.uint64), np.zeros(30, np.int64)
        with np.errstate(over="ignore"):
            broken = run(padded(body), np.array([0]), np.array([len(body)]), np.array([encoding], np.uint8), np.array([0]),
                         t_ms, bits, start_ms)  # fmt: skip
        answers.append((broken, t_ms.tolist(), bits.tolist(), start_ms.tolist()))
    assert answers[0] == answers[1]
    assert seed % 3 or answers[0][0] == -1


@pytest.mark.parametrize("encoding", [files.HISTOGRAM, files.FLOAT, files.HISTOGRAM_START, files.FLOAT_START])
@pytest.mark.parametrize("seed", range(6))
def test_histograms(encoding: int, seed: int) -> None:
    samples = histogram_samples(8, fractions=encoding in (files.FLOAT, files.FLOAT_START), starts=True)
    body = damaged(files.histogram_chunk(files.Layout(), samples, encoding), seed)
    chunk = padded(body), np.array([0]), np.array([len(body)]), np.array([encoding], np.uint8)
    answers = []
    for compiled in (True, False):
        measure, decode = chunk_histogram.measure_histograms, chunk_histogram.decode_histograms
        sizes = np.zeros((6, 1), np.int64)
        with np.errstate(over="ignore"):
            broken = (measure if compiled else measure.py_func)(*chunk, sizes)
            found = [sizes.tolist()]
            if broken < 0:
                rows, width = int(sizes[0, 0]), int(sizes[1, 0] + sizes[2, 0])
                t_ms, start_ms, numbers, counts = (
                    np.zeros(rows, np.int64),
                    np.zeros(rows, np.int64),
                    np.zeros((3, rows)),
                    np.zeros(rows * width),
                )
                state = np.zeros((3, 3 + width), np.int64)
                broken = (decode if compiled else decode.py_func)(
                    *chunk, sizes, np.array([0]), np.array([0]), state, t_ms, start_ms, numbers, numbers.view(np.uint64),
                    counts, counts.view(np.uint64),
                )  # fmt: skip
                found += [t_ms.tolist(), start_ms.tolist(), numbers.view(np.uint64).tolist(), counts.view(np.uint64).tolist()]
        answers.append((broken, found))
    assert answers[0] == answers[1]
    assert seed % 3 or answers[0][0] == -1


def test_aggregates_and_series_entries() -> None:
    whole = files.aggregate_chunk([b"abc", None, None, b"defg", None])
    start, end, encoding = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    for run in (aggregate_chunks, aggregate_chunks.py_func):
        for which, text in enumerate([b"abc", None, None, b"defg", None]):
            assert run(padded(whole), np.array([0]), np.array([len(whole)]), which, start, end, encoding) == -1
            assert bool(encoding[0]) == (text is not None)
            assert text is None or whole[start[0] : end[0]] == text
        assert run(padded(whole), np.array([0]), np.array([7]), 3, start, end, encoding) == 0


def test_series_section() -> None:
    body = files.uvarint(1) + b"\x01\x02" + files.uvarint(2) + files.varint(-5) + files.uvarint(5) + files.uvarint(8)
    body += files.uvarint(3) + files.uvarint(7) + files.varint(-2)
    entry = files.uvarint(len(body)) + body + files.crc(body)
    data = np.frombuffer(entry + bytes(-len(entry) % 16 + 16) + entry, np.uint8)
    for count, fill in (
        (series_scan.count_series, series_scan.fill_series),
        (series_scan.count_series.py_func, series_scan.fill_series.py_func),
    ):
        with np.errstate(over="ignore"):
            assert count(data, 0, len(data)).tolist() == [2, 2, 4, -1]
            place, label_at, name, value = (np.zeros(n, np.int64) for n in (2, 3, 2, 2))
            chunk_at, low, high, ref = (np.zeros(n, np.int64) for n in (3, 4, 4, 4))
            assert fill(data, 0, len(data), place, label_at, name, value, chunk_at, low, high, ref) == -1
            assert count(data, 0, len(data) - 1)[3] >= 0
        assert (label_at.tolist(), chunk_at.tolist()) == ([0, 1, 2], [0, 2, 4])
        assert (name.tolist(), value.tolist()) == ([1, 1], [2, 2])
        assert (low.tolist(), high.tolist(), ref.tolist()) == ([-5, 3, -5, 3], [0, 10, 0, 10], [8, 6, 8, 6])

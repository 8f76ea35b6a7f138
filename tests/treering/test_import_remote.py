"""The stream of a remote read: whole, cut anywhere, any byte damaged. A real server answers in `tests/e2e/test_import.py`."""

import io

import numpy as np
import pytest

from remote.protos import read_pb2
from tests.tsdb import prometheus_files as files
from tests.tsdb.test_prometheus_block import points
from treering.transfer.import_part import Wanted
from treering.transfer.import_remote import RemoteServer, read_stream, remote_parts
from tsdb.model.errors import Corrupt, Unavailable


def frame(name: str, *chunks: bytes) -> bytes:
    series = read_pb2.ChunkedSeries(chunks=[read_pb2.Chunk(type=read_pb2.Chunk.XOR, data=data) for data in chunks])
    series.labels.add(name="__name__", value=name)
    message = read_pb2.ChunkedReadResponse(chunked_series=[series]).SerializeToString()
    return files.uvarint(len(message)) + files.crc(message) + message


def stream() -> bytes:
    first, second = ([(t, files.float_bits(t / 4)) for t in times] for times in (range(5), range(5, 8)))
    return frame("a", files.xor_chunk(first)) + frame("a", files.xor_chunk(second)) + frame("b", files.xor_chunk(first))


def test_series_may_go_on_in_the_next_frame() -> None:
    assert points(read_stream(io.BytesIO(stream()).read, where="s")) == {
        "a": [(t, t / 4) for t in range(8)], "b": [(t, t / 4) for t in range(5)],
    }  # fmt: skip
    assert read_stream(io.BytesIO(b"").read, where="s").samples == 0


def test_cut_streams_are_told() -> None:
    data = stream()
    ends = {0, len(frame("a", files.xor_chunk([(t, files.float_bits(t / 4)) for t in range(5)])))}
    told = 0
    for size in range(len(data)):
        try:
            read_stream(io.BytesIO(data[:size]).read, where="s")
        except Corrupt as error:
            assert str(error).startswith("s, frame ")
            told += 1
    assert told == len(data) - len(ends) - 1, "only between two frames a cut cannot be seen"


def test_damaged_streams_are_told() -> None:
    data, rng = stream(), np.random.default_rng(0)
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Corrupt):
            read_stream(io.BytesIO(broken).read, where="s")


def test_parts_are_the_windows_of_the_wanted_time() -> None:
    server = RemoteServer("http://127.0.0.1:9/")
    parts = list(remote_parts(server, Wanted(start_ms=50, end_ms=250), window_ms=100))
    assert [part.weight for part in parts] == [50, 100, 50]
    assert len({part.fingerprint for part in parts}) == 3
    assert server.endpoint == "http://127.0.0.1:9/api/v1/read" == RemoteServer(server.endpoint).endpoint
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        parts[0].open()

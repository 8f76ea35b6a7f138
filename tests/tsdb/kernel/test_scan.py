"""The scans compiled against themselves as plain Python, and the grammar they stand on against Python's own."""

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdb.kernel import scan
from tsdb.kernel.append import NOTHING_KNOWN, KnownLabels
from tsdb.kernel.hash import hash_bytes
from tsdb.kernel.protowire import (
    compare_bytes,
    copy_bytes,
    is_ascii,
    is_utf8,
    order_key,
    read_length,
    read_tag,
    read_varint,
    zigzag,
)
from tsdb.kernel.scan import PADDING, Columns, scan_v1
from tsdb.kernel.scan_v2 import Symbols, scan_v2

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
LIMITS = np.array([8, 32, 64], np.int64)

V1 = (
    b"\x0a\x27\x0a\x0d\x0a\x08__name__\x12\x01m\x0a\x08\x0a\x03job\x12\x01a\x12\x0c\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\xe8\x07"
    b"\x0a\x22\x0a\x08\x0a\x03zzz\x12\x01a\x0a\x0d\x0a\x08__name__\x12\x01n\x12\x02\x10\x05\x1a\x01\x00\x22\x00\x1a\x02\x08\x01"
)
V2 = (
    b"\x22\x00\x22\x08__name__\x22\x01m\x22\x03job\x22\x01a"
    b"\x2a\x19\x0a\x04\x01\x02\x03\x04\x12\x0b\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x07\x2a\x04\x08\x01\x18\x04"
    b"\x2a\x0b\x08\x03\x08\x04\x08\x01\x08\x02\x1a\x01\x00"
)


def padded(data: bytes, room: int = PADDING) -> U8:
    return np.concatenate([np.frombuffer(data, np.uint8), np.full(room, 0xEE, np.uint8)])


def columns(size: int = 64) -> Columns:
    shapes = ((scan.SERIES_ROWS, size), (4, size), (size, 4), (scan.STATES,), (int(LIMITS[0]), 4))
    return Columns(*(np.zeros(shape, np.int64) for shape in shapes))


def run_v1(kernel: Callable[..., int], data: bytes, size: int = 64, known: KnownLabels = NOTHING_KNOWN) -> tuple[int, list[object]]:
    out, buffer = columns(size), padded(data, len(data) + PADDING)
    code = kernel(buffer, len(data), LIMITS, known, out)
    return code, filled(out, code, buffer[: out.state[scan.ARENA]])


def run_v2(kernel: Callable[..., int], data: bytes, size: int = 64) -> tuple[int, list[object]]:
    out, arena = columns(size), np.zeros(1000 + PADDING, np.uint8)
    symbols = Symbols(np.zeros((3, size), np.int64), np.zeros((size, 4), np.int64))
    code = kernel(padded(data), len(data), arena[:1000], LIMITS, out, symbols)
    families = symbols.families[: out.state[scan.FAMILIES]].tolist()
    return code, [*filled(out, code, arena[: out.state[scan.ARENA]]), families]


def filled(out: Columns, code: int, arena: U8) -> list[object]:
    n, m, x = out.state[: scan.EXTRAS + 1].tolist()
    if code != scan.OK:
        return [out.state[scan.OFFSET]]
    return [out.series[:, :n].tolist(), out.samples[:, :m].tolist(), out.extras[:x].tolist(), out.state.tolist(), arena.tobytes()]


def test_version_1_by_hand() -> None:
    code, (series, samples, extras, _, arena) = run_v1(scan_v1, V1)
    assert code == scan.OK
    assert isinstance(series, list) and isinstance(arena, bytes)
    labels = [arena[a:b] for a, b in zip(series[scan.START], series[scan.END], strict=True)]
    name = b"\x0a\x0d\x0a\x08__name__\x12\x01"
    assert labels == [name + b"m\x0a\x08\x0a\x03job\x12\x01a", name + b"n\x0a\x08\x0a\x03zzz\x12\x01a"]
    assert series[scan.START] == [2, len(V1)]
    assert samples == [[0, 1], [1000, 5], [0x3FF0 << 48, 0], [0, 0]]
    assert [row[:2] for row in extras] == [[scan.EXEMPLAR, 1], [scan.HISTOGRAM, 1], [scan.FAMILY, -1]]  # type: ignore[attr-defined]


def test_version_2_by_hand() -> None:
    code, (series, samples, extras, _, arena, families) = run_v2(scan_v2, V2)
    assert code == scan.OK
    assert isinstance(series, list) and isinstance(arena, bytes)
    labels = [arena[a:b] for a, b in zip(series[scan.START], series[scan.END], strict=True)]
    assert labels == [b"\x0a\x0d\x0a\x08__name__\x12\x01m\x0a\x08\x0a\x03job\x12\x01a"] * 2
    assert series[scan.HASH][0] == series[scan.HASH][1]
    assert samples == [[0], [7], [0x3FF0 << 48], [0]]
    assert extras == [[scan.HISTOGRAM, 1, len(V2) - 1, len(V2)]]
    assert families == [[2, 4, 0, 1]]


def run_known(kernel: Callable[..., int], data: bytes, size: int = 64) -> tuple[int, list[object]]:
    """A scan that knows the first series."""
    labels = np.frombuffer(V1[2:27], np.uint8).copy()
    one = np.ones(1, np.int64)
    hashes = np.array([hash_bytes(labels, 0, len(labels))], np.uint64)
    known = KnownLabels(
        np.zeros(1, np.int32), hashes, 0 * one, one.astype(np.int32), np.zeros(1, np.int32), np.array([0, len(labels)]), labels
    )
    return run_v1(kernel, data, size, known)


def test_a_known_series_is_passed_over() -> None:
    code, (series, *rest) = run_known(scan_v1, V1)
    unknown_code, (unknown_series, *unknown_rest) = run_v1(scan_v1, V1)
    assert code == unknown_code == scan.OK
    assert isinstance(series, list) and isinstance(unknown_series, list)
    assert series[: scan.REF] == unknown_series[: scan.REF]
    assert series[scan.REF] == [0, -1] and unknown_series[scan.REF] == [-1, -1]
    assert rest[:2] == unknown_rest[:2]


@pytest.mark.parametrize(("run", "kernel", "data"), [(run_v1, scan_v1, V1), (run_known, scan_v1, V1), (run_v2, scan_v2, V2)])
def test_compiled_equals_python(run: Callable[..., tuple[int, list[object]]], kernel: Callable[..., int], data: bytes) -> None:
    rng = random.Random(7)
    codes = set()
    with np.errstate(over="ignore"):
        for i in range(400):
            raw = bytearray(data)
            for _ in range(i % 4):
                raw[rng.randrange(len(raw))] = rng.choice((0, 1, 2, 0x0A, 0x12, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            raw = raw[: rng.randrange(len(raw) + 1)] if i % 5 == 4 else raw
            compiled = run(kernel, bytes(raw))
            assert compiled == run(kernel.py_func, bytes(raw))  # type: ignore[attr-defined]
            codes.add(compiled[0])
    assert codes == {scan.OK, scan.BROKEN}


@pytest.mark.parametrize(("run", "kernel", "data"), [(run_v1, scan_v1, V1), (run_v2, scan_v2, V2)])
def test_short_columns_are_told(run: Callable[..., tuple[int, list[object]]], kernel: Callable[..., int], data: bytes) -> None:
    assert run(kernel, data, 1)[0] == scan.FULL
    assert run(kernel, data, 0)[0] == scan.FULL


@given(st.binary(max_size=24))
def test_utf8_as_python_decodes_it(data: bytes) -> None:
    try:
        data.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    assert is_utf8(padded(data), 0, len(data)) == good
    assert is_ascii(padded(data), 0, len(data)) == data.isascii()


@pytest.mark.parametrize("lead", range(0x80, 0x100))
def test_utf8_for_every_lead_byte(lead: int) -> None:
    rng = random.Random(lead)
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
    for _ in range(60):
        data = bytes([lead, *(rng.choice(edges) for _ in range(rng.randrange(4)))])
        try:
            data.decode()
            good = True
        except UnicodeDecodeError:
            good = False
        assert is_utf8(padded(data), 0, len(data)) == good, data


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_order_of_names_is_byte_order(a: bytes, b: bytes) -> None:
    data = padded(a + b)
    want = (a > b) - (a < b)
    assert compare_bytes(data, 0, len(a), len(a), len(b)) == want
    keys = [int(order_key(data, start, size)) for start, size in ((0, len(a)), (len(a), len(b)))]
    assert keys[0] == keys[1] or (keys[0] > keys[1]) - (keys[0] < keys[1]) == want


@given(st.integers(0, (1 << 64) - 1))
def test_varints(value: int) -> None:
    rest, data = value, bytearray()
    while rest > 0x7F:
        data.append(rest & 0x7F | 0x80)
        rest >>= 7
    data.append(rest)
    assert read_varint(padded(bytes(data)), 0, len(data)) == (value, len(data))
    assert read_varint(padded(bytes(data)), 0, len(data) - 1)[1] == -1
    assert int(zigzag(np.uint64(value))) == (value >> 1) ^ -(value & 1)


@pytest.mark.parametrize("data", [b"\xff" * 11, b"\xff" * 9 + b"\x02", b""])
def test_varints_over_64_bits_are_broken(data: bytes) -> None:
    assert read_varint(padded(data), 0, len(data))[1] == -1


@pytest.mark.parametrize(
    ("data", "stop"), [(b"\x03abc", 4), (b"\x04abc", -1), (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -1), (b"", -1)]
)
def test_lengths_stay_inside(data: bytes, stop: int) -> None:
    assert read_length(padded(data), 0, len(data))[1] == stop


@pytest.mark.parametrize(
    ("data", "want"), [(b"\x0a", (1, 2, 1)), (b"\x82\x01", (16, 2, 2)), (b"\x02", (0, 2, -1)), (b"\x80", (0, 0, -1))]
)
def test_tags(data: bytes, want: tuple[int, int, int]) -> None:
    assert read_tag(padded(data), 0, len(data)) == want


@given(st.binary(min_size=1, max_size=40))
def test_copying_by_words_copies_every_byte(data: bytes) -> None:
    to = np.zeros(len(data) + 3 + PADDING, np.uint8)
    copy_bytes(to, 3, padded(data), 0, len(data))
    assert to[3 : 3 + len(data)].tobytes() == data
    assert to[:3].tolist() == [0, 0, 0]

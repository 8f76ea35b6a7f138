"""Blocks of Prometheus written by the book: bit streams, chunks of every encoding, index, tombstones, for tests to read.

Written from the format's description, apart from the reader; `tests/e2e/test_import.py` has real ones.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tsdb.kernel.crc32c import crc32c
from tsdb.model.series import STALE_BITS

XOR, HISTOGRAM, FLOAT, XOR2, HISTOGRAM_START, FLOAT_START, AGGREGATE = 1, 2, 3, 4, 5, 6, 0xFF


class Bits:
    """A stream of bits, the most significant first."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, size: int) -> None:
        self.text += format(value & ((1 << size) - 1), f"0{size}b") if size else ""

    def data(self) -> bytes:
        padded = self.text + "0" * (-len(self.text) % 8)
        return bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))

    def uvarint(self, value: int) -> None:
        for byte in uvarint(value):
            self.put(byte, 8)

    def varint(self, value: int) -> None:
        self.uvarint(value << 1 if value >= 0 else (-value << 1) - 1)

    def varbit(self, value: int, *, signed: bool = True) -> None:
        if value == 0:
            self.put(0, 1)
            return
        for ones, size in enumerate((3, 6, 9, 12, 18, 25, 56), 1):
            fits = -(1 << (size - 1)) < value <= 1 << (size - 1) if signed else value < 1 << size
            if fits:
                self.put(((1 << ones) - 1) << 1, ones + 1)
                self.put(value, size)
                return
        self.put(255, 8)
        self.put(value, 64)


@dataclass(slots=True)
class Gorilla:
    """The state of one float in a stream."""

    bits: int = 0
    window: tuple[int, int] | None = None

    def put(self, out: Bits, bits: int, *, reuse: tuple[str, str] = ("10", "11")) -> None:
        """A change: `reuse` are the prefixes of the old window and of a new one."""
        delta = bits ^ self.bits
        self.bits = bits
        leading, trailing = min(64 - delta.bit_length(), 31), (delta & -delta).bit_length() - 1
        if self.window is not None and leading >= self.window[0] and trailing >= self.window[1]:
            out.text += reuse[0]
        else:
            self.window = (leading, trailing)
            out.text += reuse[1]
            out.put(leading, 5)
            out.put((64 - leading - trailing) % 64, 6)
        leading, trailing = self.window
        out.put(delta >> trailing, 64 - leading - trailing)

    def xor(self, out: Bits, bits: int) -> None:
        if bits == self.bits:
            out.put(0, 1)
        else:
            self.put(out, bits)


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def varint(value: int) -> bytes:
    return uvarint(value << 1 if value >= 0 else (-value << 1) - 1)


def float_bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))


def xor_chunk(samples: Sequence[tuple[int, int]]) -> bytes:
    """An XOR chunk of (time, bits of the value)."""
    out, value = Bits(), Gorilla()
    delta = 0
    for i, (t, bits) in enumerate(samples):
        if i == 0:
            out.varint(t)
            out.put(bits, 64)
            value.bits = bits
            continue
        step = t - samples[i - 1][0]
        if i == 1:
            out.uvarint(step)
        else:
            _put_delta(out, step - delta)
        delta = step
        value.xor(out, bits)
    return struct.pack(">H", len(samples)) + out.data()


def _put_delta(out: Bits, change: int) -> None:
    if change == 0:
        out.put(0, 1)
        return
    for prefix, size in (("10", 14), ("110", 17), ("1110", 20)):
        if -(1 << (size - 1)) < change <= 1 << (size - 1):
            out.text += prefix
            out.put(change, size)
            return
    out.put(15, 4)
    out.put(change, 64)


def xor2_chunk(samples: Sequence[tuple[int, int, int]]) -> bytes:
    """An XOR2 chunk of (start time or 0, time, bits of the value)."""
    out, value, starts = Bits(), Gorilla(), Starts()
    delta = 0
    for i, (start, t, bits) in enumerate(samples):
        if i == 0:
            out.varint(t)
            out.put(bits, 64)
            value.bits = 0 if bits == STALE_BITS else bits
        else:
            step = t - samples[i - 1][1]
            if i == 1:
                out.uvarint(step)
                _put_value2(out, value, bits)
            else:
                _put_sample2(out, value, step - delta, bits)
            delta = step
        starts.put(out, i, t=t, before=samples[i - 1][1] if i else 0, start=start)
    return struct.pack(">HB", len(samples), starts.header) + out.data()


def _put_sample2(out: Bits, value: Gorilla, change: int, bits: int) -> None:
    if change == 0 and bits == STALE_BITS:
        out.text += "11111"
    elif change == 0 and bits == value.bits:
        out.text += "0"
    elif change == 0:
        out.text += "10"
        value.put(out, bits, reuse=("0", "1"))
    else:
        for prefix, size in (("110", 13), ("1110", 20), ("11110", 64)):
            if size == 64 or -(1 << (size - 1)) <= change < 1 << (size - 1):
                out.text += prefix
                out.put(change, size)
                break
        _put_value2(out, value, bits)


def _put_value2(out: Bits, value: Gorilla, bits: int) -> None:
    if bits == STALE_BITS:
        out.text += "111"
    elif bits == value.bits:
        out.text += "0"
    else:
        value.put(out, bits, reuse=("10", "110"))


@dataclass(slots=True)
class Starts:
    """Start times behind samples: told from the first change on, always from sample 127 on."""

    header: int = 0
    start: int = 0
    behind: int = 0

    def put(self, out: Bits, i: int, *, t: int, before: int, start: int) -> None:
        first_change = self.header & 0x7F
        if i == 0:
            if start:
                self.header = 0x80
                out.varint(t - start)
        elif first_change:
            out.varbit(before - start - self.behind)
            self.behind = before - start
        elif start != self.start or i == 127:
            self.header |= i
            self.behind = before - start
            out.varbit(self.behind)
        self.start = start


@dataclass(frozen=True, slots=True)
class Layout:
    """What all samples of a histogram chunk share: spans are (distance from the end of the one before, length)."""

    schema: int = 3
    zero_threshold: float = 2.0**-128
    positive: Sequence[tuple[int, int]] = ((0, 2), (3, 1))
    negative: Sequence[tuple[int, int]] = ((-2, 1),)
    bounds: Sequence[float] = ()
    reset: int = 0
    """The two bits of the header."""


@dataclass(frozen=True, slots=True)
class HistogramSample:
    """Absolute counts of each bucket of the layout."""

    t: int
    count: float
    zero_count: float
    sum_bits: int
    positive: Sequence[float]
    negative: Sequence[float]
    start: int = 0


def histogram_chunk(layout: Layout, samples: Sequence[HistogramSample], encoding: int) -> bytes:
    """A histogram chunk of any of the four encodings."""
    out, starts = Bits(), Starts()
    _put_layout(out, layout)
    integer = encoding in (HISTOGRAM, HISTOGRAM_START)
    started = encoding in (HISTOGRAM_START, FLOAT_START)
    times, numbers = (
        _Second(),
        [_Second() if integer else Gorilla() for _ in range(2 + len(samples[0].positive) + len(samples[0].negative))],
    )
    total = Gorilla()
    for i, sample in enumerate(samples):
        times.put(out, sample.t, first=i == 0)
        stale = sample.sum_bits == STALE_BITS
        sides = [_deltas(side) if integer else list(side) for side in (sample.positive, sample.negative)]
        fields = [sample.count, sample.zero_count, *([] if stale and i else sides[0] + sides[1])]
        for k, (number, state) in enumerate(zip(fields, numbers, strict=False)):
            if k == 2:
                _put_sum(out, total, sample.sum_bits, first=i == 0)
            _put_number(out, state, number, first=i == 0, unsigned=k < 2)
        if len(fields) == 2:
            _put_sum(out, total, sample.sum_bits, first=i == 0)
        if started:
            starts.put(out, i, t=sample.t, before=samples[i - 1].t if i else 0, start=sample.start)
    if started:
        return struct.pack(">HB", layout.reset << 14 | len(samples), starts.header) + out.data()
    return struct.pack(">HB", len(samples), layout.reset << 6) + out.data()


@dataclass(slots=True)
class _Second:
    """An integer told by deltas of deltas."""

    value: int = 0
    delta: int = 0

    def put(self, out: Bits, value: int, *, first: bool, unsigned: bool = False) -> None:
        if first:
            out.varbit(value, signed=not unsigned)
        else:
            out.varbit(value - self.value - self.delta)
            self.delta = value - self.value
        self.value = value


def _put_number(out: Bits, state: "_Second | Gorilla", number: float, *, first: bool, unsigned: bool) -> None:
    if isinstance(state, _Second):
        state.put(out, int(number), first=first, unsigned=unsigned)
    elif first:
        state.bits = float_bits(number)
        out.put(state.bits, 64)
    else:
        state.xor(out, float_bits(number))


def _put_sum(out: Bits, state: Gorilla, bits: int, *, first: bool) -> None:
    if first:
        state.bits = bits
        out.put(bits, 64)
    else:
        state.xor(out, bits)


def _deltas(counts: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip([0, *counts], counts, strict=False)]


def _put_layout(out: Bits, layout: Layout) -> None:
    mantissa, exponent = np.frexp(layout.zero_threshold)
    if layout.zero_threshold == 0:
        out.put(0, 8)
    elif mantissa == 0.5 and -242 <= exponent <= 11:
        out.put(int(exponent) + 243, 8)
    else:
        out.put(255, 8)
        out.put(float_bits(layout.zero_threshold), 64)
    out.varbit(layout.schema)
    for spans in (layout.positive, layout.negative):
        out.varbit(len(spans), signed=False)
        for offset, length in spans:
            out.varbit(length, signed=False)
            out.varbit(offset)
    if layout.schema == -53:
        out.varbit(len(layout.bounds), signed=False)
        for bound in layout.bounds:
            thousandths = bound * 1000
            if thousandths == int(thousandths) and 0 <= thousandths <= 33554430:
                out.varbit(int(thousandths) + 1, signed=False)
            else:
                out.put(0, 1)
                out.put(float_bits(bound), 64)


def aggregate_chunk(parts: Sequence[bytes | None]) -> bytes:
    """A downsampled chunk of Thanos out of XOR chunks."""
    return b"".join(uvarint(0) if part is None else uvarint(len(part)) + bytes([XOR]) + part for part in parts)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk with the times of its first and last sample."""

    min_ms: int
    max_ms: int
    encoding: int
    data: bytes


@dataclass(slots=True)
class BlockFiles:
    """A block in the making: series with their chunks, and deletions (series number, first, last)."""

    series: Mapping[tuple[tuple[str, str], ...], Sequence[Chunk]]
    ulid: str = "01HF7XJCR018J9RREW81HE9MQG"
    deleted: Sequence[tuple[int, int, int]] = ()
    thanos: Mapping[str, object] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The folder of the block."""
        place = folder / self.ulid
        (place / "chunks").mkdir(parents=True)
        segment, refs = bytearray(struct.pack(">IB3x", 0x85BD40DD, 1)), {}
        rows = sorted(self.series)
        for row in rows:
            for chunk in self.series[row]:
                refs[id(chunk)] = len(segment)
                body = bytes([chunk.encoding]) + chunk.data
                segment += uvarint(len(chunk.data)) + body + crc(body)
        (place / "chunks" / "000001").write_bytes(segment)
        index, numbers = self._index(rows, refs)
        (place / "index").write_bytes(index)
        stones = b"".join(uvarint(numbers[n]) + varint(first) + varint(last) for n, first, last in self.deleted)
        (place / "tombstones").write_bytes(struct.pack(">IB", 0x0130BA30, 1) + stones + crc(stones))
        chunks = [chunk for row in rows for chunk in self.series[row]]
        meta = {
            "ulid": self.ulid, "minTime": min(c.min_ms for c in chunks), "maxTime": max(c.max_ms for c in chunks) + 1, "version": 1,
            "stats": {"numSeries": len(rows), "numChunks": len(chunks)}, "compaction": {"level": 1, "sources": [self.ulid]},
            **({"thanos": dict(self.thanos)} if self.thanos else {}),
        }  # fmt: skip
        (place / "meta.json").write_text(json.dumps(meta))
        return place

    def _index(self, rows: Sequence[tuple[tuple[str, str], ...]], refs: Mapping[int, int]) -> tuple[bytes, list[int]]:
        symbols = sorted({text for row in rows for pair in row for text in pair} | {""})
        number = {text: i for i, text in enumerate(symbols)}
        out = bytearray(struct.pack(">IB", 0xBAAAD700, 2))
        table = struct.pack(">I", len(symbols)) + b"".join(uvarint(len(t.encode())) + t.encode() for t in symbols)
        symbols_at = len(out)
        out += struct.pack(">I", len(table)) + table + crc(table)
        out += bytes(-len(out) % 16)
        series_at, places = len(out), []
        for row in rows:
            out += bytes(-len(out) % 16)
            places.append(len(out) // 16)
            body = uvarint(len(row)) + b"".join(uvarint(number[name]) + uvarint(number[value]) for name, value in row)
            body += uvarint(len(self.series[row])) + _chunk_metas(self.series[row], refs)
            out += uvarint(len(body)) + body + crc(body)
        end = len(out)
        toc = struct.pack(">6Q", symbols_at, series_at, end, 0, end, 0)
        return bytes(out) + toc + crc(toc), places


def _chunk_metas(chunks: Sequence[Chunk], refs: Mapping[int, int]) -> bytes:
    out = b""
    for i, chunk in enumerate(chunks):
        before = chunks[i - 1] if i else None
        out += varint(chunk.min_ms) if before is None else uvarint(chunk.min_ms - before.max_ms)
        out += uvarint(chunk.max_ms - chunk.min_ms)
        out += uvarint(refs[id(chunk)]) if before is None else varint(refs[id(chunk)] - refs[id(before)])
    return out


def crc(data: bytes) -> bytes:
    sum_ = crc32c(np.frombuffer(data, np.uint8), 0, len(data))  # type: ignore[no-untyped-call]
    return struct.pack(">I", int(sum_))

"""The index of a Prometheus TSDB block: which series it has, and where their chunks are.

Format 2 (Prometheus 2.0 and later; Thanos, Cortex and Mimir write the same). Postings and label indices are not needed and
not read. Layout: `tsdb/docs/format/index.md` of Prometheus. Every section that is read is checked by its CRC-32C.
"""

import struct
from dataclasses import dataclass

import numpy as np

from tsdb.kernel.crc32c import first_damaged
from tsdb.kernel.series_scan import count_series, fill_series
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.series import I64, SeriesTable, strings

MAGIC, FORMAT = 0xBAAAD700, 2
_TOC = struct.Struct(">6QI")


@dataclass(frozen=True, slots=True)
class PrometheusIndex:
    """n series, in the order of the file, and their c chunks.

    ref i64[n] is the number by which tombstones name a series. Chunks of series i are chunk_at[i]:chunk_at[i+1] (i64[n+1]) of
    t_min and t_max (both included) and chunk_ref i64[c]: segment number << 32 | offset in the segment.
    """

    series: SeriesTable
    ref: I64
    chunk_at: I64
    t_min: I64
    t_max: I64
    chunk_ref: I64


def read_index(data: bytes, *, key: str) -> PrometheusIndex:
    """The index in the bytes of an `index` object. Corrupt, naming `key` and the byte; BadData for another format."""
    if len(data) < 5 + _TOC.size or int.from_bytes(data[:4]) != MAGIC:
        raise Corrupt(f"{key}: its {len(data)} bytes are no index of Prometheus: they begin with {data[:4].hex()}, not {MAGIC:x}")
    if data[4] != FORMAT:
        raise BadData(f"{key}: index format {data[4]} at byte 4 is not known; format {FORMAT} is")
    octets = np.frombuffer(data, np.uint8)
    toc = len(data) - _TOC.size
    if first_damaged(octets, np.array([toc]), np.array([len(data) - 4])) >= 0:
        raise Corrupt(f"{key}: the table of contents at byte {toc} does not have its checksum")
    symbols_at, series_at, *rest, _ = _TOC.unpack_from(data, toc)
    end = min([place for place in rest if place > series_at], default=toc)
    if symbols_at > toc or not 5 <= series_at <= end <= toc:
        raise Corrupt(f"{key}: the table of contents at byte {toc} points outside of the file of {len(data)} bytes")
    symbols = _symbols(data, octets, symbols_at, toc, key=key)
    return _series(octets, series_at, end, symbols, key=key)


def _symbols(data: bytes, octets: np.ndarray[tuple[int], np.dtype[np.uint8]], at: int, limit: int, *, key: str) -> list[str]:
    size = int.from_bytes(data[at : at + 4])
    if at + 8 + size > limit or first_damaged(octets, np.array([at + 4]), np.array([at + 4 + size])) >= 0:
        raise Corrupt(f"{key}: the symbol table of {size} bytes at byte {at} does not have its checksum")
    count, place, stop = int.from_bytes(data[at + 4 : at + 8]), at + 8, at + 4 + size
    texts: list[str] = []
    for _ in range(count):
        length = shift = 0
        while True:
            byte = data[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if place + length > stop:
            raise Corrupt(f"{key}: symbol {len(texts)} at byte {place} reaches past the symbol table, which ends at byte {stop}")
        texts.append(data[place : place + length].decode("utf-8", "replace"))
        place += length
    return texts


def _series(
    octets: np.ndarray[tuple[int], np.dtype[np.uint8]], start: int, end: int, symbols: list[str], *, key: str
) -> PrometheusIndex:
    series, labels, chunks, damage = count_series(octets, start, end).tolist()
    if damage >= 0:
        raise Corrupt(f"{key}: the series at byte {damage} does not have its checksum, or is cut")
    place, label_at, chunk_at = (np.zeros(size, np.int64) for size in (series, series + 1, series + 1))
    name, value = np.zeros(labels, np.int64), np.zeros(labels, np.int64)
    t_min, t_max, ref = np.zeros(chunks, np.int64), np.zeros(chunks, np.int64), np.zeros(chunks, np.int64)
    damage = fill_series(octets, start, end, place, label_at, name, value, chunk_at, t_min, t_max, ref)
    if damage >= 0:
        raise Corrupt(f"{key}: the series at byte {damage} has chunks that are cut")
    if labels and max(int(name.max()), int(value.max())) >= len(symbols):
        raise Corrupt(f"{key}: a series names symbol {max(int(name.max()), int(value.max()))} of {len(symbols)}")
    return PrometheusIndex(_table(symbols, label_at, name, value), (place - 1) >> 4, chunk_at, t_min, t_max, ref)


def _table(symbols: list[str], label_at: I64, name: I64, value: I64) -> SeriesTable:
    """Series whose labels label_at[i]:label_at[i+1] have these names and values; an empty value is no label."""
    used = np.unique(name)
    names = sorted(symbols[number] for number in used.tolist())
    place = {text: i for i, text in enumerate(names)}
    column = np.array([place[symbols[number]] for number in used.tolist()], np.int64)
    ids = np.full((len(names), len(label_at) - 1), -1, np.int32)
    row = np.repeat(np.arange(len(label_at) - 1), np.diff(label_at))
    ids[column[np.searchsorted(used, name)], row] = value
    for number, text in enumerate(symbols):
        if not text:
            ids[ids == number] = -1
    return SeriesTable(strings(symbols), tuple(names), ids, ascending=symbols == sorted(symbols))

"""Chunks of Prometheus, many at once, to columns of samples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.kernel import chunk_histogram as native
from tsdb.kernel.bits import MARGIN
from tsdb.kernel.xor import STALE, XOR, XOR2, aggregate_chunks, decode_floats
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, MAX_SCHEMA, MIN_SCHEMA, Buckets, Histograms, ragged
from tsdb.model.series import F64, I64, STALE_NAN

U8 = npt.NDArray[np.uint8]

AGGREGATE = 0xFF
"""Thanos' encoding of a downsampled chunk: up to five chunks in one."""
AGGREGATES = ("count", "sum", "min", "max", "counter")
"""What those five are, in their order."""

_HISTOGRAMS = (native.HISTOGRAM, native.FLOAT, native.HISTOGRAM_START, native.FLOAT_START)
KNOWN = (XOR, native.HISTOGRAM, native.FLOAT, XOR2, native.HISTOGRAM_START, native.FLOAT_START)


@dataclass(frozen=True, slots=True)
class Chunks:
    """c chunks: payload j is data[start[j]:end[j]] (u8; i64[c]) in encoding u8[c]; `where` tells of each in words for errors."""

    data: U8
    start: I64
    end: I64
    encoding: U8
    where: list[str]

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class ChunkSamples:
    """The samples of chunks one after another: chunk j is rows at[j]:at[j+1] of the columns (as in `SeriesBatch`)."""

    at: I64
    t_ms: I64
    values: F64
    start_ms: I64 | None
    histograms: Histograms | None
    histogram_at: I64 | None


def padded(data: bytes) -> U8:
    """The bytes as u8 with the spare ones behind them that bit readers may look at."""
    out = np.zeros(len(data) + MARGIN, np.uint8)
    out[: len(data)] = np.frombuffer(data, np.uint8)
    return out


def decode_chunks(chunks: Chunks) -> ChunkSamples:
    """All samples of all chunks. BadData for an encoding that is not known, Corrupt for a broken chunk: both tell where."""
    unknown = np.flatnonzero(~np.isin(chunks.encoding, KNOWN))
    if len(unknown):
        j = int(unknown[0])
        raise BadData(f"{chunks.where[j]}: encoding {chunks.encoding[j]} is not known; {', '.join(map(str, KNOWN))} are")
    counts = _counts(chunks)
    at = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    t_ms, bits, start_ms = np.empty(at[-1], np.int64), np.empty(at[-1], np.uint64), np.zeros(at[-1], np.int64)
    _refuse(chunks, decode_floats(chunks.data, chunks.start, chunks.end, chunks.encoding, at[:-1], t_ms, bits, start_ms))
    values = bits.view(np.float64)
    natives = np.flatnonzero(np.isin(chunks.encoding, _HISTOGRAMS))
    histograms = histogram_at = None
    if len(natives):
        histograms, histogram_at = _decode_natives(chunks, natives, at, t_ms, values, start_ms)
    return ChunkSamples(at, t_ms, values, start_ms if start_ms.any() else None, histograms, histogram_at)


def pick_aggregate(chunks: Chunks, name: str) -> tuple[Chunks, I64]:
    """(one aggregate's chunks of downsampled ones, i64[...] which ones have it). Corrupt where one is broken."""
    start, end = np.empty(len(chunks), np.int64), np.empty(len(chunks), np.int64)
    encoding = np.empty(len(chunks), np.uint8)
    _refuse(chunks, aggregate_chunks(chunks.data, chunks.start, chunks.end, AGGREGATES.index(name), start, end, encoding))
    have = np.flatnonzero(encoding)
    where = [f"{chunks.where[j]}, aggregate {name}" for j in have.tolist()]
    return Chunks(chunks.data, start[have], end[have], encoding[have], where), have


def _counts(chunks: Chunks) -> I64:
    """i64[c] samples, as the heads of the chunks tell."""
    short = np.flatnonzero(chunks.end - chunks.start < 2)
    _refuse(chunks, int(short[0]) if len(short) else -1)
    counts = chunks.data[chunks.start].astype(np.int64) << 8 | chunks.data[chunks.start + 1]
    counts[np.isin(chunks.encoding, (native.HISTOGRAM_START, native.FLOAT_START))] &= 0x3FFF
    _refuse_many(chunks, counts)
    return counts


def _refuse_many(chunks: Chunks, counts: I64) -> None:
    """Each sample takes a bit at least, so what a broken head says cannot make us ask for memory without bound."""
    wrong = np.flatnonzero(counts > (chunks.end - chunks.start) * 8)
    _refuse(chunks, int(wrong[0]) if len(wrong) else -1)


def _refuse(chunks: Chunks, broken: int) -> None:
    if broken >= 0:
        size = int(chunks.end[broken] - chunks.start[broken])
        raise Corrupt(f"{chunks.where[broken]}: its {size} bytes of encoding {chunks.encoding[broken]} are cut or broken")


def _decode_natives(
    chunks: Chunks, which: I64, at: I64, t_ms: I64, values: F64, start_ms: I64
) -> tuple[Histograms | None, I64 | None]:
    """(histograms, histogram_at i64[m]) of the chunks `which`; writes their times, NaN values, and stale ones as stale floats."""
    part = Chunks(
        chunks.data, chunks.start[which], chunks.end[which], chunks.encoding[which], [chunks.where[j] for j in which.tolist()]
    )
    sizes = np.zeros((6, len(part)), np.int64)
    _refuse(part, native.measure_histograms(part.data, part.start, part.end, part.encoding, sizes))
    _check_schemas(part, sizes[native.SCHEMA])
    rows = np.concatenate([[0], np.cumsum(sizes[native.SAMPLES])]).astype(np.int64)
    width = sizes[native.POSITIVE] + sizes[native.NEGATIVE]
    counts_at = np.concatenate([[0], np.cumsum(sizes[native.SAMPLES] * width)]).astype(np.int64)
    times, starts = np.empty(rows[-1], np.int64), np.zeros(rows[-1], np.int64)
    numbers, counts = np.zeros((3, int(rows[-1]))), np.zeros(int(counts_at[-1]))
    state = np.zeros((3, 3 + int(width.max())), np.int64)
    broken = native.decode_histograms(
        part.data, part.start, part.end, part.encoding, sizes, rows[:-1], counts_at[:-1], state,
        times, starts, numbers, numbers.view(np.uint64), counts, counts.view(np.uint64),
    )  # fmt: skip
    _refuse(part, broken)
    _, place = ragged(at, which)
    t_ms[place], start_ms[place] = times, starts
    stale = numbers[2].view(np.uint64) == STALE
    values[place] = np.where(stale, STALE_NAN, np.nan)
    good = np.flatnonzero(~stale)
    if len(good) == 0:
        return None, None
    histogram_at = np.full(len(t_ms), -1, np.int64)
    histogram_at[place[good]] = np.arange(len(good))
    return _histograms(part, sizes, rows, numbers, counts).take(good), histogram_at


def _check_schemas(part: Chunks, schema: I64) -> None:
    wrong = np.flatnonzero(((schema < MIN_SCHEMA) | (schema > MAX_SCHEMA)) & (schema != CUSTOM_BUCKETS_SCHEMA))
    if len(wrong):
        j = int(wrong[0])
        raise BadData(f"{part.where[j]}: histogram schema {schema[j]} is not known; {MIN_SCHEMA} to {MAX_SCHEMA} and -53 are")


def _histograms(part: Chunks, sizes: I64, rows: I64, numbers: F64, counts: F64) -> Histograms:
    """All samples of all chunks, stale ones too, whose buckets are empty."""
    width = sizes[native.POSITIVE] + sizes[native.NEGATIVE]
    index_at = np.concatenate([[0], np.cumsum(width)]).astype(np.int64)
    bounds_at = np.concatenate([[0], np.cumsum(sizes[native.BOUNDS])]).astype(np.int64)
    threshold, index, bounds = np.zeros(len(part)), np.zeros(int(index_at[-1]), np.int32), np.zeros(int(bounds_at[-1]))
    native.read_layouts(
        part.data, part.start, part.end, threshold.view(np.uint64), index, index_at, bounds, bounds.view(np.uint64), bounds_at
    )
    chunk = np.repeat(np.arange(len(part)), sizes[native.SAMPLES])
    flat_offsets, flat = ragged(index_at, chunk)
    bounds_offsets, bounds_place = ragged(bounds_at, chunk)
    positive = sizes[native.POSITIVE][chunk]
    split = np.arange(len(flat)) - np.repeat(flat_offsets[:-1], np.diff(flat_offsets)) < np.repeat(positive, np.diff(flat_offsets))
    sides = [_side(keep, flat_offsets, index[flat], counts) for keep in (split, ~split)]
    return Histograms(
        sizes[native.SCHEMA][chunk].astype(np.int8), _hints(part, rows), np.isin(part.encoding, _HISTOGRAMS[::2])[chunk],
        numbers[0], numbers[2], threshold[chunk], numbers[1], sides[0], sides[1], bounds_offsets, bounds[bounds_place],
    )  # fmt: skip


def _side(keep: npt.NDArray[np.bool_], offsets: I64, index: npt.NDArray[np.int32], counts: F64) -> Buckets:
    """One side's buckets, the empty ones left out: they are the same as absent."""
    return Buckets(offsets, index, counts).where(keep & (counts != 0))


def _hints(part: Chunks, rows: I64) -> U8:
    """Counter reset hints: a gauge's chunk tells of all its samples, another's of its first only, behind which none is a reset.

    That there was no reset before the first is not believed: the chunk before may be gone.
    """
    started = np.isin(part.encoding, (native.HISTOGRAM_START, native.FLOAT_START))
    flag = part.data[part.start + np.where(started, 0, 2)] >> 6
    hints = np.repeat(np.where(flag == 3, GAUGE, 2), np.diff(rows)).astype(np.uint8)
    first = np.flatnonzero(np.diff(rows))
    hints[rows[first]] = np.array([0, 0, 1, GAUGE], np.uint8)[flag[first]]
    return hints

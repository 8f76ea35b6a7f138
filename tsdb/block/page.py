"""Pages: a run of series over one slab of time as bytes, and back, bit for bit.

A page is a flat list of columns, each coded as `tsdb.kernel.codec` says: the distinct time columns (series that are scraped
together share one), then for every series its start times, the integers of its histograms, its values, its window columns
and the floats of its histograms. What the columns are is compressed by zstd, their residuals are a stream of bits each, so that
a few series are read without the others. Pages carry no checksum; who stores them elsewhere than in memory adds one.
The bytes are drawn in docs/formats.md.
"""

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.block.packed import I64 as PACKED_I64
from tsdb.block.packed import U32, shuffle
from tsdb.block.page_histogram import HistogramLayout, choose_series, join_histograms, split_histograms
from tsdb.kernel.codec import (
    BITS,
    EXCEPTIONS,
    FIRST,
    MAX_TABLES,
    NEIGHBOURS,
    SCALE,
    SECOND,
    SIZE,
    encode_columns,
    share_times,
    to_integers,
)
from tsdb.kernel.decode import COLUMN, EXCEPTION, FIELDS, HIGH, SMALL, STREAM, TO, decode_columns
from tsdb.kernel.entropy import MARGIN, MAX_CLASS, SYMBOLS
from tsdb.kernel.opening import (
    COLUMN_BYTES,
    EXCEPTION_BYTES,
    SERIES_BYTES,
    TIME_BYTES,
    WRONG_CLASS,
    check_columns,
    read_description,
)
from tsdb.kernel.pages import MAX_MS, MIN_MS, OWN, VALUES, VALUES_AT, VALUES_FROM, WITH_START, WORDS, copy_shares, describe_page
from tsdb.kernel.ranges import edge_rows
from tsdb.model.errors import Corrupt
from tsdb.model.histogram import Histograms
from tsdb.model.series import F64, I64, Bool, SeriesBatch
from tsdb.model.windows import COLUMNS

LEVEL = 6
"""zstd level of what describes the columns, 6 % of a page: higher ones gain nothing."""
MAX_SAMPLES = 1 << 26
"""What a reader takes for one page; a writer makes pages a thousand times smaller."""

_MAGIC = b"TRP2"
_HEAD = struct.Struct("<4sBBHIIIIII")
_WITH_START, _WITH_HISTOGRAMS = 1, 2

NO_TIMES = np.empty(0, np.int64)
"""Where times are not wanted."""
EVERY_SAMPLE = np.zeros(3, np.int64)
"""The grid of kernels that copy all samples."""

Bytes = npt.NDArray[np.uint8]
Number = TypeVar("Number", np.int64, np.float64)


@dataclass(frozen=True, slots=True)
class PageColumns:
    """The columns of a `SeriesBatch` without its labels."""

    offsets: I64
    t_ms: I64
    values: F64
    histograms: Histograms | None = None
    histogram_at: I64 | None = None
    start_ms: I64 | None = None
    windows: F64 | None = None


@dataclass(frozen=True, slots=True)
class PageValues:
    """The values f64[m] of all series of a page, decoded; those of series i are at[i]:at[i+1], at i64[n+1]."""

    values: F64
    at: I64
    addresses: tuple[int, int]
    """Those of both arrays, for the kernels."""

    @classmethod
    def of(cls, values: F64, at: I64) -> "PageValues":
        return cls(values, at, (_address(values), _address(at)))


@dataclass(frozen=True, slots=True)
class Series:
    """Of series `local` of a page the samples from `low` on, `size` of them, and the place `to` where they belong; i64[r] each."""

    local: I64
    low: I64
    size: I64
    to: I64


@dataclass(frozen=True, slots=True)
class Page:
    """An opened page: its times are decoded, its other columns are not.

    times i64[...] of the distinct time columns, column j at time_at[j]:time_at[j+1], all from min_ms to max_ms. Of n series
    time_ref i64[n] tells which one each uses, counts i64[n] how many samples it has. lengths i64[c] and records i64[c+1, FIELDS]
    (`tsdb.kernel.decode`) of all other columns; streams of all, with MARGIN bytes behind the last; classes u8[tables, 256];
    exceptions of all columns are position and exact i64[x]. words i64[WORDS] tell the kernels of all this (`tsdb.kernel.pages`).
    """

    names: tuple[str, ...]
    with_start: bool
    times: I64
    time_at: I64
    time_ref: I64
    counts: I64
    min_ms: int
    max_ms: int
    lengths: I64
    records: I64
    streams: Bytes
    classes: Bytes
    position: I64
    exact: I64
    layout: HistogramLayout | None
    samples: int
    words: I64

    def __len__(self) -> int:
        return len(self.time_ref)

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        times = (self.times, self.time_at, self.time_ref, self.counts)
        arrays = (*times, self.lengths, self.records, self.streams, self.position, self.exact)
        return 1024 + sum(array.nbytes for array in arrays)

    def spans(self, series: I64, start_ms: int, end_ms: int) -> tuple[I64, I64]:
        """(low i64[r], size i64[r]): the samples of series i64[r] in [start_ms, end_ms) begin at `low` of each, and are so many."""
        if self.min_ms >= start_ms and self.max_ms < end_ms:
            return np.zeros(len(series), np.int64), self.counts[series]
        rows = np.empty((2, len(self.time_at) - 1), np.int64)
        edge_rows(self.time_at, self.times, np.array([start_ms, max(start_ms, end_ms)]), rows)
        columns = self.time_ref[series]
        return (rows[0] - self.time_at[:-1])[columns], (rows[1] - rows[0])[columns]

    def copy_series(
        self,
        series: Series,
        values: PageValues | None,
        t_ms: I64,
        columns: F64,
        start_ms: I64 | None,
        wanted: Bool | None = None,
    ) -> None:
        """Samples into t_ms i64[m], columns f64[1 or 13, m] and, if given, start_ms i64[m]; `values` are the page's, if known.

        Of 13 columns only those that bool[13] `wanted` says. Samples of a page without windows become windows of one each.
        """
        share_at = np.array([0, len(series.local)])
        wanted = np.ones(len(columns), bool) if wanted is None else wanted
        starts = NO_TIMES if start_ms is None else start_ms
        copy_shares(
            self.words_with(values)[None], share_at, series.local, series.low, series.low + series.size, series.size, series.to,
            EVERY_SAMPLE, wanted, t_ms, columns, starts,
        )  # fmt: skip

    def words_with(self, values: PageValues | None) -> I64:
        """The page for the kernels, with its decoded values where they are kept; the caller keeps both alive."""
        if values is None:
            return self.words
        words = self.words.copy()
        words[VALUES], words[VALUES_AT] = values.addresses
        return words

    def whole_values(self) -> PageValues:
        """The values of all series."""
        at = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.counts, out=at[1:])
        values = np.empty(int(at[-1]))
        every = Series(np.arange(len(self)), np.zeros(len(self), np.int64), self.counts, at[:-1])
        self.copy_series(every, None, NO_TIMES, values[None], None)
        return PageValues.of(values, at)

    def _values_from(self) -> int:
        """The first value column."""
        return int(self.words[VALUES_FROM])


def encode_page(batch: SeriesBatch, *, neighbours: int = NEIGHBOURS) -> bytes:
    """The bytes of all samples of a batch, without its labels. About 17 ns a sample, without neighbours a third of that."""
    offsets = _plain(batch.offsets, np.int64)
    lengths = np.diff(offsets)
    t_ms = _plain(batch.t_ms, np.int64)
    ref, first_user = share_times(t_ms, offsets)
    ints = [t_ms[offsets[i] : offsets[i + 1]] for i in first_user.tolist()]
    int_lengths = [lengths[first_user]]
    names = () if batch.windows is None else COLUMNS
    floats = [batch.values, *([] if batch.windows is None else batch.windows)]
    float_lengths = [lengths] * len(floats)
    if batch.start_ms is not None:
        ints.append(batch.start_ms)
        int_lengths.append(lengths)
    layout = b""
    if batch.histograms is not None and batch.histogram_at is not None:
        split = split_histograms(batch.histograms, batch.histogram_at, offsets)
        layout = split.layout.encode()
        ints.append(split.ints)
        int_lengths.append(split.layout.int_lengths)
        floats.append(split.floats)
        float_lengths.append(split.layout.float_lengths)
    coded = _code(ints, int_lengths, floats, float_lengths, value_columns=len(lengths) * (1 + len(names)), neighbours=neighbours)
    about = [
        "\0".join(names).encode(),
        shuffle(ref, U32),
        shuffle(int_lengths[0], U32),
        coded.descriptors[: SECOND + 1].astype(np.int8).tobytes(),
        shuffle(coded.descriptors[EXCEPTIONS], U32),
        shuffle(coded.descriptors[SIZE], U32),
        coded.classes.tobytes(),
        *(shuffle(row, PACKED_I64) for row in coded.descriptors[FIRST:]),
        shuffle(coded.position, U32),
        shuffle(coded.exact, PACKED_I64),
        layout,
    ]
    raw = b"".join(about)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False)
    stored = _smaller(raw, compressor)
    flags = _WITH_START * (batch.start_ms is not None) + _WITH_HISTOGRAMS * bool(layout)
    head = _HEAD.pack(
        _MAGIC, flags, len(coded.classes), len(about[0]), len(lengths), len(first_user), coded.descriptors.shape[1],
        len(coded.position), len(raw), len(stored),
    )  # fmt: skip
    return b"".join([head, stored, coded.streams.tobytes()])


def open_page(data: bytes | memoryview) -> Page:
    """The page in `data`. Corrupt where that is no page; every size is checked before it is used. About 40 µs."""
    head = _read_head(data)
    streams_at = _HEAD.size + head.stored_size
    about = _expand(memoryview(data)[_HEAD.size : streams_at], head.about_size)
    names = tuple(about[: head.names_size].decode(errors="replace").split("\0")) if head.names_size else ()
    if names not in ((), COLUMNS):
        raise Corrupt(f"page: its columns are {', '.join(names)}; want none or {', '.join(COLUMNS)}")
    told = _read_description(head, about)
    streams_size = int(told.records[-1, STREAM])
    if streams_size != len(data) - streams_at:
        raise Corrupt(f"page: streams of {streams_size} bytes, {len(data) - streams_at} are left")
    with_start = bool(head.flags & _WITH_START)
    layout = HistogramLayout.decode(about[head.fixed_size :], told.counts) if head.flags & _WITH_HISTOGRAMS else None
    parts = _lengths(told.counts, with_start, len(names), layout)
    lengths = parts[0] if len(parts) == 1 else np.concatenate(parts)
    of_times, records = told.records[: head.time_columns + 1], told.records[head.time_columns :]
    time_lengths = told.time_at[1:] - told.time_at[:-1]
    _check(told, of_times, time_lengths, [head.time_columns])
    _check(told, records, lengths, [len(part) for part in parts])
    if records[-1, EXCEPTION] != head.exceptions:
        raise Corrupt(f"page: {head.exceptions} exceptions do not fit their columns")
    streams = np.empty(streams_size + MARGIN, np.uint8)
    streams[:-MARGIN], streams[-MARGIN:] = np.frombuffer(data, np.uint8, offset=streams_at), 0
    times = _decode_times(told, of_times, time_lengths, streams)
    words = np.zeros(WORDS, np.int64)
    words[VALUES_FROM] = head.series * with_start + (0 if layout is None else len(layout.int_lengths))
    words[OWN], words[WITH_START] = 1 + len(names), with_start
    describe_page(
        times, told.time_at, told.time_ref, told.counts, lengths, records, streams, told.classes, told.position, told.exact, words
    )  # fmt: skip
    return Page(
        names, with_start, times, told.time_at, told.time_ref, told.counts, int(words[MIN_MS]), int(words[MAX_MS]), lengths,
        records, streams, told.classes, told.position, told.exact, layout, int(told.counts.sum()), words,
    )  # fmt: skip


class _Head(NamedTuple):
    """The numbers that a page begins with."""

    magic: bytes
    flags: int
    tables: int
    names_size: int
    series: int
    time_columns: int
    columns: int
    exceptions: int
    about_size: int
    stored_size: int

    @property
    def fixed_size(self) -> int:
        """The bytes of the description before the layout of histograms."""
        columns = TIME_BYTES * self.time_columns + COLUMN_BYTES * self.columns
        return self.names_size + SERIES_BYTES * self.series + columns + EXCEPTION_BYTES * self.exceptions + SYMBOLS * self.tables


class _Description(NamedTuple):
    """What `read_description` fills, in its order."""

    records: I64
    classes: Bytes
    position: I64
    exact: I64
    time_ref: I64
    counts: I64
    time_at: I64


def _read_head(data: bytes | memoryview) -> _Head:
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise Corrupt(f"page: the magic is {bytes(data[:4])!r}, want {_MAGIC!r}")
    head = _Head._make(_HEAD.unpack_from(data))
    fits = _HEAD.size + head.stored_size <= len(data) and head.fixed_size <= head.about_size <= len(data) << 16
    if not fits or head.tables > MAX_TABLES or head.time_columns > min(head.series, head.columns):
        raise Corrupt(
            f"page: a head with {head.tables} tables, {head.series} series, {head.time_columns} time columns, "
            f"{head.columns} columns in {len(data)} bytes"
        )
    return head


def _read_description(head: _Head, about: bytes) -> _Description:
    n, k = head.series, head.time_columns
    told = _Description(
        records=np.empty((head.columns + 1, FIELDS), np.int64),
        classes=np.empty((head.tables, SYMBOLS), np.uint8),
        position=np.empty(head.exceptions, np.int64),
        exact=np.empty(head.exceptions, np.int64),
        time_ref=np.empty(n, np.int64),
        counts=np.empty(n, np.int64),
        time_at=np.empty(k + 1, np.int64),
    )
    wrong = read_description(np.frombuffer(about, np.uint8, head.fixed_size - head.names_size, head.names_size), *told)
    if wrong == WRONG_CLASS:
        raise Corrupt(f"page: a symbol has the class {told.classes.max()}, the highest is {MAX_CLASS}")
    if wrong or max(int(told.time_at[-1]), int(told.counts.sum())) > MAX_SAMPLES:
        last = told.time_ref.max(initial=0)
        raise Corrupt(f"page: {n} series refer to time columns up to {last} of {k}, or those are too long")
    return told


def _decode_times(told: _Description, records: I64, lengths: I64, streams: Bytes) -> I64:
    times = np.empty(int(told.time_at[-1]), np.int64)
    places = np.zeros((4, len(lengths)), np.int64)
    places[COLUMN], places[HIGH], places[TO] = np.arange(len(lengths)), lengths, told.time_at[:-1]
    decode_columns(streams, told.classes, records, lengths, places, told.position, told.exact, times, times.view(np.float64))
    return times


def _address(array: npt.NDArray[Any]) -> int:
    """Of its first byte. The array must be contiguous."""
    return int(array.__array_interface__["data"][0])


def decode_page(data: bytes) -> PageColumns:
    """All columns of a page, as they were given to `encode_page`. About 4 ns a sample."""
    return page_columns(open_page(data))


def page_columns(page: Page, local: I64 | None = None) -> PageColumns:
    """All columns of an opened page, or those of its series `local` i64[r], ascending."""
    local = np.arange(len(page)) if local is None else local
    offsets = np.concatenate([[0], np.cumsum(page.counts[local])]).astype(np.int64)
    t_ms = np.empty(int(offsets[-1]), np.int64)
    columns = np.empty((1 + len(page.names), len(t_ms)))
    start_ms = np.empty(len(t_ms), np.int64) if page.with_start else None
    every = Series(local, np.zeros(len(local), np.int64), page.counts[local], offsets[:-1])
    page.copy_series(every, None, t_ms, columns, start_ms)
    histograms, histogram_at = (None, None) if page.layout is None else page_histograms(page, page.layout, local)
    windows = columns[1:] if page.names else None
    return PageColumns(offsets, t_ms, columns[0], histograms, histogram_at, start_ms, windows)


def page_histograms(page: Page, layout: HistogramLayout, local: I64) -> tuple[Histograms, I64]:
    """(the histograms of series `local` i64[r] of a page, ascending; histogram_at i64[m] of all their samples)."""
    int_from = page._values_from() - len(layout.int_lengths)
    float_from = page._values_from() + (1 + len(page.names)) * len(page)
    if len(local) == len(page):
        return join_histograms(
            layout, _whole(page, int_from, layout.int_lengths), _whole(page, float_from, layout.float_lengths).view(np.float64)
        )
    choice, count = choose_series(layout, local), layout.count
    ints = _whole(page, int_from, layout.int_lengths, choice.ints)
    floats = _whole(page, float_from, layout.float_lengths, choice.floats).view(np.float64)
    flags, of_all = np.split(ints, [len(ints) - 3 * count])
    threshold, bounds, own = np.split(floats, [count, count + int(layout.bounds.sum())])
    return join_histograms(
        choice.layout,
        np.concatenate([flags, of_all.reshape(3, count)[:, choice.rows].ravel()]),
        np.concatenate([threshold[choice.rows], bounds[choice.bounds], own]),
    )


def _whole(page: Page, first: int, lengths: I64, wanted: Bool | None = None) -> I64:
    """Columns one after another, from `first` on, all or those that bool[c] says."""
    columns = np.arange(len(lengths)) if wanted is None else np.flatnonzero(wanted)
    sizes = lengths[columns]
    out = np.empty(int(sizes.sum()), np.int64)
    places = np.zeros((4, len(columns)), np.int64)
    places[COLUMN], places[HIGH], places[TO] = columns, sizes, np.cumsum(sizes) - sizes
    records = page.records[first : first + len(lengths) + 1]
    decode_columns(page.streams, page.classes, records, lengths, places, page.position, page.exact, out, out.view(np.float64))
    return out


@dataclass(frozen=True, slots=True)
class _Coded:
    descriptors: I64
    streams: Bytes
    classes: Bytes
    position: I64
    exact: I64


def _code(
    ints: Sequence[I64],
    int_parts: Sequence[I64],
    floats: Sequence[F64],
    float_parts: Sequence[I64],
    *,
    value_columns: int,
    neighbours: int,
) -> _Coded:
    """All columns coded, the integers first. Columns refer to none but those that are decoded with them."""
    int_lengths, float_lengths = np.concatenate(int_parts), np.concatenate(float_parts)
    group_sizes = [*map(len, int_parts), value_columns, len(float_lengths) - value_columns]
    count = int(int_lengths.sum())
    float_values = _plain(floats[0] if len(floats) == 1 else np.concatenate(floats), np.float64)
    bits = float_values.view(np.int64)
    columns = np.empty(count + len(float_values), np.int64)
    np.concatenate([*ints, np.empty(0, np.int64)], out=columns[:count])
    float_at = np.concatenate([[0], np.cumsum(float_lengths)]).astype(np.int64)
    scale, exceptions, position = to_integers(float_values, bits, float_at, columns[count:])
    exact = bits[np.repeat(float_at[:-1], exceptions) + position]
    offsets = np.concatenate([[0], np.cumsum(int_lengths), count + float_at[1:]]).astype(np.int64)
    descriptors = np.zeros((11, len(offsets) - 1), np.int64)
    descriptors[SCALE] = BITS
    descriptors[SCALE, len(int_lengths) :] = scale
    descriptors[EXCEPTIONS, len(int_lengths) :] = exceptions
    groups = np.repeat(np.arange(len(group_sizes)), group_sizes)
    streams, classes = encode_columns(columns, offsets, groups, descriptors, neighbours)
    return _Coded(descriptors, streams, classes, position, exact)


def _plain(array: npt.NDArray[Number], dtype: type[Number]) -> npt.NDArray[Number]:
    """The array itself, or a copy where it is read-only or has gaps, for which kernels would be compiled once more."""
    return np.require(array, dtype, ["C", "W"])


def _lengths(counts: I64, with_start: bool, names: int, layout: HistogramLayout | None) -> list[I64]:
    """i64[...] samples of every column but the times, in the order of the page, those that are decoded together in one array."""
    start = [counts] if with_start else []
    values = np.tile(counts, 1 + names) if names else counts
    if layout is None:
        return [*start, values]
    return [*start, layout.int_lengths, values, layout.float_lengths]


def _check(told: _Description, records: I64, lengths: I64, parts: list[int]) -> None:
    """Corrupt unless a kernel can decode these columns without leaving its arrays."""
    if len(lengths) != len(records) - 1:
        raise Corrupt(f"page: {len(records) - 1} columns are described, its series make {len(lengths)}")
    at = check_columns(records, lengths, np.array(parts, np.int64), len(told.classes), told.position)
    if at >= 0:
        described = ", ".join(map(str, records[at, [SMALL]].view(np.int8)[: SECOND + 1].tolist()))
        exceptions = records[at + 1, EXCEPTION] - records[at, EXCEPTION]
        raise Corrupt(f"page: column {at} of {lengths[at]} samples is described as {described}, {exceptions}")


def _smaller(raw: bytes, compressor: zstandard.ZstdCompressor) -> bytes:
    """The zstd frame, or the bytes themselves where that is no larger; equal sizes tell the reader."""
    if not raw:
        return raw
    frame: bytes = compressor.compress(raw)
    return frame if len(frame) < len(raw) else raw


class _OfThread(threading.local):
    """No two threads may use one decompressor at a time; making one for each page takes as long as using it."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_own = _OfThread()


def _expand(stored: memoryview, size: int) -> bytes:
    if len(stored) == size:
        return bytes(stored)
    try:
        raw: bytes = _own.decompressor.decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise Corrupt(f"page: a part of {len(stored)} bytes is no zstd frame of {size}: {error}") from None
    if len(raw) != size:
        raise Corrupt(f"page: a part holds {len(raw)} bytes, its columns need {size}")
    return raw

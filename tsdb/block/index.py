"""The index of a block, as a table: which series it has, and where their pages are.

Sections one after another, each a zstd frame, then a footer that names them with their checksums, then a tail of fixed size.
A reader begins at the tail and reads only what it needs: symbols once, then the columns of the matchers' labels in the row groups
that the metric name left, then all columns of the groups with matching rows. The bytes are drawn in docs/formats.md.
"""

import json
import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.block.packed import I32 as PACKED_I32
from tsdb.block.packed import I64 as PACKED_I64
from tsdb.block.packed import U32, Unpacker, shuffle
from tsdb.block.part_cache import PartCache
from tsdb.bucket.range_cache import Get, RangeCache, RangeKey, find_sound, read_range
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import Matcher, literal_alternatives
from tsdb.model.series import I64, Bool, SeriesTable, Strings, strings

GROUP_ROWS = 1 << 14
"""Series of a row group: one column of it is 64 KiB, a few KiB compressed: about what one more range read costs."""
READ_AHEAD_BYTES = 256 << 10
"""The first read takes so much of the end: all of most indexes. So many bytes cost less than a second request."""
LEVEL = 9
"""zstd level; an index is written once, and is a hundredth of its block."""

_TAIL = struct.Struct("<II8s")
_MAGIC = b"TRindex1"
_MAX_SECTION_BYTES = 1 << 30
_COLUMNS_FROM = 3
"""Sections before the columns: symbols, directory, metrics."""

Column = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Directory:
    """The pages of a block, ordered by row, then time.

    Page i holds series row_from[i]:row_to[i] and the times t_min[i] to t_max[i], both inside.
    It lies in pages object part[i] at offset[i], size[i] bytes, with crc32 crc[i]; decoded it has words[i] numbers. All i64[p].
    """

    row_from: I64
    row_to: I64
    part: I64
    offset: I64
    size: I64
    crc: I64
    t_min: I64
    t_max: I64
    words: I64

    def __len__(self) -> int:
        return len(self.part)


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One row of the directory."""

    row_from: int
    row_to: int
    part: int
    offset: int
    size: int
    crc: int
    t_min: int
    t_max: int
    words: int


class IndexWriter:
    """Collects the series and pages of a block, in order; holds 4 bytes a label of each series until `finish`."""

    def __init__(self) -> None:
        self.series = 0
        self._number: dict[str, int] = {}
        self._columns: dict[str, list[tuple[int, Column]]] = {}
        self._pages: list[PageEntry] = []
        self._last: SeriesTable | None = None

    def add_series(self, table: SeriesTable) -> None:
        """Append series. BadData unless they come in the strict order of series."""
        if len(table) == 0:
            return
        compact = table.compact()
        _check_order(compact, self._last)
        to = np.array([self._number.setdefault(text, len(self._number)) for text in compact.symbols.tolist()], np.int32)
        for name, ids in zip(compact.names, compact.ids, strict=True):
            numbers = np.where(ids >= 0, to[ids], -1).astype(np.int32)
            self._columns.setdefault(name, []).append((self.series, numbers))
        self.series += len(table)
        self._last = compact.take(slice(len(table) - 1, None))

    def add_page(self, page: PageEntry) -> None:
        self._pages.append(page)

    def finish(self) -> bytes:
        """The bytes of the index."""
        texts = sorted(self._number)
        rank = np.empty(len(texts), np.int32)
        rank[[self._number[text] for text in texts]] = np.arange(len(texts), dtype=np.int32)
        sections = [_pack_symbols(texts), self._pack_directory()]
        names = sorted(self._columns)
        columns = [self._column(name, rank) for name in names]
        sections.append(
            _pack_metrics(columns[names.index(METRIC_NAME)] if METRIC_NAME in names else np.full(self.series, -1, np.int32))
        )
        for start in range(0, self.series, GROUP_ROWS):
            sections += [shuffle(column[start : start + GROUP_ROWS], PACKED_I32) for column in columns]
        return _join(sections, names=names, series=self.series, pages=len(self._pages))

    def _column(self, name: str, rank: Column) -> Column:
        out = np.full(self.series, -1, np.int32)
        for start, numbers in self._columns[name]:
            out[start : start + len(numbers)] = np.where(numbers >= 0, rank[numbers], -1)
        return out

    def _pack_directory(self) -> bytes:
        columns = [[getattr(page, field) for page in self._pages] for field in PageEntry.__dataclass_fields__]
        return b"".join(shuffle(np.array(column, np.int64), PACKED_I64) for column in columns)


@dataclass(frozen=True, slots=True)
class _Footer:
    names: tuple[str, ...]
    series: int
    pages: int
    offsets: tuple[int, ...]
    crcs: tuple[int, ...]
    sizes: tuple[int, ...]


class Index:
    """The index of one block, read in parts through `get`; `whole` is its object.

    Decoded parts are kept in `cache`, bytes in `ranges`. What comes with a wrong checksum is read again once: bits flip on the way.
    """

    def __init__(self, whole: RangeKey, get: Get, cache: PartCache, ranges: RangeCache | None = None) -> None:
        self.name, self.size_bytes = whole.name, whole.size
        self._whole, self._get, self._cache, self._ranges = whole, get, cache, ranges
        self.key = f"{whole.name} {whole.crc32:08x} {whole.size}"  # two buckets may hold blocks of one name
        self._end: tuple[int, bytes] = (whole.size, b"")

    @property
    def is_open(self) -> bool:
        """Whether its footer is known."""
        return self._cache.find([(self.key, "footer")])[0] is not None

    def open(self) -> None:
        """Makes known all that the first read of its end has: in most blocks the whole index, by one request.

        A column that is damaged there is left to who needs it.
        """
        footer = self._footer()
        self.directory(), self._symbols(), self._metrics()
        for section, offset in enumerate(footer.offsets[_COLUMNS_FROM:]):
            if offset >= self._end[0]:
                with suppress(Corrupt):
                    self._column(*divmod(section, len(footer.names)))

    def rows(self, matchers: Sequence[Matcher]) -> I64:
        """Ascending i64[r] numbers of the series that match all matchers. Costs one test a distinct value of each label."""
        rows = self._metric_rows([m for m in matchers if m.name == METRIC_NAME])
        for matcher in matchers:
            if matcher.name != METRIC_NAME and len(rows):
                rows = rows[self._select(matcher, self.table(rows, [matcher.name]))]
        return rows

    def table(self, rows: I64, names: Sequence[str] | None = None) -> SeriesTable:
        """The labels of series by their ascending numbers, all of them or only these."""
        footer = self._footer()
        names = footer.names if names is None else [name for name in names if name in footer.names]
        ids = np.full((len(names), len(rows)), -1, np.int32)
        groups = rows // GROUP_ROWS
        for group in np.unique(groups).tolist():
            a, b = np.searchsorted(groups, [group, group + 1]).tolist()
            inside = rows[a:b] - group * GROUP_ROWS
            for i, name in enumerate(names):
                ids[i, a:b] = self._column(group, footer.names.index(name))[inside]
        return SeriesTable(self._symbols(), tuple(names), ids, True)

    def directory(self) -> Directory:
        """Where the pages are."""
        return self._cache.get((self.key, "directory"), self._load_directory)

    @property
    def series(self) -> int:
        return self._footer().series

    def _metric_rows(self, matchers: Sequence[Matcher]) -> I64:
        if not matchers:
            return np.arange(self.series)
        ids, starts = self._metrics()
        if len(matchers) == 1 and matchers[0].op == "=" and matchers[0].value:
            return self._one_metric(matchers[0].value, ids, starts)
        runs = SeriesTable(self._symbols(), (METRIC_NAME,), ids.astype(np.int32).reshape(1, -1), True)
        keep = np.ones(len(ids), bool)
        for matcher in matchers:
            keep &= matcher.select(runs)
        return np.flatnonzero(np.repeat(keep, np.diff(starts)))

    def _select(self, matcher: Matcher, table: SeriesTable) -> Bool:
        """bool[n] which rows match: a search among the symbols for each plain value wanted, else one test a distinct value."""
        values = _plain_values(matcher)
        if values is None:
            return matcher.select(table)
        symbols = table.symbols
        found = [(value, bisect_left(symbols, value)) for value in values]
        numbers = [number for value, number in found if number < len(symbols) and symbols[number] == value]
        return np.isin(table.column(matcher.name), np.array(numbers, np.int32))

    def _one_metric(self, metric: str, ids: I64, starts: I64) -> I64:
        """The rows of one metric name, by two binary searches."""
        symbols = self._symbols()
        number = bisect_left(symbols, metric)
        at = int(np.searchsorted(ids, number))
        if number == len(symbols) or symbols[number] != metric or at == len(ids) or ids[at] != number:
            return np.empty(0, np.int64)
        return np.arange(starts[at], starts[at + 1])

    def _metrics(self) -> tuple[I64, I64]:
        return self._cache.get((self.key, "metrics"), self._load_metrics)

    def _symbols(self) -> Strings:
        return self._cache.get((self.key, "symbols"), self._load_symbols)

    def _column(self, group: int, place: int) -> Column:
        return self._cache.get((self.key, "column", str(group), str(place)), lambda: self._load_column(group, place))

    def _footer(self) -> _Footer:
        return self._cache.get((self.key, "footer"), self._load_footer)

    def _load_footer(self) -> tuple[_Footer, int]:
        start = max(0, self.size_bytes - READ_AHEAD_BYTES)
        kept = find_sound(self._ranges, [self._whole])[0] if start == 0 else None
        self._end = start, self._get(start, self.size_bytes - start) if kept is None else kept
        try:
            found = self._parse_footer()
        except Corrupt:
            self._end = start, self._get(start, self.size_bytes - start)
            found = self._parse_footer()
        if self._ranges is not None and kept is None and self._whole.fits(self._end[1]):
            self._ranges.keep(self._whole, self._end[1])
        return found

    def _parse_footer(self) -> tuple[_Footer, int]:
        if self.size_bytes < _TAIL.size:
            raise Corrupt(f"{self.name}: {self.size_bytes} bytes are no index")
        at = self.size_bytes - _TAIL.size
        size, crc, magic = _TAIL.unpack(self._in_end(at, _TAIL.size))
        if magic != _MAGIC or size > at:
            raise Corrupt(f"{self.name}: at byte {at} is the tail {magic!r} of a footer of {size} bytes, want {_MAGIC!r}")
        footer = _read_footer(self._unpack(at - size, size, crc), self.name)
        return footer, 200 * len(footer.offsets)

    def _load_directory(self) -> tuple[Directory, int]:
        pages = self._footer().pages
        unpacker = Unpacker(self._section(1, "directory"), what=f"{self.name}: its directory")
        columns = [unpacker.array(pages, PACKED_I64) for _ in Directory.__dataclass_fields__]
        return Directory(*columns), 8 * len(columns) * pages

    def _load_symbols(self) -> tuple[Strings, int]:
        data = self._section(0, "symbols")
        unpacker = Unpacker(data, what=f"{self.name}: its symbols")
        count = int(unpacker.array(1, U32)[0])
        ends = np.cumsum(unpacker.array(count, U32)).tolist()
        text = unpacker.rest().decode()
        return strings([text[a:b] for a, b in zip([0, *ends], ends, strict=False)]), 2 * len(data) + 64 * count

    def _load_metrics(self) -> tuple[tuple[I64, I64], int]:
        data = self._section(2, "metrics")
        unpacker = Unpacker(data, what=f"{self.name}: its metrics")
        count = int(unpacker.array(1, U32)[0])
        ids = unpacker.array(count, PACKED_I32)
        return (ids, unpacker.array(count + 1, PACKED_I64)), 16 * count

    def _load_column(self, group: int, place: int) -> tuple[Column, int]:
        footer = self._footer()
        rows = min(GROUP_ROWS, footer.series - group * GROUP_ROWS)
        section = _COLUMNS_FROM + group * len(footer.names) + place
        what = f"column {footer.names[place]!r} of row group {group}"
        column = Unpacker(self._section(section, what), what=f"{self.name}: {what}").array(rows, PACKED_I32)
        return column.astype(np.int32), 4 * rows

    def _section(self, number: int, what: str) -> bytes:
        footer = self._footer()
        try:
            return self._unpack(footer.offsets[number], footer.sizes[number], footer.crcs[number])
        except Corrupt as error:
            raise Corrupt(f"{error} ({what})") from None

    def _unpack(self, start: int, size: int, crc: int) -> bytes:
        """The content of a zstd frame with that checksum."""
        key = RangeKey(self.name, start, size, crc)
        data = self._in_end(start, size)
        if not key.fits(data):
            data = read_range(key, self._ranges, self._get)
        raw: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_SECTION_BYTES)
        return raw

    def _in_end(self, start: int, size: int) -> bytes:
        """The bytes from `start` on, of what was read of the end; b"" if they are not in it."""
        have, end = self._end
        return end[start - have : start - have + size] if start >= have else b""


def _plain_values(matcher: Matcher) -> frozenset[str] | None:
    """The values that `=` or `=~"a|b|c"` asks for; None for other matchers and where the absent label is one of them."""
    values = None
    if matcher.op == "=":
        values = frozenset([matcher.value])
    elif matcher.op == "=~":
        values = literal_alternatives(matcher.value)
    return None if values is None or "" in values else values


def _check_order(table: SeriesTable, last: SeriesTable | None) -> None:
    """BadData unless each series of a compact table is after the one before it, and the first after `last`."""
    if last is not None:
        pair = SeriesTable.of([last.labels(0), table.labels(0)])
        _check_order(pair, None)
    first = [table.names.index(METRIC_NAME)] if METRIC_NAME in table.names else []
    keys = table.ids[first + [i for i in range(len(table.names)) if i not in first]]
    step = np.sign(np.diff(keys.astype(np.int64), axis=1))
    rising = np.zeros(max(len(table) - 1, 0), np.int64)
    for row in step[::-1]:
        rising = np.where(row, row, rising)
    if (rising <= 0).any():
        at = int(np.argmin(rising))
        raise BadData(f"block: series {table.labels(at + 1)} comes after {table.labels(at)}, against the order of series")


def _pack_symbols(texts: Sequence[str]) -> bytes:
    """Count, lengths in characters, then the texts as UTF-8: decoded at once and then cut."""
    lengths = np.array([len(text) for text in texts], np.int64)
    return shuffle(np.array([len(texts)]), U32) + shuffle(lengths, U32) + "".join(texts).encode()


def _pack_metrics(column: Column) -> bytes:
    """The metric name column as runs: count, symbol numbers, first rows and the end."""
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]])) if len(column) else np.empty(0, np.int64)
    ends = np.append(starts, len(column))
    return shuffle(np.array([len(starts)]), U32) + shuffle(column[starts], PACKED_I32) + shuffle(ends, PACKED_I64)


def _join(sections: Sequence[bytes], *, names: Sequence[str], series: int, pages: int) -> bytes:
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    # Symbols, directory and metrics lie last, next to the footer, so that the first read has them.
    frames = [compressor.compress(section) for section in sections]
    order = [*range(_COLUMNS_FROM, len(frames)), 0, 1, 2]
    offsets, at = [0] * len(frames), 0
    for i in order:
        offsets[i] = at
        at += len(frames[i])
    about = {
        "names": list(names), "series": series, "pages": pages, "offsets": offsets,
        "sizes": [len(frame) for frame in frames], "crcs": [zlib.crc32(frame) for frame in frames],
    }  # fmt: skip
    footer = compressor.compress(json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode())
    tail = _TAIL.pack(len(footer), zlib.crc32(footer), _MAGIC)
    return b"".join([*(frames[i] for i in order), footer, tail])


def _read_footer(data: bytes, name: str) -> _Footer:
    about = json.loads(data)
    try:
        return _Footer(
            tuple(about["names"]),
            about["series"],
            about["pages"],
            tuple(about["offsets"]),
            tuple(about["crcs"]),
            tuple(about["sizes"]),
        )
    except (KeyError, TypeError) as error:
        raise Corrupt(f"{name}: the footer lacks {error}") from None

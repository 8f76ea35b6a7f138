"""Many series at once, as columns: `SeriesTable` for their labels, `SeriesBatch` for their samples.

The order of series is the same everywhere: by metric name, then by the value of each other label name in byte order of
the names, an absent label before any value. Absent and empty are the same thing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tsdb.model.histogram import Histograms
from tsdb.model.labels import METRIC_NAME, Labels

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.object_]

STALE_BITS = 0x7FF0000000000002
"""The exact NaN that Prometheus writes when a series ends; any other NaN is a sample like others."""
STALE_NAN = float(np.uint64(STALE_BITS).view(np.float64))


def is_stale(values: F64) -> Bool:
    """Which of f64[...] are the stale marker, by bits."""
    return np.asarray(np.ascontiguousarray(values).view(np.uint64) == np.uint64(STALE_BITS))


@dataclass(frozen=True, slots=True)
class SeriesTable:
    """The labels of n series: one column of symbol numbers per label name.

    symbols object[s] of unique str; names ascend in byte order; ids int32[len(names), n], -1 = the series lacks the label.
    `ascending` promises that the symbols ascend too, so that numbers compare like strings (true for blocks).
    Tables cut from one another share `symbols`.
    """

    symbols: Strings
    names: tuple[str, ...]
    ids: I32
    ascending: bool = False

    @classmethod
    def empty(cls, size: int = 0) -> "SeriesTable":
        """n series without any label."""
        return cls(np.empty(0, object), (), np.empty((0, size), np.int32), True)

    @classmethod
    def of(cls, rows: Sequence[Labels]) -> "SeriesTable":
        """The table of label sets, in their order. Costs Python work per label: for the edges."""
        names = tuple(sorted({name for row in rows for name, _ in row}))
        symbols = sorted({value for row in rows for _, value in row})
        number = {symbol: i for i, symbol in enumerate(symbols)}
        place = {name: i for i, name in enumerate(names)}
        ids = np.full((len(names), len(rows)), -1, np.int32)
        for i, row in enumerate(rows):
            for name, value in row:
                ids[place[name], i] = number[value]
        return cls(strings(symbols), names, ids, True)

    def __len__(self) -> int:
        return int(self.ids.shape[1])

    def column(self, name: str) -> I32:
        """int32[n] symbol numbers of one label, -1 = absent."""
        if name in self.names:
            return np.asarray(self.ids[self.names.index(name)])
        return np.full(len(self), -1, np.int32)

    def values(self, name: str) -> Strings:
        """object[n] strings of one label, "" = absent."""
        return self.texts(self.column(name))

    def texts(self, ids: I32) -> Strings:
        """object[...] strings of symbol numbers, "" for -1."""
        if len(self.symbols) == 0:
            return np.full(ids.shape, "", object)
        return np.where(ids >= 0, self.symbols[ids], "")

    def labels(self, row: int) -> Labels:
        """One series' label set."""
        ids = self.ids[:, row].tolist()
        return Labels(tuple((name, self.symbols[i]) for name, i in zip(self.names, ids, strict=True) if i >= 0))

    def rows(self) -> list[Labels]:
        """All label sets; for the edges."""
        return [self.labels(i) for i in range(len(self))]

    def take(self, rows: npt.NDArray[np.integer] | Bool | slice) -> "SeriesTable":
        """The chosen rows, in the order given; shares the symbols."""
        return replace(self, ids=self.ids[:, rows])

    def keep(self, names: Iterable[str]) -> "SeriesTable":
        """Only these labels (those that exist)."""
        wanted = set(names)
        at = [i for i, name in enumerate(self.names) if name in wanted]
        return replace(self, names=tuple(self.names[i] for i in at), ids=self.ids[at])

    def drop(self, names: Iterable[str]) -> "SeriesTable":
        """All labels but these."""
        unwanted = set(names)
        return self.keep(name for name in self.names if name not in unwanted)

    def with_column(self, name: str, texts: Strings) -> "SeriesTable":
        """Label `name` set to object[n] strings; "" removes it from that row."""
        texts = np.asarray(texts, object)
        rest = self.drop([name])
        known = {symbol: i for i, symbol in enumerate(self.symbols)}
        fresh: dict[str, int] = {}
        column = np.empty(len(self), np.int32)
        for i, text in enumerate(texts):
            column[i] = -1 if not text else known.get(text, -2)
            if column[i] == -2:
                column[i] = fresh.setdefault(text, len(self.symbols) + len(fresh))
        names = tuple(sorted((*rest.names, name)))
        ids = np.insert(rest.ids, names.index(name), column, axis=0)
        symbols = np.concatenate([self.symbols, strings(list(fresh))]) if fresh else self.symbols
        return SeriesTable(symbols, names, ids, self.ascending and not fresh)

    def order(self) -> I64:
        """i64[n] rows in the order of series (see the top of this file); stable."""
        if len(self) < 2:
            return np.arange(len(self), dtype=np.int64)
        ranked = self._ranked()
        first = [name for name in (METRIC_NAME,) if name in self.names]
        keys = [ranked[self.names.index(name)] for name in (*first, *(n for n in self.names if n != METRIC_NAME))]
        return np.lexsort(keys[::-1]) if keys else np.arange(len(self), dtype=np.int64)

    def group(self, names: Iterable[str] | None = None) -> tuple[I64, I64]:
        """(group i64[n], first i64[g]) of rows with equal values of `names` (all labels if None), numbered by first row.

        `first[j]` is the first row of group j.
        """
        ids = self.ids if names is None else self.keep(names).ids
        n = len(self)
        if n == 0 or len(ids) == 0:
            return np.zeros(n, np.int64), np.zeros(min(n, 1), np.int64)
        order = np.lexsort(ids[::-1])
        fresh = np.empty(n, bool)
        fresh[0] = True
        fresh[1:] = np.any(ids[:, order[1:]] != ids[:, order[:-1]], axis=0)
        starts = order[fresh]  # the smallest row of each group, for lexsort is stable
        by_first = np.argsort(starts, kind="stable")
        rank = np.empty(len(starts), np.int64)
        rank[by_first] = np.arange(len(starts))
        group = np.empty(n, np.int64)
        group[order] = rank[np.cumsum(fresh) - 1]
        return group, starts[by_first]

    def compact(self) -> "SeriesTable":
        """The same series with only the symbols and label columns in use, symbols ascending."""
        used = np.flatnonzero(np.any(self.ids >= 0, axis=1))
        ids = self.ids[used]
        ranks, symbols = _rank(self.symbols, ids)
        ids = np.where(ids >= 0, ranks[ids], -1).astype(np.int32) if len(symbols) else ids
        return SeriesTable(symbols, tuple(self.names[i] for i in used), ids, True)

    def _ranked(self) -> I32:
        if self.ascending:
            return self.ids
        ranks, _ = _rank(self.symbols, self.ids)
        return np.where(self.ids >= 0, ranks[self.ids], -1) if len(ranks) else self.ids


def strings(texts: Sequence[str]) -> Strings:
    """object[n] array of str (NumPy's own constructor guesses wrongly for an empty list)."""
    out = np.empty(len(texts), object)
    out[:] = texts
    return out


def concat_tables(tables: Sequence[SeriesTable]) -> SeriesTable:
    """All rows of all tables, one after another, over one set of symbols."""
    if len(tables) == 1:
        return tables[0]
    names = tuple(sorted({name for table in tables for name in table.names}))
    if all(table.symbols is tables[0].symbols for table in tables):
        symbols, parts, ascending = tables[0].symbols, [table.ids for table in tables], tables[0].ascending
    else:
        compacted = [table.compact() for table in tables]
        texts = sorted(set().union(*(table.symbols.tolist() for table in compacted)))
        number = {text: i for i, text in enumerate(texts)}
        parts = [_renumber(table, number) for table in compacted]
        tables, symbols, ascending = compacted, strings(texts), True
    ids = np.full((len(names), sum(part.shape[1] for part in parts)), -1, np.int32)
    at = 0
    for table, part in zip(tables, parts, strict=True):
        ids[[names.index(name) for name in table.names], at : at + part.shape[1]] = part
        at += part.shape[1]
    return SeriesTable(symbols, names, ids, ascending)


def _renumber(table: SeriesTable, number: dict[str, int]) -> I32:
    if len(table.symbols) == 0:
        return table.ids
    to = np.fromiter((number[text] for text in table.symbols), np.int32, len(table.symbols))
    return np.where(table.ids >= 0, to[table.ids], -1).astype(np.int32)


def _rank(symbols: Strings, ids: I32) -> tuple[I32, Strings]:
    """(rank int32[s] of each used symbol among the used ones, those symbols ascending)."""
    used = np.zeros(len(symbols), bool)
    used[ids[ids >= 0]] = True
    at = np.flatnonzero(used)
    texts = symbols[at].tolist()
    order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
    ranks = np.full(len(symbols), -1, np.int32)
    ranks[at[order]] = np.arange(len(at), dtype=np.int32)
    return ranks, symbols[at][order] if len(at) else np.empty(0, object)


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """The samples of n series: series i is rows offsets[i]:offsets[i+1] of the sample columns.

    series in the order of series; offsets i64[n+1]; t_ms i64[m] strictly rising inside a series; values f64[m].
    A sample that is a native histogram has its row of `histograms` in histogram_at i64[m] (-1 for a float sample), and
    its value is NaN. start_ms i64[m] are start timestamps, 0 = unknown. `warnings` tell what the answer lacks.
    Where any sample is downsampled, windows f64[12, m] tell what each stands for (`tsdb.model.windows`), and resolution_ms is the
    coarsest resolution among them.
    """

    series: SeriesTable
    offsets: I64
    t_ms: I64
    values: F64
    histograms: Histograms | None = None
    histogram_at: I64 | None = None
    start_ms: I64 | None = None
    warnings: tuple[str, ...] = ()
    windows: F64 | None = None
    resolution_ms: int = 0

    @classmethod
    def empty(cls, warnings: tuple[str, ...] = ()) -> "SeriesBatch":
        none = np.empty(0, np.int64)
        return cls(SeriesTable.empty(), np.zeros(1, np.int64), none, none.astype(np.float64), warnings=warnings)

    def __len__(self) -> int:
        return len(self.series)

    @property
    def samples(self) -> int:
        """How many samples all series have together."""
        return len(self.t_ms)

    def take(self, rows: I64) -> "SeriesBatch":
        """The chosen series, in the order given, with their samples."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return self._pick(self.series.take(rows), offsets, at)

    def between(self, start: int, stop: int) -> "SeriesBatch":
        """The series start:stop, sharing memory."""
        if (start, stop) == (0, len(self)):
            return self
        at = slice(int(self.offsets[start]), int(self.offsets[stop]))
        return replace(
            self,
            series=self.series.take(slice(start, stop)),
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            t_ms=self.t_ms[at],
            values=self.values[at],
            histogram_at=None if self.histogram_at is None else self.histogram_at[at],
            start_ms=None if self.start_ms is None else self.start_ms[at],
            windows=None if self.windows is None else self.windows[:, at],
        )

    def clip(self, start_ms: int, end_ms: int) -> "SeriesBatch":
        """Only the samples in [start_ms, end_ms); series left without a sample go."""
        inside = (self.t_ms >= start_ms) & (self.t_ms < end_ms)
        return self if bool(inside.all()) and bool(np.all(np.diff(self.offsets))) else self.where(inside)

    def where(self, keep: Bool) -> "SeriesBatch":
        """Only the samples that bool[m] says; series left without a sample go."""
        before = np.concatenate([[0], np.cumsum(keep)])
        lengths = np.diff(before[self.offsets])
        rows = np.flatnonzero(lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int64)
        return self._pick(self.series.take(rows), offsets, np.flatnonzero(keep))

    def _pick(self, series: SeriesTable, offsets: I64, at: I64) -> "SeriesBatch":
        return replace(
            self,
            series=series,
            offsets=offsets,
            t_ms=self.t_ms[at],
            values=self.values[at],
            histogram_at=None if self.histogram_at is None else self.histogram_at[at],
            start_ms=None if self.start_ms is None else self.start_ms[at],
            windows=None if self.windows is None else np.take(self.windows, at, axis=1),
        )

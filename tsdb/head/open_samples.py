"""The newest samples of the head: one log of columns in the order of arrival, with a chain through the samples of each series.

A sample costs 24 bytes and a sequential write, wherever its time lies: late samples wait in the same log and are sorted when
they are read or sealed. Rows below `count` never change, so who took a `Snapshot` reads on without a lock while
others append.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.head.fragment import Fragment
from tsdb.head.series_index import refs_of
from tsdb.kernel.append import LogColumns, chain_places
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.series import I32, I64
from tsdb.model.source import MAX_MS, MIN_MS

Scalar = TypeVar("Scalar", bound=np.generic)

COUNTED_AT_ONCE = 1 << 19
MAX_HISTOGRAM_PARTS = 16
"""Histograms of so many writes are joined into one, so that a reader joins few."""


@dataclass(slots=True)
class OpenSamples:
    """The log. last i32[r] is the last place of each ref; histogram_at and start_ms exist once a sample needs them."""

    columns: LogColumns
    last: I32
    count: int = 0
    min_ms: int = MAX_MS
    max_ms: int = MIN_MS
    histogram_at: I32 | None = None
    start_ms: I64 | None = None
    histograms: list[Histograms] = field(default_factory=list)
    histogram_count: int = 0
    histogram_bytes: int = 0

    @classmethod
    def of(cls, capacity: int, refs: int) -> "OpenSamples":
        """An empty log with room for `capacity` samples of series with refs below `refs`."""
        narrow, wide = np.dtype(np.int32), np.dtype(np.int64)
        columns = LogColumns(_mapped(capacity, narrow), _mapped(capacity, narrow), _mapped(capacity, wide), _mapped(capacity, wide))
        return cls(columns, np.full(refs, -1, np.int32))

    @property
    def capacity(self) -> int:
        return len(self.columns.ref)

    def refs(self) -> I32:
        """Whose samples are here, ascending."""
        return np.flatnonzero(self.last >= 0).astype(np.int32)

    def grow(self, capacity: int) -> None:
        """Makes room for more samples; snapshots keep the old columns and the chains that end in them."""
        old, count = self.columns, self.count
        columns = LogColumns(
            _longer(old.ref, capacity, count), _longer(old.prev, capacity, count),
            _longer(old.t_ms, capacity, count), _longer(old.bits, capacity, count),
        )  # fmt: skip
        if self.histogram_at is not None:
            self.histogram_at = _longer(self.histogram_at, capacity, self.count, -1)
        if self.start_ms is not None:
            self.start_ms = _longer(self.start_ms, capacity, self.count, 0)
        self.columns, self.last = columns, self.last.copy()

    def grow_refs(self, refs: int) -> None:
        self.last = _longer(self.last, refs, len(self.last), -1)

    def note_starts(self, first: int, start_ms: I64) -> None:
        """Start times of the rows from `first` on."""
        if self.start_ms is None:
            self.start_ms = _mapped(self.capacity, np.dtype(np.int64))
        self.start_ms[first : first + len(start_ms)] = start_ms

    def note_histograms(self, first: int, histograms: Histograms) -> None:
        """The values of the rows from `first` on; their bits are fingerprints."""
        if self.histogram_at is None:
            self.histogram_at = np.full(self.capacity, -1, np.int32)
        count = len(histograms)
        self.histogram_at[first : first + count] = np.arange(self.histogram_count, self.histogram_count + count, dtype=np.int32)
        self.histograms.append(histograms)
        if len(self.histograms) > MAX_HISTOGRAM_PARTS:
            self.histograms = [concat_histograms(self.histograms)]
        self.histogram_count += count
        self.histogram_bytes += histograms.size_bytes

    def publish(self, count: int) -> None:
        """Makes the rows below `count` part of the log."""
        fresh = self.columns.t_ms[self.count : count]
        if len(fresh):
            self.min_ms, self.max_ms = min(self.min_ms, int(fresh.min())), max(self.max_ms, int(fresh.max()))
        self.count = count

    def undo(self, first: int, end: int, newest: I64, saved: I64) -> None:
        """Takes back rows first:end, the last there are and not published, in `newest` and in the chains."""
        refs, prev = self.columns.ref[first:end], self.columns.prev[first:end]
        newest[refs[::-1]] = saved[::-1]  # of equal refs NumPy keeps the last one written: the oldest
        self.last[refs[::-1]] = prev[::-1]

    def forget_histograms(self, first: int, count: int) -> None:
        """Takes back the last `count` histograms, which were those of rows from `first` on."""
        if count and self.histogram_at is not None:
            self.histogram_at[first:] = -1
            self.histogram_count -= count
            whole = concat_histograms(self.histograms)
            self.histograms = [whole.take(np.arange(self.histogram_count))]

    def snapshot(self) -> "Snapshot":
        """What is there now; to be taken under the lock of those who append."""
        columns, parts = self.columns, tuple(self.histograms)
        bounds = self.min_ms, self.max_ms
        return Snapshot(columns, self.last, self.count, *bounds, self.histogram_at, self.start_ms, parts, self.histogram_bytes)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The first `count` rows of a log."""

    columns: LogColumns
    last: I32
    count: int
    min_ms: int
    max_ms: int
    histogram_at: I32 | None
    start_ms: I64 | None
    histograms: tuple[Histograms, ...]
    histogram_bytes: int

    def sizes(self) -> I64:
        """i64[refs] how many samples each ref has."""
        out = np.zeros(len(self.last), np.int64)
        for first in range(0, self.count, COUNTED_AT_ONCE):  # NumPy widens what it counts: at once that would be a third of the log
            out += np.bincount(self.columns.ref[first : min(first + COUNTED_AT_ONCE, self.count)], minlength=len(out))
        return out

    def read(self, keys: I64, start_ms: int, end_ms: int) -> Iterator[Fragment]:
        """What is here of the series keys i64[k] in [start_ms, end_ms): one fragment or none."""
        if self.count == 0 or start_ms > self.max_ms or end_ms <= self.min_ms:
            return
        refs = refs_of(keys)
        lengths = np.zeros(len(refs), np.int64)
        places = np.empty(max(1024, 32 * len(refs)), np.int64)
        prev, t_ms = self.columns.prev, self.columns.t_ms
        total = int(chain_places(prev, t_ms, self.last, self.count, refs, start_ms, end_ms, lengths, places))
        if total > len(places):
            places = np.empty(total, np.int64)
            chain_places(prev, t_ms, self.last, self.count, refs, start_ms, end_ms, lengths, places)
        places = places[:total]
        rows = np.flatnonzero(lengths)
        if len(rows) == 0:
            return
        histograms, histogram_at = self._histograms(places)
        yield Fragment(
            rows,
            lengths[rows],
            t_ms[places],
            self.columns.bits[places],
            histograms,
            histogram_at,
            None if self.start_ms is None else self.start_ms[places],
        )

    def _histograms(self, places: I64) -> tuple[Histograms | None, I64 | None]:
        """(those of the places, the row of each place among them or -1)."""
        if self.histogram_at is None:
            return None, None
        at = self.histogram_at[places].astype(np.int64)
        used = np.flatnonzero(at >= 0)
        if len(used) == 0:
            return None, None
        chosen, before, count = [], 0, 0
        wanted = at[used]
        for part in self.histograms:
            here = np.flatnonzero((wanted >= before) & (wanted < before + len(part)))
            chosen.append(part.take(wanted[here] - before))
            at[used[here]] = np.arange(count, count + len(here))
            before, count = before + len(part), count + len(here)
        return concat_histograms(chosen), at


def _longer(column: npt.NDArray[Scalar], room: int, used: int, rest: int | None = None) -> npt.NDArray[Scalar]:
    """A column of `room` places that starts with the `used` ones, the others set to `rest` or undefined."""
    out = _mapped(room, column.dtype)
    out[:used] = column[:used]
    if rest is not None:
        out[used:] = rest
    return out


def _mapped(room: int, dtype: "np.dtype[Scalar]") -> npt.NDArray[Scalar]:
    """An array of zeros in memory pages of its own, which go back to the system with it; malloc would keep them for later."""
    return np.frombuffer(mmap(-1, max(1, room) * dtype.itemsize, MAP_PRIVATE | MAP_ANONYMOUS), dtype, room)

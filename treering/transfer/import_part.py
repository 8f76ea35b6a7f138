"""What every import is made of: parts of a source that are imported whole or not at all, and what of them is wanted."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tsdb.merge import merge_batches
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesBatch, strings
from tsdb.model.source import MAX_MS, MIN_MS


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which samples are imported, and as what: series that match any of the matcher sets (all if there is none), samples in
    [start_ms, end_ms), and labels that are set on every series (an empty value takes a label away)."""

    sets: tuple[tuple[Matcher, ...], ...] = ()
    start_ms: int = MIN_MS
    end_ms: int = MAX_MS
    labels: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """All of it in one line: what tells one import of a source from another."""
        sets = sorted("{" + ",".join(map(str, matchers)) + "}" for matchers in self.sets)
        return f"{sets} [{self.start_ms}, {self.end_ms}) {self.labels}"


@dataclass(frozen=True, slots=True)
class Content:
    """The opened content of a part: samples in [min_ms, max_ms), told by `read(start_ms, end_ms)` in batches of whole series in
    their order, as often as it is called."""

    min_ms: int
    max_ms: int
    read: Callable[[int, int], Iterator[SeriesBatch]]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a source. `fingerprint` tells it from any other content; `weight` is its share of the work, in any unit;
    `open` reads it, and raises Corrupt or BadData, naming the place, if that cannot be done."""

    name: str
    fingerprint: str
    weight: int
    open: Callable[[], Content]


def content_of(batch: SeriesBatch) -> Content:
    """The content of a part that is in memory."""
    if batch.samples == 0:
        return Content(0, 0, lambda start_ms, end_ms: iter(()))
    low, high = int(batch.t_ms.min()), int(batch.t_ms.max()) + 1
    return Content(low, high, lambda start_ms, end_ms: iter((batch.clip(start_ms, end_ms),)))


def pick(batch: SeriesBatch, wanted: Wanted) -> SeriesBatch:
    """The wanted samples of a batch, under their new labels."""
    batch = batch.clip(wanted.start_ms, wanted.end_ms)
    for name, value in wanted.labels:
        batch = replace(batch, series=batch.series.with_column(name, strings([value] * len(batch))))
    batch = any_of(batch, wanted.sets)
    return in_order(batch) if wanted.labels else batch


def any_of(batch: SeriesBatch, sets: tuple[tuple[Matcher, ...], ...]) -> SeriesBatch:
    """The series that match any of the sets; all if there is none."""
    if not sets:
        return batch
    keep = np.zeros(len(batch), bool)
    for matchers in sets:
        keep |= select_rows(batch.series, matchers)
    return batch if bool(keep.all()) else batch.take(np.flatnonzero(keep))


def in_order(batch: SeriesBatch) -> SeriesBatch:
    """The same series in their order, equal ones merged."""
    batch = batch.take(batch.series.order())
    ids = batch.series.ids
    same = np.zeros(len(batch), bool)
    same[1:] = np.all(ids[:, 1:] == ids[:, :-1], axis=0)
    if not same.any():
        return batch
    first = np.flatnonzero(~same)
    turn = np.arange(len(same)) - np.repeat(first, np.diff(np.append(first, len(same))))
    return merge_batches([batch.take(np.flatnonzero(turn == k)) for k in range(int(turn.max()) + 1)])


def fingerprint(*facts: object) -> str:
    """128 bits, as hex digits, of facts in their text."""
    return hashlib.sha256("\0".join(map(str, facts)).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def labels_of(pairs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The labels of `Wanted`, in the order of their names."""
    return tuple(sorted(pairs.items()))

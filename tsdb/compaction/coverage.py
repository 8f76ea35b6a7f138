"""Which blocks answer for which stretch of time, at which resolution: pure functions over metas.

Coarser windows before finer, as far as the asker takes them; where a resolution has a gap, a finer one fills it. Windows that lack
samples which came after they were made are not used while the raw blocks are all there. Where those are gone, what came late
answers beside the windows (`tsdb.merge` lets the windows of a series win): it must neither hide them nor be hidden.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tsdb.block.meta import BlockMeta
from tsdb.compaction.lineage import is_made_of, sources_of
from tsdb.model.source import Selection

Interval = tuple[int, int]
"""Times in [start, end)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a block that answers: its samples in [start_ms, end_ms)."""

    meta: BlockMeta
    start_ms: int
    end_ms: int

    def within(self, selection: Selection) -> Selection:
        """The selection, of this stretch only."""
        return replace(selection, start_ms=self.start_ms, end_ms=self.end_ms)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The pieces that answer, oldest first, and the stretches for which there are only windows that the asker does not take."""

    pieces: tuple[Piece, ...]
    coarser_only: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Blocks that no other one replaces, by resolution, and those that came late (see above): the same for many selections."""

    metas: tuple[BlockMeta, ...]
    by_resolution: Mapping[int, Sequence[BlockMeta]]
    late: frozenset[str]

    @classmethod
    def of(cls, live: Sequence[BlockMeta]) -> "Shelf":
        known = sorted({meta.resolution_ms for meta in live})
        by_resolution = {ms: [meta for meta in live if meta.resolution_ms == ms] for ms in known}
        windows = [meta for meta in live if meta.resolution_ms]
        return cls(tuple(live), by_resolution, frozenset(meta.ulid for meta in live if _came_late(meta, windows, live)))


def cover(shelf: Shelf, selection: Selection) -> Coverage:
    """How blocks of all resolutions answer a selection.

    Taken first: resolutions up to `selection.resolution_ms`, the coarsest before others; then, for what is still missing, those
    up to `selection.fallback_ms`, the finest before others. Windows that finer blocks hold all of are not among those: the last one
    ends where these do, and nothing of it is missing there. Blocks that came late (see above) fill no gap and are read beside all.
    """
    live, late, by_resolution = shelf.metas, shelf.late, shelf.by_resolution
    known = list(by_resolution)
    wanted = [ms for ms in reversed(known) if ms <= selection.resolution_ms]
    more = [ms for ms in known if selection.resolution_ms < ms <= selection.fallback_ms]
    missing: list[Interval] = [(selection.start_ms, selection.end_ms)]
    pieces: list[Piece] = []
    for resolution_ms in (*wanted, *more):
        taken = [
            Piece(meta, start, end)
            for meta in by_resolution[resolution_ms]
            if meta.min_ms < selection.end_ms and meta.max_ms > selection.start_ms
            if resolution_ms <= selection.resolution_ms or not is_made_of(meta, live)
            if meta.ulid not in late
            for usable in _usable(meta, by_resolution)
            for start, end in _overlap(missing, usable)
        ]
        pieces += taken
        missing = _without(missing, [(piece.start_ms, piece.end_ms) for piece in taken])
    pieces += [
        Piece(meta, start, end)
        for ms in (*wanted, *more)
        for meta in by_resolution[ms]
        if meta.ulid in late and not _in_windows(meta, live, selection.resolution_ms)
        for start, end in _overlap([(selection.start_ms, selection.end_ms)], (meta.min_ms, meta.max_ms))
    ]
    refused = [
        Piece(meta, start, end)
        for ms in known
        if ms > max(selection.resolution_ms, selection.fallback_ms)
        for meta in by_resolution[ms]
        if not is_made_of(meta, live)
        for start, end in _overlap(missing, (meta.min_ms, meta.max_ms))
    ]
    return Coverage(_ordered(pieces), _ordered(refused))


def _usable(meta: BlockMeta, by_resolution: Mapping[int, Sequence[BlockMeta]]) -> list[Interval]:
    """The stretches of a block without those in which raw blocks have something that it lacks, while they have all the rest too."""
    whole = [(meta.min_ms, meta.max_ms)]
    if meta.resolution_ms == 0:
        return whole
    raw = [one for one in by_resolution.get(0, []) if _is_over(meta, one)]
    if not _union(raw) >= sources_of(meta):
        return whole  # raw samples are gone already: these windows are the best there is
    late = [_windows_over(one, meta.resolution_ms) for one in raw if not _all_in(one, by_resolution[meta.resolution_ms])]
    return _without(whole, late)


def _came_late(meta: BlockMeta, windows: Sequence[BlockMeta], live: Sequence[BlockMeta]) -> bool:
    """Whether none of a block is in coarser windows over it that cannot be made anew, for what they were made of is gone."""
    own = sources_of(meta)
    over = (one for one in windows if one.resolution_ms > meta.resolution_ms and _is_over(one, meta))
    return any(own.isdisjoint(sources_of(one)) and not is_made_of(one, live) for one in over)


def _in_windows(meta: BlockMeta, live: Sequence[BlockMeta], resolution_ms: int) -> bool:
    """Whether all of a block is in coarser windows over it of up to a resolution."""
    over = (one for one in live if meta.resolution_ms < one.resolution_ms <= resolution_ms and _is_over(one, meta))
    return _union(over) >= sources_of(meta)


def _is_over(windows: BlockMeta, finer: BlockMeta) -> bool:
    """Whether more than the last instant of windows, which the next blocks hold too, lies in the range of a finer block."""
    return finer.min_ms < windows.max_ms - 1 and finer.max_ms > windows.min_ms


def _windows_over(raw: BlockMeta, resolution_ms: int) -> Interval:
    """The times of the windows that overlap a raw block, which are also the times of the samples in them."""
    first_end = -(-raw.min_ms // resolution_ms) * resolution_ms
    return first_end - resolution_ms + 1, -(-(raw.max_ms - 1) // resolution_ms) * resolution_ms + 1


def _all_in(raw: BlockMeta, windows: Sequence[BlockMeta]) -> bool:
    """Whether the windows over a raw block's range were made from all that it was made from."""
    over = (one for one in windows if one.min_ms < raw.max_ms and one.max_ms > raw.min_ms)
    return _union(over) >= sources_of(raw)


def _union(metas: Iterable[BlockMeta]) -> frozenset[str]:
    return frozenset[str]().union(*(sources_of(meta) for meta in metas))


def _overlap(intervals: Sequence[Interval], with_: Interval) -> list[Interval]:
    cut = [(max(start, with_[0]), min(end, with_[1])) for start, end in intervals]
    return [(start, end) for start, end in cut if start < end]


def _without(intervals: Sequence[Interval], taken: Sequence[Interval]) -> list[Interval]:
    left = list(intervals)
    for start, end in taken:
        left = [part for one in left for part in ((one[0], min(one[1], start)), (max(one[0], end), one[1])) if part[0] < part[1]]
    return left


def _ordered(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    return tuple(sorted(pieces, key=lambda piece: (piece.start_ms, piece.meta.ulid)))

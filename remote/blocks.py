"""Which blocks answer a selection, and how a damaged one is kept from failing the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tsdb.block.meta import BlockMeta
from tsdb.compaction.coverage import Piece
from tsdb.compaction.lineage import live_blocks
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source


def choose_blocks(metas: Sequence[BlockMeta], selection: Selection) -> list[BlockMeta]:
    """The raw blocks with samples in the range, oldest first; not those that another one, made from them, stands for."""
    raw = (meta for meta in live_blocks(metas) if meta.resolution_ms == 0)
    return [meta for meta in raw if meta.min_ms < selection.end_ms and meta.max_ms > selection.start_ms]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A source of which only [start_ms, end_ms) answers."""

    source: Source
    start_ms: int
    end_ms: int

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self.source.select(self._within(selection))

    def series(self, selection: Selection) -> SeriesTable:
        return self.source.series(self._within(selection))

    def estimate(self, selection: Selection) -> Estimate:
        return estimate(self.source, self._within(selection))

    def _within(self, selection: Selection) -> Selection:
        start_ms, end_ms = max(self.start_ms, selection.start_ms), min(self.end_ms, selection.end_ms)
        return replace(selection, start_ms=start_ms, end_ms=max(start_ms, end_ms))


def coarser_only(pieces: Sequence[Piece]) -> str:
    """The warning that a stretch of time is left out of an answer, for there are only windows that were not asked for."""
    start_ms, end_ms = min(piece.start_ms for piece in pieces), max(piece.end_ms for piece in pieces)
    finest_ms = min(piece.meta.resolution_ms for piece in pieces)
    stretch = " to ".join(datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="minutes") for ms in (start_ms, end_ms))
    return (
        f"samples from {stretch} are kept only downsampled to {finest_ms // 60_000} minutes and are missing from this answer: "
        f"max_source_resolution={finest_ms // 60_000}m would show them"
    )


class GuardedBlock:
    """A block that answers with a warning where it is damaged or gone, and with what could be read before that.

    A bucket that cannot answer now is not damage: Unavailable goes through, for the whole answer will be right later.
    """

    def __init__(self, ulid: str, block: Source) -> None:
        self._ulid, self._block = ulid, block

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        try:
            yield from self._block.select(selection)
        except (Corrupt, NotFound, BadData) as error:
            yield SeriesBatch.empty((damage(self._ulid, error),))

    def series(self, selection: Selection) -> SeriesTable:
        try:
            return self._block.series(selection)
        except (Corrupt, NotFound, BadData):
            return SeriesTable.empty()

    def estimate(self, selection: Selection) -> Estimate:
        try:
            return estimate(self._block, selection)
        except (Corrupt, NotFound, BadData):
            return Estimate()


class Told:
    """No series, only warnings: for what is known to be missing from an answer."""

    def __init__(self, warnings: tuple[str, ...]) -> None:
        self._warnings = warnings

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        if self._warnings:
            yield SeriesBatch.empty(self._warnings)

    def series(self, selection: Selection) -> SeriesTable:
        return SeriesTable.empty()


def damage(ulid: str, error: object) -> str:
    """The warning for a block that could not be read."""
    return f"block {ulid} could not be read and is missing from this answer: {error}"

"""Which blocks answer a selection, and how a damaged one is kept from failing the others."""

from collections.abc import Iterator, Sequence

from tsdb.block_meta import BlockMeta
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source


def choose_blocks(metas: Sequence[BlockMeta], selection: Selection) -> list[BlockMeta]:
    """The raw blocks with samples in the range, oldest first; not those that a later one, made from them, stands for."""
    inside = [
        meta for meta in metas if meta.min_ms < selection.end_ms and meta.max_ms > selection.start_ms and meta.resolution_ms == 0
    ]
    made_from: dict[str, list[BlockMeta]] = {}
    for meta in inside:
        for ulid in meta.sources:
            made_from.setdefault(ulid, []).append(meta)
    chosen = [meta for meta in inside if not _is_replaced(meta, made_from)]
    return sorted(chosen, key=lambda meta: (meta.min_ms, meta.ulid))


def _is_replaced(meta: BlockMeta, made_from: dict[str, list[BlockMeta]]) -> bool:
    """Whether a block of a higher level was made from all that this one was made from (`sources` names level 1 blocks)."""
    own = set(meta.sources or (meta.ulid,))
    return any(other.level > meta.level and own <= set(other.sources) for other in made_from.get(min(own), []))


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


def damage(ulid: str, error: Exception) -> str:
    """The warning for a block that could not be read."""
    return f"block {ulid} could not be read and is missing from this answer: {error}"

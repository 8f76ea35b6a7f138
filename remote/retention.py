"""How long a tenant's samples are kept: as a whole, by resolution, and by matchers. Decisions only.

A block goes whole once all of it is expired. What expires by matchers goes when its block is rewritten: with the next merge, and at
the latest when all of the block is past the rule's time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from promql.syntax.errors import ParseError
from promql.syntax.gotext import parse_duration_ms
from promql.syntax.parser import parse_selector
from remote.limits import Limits
from tsdb.block.meta import BlockMeta
from tsdb.compaction.lineage import sources_of
from tsdb.compaction.tombstones import Tombstone
from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher
from tsdb.model.source import MIN_MS

MAX_RULES = 64
"""Rules of one tenant: each is tested against every series of every block that is merged."""
RESOLUTION_5M_MS, RESOLUTION_1H_MS = 300_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Rule:
    """Series that match all matchers are kept for `keep_ms`."""

    matchers: tuple[Matcher, ...]
    keep_ms: int


@dataclass(frozen=True, slots=True)
class Retention:
    """How long samples are kept; 0 = for ever. `by_resolution` shortens what `keep_ms` says for one resolution."""

    keep_ms: int = 0
    by_resolution: tuple[tuple[int, int], ...] = ()
    rules: tuple[Rule, ...] = ()


def retention_of(limits: Limits) -> Retention:
    """The retention that a tenant's limits ask for. BadData names the rule that is wrong."""
    if len(limits.retention) > MAX_RULES:
        raise BadData(f"retention: {len(limits.retention)} rules, over the limit of {MAX_RULES}")
    by_resolution = (
        (0, limits.retention_raw_ms), (RESOLUTION_5M_MS, limits.retention_5m_ms), (RESOLUTION_1H_MS, limits.retention_1h_ms),
    )  # fmt: skip
    rules = tuple(_rule(one.matchers, one.keep) for one in limits.retention)
    return Retention(limits.retention_ms, tuple(pair for pair in by_resolution if pair[1]), rules)


def expired_blocks(metas: Sequence[BlockMeta], retention: Retention, *, now_ms: int) -> list[BlockMeta]:
    """The blocks that hold nothing that is still to be kept, the coarsest first: raw samples do not go before their windows.

    What only the retention of its resolution lets go must be covered by a coarser block, lest it be gone before it was downsampled.
    """
    by_resolution = dict(retention.by_resolution)
    gone = []
    for meta in metas:
        age_ms = now_ms - (meta.max_ms - (1 if meta.resolution_ms else 0))  # windows have times (start, end]
        of_resolution = by_resolution.get(meta.resolution_ms, 0)
        if (0 < retention.keep_ms <= age_ms) or (0 < of_resolution <= age_ms and _is_covered(meta, metas)):
            gone.append(meta)
    return sorted(gone, key=lambda meta: -meta.resolution_ms)


def expired_ranges(retention: Retention, *, now_ms: int) -> tuple[Tombstone, ...]:
    """What is past its time by now, as tombstones that cover every block: for the blocks that are rewritten anyway."""
    ranges = [((), retention.keep_ms)] if retention.keep_ms else []
    return tuple(_until(now_ms - keep_ms, matchers) for matchers, keep_ms in [*ranges, *_pairs(retention.rules)])


def rules_past(meta: BlockMeta, retention: Retention, *, now_ms: int) -> list[Rule]:
    """The rules by which everything that matches in a block is expired."""
    return [rule for rule in retention.rules if meta.max_ms + rule.keep_ms <= now_ms]


def _rule(matchers: str, keep: str) -> Rule:
    try:
        rule = Rule(parse_selector(matchers), parse_duration_ms(keep))
    except (ParseError, BadData, ValueError) as error:
        raise BadData(f"retention: rule for {matchers!r}, keep {keep!r}: {error}") from None
    if rule.keep_ms <= 0:
        raise BadData(f"retention: rule for {matchers!r} keeps nothing; delete the series instead")
    return rule


def _pairs(rules: Iterable[Rule]) -> list[tuple[tuple[Matcher, ...], int]]:
    return [(rule.matchers, rule.keep_ms) for rule in rules]


def _until(end_ms: int, matchers: tuple[Matcher, ...]) -> Tombstone:
    return Tombstone("", 0, MIN_MS, end_ms, (matchers,), ())


def _is_covered(meta: BlockMeta, metas: Sequence[BlockMeta]) -> bool:
    """Whether a coarser block holds all that this one does; of the coarsest resolution there is none."""
    if meta.resolution_ms >= RESOLUTION_1H_MS:
        return True
    own = sources_of(meta)
    return any(other.resolution_ms > meta.resolution_ms and own <= sources_of(other) for other in metas)

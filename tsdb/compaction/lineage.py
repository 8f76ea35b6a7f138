"""Which blocks stand for which: a block that was made from others replaces them wherever both are known.

`BlockMeta.sources` names the level 1 blocks whose samples are in a block. Replacing is decided by these alone, so that it holds
for whoever sees both blocks, whether or not a deletion mark was ever written.
"""

from collections.abc import Iterable, Sequence

from tsdb.block.meta import BlockMeta


def sources_of(meta: BlockMeta) -> frozenset[str]:
    """The ulids of the level 1 blocks whose samples it holds."""
    return frozenset(meta.sources or (meta.ulid,))


def live_blocks(metas: Iterable[BlockMeta]) -> list[BlockMeta]:
    """The blocks that no other one replaces, by time, then ulid.

    A block is replaced by one of the same resolution that holds all its sources, and more of them, or was made from it (its level
    is higher), or is a second try of the same work (its ulid is later).
    """
    known = list({meta.ulid: meta for meta in metas}.values())
    holders: dict[tuple[int, str], list[BlockMeta]] = {}
    for meta in known:
        if len(meta.sources) > 1 or meta.level > 1:
            for ulid in sources_of(meta):
                holders.setdefault((meta.resolution_ms, ulid), []).append(meta)
    kept = [meta for meta in known if not _is_replaced(meta, holders)]
    return sorted(kept, key=lambda meta: (meta.min_ms, meta.ulid))


def replacement(meta: BlockMeta, others: Sequence[BlockMeta]) -> BlockMeta | None:
    """One of the others that replaces it, if there is one."""
    own = sources_of(meta)
    for other in others:
        if other.resolution_ms == meta.resolution_ms and _rank(other) > _rank(meta) and own <= sources_of(other):
            return other
    return None


def is_made_of(meta: BlockMeta, finer: Iterable[BlockMeta]) -> bool:
    """Whether blocks of finer resolution hold all that a block of windows was made of: then it can be made anew."""
    own = sources_of(meta)
    held = (sources_of(other) for other in finer if other.resolution_ms < meta.resolution_ms)
    return own <= frozenset[str]().union(*(sources & own for sources in held))


def _is_replaced(meta: BlockMeta, holders: dict[tuple[int, str], list[BlockMeta]]) -> bool:
    own = sources_of(meta)
    return replacement(meta, holders.get((meta.resolution_ms, min(own)), [])) is not None


def _rank(meta: BlockMeta) -> tuple[int, int, str]:
    return len(meta.sources or (meta.ulid,)), meta.level, meta.ulid

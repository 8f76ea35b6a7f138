"""What is in a bucket, told by a few small objects, so that no reader lists blocks.

index/blocks                every block with its meta and marks, and every tombstone; rewritten by the compactor
index/new-<writer>          blocks that one writer has put lately, which index/blocks may not name yet
index/tombstone-<ulid>      a deletion (`tsdb.compaction.tombstones`)
index/condemned             everything is to be deleted; the last object to go

Each has one writer, so none is lost to another's. Where index/blocks is missing, damaged or stale, a reader lists the bucket.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tsdb.block.meta import META, BlockMeta, is_ulid, read_meta
from tsdb.bucket.bucket import Bucket
from tsdb.bucket.sealed import seal, unseal
from tsdb.compaction.lineage import is_made_of, live_blocks
from tsdb.compaction.marks import (
    DELETION_MARK,
    NO_COMPACT_MARK,
    DeletionMark,
    NoCompactMark,
    read_deletion_mark,
    read_no_compact_mark,
)
from tsdb.compaction.tombstones import PREFIX as TOMBSTONE_PREFIX
from tsdb.compaction.tombstones import Tombstone, read_tombstone, touching
from tsdb.model.errors import Corrupt, NotFound, TreeringError

FOLDER = "index/"
BLOCKS, NEWS_PREFIX, CONDEMNED = "index/blocks", "index/new-", "index/condemned"
STALE_MS = 3_600_000
"""An index made longer ago is not believed: its writer may be gone. Writers may forget their news after this and SKEW_MS."""
SKEW_MS = 300_000
"""How far the clocks of two nodes may be apart."""
READ_AT_ONCE = 256
"""Blocks whose metas are handed to an executor at a time: others that use it get their turn between."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that is known of the blocks in a bucket, by their ulids.

    `damaged` says in words why a block (or another object, by its key) cannot be used; `condemned_ms` since when everything is to
    be deleted.
    """

    metas: Mapping[str, BlockMeta] = field(default_factory=dict)
    deletions: Mapping[str, DeletionMark] = field(default_factory=dict)
    no_compact: Mapping[str, NoCompactMark] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    condemned_ms: int | None = None

    def with_block(self, meta: BlockMeta) -> "Inventory":
        return replace(self, metas={**self.metas, meta.ulid: meta})

    def with_deletion(self, mark: DeletionMark) -> "Inventory":
        return replace(self, deletions={**self.deletions, mark.ulid: mark})

    def with_no_compact(self, mark: NoCompactMark) -> "Inventory":
        return replace(self, no_compact={**self.no_compact, mark.ulid: mark})

    def with_tombstone(self, tombstone: Tombstone) -> "Inventory":
        return replace(self, tombstones={**self.tombstones, tombstone.ulid: tombstone})

    def without_block(self, ulid: str) -> "Inventory":
        """The same without a block and its marks."""
        return replace(
            self,
            metas=_without(self.metas, ulid),
            deletions=_without(self.deletions, ulid),
            no_compact=_without(self.no_compact, ulid),
        )

    def without_tombstone(self, ulid: str) -> "Inventory":
        return replace(self, tombstones=_without(self.tombstones, ulid))


@dataclass(frozen=True, slots=True)
class Scan:
    """What a listing of the whole bucket found.

    `incomplete` has of each block without meta.json, `news` of each key of news, when it was last written to.
    """

    inventory: Inventory
    incomplete: Mapping[str, int]
    news: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LiveBlock:
    """A block that answers, with the tombstones that hide samples of it."""

    meta: BlockMeta
    tombstones: tuple[Tombstone, ...]


@dataclass(frozen=True, slots=True)
class _Condemned:
    """index/condemned."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class _Damage:
    ulid: str
    problem: str


@dataclass(frozen=True, slots=True)
class _BlocksFile:
    """index/blocks. `scanned_ms`: when the listing that it was made from began."""

    scanned_ms: int
    metas: tuple[BlockMeta, ...]
    deletions: tuple[DeletionMark, ...]
    no_compact: tuple[NoCompactMark, ...]
    tombstones: tuple[Tombstone, ...]
    damaged: tuple[_Damage, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    meta: BlockMeta
    at_ms: int


@dataclass(frozen=True, slots=True)
class _News:
    """index/new-<writer>."""

    entries: tuple[_Entry, ...]


def scan_bucket(bucket: Bucket, known: Inventory, executor: Executor | None = None) -> Scan:
    """Everything in the bucket, by listing it and reading the metas, marks and tombstones that are not known yet.

    Blocks are listed before tombstones are (`0` to `7` sort before `index`): whoever sees a block that was written after a deletion
    sees that deletion too. One block that cannot be read hides no other. Unavailable where the bucket cannot be listed.

    Costs a request for each block that is not known, side by side in the `executor`, where this must not itself be running.
    """
    objects: dict[str, dict[str, int]] = {}
    index_keys, news = [], {}
    for info in bucket.list():
        folder, _, name = info.key.partition("/")
        if is_ulid(folder):
            objects.setdefault(folder, {})[name] = info.modified_ms
        elif folder == "index":
            index_keys.append(info.key)
            if info.key.startswith(NEWS_PREFIX):
                news[info.key] = info.modified_ms
    inventory, incomplete = _Found(), {}
    for ulid, names in objects.items():
        if META not in names:
            incomplete[ulid] = max(names.values())
    inventory.read_blocks(bucket, objects, known, executor)
    inventory.read_edicts(bucket, index_keys, known.tombstones)
    return Scan(inventory.done(), incomplete, news)


def read_inventory(
    bucket: Bucket, known: Inventory, *, now_ms: int, stale_ms: int = STALE_MS, executor: Executor | None = None
) -> Inventory:
    """Everything in the bucket as its index tells it, or, where that cannot be believed, as a listing does.

    Costs a listing of a few keys and a read of each; tombstones that are `known` are not read again. Where the bucket is listed,
    metas that the stale index has are not read either, for a meta never changes; for others see `scan_bucket`.
    """
    keys = [info.key for info in bucket.list(FOLDER)]
    file = _read_file(bucket, keys)
    news = [_read_news(bucket, key) for key in keys if key.startswith(NEWS_PREFIX)]
    if file is None or None in news or now_ms - file.scanned_ms > stale_ms:
        listed = {meta.ulid: meta for meta in file.metas} if file is not None else {}
        return scan_bucket(bucket, replace(known, metas={**listed, **known.metas}), executor).inventory
    found = _Found()
    found.metas |= {meta.ulid: meta for meta in file.metas}
    found.deletions |= {mark.ulid: mark for mark in file.deletions}
    found.no_compact |= {mark.ulid: mark for mark in file.no_compact}
    for one in file.damaged:  # what the compactor could not read may be readable by now
        found.read_meta(bucket, one.ulid, known)
    for entry in (entry for one in news if one is not None for entry in one.entries):
        if entry.at_ms >= file.scanned_ms - SKEW_MS:
            found.metas.setdefault(entry.meta.ulid, entry.meta)
    tombstones = {**known.tombstones, **{one.ulid: one for one in file.tombstones}}
    found.read_edicts(bucket, keys, tombstones)
    return found.done()


def write_index(bucket: Bucket, inventory: Inventory, *, scanned_ms: int) -> None:
    """Put index/blocks. Only the compactor does, of an inventory that `scan_bucket` found and that it has kept up since."""
    file = _BlocksFile(
        scanned_ms,
        tuple(inventory.metas.values()),
        tuple(inventory.deletions.values()),
        tuple(inventory.no_compact.values()),
        tuple(inventory.tombstones.values()),
        tuple(_Damage(ulid, problem) for ulid, problem in inventory.damaged.items() if is_ulid(ulid)),
    )
    bucket.put(BLOCKS, seal(file))


def add_news(bucket: Bucket, metas: Sequence[BlockMeta], *, writer: str, now_ms: int, stale_ms: int = STALE_MS) -> None:
    """Make blocks that were just put known to readers, before the next index names them. `writer` is the only one of its name."""
    key = NEWS_PREFIX + writer
    before = _read_news(bucket, key) or _News(())
    recent = [entry for entry in before.entries if now_ms - entry.at_ms <= stale_ms + SKEW_MS]
    known = {entry.meta.ulid for entry in recent}
    fresh = [_Entry(meta, now_ms) for meta in metas if meta.ulid not in known]
    if fresh:
        bucket.put(key, seal(_News((*recent, *fresh))))


def condemn(bucket: Bucket, *, now_ms: int) -> None:
    """Mark everything in the bucket as to be deleted: readers find nothing any more."""
    bucket.put(CONDEMNED, seal(_Condemned(now_ms)))


def answering(inventory: Inventory, *, now_ms: int, ignore_after_ms: int) -> tuple[LiveBlock, ...]:
    """The blocks that a reader reads, by time: those that no other replaces and that are not marked as deleted.

    Windows that a deletion touches are passed over where there are finer blocks, which can leave out single samples. A block that
    others replace is read until `ignore_after_ms` after its mark, by when every reader knows these others.
    """
    if inventory.condemned_ms is not None:
        return ()
    # What is marked still stands for what it was made from: those must not come back while it is on its way out.
    live = live_blocks(inventory.metas.values())
    kept = [meta for meta in live if _answers(inventory.deletions.get(meta.ulid), now_ms - ignore_after_ms)]
    tombstones = tuple(inventory.tombstones.values())
    blocks = (LiveBlock(meta, touching(meta, tombstones)) for meta in kept)
    return tuple(block for block in blocks if not (block.tombstones and is_made_of(block.meta, kept)))


class _Found:
    """An inventory in the making."""

    def __init__(self) -> None:
        self.metas: dict[str, BlockMeta] = {}
        self.deletions: dict[str, DeletionMark] = {}
        self.no_compact: dict[str, NoCompactMark] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.damaged: dict[str, str] = {}
        self.condemned_ms: int | None = None

    def done(self) -> Inventory:
        metas = dict(sorted(self.metas.items()))
        return Inventory(metas, self.deletions, self.no_compact, self.tombstones, self.damaged, self.condemned_ms)

    def read_blocks(
        self, bucket: Bucket, objects: Mapping[str, Mapping[str, int]], known: Inventory, executor: Executor | None
    ) -> None:
        """Metas and marks of blocks, of which `objects` has the objects that there are."""

        def work(ulid: str) -> None:
            if META in objects[ulid]:
                self.read_meta(bucket, ulid, known)
            self.read_marks(bucket, ulid, objects[ulid], known)

        unread = [ulid for ulid, names in objects.items() if not _is_known(ulid, names, known)]
        deque(map(work, objects.keys() - set(unread)), maxlen=0)
        run = map if executor is None else executor.map
        for at in range(0, len(unread), READ_AT_ONCE):
            deque(run(work, unread[at : at + READ_AT_ONCE]), maxlen=0)

    def read_meta(self, bucket: Bucket, ulid: str, known: Inventory) -> None:
        try:
            self.metas[ulid] = known.metas.get(ulid) or read_meta(bucket, ulid)
        except NotFound:
            return  # deleted since it was listed
        except TreeringError as error:  # one that cannot be read now stops no other; it is told, and tried again
            self.damaged[ulid] = str(error)

    def read_marks(self, bucket: Bucket, ulid: str, names: Mapping[str, int], known: Inventory) -> None:
        try:
            if DELETION_MARK in names:
                self.deletions[ulid] = known.deletions.get(ulid) or read_deletion_mark(bucket, ulid)
            if NO_COMPACT_MARK in names:
                self.no_compact[ulid] = known.no_compact.get(ulid) or read_no_compact_mark(bucket, ulid)
        except NotFound:
            return
        except Corrupt as error:  # in doubt a block is neither deleted nor compacted
            self.no_compact.setdefault(ulid, NoCompactMark(ulid, 0, str(error)))

    def read_edicts(self, bucket: Bucket, keys: Sequence[str], known: Mapping[str, Tombstone]) -> None:
        """The deletions among the keys of index/."""
        for key in keys:
            ulid = key.removeprefix(TOMBSTONE_PREFIX)
            try:
                if ulid != key:
                    self.tombstones[ulid] = known.get(ulid) or read_tombstone(bucket, key)
                elif key == CONDEMNED:
                    self.condemned_ms = unseal(bucket.get(key), _Condemned, key=key).at_ms
            except NotFound:
                continue
            except Corrupt as error:
                self.damaged[key] = str(error)


def _is_known(ulid: str, names: Mapping[str, int], known: Inventory) -> bool:
    """Whether nothing of a block needs to be read."""
    parts = ((META, known.metas), (DELETION_MARK, known.deletions), (NO_COMPACT_MARK, known.no_compact))
    return all(name not in names or ulid in read for name, read in parts)


def _without(known: Mapping[str, Record], key: str) -> dict[str, Record]:
    return {ulid: one for ulid, one in known.items() if ulid != key}


def _answers(mark: DeletionMark | None, ignore_before_ms: int) -> bool:
    return mark is None or (mark.replaced and mark.at_ms > ignore_before_ms)


def _read_file(bucket: Bucket, keys: Sequence[str]) -> _BlocksFile | None:
    """index/blocks; None where it is missing or damaged."""
    try:
        return unseal(bucket.get(BLOCKS), _BlocksFile, key=BLOCKS) if BLOCKS in keys else None
    except (Corrupt, NotFound):
        return None


def _read_news(bucket: Bucket, key: str) -> _News | None:
    """A writer's news; none where they are missing, None where they are damaged."""
    try:
        return unseal(bucket.get(key), _News, key=key)
    except NotFound:
        return _News(())
    except Corrupt:
        return None

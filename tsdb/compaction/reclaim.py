"""Removing what is of no more use from a bucket, in the order in which no reader meets half of a block."""

from tsdb.block.meta import META, BlockMeta
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.bucket_index import CONDEMNED, Inventory
from tsdb.compaction.lineage import replacement
from tsdb.compaction.marks import DELETION_MARK
from tsdb.compaction.tombstones import Tombstone, touching


def delete_block(bucket: Bucket, ulid: str) -> None:
    """Delete all objects of a block: meta.json first, then it does not exist; its deletion mark last, which says go on."""
    keys = [info.key for info in bucket.list(f"{ulid}/")]
    first, last = f"{ulid}/{META}", f"{ulid}/{DELETION_MARK}"
    for key in (first, *(key for key in keys if key not in (first, last)), last):
        if key in keys:
            bucket.delete(key)


def delete_everything(bucket: Bucket) -> int:
    """Delete all objects, the mark that says so last; how many there were."""
    keys = [info.key for info in bucket.list()]
    metas = [key for key in keys if key.endswith(f"/{META}")]
    for key in (*metas, *(key for key in keys if key not in {*metas, CONDEMNED}), CONDEMNED):
        bucket.delete(key)
    return len(keys)


def deletable(inventory: Inventory, *, marked_before_ms: int) -> tuple[list[str], list[str]]:
    """(ulids whose time has come, ulids that are kept in doubt), of blocks marked before a time, the longest marked first.

    A block that is said to be replaced is in doubt unless a block that holds its samples is there to be seen.
    """
    others = list(inventory.metas.values())
    sure: list[str] = []
    doubtful: list[str] = []
    for mark in sorted(inventory.deletions.values(), key=lambda mark: mark.at_ms):
        if mark.at_ms >= marked_before_ms:
            continue
        meta = inventory.metas.get(mark.ulid)
        gone = meta is None and mark.ulid not in inventory.damaged
        known = gone or not mark.replaced or (meta is not None and replacement(meta, others) is not None)
        (sure if known else doubtful).append(mark.ulid)
    return sure, doubtful


def spent(tombstone: Tombstone, inventory: Inventory) -> bool:
    """Whether no block, marked or not, holds samples that the tombstone hides; never while some block cannot be read."""
    return not inventory.damaged and not any(touching(meta, [tombstone]) for meta in inventory.metas.values())


def unmarked_and_replaced(inventory: Inventory, live: list[BlockMeta]) -> list[BlockMeta]:
    """The blocks that others replace and that have no mark: a crash came between."""
    kept = {meta.ulid for meta in live}
    return [meta for ulid, meta in inventory.metas.items() if ulid not in kept and ulid not in inventory.deletions]

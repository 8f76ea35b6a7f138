"""Marks beside a block: that it is to be deleted, and that it cannot be compacted. The block itself never changes.

<ulid>/deletion-mark.json       readers leave it out, and later it is deleted; the last of its objects to go
<ulid>/no-compact-mark.json     compaction leaves it as it is
"""

from dataclasses import dataclass

from tsdb.bucket.bucket import Bucket
from tsdb.bucket.sealed import seal, unseal

DELETION_MARK, NO_COMPACT_MARK = "deletion-mark.json", "no-compact-mark.json"


@dataclass(frozen=True, slots=True)
class DeletionMark:
    """Since when a block is to be deleted, and why.

    `replaced` says that other blocks hold its samples: then readers that may not know these go on reading it for a while. Without,
    its samples are meant to be gone, and no reader reads it any more.
    """

    ulid: str
    at_ms: int
    reason: str
    replaced: bool


@dataclass(frozen=True, slots=True)
class NoCompactMark:
    """Since when a block is left out of compaction, and why."""

    ulid: str
    at_ms: int
    reason: str


def put_deletion_mark(bucket: Bucket, mark: DeletionMark) -> None:
    bucket.put(f"{mark.ulid}/{DELETION_MARK}", seal(mark))


def put_no_compact_mark(bucket: Bucket, mark: NoCompactMark) -> None:
    bucket.put(f"{mark.ulid}/{NO_COMPACT_MARK}", seal(mark))


def read_deletion_mark(bucket: Bucket, ulid: str) -> DeletionMark:
    """NotFound where there is none; Corrupt."""
    key = f"{ulid}/{DELETION_MARK}"
    return unseal(bucket.get(key), DeletionMark, key=key)


def read_no_compact_mark(bucket: Bucket, ulid: str) -> NoCompactMark:
    """NotFound where there is none; Corrupt."""
    key = f"{ulid}/{NO_COMPACT_MARK}"
    return unseal(bucket.get(key), NoCompactMark, key=key)

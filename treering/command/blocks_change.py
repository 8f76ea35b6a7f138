"""`treering blocks mark|rewrite`: change what lies in a bucket, without a server or beside one."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from treering.command.blocks import DEFAULT_BUCKET
from tsdb.block.meta import BlockMeta, new_ulid
from tsdb.bucket.bucket import Bucket, FolderBucket, PrefixBucket, open_bucket
from tsdb.compaction.bucket_index import Inventory, add_news, scan_bucket
from tsdb.compaction.lineage import live_blocks
from tsdb.compaction.marks import (
    DELETION_MARK,
    NO_COMPACT_MARK,
    DeletionMark,
    NoCompactMark,
    put_deletion_mark,
    put_no_compact_mark,
)
from tsdb.compaction.relabel import RelabelRule
from tsdb.compaction.rewrite import relabel_block
from tsdb.model.errors import BadData, NotFound

WRITER = "command-line"

Say = Callable[[str], None]


def mark_command(ulid: str, url: str | None, tenant: str, kind: str, *, reason: str, say: Say) -> None:
    """Mark a block `deletion` or `no-compact`, or `none` to take its marks off. NotFound if there is no such block."""
    bucket = PrefixBucket(open_bucket(url or DEFAULT_BUCKET), tenant)
    if ulid not in scan_bucket(bucket, Inventory()).inventory.metas:
        raise NotFound(f"no block {ulid} of tenant {tenant} in {url or DEFAULT_BUCKET}")
    now_ms = int(time.time() * 1000)
    if kind == "deletion":
        put_deletion_mark(bucket, DeletionMark(ulid, now_ms, reason, replaced=False))
    elif kind == "no-compact":
        put_no_compact_mark(bucket, NoCompactMark(ulid, now_ms, reason))
    else:
        for name in (DELETION_MARK, NO_COMPACT_MARK):
            bucket.delete(f"{ulid}/{name}")
    say(f"{tenant}/{ulid}: marks changed; the compactor sees them at its next scan")


def rewrite_command(ulids: Sequence[str], url: str | None, tenant: str, relabel_file: str, *, say: Say) -> None:
    """Rewrite blocks (all of a tenant if none is named) by relabelling rules; the old ones are marked for deletion."""
    rules = load_rules(Path(relabel_file))
    bucket = PrefixBucket(open_bucket(url or DEFAULT_BUCKET), tenant)
    inventory = scan_bucket(bucket, Inventory()).inventory
    live = [meta for meta in live_blocks(inventory.metas.values()) if meta.ulid not in inventory.deletions]
    unknown = set(ulids) - {meta.ulid for meta in live}
    if unknown:
        raise NotFound(f"tenant {tenant} has no block {', '.join(sorted(unknown))} that answers queries")
    chosen = [meta for meta in live if not ulids or meta.ulid in ulids]
    with tempfile.TemporaryDirectory(prefix="treering-rewrite-") as folder:
        for meta in chosen:
            made = _rewrite(bucket, meta, rules, inventory, Path(folder))
            say(f"{tenant}/{meta.ulid}: {_outcome(meta, made)}")
    say(f"{len(chosen)} blocks rewritten.")


def load_rules(path: Path) -> list[RelabelRule]:
    """The rules of a YAML file: a list as under Prometheus's `relabel_configs`. BadData names what is wrong."""
    try:
        found: Any = yaml.safe_load(path.read_bytes())
        return msgspec.convert(found, list[RelabelRule], strict=False)
    except OSError as error:
        raise BadData(f"relabelling rules {path}: {error.strerror}") from None
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise BadData(f"relabelling rules {path}: {error}") from None


def _rewrite(bucket: Bucket, meta: BlockMeta, rules: Sequence[RelabelRule], inventory: Inventory, folder: Path) -> BlockMeta | None:
    now_ms = int(time.time() * 1000)
    tombstones = tuple(inventory.tombstones.values())
    made = relabel_block(
        bucket, meta, rules, ulid=new_ulid(now_ms, os.urandom(10)), scratch=FolderBucket(folder), tombstones=tombstones
    )
    if made is not None:
        add_news(bucket, [made], writer=WRITER, now_ms=now_ms)
    put_deletion_mark(bucket, DeletionMark(meta.ulid, now_ms, "relabelled", replaced=made is not None))
    return made


def _outcome(meta: BlockMeta, made: BlockMeta | None) -> str:
    if made is None:
        return "nothing is left of it; it is marked for deletion"
    return f"is {made.ulid} now, {made.series} series of {meta.series}, {made.samples} samples of {meta.samples}"

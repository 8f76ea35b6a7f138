"""`treering blocks`: list, inspect and verify what lies in a bucket. A damaged meta.json is told; it hides no other block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from treering.times import format_duration
from tsdb.block.block import Block, BlockMeta, verify_block
from tsdb.bucket.bucket import Bucket, PrefixBucket, open_bucket
from tsdb.compaction.bucket_index import Inventory, scan_bucket
from tsdb.compaction.lineage import live_blocks
from tsdb.model.errors import Corrupt, NotFound
from tsdb.model.labels import METRIC_NAME
from tsdb.model.source import Selection

DEFAULT_BUCKET = "./treering-data/bucket"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Owned:
    """What a tenant has: its part of the bucket, its blocks by time, what becomes of each, and which cannot be read, in words."""

    tenant: str
    bucket: Bucket
    blocks: tuple[BlockMeta, ...]
    damaged: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


def list_command(url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> bool:
    """Print one row a block, and those whose meta.json is damaged by name; whether there are none of these."""
    owners = _owners(url, tenant)
    rows = [{**_row(owned.tenant, meta), "state": owned.states[meta.ulid]} for owned in owners for meta in owned.blocks]
    damaged = [{"tenant": owned.tenant, "ulid": ulid, "problem": text} for owned in owners for ulid, text in owned.damaged.items()]
    if as_json:
        say(orjson.dumps([*rows, *damaged], option=orjson.OPT_INDENT_2).decode())
    else:
        _print_rows(rows)
        for one in damaged:
            say(f"{one['tenant']}/{one['ulid']}: {one['problem']}")
    return not damaged


def _print_rows(rows: Sequence[dict[str, object]]) -> None:
    table = Table(
        "tenant", "block", "from", "length", "level", "resolution", "series", "samples", "MiB", "bytes/sample", "state", box=None
    )
    for row in rows:
        table.add_row(
            str(row["tenant"]),
            str(row["ulid"]),
            str(row["from"]),
            str(row["length"]),
            str(row["level"]),
            str(row["resolution"]),
            f"{row['series']:,}",
            f"{row['samples']:,}",
            f"{int(str(row['bytes'])) / 2**20:.2f}",
            f"{row['bytes_per_sample']:.3f}",
            str(row["state"]),
        )
    Console(width=160).print(table)


def inspect_command(ulid: str, url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> None:
    """Print one block's objects and its largest metrics. NotFound if there is none of that name."""
    for owned in _owners(url, tenant):
        if ulid in owned.damaged:
            raise Corrupt(f"{owned.tenant}/{ulid}: {owned.damaged[ulid]}")
        for meta in (meta for meta in owned.blocks if meta.ulid == ulid):
            series = Block(owned.bucket, meta).series(Selection((), meta.min_ms, meta.max_ms))
            names, counts = np.unique(series.values(METRIC_NAME).astype(str), return_counts=True)
            top = sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:20]
            objects = [{"name": o.name, "bytes": o.size_bytes} for o in meta.objects]
            found = {**_row(owned.tenant, meta), "sources": list(meta.sources), "objects": objects, "metrics": dict(top)}
            say(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else _text(found))
            return
    raise NotFound(f"no block {ulid} in {url or DEFAULT_BUCKET}")


def verify_command(url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> bool:
    """Print what is damaged; whether nothing is."""
    problems, count = [], 0
    for owned in _owners(url, tenant):
        count += len(owned.blocks) + len(owned.damaged)
        found = [*owned.damaged.items(), *((meta.ulid, text) for meta in owned.blocks for text in verify_block(owned.bucket, meta))]
        problems += [{"tenant": owned.tenant, "block": ulid, "problem": text} for ulid, text in found]
    if as_json:
        say(orjson.dumps({"blocks": count, "problems": problems}, option=orjson.OPT_INDENT_2).decode())
    else:
        for problem in problems:
            say(f"{problem['tenant']}/{problem['block']}: {problem['problem']}")
        say(f"{count} blocks read, {len(problems)} problems.")
    return not problems


def _owners(url: str | None, tenant: str | None) -> list[Owned]:
    bucket = open_bucket(url or DEFAULT_BUCKET)
    names = [tenant] if tenant else sorted({entry.key.split("/")[0] for entry in bucket.list() if "/" in entry.key})
    return [_owned(name, PrefixBucket(bucket, name)) for name in names]


def _owned(tenant: str, bucket: Bucket) -> Owned:
    inventory = scan_bucket(bucket, Inventory()).inventory
    live = {meta.ulid for meta in live_blocks(inventory.metas.values())}
    states = {meta.ulid: _state(meta, inventory, live) for meta in inventory.metas.values()}
    blocks = sorted(inventory.metas.values(), key=lambda meta: (meta.min_ms, meta.ulid))
    return Owned(tenant, bucket, tuple(blocks), dict(inventory.damaged), states)


def _state(meta: BlockMeta, inventory: Inventory, live: set[str]) -> str:
    """What readers and the compactor do with a block, in a word."""
    if meta.ulid in inventory.deletions:
        return "to be deleted"
    if meta.ulid not in live:
        return "replaced"
    return "not compacted" if meta.ulid in inventory.no_compact else "live"


def _row(owner: str, meta: BlockMeta) -> dict[str, object]:
    size_bytes = sum(entry.size_bytes for entry in meta.objects)
    return {
        "tenant": owner,
        "ulid": meta.ulid,
        "from": datetime.fromtimestamp(meta.min_ms / 1000, UTC).isoformat(timespec="seconds"),
        "min_ms": meta.min_ms,
        "max_ms": meta.max_ms,
        "length": format_duration(meta.max_ms - meta.min_ms),
        "level": meta.level,
        "resolution": format_duration(meta.resolution_ms) if meta.resolution_ms else "raw",
        "series": meta.series,
        "samples": meta.samples,
        "bytes": size_bytes,
        "bytes_per_sample": size_bytes / max(1, meta.samples),
    }


def _text(found: dict[str, object]) -> str:
    return "\n".join(f"{key:>16}  {value}" for key, value in found.items())

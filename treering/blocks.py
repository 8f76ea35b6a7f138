"""`treering blocks`: list, inspect and verify what lies in a bucket."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from treering.times import format_duration
from tsdb.block import Block, BlockMeta, list_blocks, verify_block
from tsdb.bucket import Bucket, PrefixBucket, open_bucket
from tsdb.model.errors import NotFound
from tsdb.model.labels import METRIC_NAME
from tsdb.model.source import Selection

DEFAULT_BUCKET = "./treering-data/bucket"

Say = Callable[[str], None]


def list_command(url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> None:
    """Print one row a block."""
    rows = [_row(owner, meta) for owner, _, meta in _all_blocks(url, tenant)]
    if as_json:
        say(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("tenant", "block", "from", "length", "level", "resolution", "series", "samples", "MiB", "bytes/sample", box=None)
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
        )
    Console(width=160).print(table)


def inspect_command(ulid: str, url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> None:
    """Print one block's objects and its largest metrics. NotFound if there is none of that name."""
    for owner, bucket, meta in _all_blocks(url, tenant):
        if meta.ulid == ulid:
            series = Block(bucket, meta).series(Selection((), meta.min_ms, meta.max_ms))
            names, counts = np.unique(series.values(METRIC_NAME).astype(str), return_counts=True)
            top = sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:20]
            objects = [{"name": o.name, "bytes": o.size_bytes} for o in meta.objects]
            found = {**_row(owner, meta), "sources": list(meta.sources), "objects": objects, "metrics": dict(top)}
            say(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else _text(found))
            return
    raise NotFound(f"no block {ulid} in {url or DEFAULT_BUCKET}")


def verify_command(url: str | None, tenant: str | None, *, as_json: bool, say: Say) -> bool:
    """Print what is damaged; whether nothing is."""
    problems, count = [], 0
    for owner, bucket, meta in _all_blocks(url, tenant):
        count += 1
        problems += [{"tenant": owner, "block": meta.ulid, "problem": text} for text in verify_block(bucket, meta)]
    if as_json:
        say(orjson.dumps({"blocks": count, "problems": problems}, option=orjson.OPT_INDENT_2).decode())
    else:
        for problem in problems:
            say(f"{problem['tenant']}/{problem['block']}: {problem['problem']}")
        say(f"{count} blocks read, {len(problems)} problems.")
    return not problems


def _all_blocks(url: str | None, tenant: str | None) -> Iterator[tuple[str, Bucket, BlockMeta]]:
    bucket = open_bucket(url or DEFAULT_BUCKET)
    owners = [tenant] if tenant else sorted({entry.key.split("/")[0] for entry in bucket.list() if "/" in entry.key})
    for owner in owners:
        own = PrefixBucket(bucket, owner)
        for meta in sorted(list_blocks(own), key=lambda meta: (meta.min_ms, meta.ulid)):
            yield owner, own, meta


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

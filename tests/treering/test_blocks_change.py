"""`treering blocks ls|verify|mark|rewrite` over a folder with a damaged block in it."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from remote.store_gateway import StoreGateway
from tests.remote.test_store_gateway import flip, put, read
from treering.cli import main
from tsdb.bucket.bucket import FolderBucket, PrefixBucket
from tsdb.compaction.bucket_index import Inventory, scan_bucket


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["blocks", *args])


def states(path: Path) -> dict[str, str]:
    found = run("ls", "--bucket", str(path), "--json")
    return {row["ulid"]: row.get("state", "damaged") for row in json.loads(found.output)}


def test_a_damaged_block_hides_no_other(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    good, bad = put(bucket, "a", 0, 1), put(bucket, "a", 100, 2)
    path = tmp_path / "a" / bad.ulid / "meta.json"
    flip(path, path.stat().st_size // 2)
    assert states(tmp_path) == {good.ulid: "live", bad.ulid: "damaged"}
    verified = run("verify", "--bucket", str(tmp_path))
    assert verified.exit_code == 1 and bad.ulid in verified.output and "2 blocks read, 1 problems" in verified.output


def test_marks(tmp_path: Path) -> None:
    meta = put(FolderBucket(tmp_path), "a", 0, 1)
    place = ("--bucket", str(tmp_path), "--tenant", "a")
    for kind, state in (("no-compact", "not compacted"), ("deletion", "to be deleted"), ("none", "live")):
        assert run("mark", meta.ulid, kind, *place).exit_code == 0
        assert states(tmp_path) == {meta.ulid: state}
    unknown = run("mark", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "deletion", *place)
    assert unknown.exit_code == 1 and "no block" in unknown.output


def test_history_is_renamed(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path / "bucket")
    put(bucket, "a", 0, 1), put(bucket, "a", 100, 2), put(bucket, "b", 0, 3)
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "- {source_labels: [__name__], regex: up, target_label: __name__, replacement: alive}\n- {action: labeldrop, regex: job}\n"
    )
    done = run("rewrite", "--relabel", str(rules), "--bucket", str(tmp_path / "bucket"), "--tenant", "a")
    assert done.exit_code == 0 and "2 blocks rewritten" in done.output, done.output
    gateway = StoreGateway(bucket)
    gateway.refresh(0)
    assert {series: len(points) for series, points in read(gateway.source("a"))[0].items()} == {"alive": 4, "down": 2}
    assert set(read(gateway.source("b"))[0]) == {'up{job="a"}', 'down{job="a"}'}
    assert len(scan_bucket(PrefixBucket(bucket, "a"), Inventory()).inventory.deletions) == 2
    rules.write_text("- {action: rename}\n")
    wrong = run("rewrite", "--relabel", str(rules), "--bucket", str(tmp_path / "bucket"), "--tenant", "a")
    assert wrong.exit_code == 1 and "unknown action" in wrong.output

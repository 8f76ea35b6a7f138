"""`treering blocks` over a folder: listing, inspecting, and telling which block is damaged."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.remote.writes import write_batch
from treering.cli import main
from treering.config import Config
from treering.node import Node
from tsdb.model.labels import Labels

RANGE_MS = 7_200_000
START_MS = 1_700_000_000_000 // RANGE_MS * RANGE_MS


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two blocks of tenant a and one of tenant b."""
    monkeypatch.setenv("COLUMNS", "160")
    with Node(Config(data=str(tmp_path / "store"))) as node:
        for tenant, ranges in (("a", 2), ("b", 1)):
            points = [(START_MS + i * 60_000, float(i)) for i in range(120 * ranges)]
            series = {Labels.of({"__name__": name, "host": "h"}): points for name in ("cpu", "disk")}
            node.push(tenant, write_batch(series))
    yield tmp_path / "store" / "bucket"


def run(bucket: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["blocks", *args, "--bucket", str(bucket)])


def listed(bucket: Path, *args: str) -> list[dict[str, object]]:
    return json.loads(run(bucket, "ls", "--json", *args).stdout)  # type: ignore[no-any-return]


def test_listing(bucket: Path) -> None:
    rows = listed(bucket)
    assert [row["tenant"] for row in rows] == ["a", "a", "b"]
    assert {(row["series"], row["samples"], row["level"], row["resolution"]) for row in rows} == {(2, 240, 1, "raw")}
    assert [row["min_ms"] for row in rows] == [START_MS, START_MS + RANGE_MS, START_MS]
    assert [row["tenant"] for row in listed(bucket, "--tenant", "b")] == ["b"]
    table = run(bucket, "ls").stdout
    assert all(str(row["ulid"]) in table for row in rows) and "2023-11-14T" in table


def test_an_empty_bucket(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert listed(tmp_path / "none") == []
    assert "0 blocks read, 0 problems." in run(tmp_path / "none", "verify").stdout


def test_inspecting(bucket: Path) -> None:
    ulid = str(listed(bucket)[0]["ulid"])
    found = json.loads(run(bucket, "inspect", ulid, "--json").stdout)
    assert found["metrics"] == {"cpu": 1, "disk": 1}
    assert sum(entry["bytes"] for entry in found["objects"]) == found["bytes"]
    assert ulid in run(bucket, "inspect", ulid).stdout
    done = run(bucket, "inspect", "01H00000000000000000000000")
    assert done.exit_code == 1 and "no block 01H00000000000000000000000" in done.stderr


def test_verifying_sound_blocks(bucket: Path) -> None:
    done = run(bucket, "verify")
    assert (done.exit_code, done.stdout) == (0, "3 blocks read, 0 problems.\n")
    assert json.loads(run(bucket, "verify", "--json").stdout) == {"blocks": 3, "problems": []}


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut object", "a missing object"])
def test_verifying_names_the_damaged_block(bucket: Path, damage: str) -> None:
    ulid = str(listed(bucket, "--tenant", "b")[0]["ulid"])
    objects = [path for path in (bucket / "b" / ulid).iterdir() if path.name != "meta.json"]
    for path in objects:
        data = path.read_bytes()
        if damage == "a missing object":
            path.unlink()
        elif damage == "a cut object":
            path.write_bytes(data[: len(data) // 2])
        else:
            path.write_bytes(data[:20] + bytes([data[20] ^ 4]) + data[21:])
        done = run(bucket, "verify")
        assert done.exit_code == 1
        assert f"b/{ulid}: " in done.stdout and "3 blocks read, " in done.stdout, done.output
        assert path.name in done.stdout, f"the damage is in {path.name}: {done.stdout}"
        told = json.loads(run(bucket, "verify", "--json").stdout)
        assert {(problem["tenant"], problem["block"]) for problem in told["problems"]} == {("b", ulid)}
        assert run(bucket, "verify", "--tenant", "a").exit_code == 0
        path.write_bytes(data)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"version": 9}', b"\xff\xfe"])
def test_a_broken_meta_json_is_named_and_hides_no_other_block(bucket: Path, text: bytes) -> None:
    first, other = (str(row["ulid"]) for row in listed(bucket, "--tenant", "a"))
    (bucket / "a" / first / "meta.json").write_bytes(text)
    done = run(bucket, "verify")
    assert done.exit_code == 1 and f"a/{first}: {first}/meta.json: " in done.stdout and "3 blocks read, 1 problems" in done.stdout
    done = run(bucket, "ls")
    assert done.exit_code == 1 and f"a/{first}: " in done.stdout and other in done.stdout
    rows = json.loads(run(bucket, "ls", "--json").stdout)
    assert [(row["tenant"], "problem" in row) for row in rows] == [("a", False), ("b", False), ("a", True)]
    done = run(bucket, "inspect", first)
    assert done.exit_code == 1 and first in done.stderr and "Traceback" not in done.output
    assert run(bucket, "inspect", other).exit_code == 0

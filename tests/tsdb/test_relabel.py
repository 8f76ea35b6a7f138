"""Relabelling rules as Prometheus has them, and blocks rewritten by them."""

from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.batches import batch_of, float_bits, grid_batch, samples_of
from tsdb.block.block import Block, write_block
from tsdb.block.meta import new_ulid
from tsdb.bucket.bucket import FolderBucket
from tsdb.compaction.lineage import live_blocks
from tsdb.compaction.relabel import RelabelRule, relabel
from tsdb.compaction.rewrite import FAN_IN, relabel_batch, relabel_block
from tsdb.merge import concat_batches
from tsdb.model.errors import BadData
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection

A = {"__name__": "up", "job": "api", "host": "a-1.example"}


def one(labels: dict[str, str], *rules: RelabelRule) -> dict[str, str] | None:
    """The labels of one series after the rules; None if it is dropped."""
    table, kept = relabel(SeriesTable.of([Labels.of(labels)]), rules)
    return table.labels(0).as_dict() if kept[0] else None


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        (RelabelRule(source_labels=("host",), regex=r"(.+)\.example", target_label="node"), A | {"node": "a-1"}),
        (RelabelRule(source_labels=("job", "host"), separator="/", target_label="both"), A | {"both": "api/a-1.example"}),
        (RelabelRule(source_labels=("host",), regex="nothing", target_label="job"), A),
        (RelabelRule(target_label="job", replacement="x$$y"), A | {"job": "x$y"}),
        (RelabelRule(source_labels=("host",), regex=r"(?P<n>\w)-.*", target_label="n", replacement="${n}_$9"), A | {"n": "a_"}),
        (RelabelRule(target_label="host", replacement=""), {"__name__": "up", "job": "api"}),
        (RelabelRule(source_labels=("__name__",), target_label="__name__", replacement="node_$1"), A | {"__name__": "node_up"}),
        (RelabelRule("keep", ("job",), regex="api|web"), A),
        (RelabelRule("keep", ("job",), regex="ap"), None),
        (RelabelRule("drop", ("missing",), regex=""), None),
        (RelabelRule("uppercase", ("job",), target_label="job"), A | {"job": "API"}),
        (RelabelRule("labeldrop", regex="ho.*"), {"__name__": "up", "job": "api"}),
        (RelabelRule("labelkeep", regex="__name__|job"), {"__name__": "up", "job": "api"}),
        (RelabelRule("labelmap", regex="(jo)b", replacement="x_$1"), A | {"x_jo": "api"}),
        (RelabelRule("hashmod", ("host",), target_label="shard", modulus=1), A | {"shard": "0"}),
    ],
)
def test_each_action(rule: RelabelRule, want: dict[str, str] | None) -> None:
    assert one(A, rule) == want


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "rename"},
        {"action": "replace"},
        {"action": "hashmod", "target_label": "a"},
        {"action": "keep", "regex": "("},
        {"action": "keep", "regex": "a)(b"},
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadData, match="relabel"):
        RelabelRule(**wrong)  # type: ignore[arg-type]


def test_series_that_become_equal_are_merged() -> None:
    rows = [Labels.of({"__name__": "m", "host": host, "z": z}) for host, z in (("a", "2"), ("b", "1"), ("c", "2"))]
    batch = batch_of(
        {
            rows[0]: [(1, float_bits(1)), (3, float_bits(3))],
            rows[1]: [(1, float_bits(5))],
            rows[2]: [(2, float_bits(9)), (3, float_bits(4))],
        }
    )
    done = relabel_batch(batch, [RelabelRule("labeldrop", regex="host")])
    two = Labels.of({"__name__": "m", "z": "2"})
    assert samples_of(done) == {
        Labels.of({"__name__": "m", "z": "1"}): [(1, float_bits(5))],
        two: [(1, float_bits(1)), (2, float_bits(9)), (3, float_bits(4))],
    }


def test_a_block_is_sorted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsdb.compaction.rewrite.BATCH_WORDS", 1 << 12)
    monkeypatch.setattr("tsdb.compaction.compact.BATCH_WORDS", 1 << 12)
    bucket, scratch = FolderBucket(tmp_path / "b"), FolderBucket(tmp_path / "s")
    batch = grid_batch(700, 300)
    meta = write_block(bucket, [batch], ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=300 * 15_000)
    assert meta is not None
    rules = [
        RelabelRule(source_labels=("instance",), regex=r"host-(\d+)(\d)", target_label="instance", replacement="$2$1"),
        RelabelRule("drop", ("instance",), regex="9.*"),
    ]
    made = relabel_block(bucket, meta, rules, ulid=new_ulid(2, bytes(10)), scratch=scratch)
    assert made is not None and made.series == 630 and live_blocks([meta, made]) == [made]
    found = concat_batches(list(Block(bucket, made).select(Selection((), MIN_MS, MAX_MS))))
    assert list(scratch.list()) == []
    assert samples_of(found) == samples_of(relabel_batch(batch, rules))
    assert np.array_equal(found.series.order(), np.arange(630))
    gone = relabel_block(bucket, meta, [RelabelRule("keep", ("job",), regex="no")], ulid=new_ulid(3, bytes(10)), scratch=scratch)
    assert gone is None


def test_more_runs_than_are_merged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsdb.compaction.rewrite.FAN_IN", 3)
    bucket, scratch = FolderBucket(tmp_path / "b"), FolderBucket(tmp_path / "s")
    batches = [grid_batch(10, 20, metric=f"m{i:02d}", seed=i) for i in range(11)]

    def each(*_: object, **__: object) -> list[SeriesBatch]:
        return batches

    monkeypatch.setattr("tsdb.compaction.rewrite.read_sources", each)
    meta = write_block(bucket, batches, ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=20 * 15_000)
    assert meta is not None and FAN_IN > 3
    rules = [RelabelRule(source_labels=("__name__",), regex="m(.)(.)", target_label="__name__", replacement="m$2$1")]
    made = relabel_block(bucket, meta, rules, ulid=new_ulid(2, bytes(10)), scratch=scratch)
    assert made is not None and made.samples == 2200 and list(scratch.list()) == []

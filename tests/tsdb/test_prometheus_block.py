"""Whole blocks of Prometheus as a `Source`: what they hold, and that damage anywhere is told with its place."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.tsdb import prometheus_files as files
from tests.tsdb.batches import samples_of
from tsdb.bucket.bucket import FolderBucket
from tsdb.merge import merge_batches
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.prometheus import block as prometheus_block
from tsdb.prometheus.block import open_prometheus_block
from tsdb.prometheus.meta import find_prometheus_blocks

ALL = Selection((), MIN_MS, MAX_MS)
Row = tuple[tuple[str, str], ...]


def row(**labels: str) -> Row:
    return tuple(sorted({("__name__" if name == "metric" else name, value) for name, value in labels.items()}))


def chunk(samples: Sequence[tuple[int, float]], encoding: int = files.XOR) -> files.Chunk:
    if encoding == files.XOR2:
        data = files.xor2_chunk([(0, t, files.float_bits(v)) for t, v in samples])
    else:
        data = files.xor_chunk([(t, files.float_bits(v)) for t, v in samples])
    return files.Chunk(samples[0][0], samples[-1][0], encoding, data)


def points(batch: SeriesBatch) -> dict[str, list[tuple[int, float]]]:
    return {
        str(labels): [(t, float(np.int64(b).view(np.float64))) for t, b in pairs] for labels, pairs in samples_of(batch).items()
    }


def read(folder: Path, selection: Selection = ALL, **options: object) -> SeriesBatch:
    block = open_prometheus_block(FolderBucket(folder), **options)  # type: ignore[arg-type]
    return merge_batches(list(block.select(selection)))


def some_series() -> dict[Row, list[files.Chunk]]:
    return {
        row(metric="up", Job="a"): [chunk([(0, 1.0), (1000, 2.0)]), chunk([(2000, 3.0)], files.XOR2)],
        row(metric="up", a="x"): [chunk([(5, 1.5)])],
        row(metric="up", b="x"): [chunk([(5, 2.5), (10, 3.5)])],
        row(metric="down"): [chunk([(i * 10, i / 4) for i in range(300)])],
    }


def test_reads_series_in_our_order_across_chunks_and_encodings(tmp_path: Path) -> None:
    files.BlockFiles(some_series()).write(tmp_path)
    (folder,) = find_prometheus_blocks(FolderBucket(tmp_path))
    block = open_prometheus_block(FolderBucket(tmp_path), folder)
    found = points(merge_batches(list(block.select(ALL))))
    assert list(found) == ["down", 'up{b="x"}', 'up{a="x"}', 'up{Job="a"}']
    assert found['up{Job="a"}'] == [(0, 1.0), (1000, 2.0), (2000, 3.0)]
    assert found["down"] == [(i * 10, i / 4) for i in range(300)]


def test_selects_by_matchers_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_block, "BATCH_BYTES", 1)
    monkeypatch.setattr(prometheus_block, "GAP_BYTES", 0)
    folder = files.BlockFiles(some_series()).write(tmp_path)
    block = open_prometheus_block(FolderBucket(folder))
    only = Selection((Matcher("__name__", "=", "up"), Matcher("a", "=", "")), 5, 2000)
    assert points(merge_batches(list(block.select(only)))) == {'up{b="x"}': [(5, 2.5), (10, 3.5)], 'up{Job="a"}': [(1000, 2.0)]}
    assert len(list(block.select(ALL))) == 4
    assert [str(labels) for labels in block.series(Selection((), 6, 10)).rows()] == ["down", 'up{b="x"}', 'up{Job="a"}']


def test_overlapping_chunks_are_merged_and_tombstones_hide(tmp_path: Path) -> None:
    series = {
        row(metric="m"): [chunk([(0, 1.0), (20, 3.0)]), chunk([(20, 2.0), (30, 4.0)])],
        row(metric="n"): [chunk([(7, 7.0), (9, 9.0)])],
    }
    folder = files.BlockFiles(series, deleted=[(0, 25, 40), (1, -5, 8)]).write(tmp_path)
    assert points(read(folder)) == {"m": [(0, 1.0), (20, 3.0)], "n": [(9, 9.0)]}


def test_external_and_given_labels(tmp_path: Path) -> None:
    series = {row(metric="m", replica="1"): [chunk([(0, 1.0)])], row(metric="m", replica="2"): [chunk([(0, 1.0), (5, 2.0)])]}
    folder = files.BlockFiles(series, thanos={"labels": {"cluster": "eu"}}).write(tmp_path)
    assert list(points(read(folder))) == ['m{cluster="eu", replica="1"}', 'm{cluster="eu", replica="2"}']
    assert points(read(folder, labels={"replica": "", "cluster": "us"})) == {'m{cluster="us"}': [(0, 1.0), (5, 2.0)]}


def test_downsampled_blocks(tmp_path: Path) -> None:
    """A counter of 10, 20 | reset to 5, 9 | whose chunks are cut behind the second window."""
    windows, last = [(299_999, 10.0), (599_999, 20.0)], 20.0
    parts = [chunk([(t, 2.0) for t, _ in windows]).data, chunk(windows).data, None, chunk(windows).data]
    counter = chunk([(0, 10.0), *windows, (599_999, last)]).data
    first = files.Chunk(0, 599_999, files.AGGREGATE, files.aggregate_chunk([*parts, counter]))
    counter = chunk([(600_000, 5.0), (899_999, 9.0), (899_999, 9.0)]).data
    second = files.Chunk(600_000, 899_999, files.AGGREGATE, files.aggregate_chunk([parts[0], parts[1], None, parts[3], counter]))
    thanos = {"labels": {"cluster": "eu"}, "downsample": {"resolution": 300_000}}
    folder = files.BlockFiles({row(metric="m"): [first, second]}, thanos=thanos).write(tmp_path)
    with pytest.raises(BadData, match="resolution 300000 ms, of which aggregate '' cannot be read"):
        read(folder)
    assert points(read(folder, aggregate="count")) == {'m:5m:count{cluster="eu"}': [(299_999, 2.0), (599_999, 2.0)]}
    assert points(read(folder, aggregate="min")) == {}
    found = points(read(folder, aggregate="counter"))['m:5m:counter{cluster="eu"}']
    assert found == [(0, 10.0), (299_999, 10.0), (599_999, 20.0), (600_000, 25.0), (899_999, 29.0)]


def test_every_flipped_bit_is_told_with_its_place(tmp_path: Path) -> None:
    whole = files.BlockFiles(some_series(), deleted=[(0, 25, 40)]).write(tmp_path / "whole")
    good = points(read(whole))
    rng = np.random.default_rng(1)
    told = 0
    for name in ("index", "chunks/000001", "tombstones"):
        size = (whole / name).stat().st_size
        for at in sorted(set(rng.integers(0, size, 120).tolist()) | {0, 4, 5, size - 1}):
            folder = tmp_path / "broken"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            data = bytearray((folder / name).read_bytes())
            data[at] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(data)
            try:
                found = points(read(folder))
            except (Corrupt, BadData) as error:
                assert name in str(error), error
                assert "byte" in str(error)
                told += 1
            else:  # padding between sections is under no checksum, and says nothing
                assert found == good, f"{name}: a bit of byte {at}"
                assert name == "index" or (name == "chunks/000001" and 5 <= at < 8), f"{name}: a bit of byte {at}"
    assert told > 180


def test_cut_files_are_told(tmp_path: Path) -> None:
    whole = files.BlockFiles(some_series()).write(tmp_path / "whole")
    for name in ("index", "chunks/000001", "tombstones", "meta.json"):
        for keep in (0, 3, 7, 20, -1):
            folder = tmp_path / "cut"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            data = (folder / name).read_bytes()
            if len(data) > keep >= -1:
                (folder / name).write_bytes(data[:keep])
                with pytest.raises(Corrupt, match=name):
                    read(folder)


def test_foreign_formats_are_refused(tmp_path: Path) -> None:
    folder = files.BlockFiles(some_series()).write(tmp_path)
    unknown = {row(metric="m"): [files.Chunk(0, 1, 77, b"abc")]}
    other = files.BlockFiles(unknown, ulid="01HF7XJCR018J9RREW81HE9MQH").write(tmp_path)
    with pytest.raises(BadData, match=r"chunks/000001, chunk at byte 8: encoding 77 is not known"):
        read(other)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 2}))
    with pytest.raises(BadData, match="block version 2 is not known"):
        read(folder)
    (folder / "meta.json").write_text(json.dumps(meta))
    index = bytearray((folder / "index").read_bytes())
    index[4] = 1
    (folder / "index").write_bytes(index)
    with pytest.raises(BadData, match="index format 1 at byte 4 is not known"):
        read(folder)


def test_blocks_with_a_deletion_mark_are_not_found(tmp_path: Path) -> None:
    kept = files.BlockFiles(some_series()).write(tmp_path / "team")
    gone = files.BlockFiles(some_series(), ulid="01HF7XJCR018J9RREW81HE9MQH").write(tmp_path / "team")
    (gone / "deletion-mark.json").write_text("{}")
    assert find_prometheus_blocks(FolderBucket(tmp_path)) == [f"team/{kept.name}"]
    assert find_prometheus_blocks(FolderBucket(tmp_path), "team") == [f"team/{kept.name}"]
    assert find_prometheus_blocks(FolderBucket(tmp_path), "tea") == []


def test_labels_of_the_empty_string_are_absent(tmp_path: Path) -> None:
    folder = files.BlockFiles({(("__name__", "m"), ("x", "")): [chunk([(0, 1.0)])]}).write(tmp_path)
    assert read(folder).series.rows() == [Labels.of({"__name__": "m"})]

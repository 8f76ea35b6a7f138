"""A snapshot of a real Prometheus is imported; then both are asked the same questions. And promtool reads what is exported."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from benchmarks.peers import PROMETHEUS, Program, installed, prometheus, treering
from remote.wire.client import encode_v1, post_write
from tests.e2e.answers import ask, difference
from tests.e2e.random_data import LENGTH_MS, START_MS, bodies
from tests.e2e.random_queries import questions
from tests.e2e.test_differential import _compare as compare
from tests.treering.server import call
from tests.tsdb.batches import histogram_batch, same_samples
from treering.cli import main
from tsdb.bucket.bucket import FolderBucket
from tsdb.merge import merge_batches
from tsdb.model.histogram import Histograms
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.write import HistogramSamples, WriteBatch
from tsdb.prometheus.block import open_prometheus_block
from tsdb.prometheus.meta import find_prometheus_blocks

pytestmark = pytest.mark.skipif(not installed(PROMETHEUS), reason="prometheus is not installed")

NATIVE = ("histogram_count(h)", "histogram_sum(h)", "sum(histogram_count(h))", "count(h)", "histogram_count(sum by (pod) (h))")
DELETED = 'odd{text="1"}'


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A Prometheus with floats of every shape and native histograms, of which it has deleted one series."""
    folder = tmp_path_factory.mktemp("import")
    with prometheus(folder / "peer", "--web.enable-admin-api", "--enable-feature=native-histograms") as peer:
        for body in bodies():
            assert post_write(peer.url + "/api/v1/write", body).status == 204
        assert post_write(peer.url + "/api/v1/write", encode_v1(_written(natives()))).status == 204
        assert call(peer.url, "POST", "/api/v1/admin/tsdb/delete_series", {"match[]": DELETED}).status == 204
        yield peer


@pytest.fixture(scope="module")
def snapshot(peer: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a snapshot's blocks."""
    name = call(peer.url, "POST", "/api/v1/admin/tsdb/snapshot").json()["data"]["name"]
    return peer.log.with_suffix("") / "snapshots" / str(name)


def natives() -> SeriesBatch:
    """Native histograms of integers, of the last minutes of the other data, without custom buckets, which 2.42 does not know."""
    batch = histogram_batch(6, 40)
    batch = batch.take(np.array([0, 1, 3, 4]))
    assert batch.histograms is not None and batch.histogram_at is not None
    batch = batch.where(np.asarray(batch.histogram_at >= 0))
    assert batch.histograms is not None
    h = batch.histograms
    inside = [np.add.reduceat(np.append(side.counts, 0.0), side.offsets[:-1]) for side in (h.positive, h.negative)]
    batch = replace(batch, histograms=replace(h, count=h.zero_count + inside[0] + inside[1]))
    return replace(batch, t_ms=batch.t_ms + START_MS + LENGTH_MS - 40 * 15_000 + 7)


def _written(batch: SeriesBatch) -> WriteBatch:
    none = np.empty(0, np.int64)
    rows = np.repeat(np.arange(len(batch), dtype=np.int32), np.diff(batch.offsets))
    assert batch.histograms is not None and batch.histogram_at is not None
    whole = WriteBatch.of(batch.series.rows(), row=none.astype(np.int32), t_ms=none, values=none.astype(np.float64))
    samples = HistogramSamples(rows, batch.t_ms, np.zeros(batch.samples, np.int64), batch.histograms.take(batch.histogram_at))
    return replace(whole, histograms=samples)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_answers_equal_prometheus(peer: Program, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    told = run("import", "prometheus-block", snapshot, "--data", tmp_path / "own", "--verify")
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")
    at_s = (START_MS + LENGTH_MS - 10_000) / 1000
    with treering(tmp_path / "own", "--enable-feature", "promql-experimental-functions") as own:
        compared = compare((own, peer), questions(150))
        for query in (*NATIVE, DELETED, '{__name__!=""}', "count({__name__!=''})"):
            for path, params in (("query", {"time": at_s}), ("query_range", {"start": at_s - 300, "end": at_s, "step": 7})):
                ours, theirs = (ask(program.url, path, query=query, **params) for program in (own, peer))
                if query == '{__name__!=""}':
                    ours, theirs = _floats(ours), _floats(theirs)
                assert difference(ours, theirs) == "", query
                assert bool(theirs["data"]["result"]) == (query != DELETED)
    with capsys.disabled():
        print(f"\n{told.strip()}\nfrom imported blocks: {compared}")


def test_native_histograms_are_what_was_sent(snapshot: Path) -> None:
    bucket = FolderBucket(snapshot)
    blocks = [open_prometheus_block(bucket, folder) for folder in find_prometheus_blocks(bucket)]
    only = Selection((Matcher("__name__", "=", "h"),), MIN_MS, MAX_MS)
    found = merge_batches([batch for block in blocks for batch in block.select(only)])
    sent = natives()
    assert found.series.rows() == sent.series.rows()
    assert found.histograms is not None and sent.histograms is not None and sent.histogram_at is not None
    unhinted = [replace(h, hint=np.zeros_like(h.hint)) for h in (found.histograms, sent.histograms)]
    assert same_samples(replace(found, histograms=_no_empty(unhinted[0])), replace(sent, histograms=_no_empty(unhinted[1])))


def test_remote_read_gives_the_same_as_a_snapshot(peer: Program, snapshot: Path, tmp_path: Path) -> None:
    run("import", "prometheus-block", snapshot, "--data", tmp_path / "a")
    times = ("--start", str(START_MS // 1000), "--end", str((START_MS + LENGTH_MS + 60_000) // 1000))
    told = run("import", "remote-read", peer.url, "--data", tmp_path / "b", *times, "--window", "25m", "--verify")
    assert "5 parts of up to" in told and "0 parts were imported before" in told
    assert "5 parts were imported before" in run(
        "import", "remote-read", peer.url, "--data", tmp_path / "b", *times, "--window", "25m"
    )
    for name in ("a", "b"):
        run(
            "export",
            "parquet",
            "--match",
            '{__name__!=""}',
            "--bucket",
            tmp_path / name / "bucket",
            "-o",
            tmp_path / f"{name}.parquet",
        )
    one, other = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").drop(["histogram"]) for name in ("a", "b"))
    assert one.num_rows == other.num_rows > 20_000
    for column in ("time", "labels"):
        assert one.column(column).to_pylist() == other.column(column).to_pylist()
    values = [table.column("value").combine_chunks().fill_null(0.0).to_numpy().view(np.uint64) for table in (one, other)]
    assert np.array_equal(*values)


def test_promtool_reads_what_is_exported(snapshot: Path, tmp_path: Path) -> None:
    run("import", "prometheus-block", snapshot, "--data", tmp_path / "a", "--match", '{__name__=~"temp|mem_bytes|req_total|odd"}')
    run("export", "openmetrics", "--match", '{__name__!=""}', "--bucket", tmp_path / "a/bucket", "-o", tmp_path / "f.om")
    blocks = tmp_path / "blocks"
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "f.om", blocks], check=True, capture_output=True
    )
    run("import", "prometheus-block", blocks, "--data", tmp_path / "b", "--verify")
    run("export", "openmetrics", "--match", '{__name__!=""}', "--bucket", tmp_path / "b/bucket", "-o", tmp_path / "g.om")
    assert (tmp_path / "f.om").read_bytes() == (tmp_path / "g.om").read_bytes()
    assert (tmp_path / "f.om").stat().st_size > 100_000


def _floats(answer: dict) -> dict:  # type: ignore[type-arg]
    """The answer without native histograms."""
    rows = [row for row in answer["data"]["result"] if "value" in row or "values" in row]
    return {**answer, "data": {**answer["data"], "result": rows}}


def _no_empty(h: Histograms) -> Histograms:
    return replace(h, positive=h.positive.where(h.positive.counts != 0), negative=h.negative.where(h.negative.counts != 0))

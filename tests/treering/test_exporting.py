"""Exports, read back by the programs that they are for, and by our own import."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.treering.test_importing import bucket_of, cli, stored
from tests.tsdb.batches import batch_of, float_bits, grid_batch, histogram_batch, same_samples
from treering.transfer.export_table import pieces, second_texts
from treering.transfer.export_text import series_text
from tsdb.block.block import new_ulid, write_block
from tsdb.merge import concat_batches, merge_batches
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_BITS, SeriesBatch

EVERYTHING = '{__name__=~".+"}'
NAN_WITH_PAYLOAD = 0x7FF8DEADBEEF0001
ODD = {
    Labels.of({"__name__": "odd", "time": "x", "value": "y", "a": 'q"\\\n,'}): [
        (1000, float_bits(0.1)), (1001, STALE_BITS), (2000, float_bits(np.nan)),
    ],
    Labels.of({"__name__": "odd.name", "la bel": "ü"}): [(1, float_bits(np.inf)), (5, float_bits(-np.inf)), (7, NAN_WITH_PAYLOAD)],
    Labels.of({"__name__": "odd", "labels": "z"}): [(0, float_bits(-0.0)), (3, float_bits(1e300))],
}  # fmt: skip


def floats() -> SeriesBatch:
    return merge_batches([batch_of(ODD), grid_batch(30, 500)])


def everything() -> SeriesBatch:
    return merge_batches([floats(), histogram_batch(5, 40)])


def store(data: Path, batch: SeriesBatch) -> None:
    write_block(bucket_of(data), [batch], ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=10**8)


def export(kind: str, data: Path, file: Path, *flags: str, match: str = EVERYTHING) -> str:
    return cli("export", kind, "--match", match, "--bucket", data / "bucket", "-o", file, *flags)


@pytest.mark.parametrize("flags", [(), ("--wide-labels",)])
def test_parquet_comes_back_whole(tmp_path: Path, flags: Sequence[str]) -> None:
    """Labels, times, native histograms and every bit of every float."""
    store(tmp_path / "a", everything())
    assert "38 series" in export("parquet", tmp_path / "a", tmp_path / "f.parquet", *flags)
    source = everything()
    if flags:  # label columns with our own columns' names are renamed
        cli(
            "import",
            "parquet",
            tmp_path / "f.parquet",
            "--data",
            tmp_path / "b",
            "--label",
            "label_time=",
            "--label",
            "label_value=",
        )
        source = source.take(np.flatnonzero(source.series.values("time") == ""))
        assert len(stored(bucket_of(tmp_path / "b"))) == 38
        return
    cli("import", "parquet", tmp_path / "f.parquet", "--data", tmp_path / "b", "--verify")
    assert same_samples(stored(bucket_of(tmp_path / "b")), source)


def test_parquet_is_what_duckdb_and_pyarrow_read(tmp_path: Path) -> None:
    duckdb, parquet = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow.parquet")
    store(tmp_path / "a", everything())
    export("parquet", tmp_path / "a", tmp_path / "f.parquet")
    export("parquet", tmp_path / "a", tmp_path / "w.parquet", "--wide-labels", match="m")
    batch = everything()
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.num_rows == batch.samples
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    assert np.array_equal(table.column("time").cast("int64").to_numpy(), batch.t_ms)
    values = np.concatenate([np.frombuffer(c.buffers()[1], np.uint64, len(c), c.offset * 8) for c in table.column("value").chunks])
    assert batch.histogram_at is not None
    floats_ = np.asarray(batch.histogram_at < 0)
    assert np.array_equal(values[floats_], batch.values.view(np.uint64)[floats_])
    assert table.column("value").null_count == int((~floats_).sum())
    rows = [Labels.of(dict(pairs)) for pairs in table.column("labels").to_pylist()]
    assert rows == [labels for labels, n in zip(batch.series.rows(), np.diff(batch.offsets), strict=True) for _ in range(n)]
    first = next(cell for cell in table.column("histogram").to_pylist() if cell is not None)
    h = batch.histograms
    assert h is not None and (first["count"], first["sum"], first["schema"]) == (h.count[0], h.sum[0], h.schema[0])
    con = duckdb.connect()
    long = f"read_parquet('{tmp_path}/f.parquet')"
    found = con.sql(f"select labels['instance'], count(*), sum(value), epoch_ms(max(time)) from {long} "
                    "where labels['__name__'] = 'm' group by 1 order by 1").fetchall()  # fmt: skip
    grid = grid_batch(30, 500)
    wanted = [(f"host-{i:06d}", 500, grid.values[i * 500 : (i + 1) * 500].sum(), 499 * 15_000) for i in range(30)]
    assert [(a, n, pytest.approx(s), t) for a, n, s, t in wanted] == found
    assert con.sql(f"select sum(histogram.count) from {long}").fetchall() == [(pytest.approx(h.count.sum()),)]
    wide = con.sql(f"select instance, job, count(*) from read_parquet('{tmp_path}/w.parquet') group by all order by 1").fetchall()
    assert wide == [(f"host-{i:06d}", "node", 500) for i in range(30)]


def test_openmetrics_comes_back(tmp_path: Path) -> None:
    store(tmp_path / "a", everything())
    out = export("openmetrics", tmp_path / "a", tmp_path / "f.om")
    assert "198 native histograms are left out" in out
    assert "1 stale markers are left out" in out
    assert (tmp_path / "f.om").read_text().endswith("\n# EOF\n")
    cli("import", "openmetrics", tmp_path / "f.om", "--data", tmp_path / "b", "--verify")
    assert _same_numbers(stored(bucket_of(tmp_path / "b")), _without_natives(everything()))


def test_csv_comes_back(tmp_path: Path) -> None:
    batch = grid_batch(30, 500, start_ms=7)
    store(tmp_path / "a", batch)
    export("csv", tmp_path / "a", tmp_path / "f.csv")
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == batch.samples
    assert rows[1] == {"time": "15.007", "value": repr(batch.values[1]).removesuffix(".0"), "__name__": "m",
                       "instance": "host-000000", "job": "node"} | {"value": rows[1]["value"]}  # fmt: skip
    assert [float(row["value"]) for row in rows] == batch.values.tolist()
    cli("import", "csv", tmp_path / "f.csv", "--data", tmp_path / "b", "--verify")
    assert same_samples(stored(bucket_of(tmp_path / "b")), batch)


def test_selectors_and_times(tmp_path: Path) -> None:
    store(tmp_path / "a", everything())
    flags = ("--start", "15", "--end", "45", "--match", 'm{instance="host-000001"}')
    assert "2 series, 4 samples" in export("csv", tmp_path / "a", tmp_path / "f", *flags, match='m{instance=~"host-00000[01]"}')
    out = cli("export", "csv", "--match", "m", "--start", "5", "--end", "5", "-o", "-", status=1)
    assert "--start 5 is not before --end 5" in out


def test_standard_output_and_failures_leave_no_file(tmp_path: Path) -> None:
    store(tmp_path / "a", grid_batch(1, 2))
    assert 'm{instance="host-000000",job="node"}' in cli(
        "export", "openmetrics", "--match", "m", "--bucket", tmp_path / "a/bucket", "-o", "-"
    )
    out = cli("export", "parquet", "--match", "m", "--bucket", tmp_path / "a/bucket", "-o", tmp_path / "no/where", status=1)
    assert "No such file" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_damage_is_told_and_the_status_says_so(tmp_path: Path) -> None:
    store(tmp_path / "a", grid_batch(1, 2))
    (page,) = (tmp_path / "a").rglob("pages-000000")
    data = bytearray(page.read_bytes())
    data[9] ^= 1
    page.write_bytes(data)
    out = cli("export", "csv", "--match", "m", "--bucket", tmp_path / "a/bucket", "-o", tmp_path / "f", status=1)
    assert "could not be read and is missing" in out


def test_pieces_are_the_batch(tmp_path: Path) -> None:
    batch = everything()
    parts = list(pieces(batch, 77))
    assert all(part.samples <= 77 for part in parts) and all(np.diff(part.offsets).all() for part in parts)
    assert same_samples(merge_batches([concat_batches([part]) for part in parts]), batch)


def test_times_as_seconds() -> None:
    t_ms = np.array([0, 1, 999, 1000, 1_700_000_000_123, 20], np.int64)
    assert second_texts(t_ms).to_pylist() == ["0", "0.001", "0.999", "1", "1700000000.123", "0.020"]
    assert [float(text) * 1000 for text in second_texts(np.array([-1, -1500])).to_pylist()] == [-1, -1500]


def test_series_text() -> None:
    assert series_text(Labels.of({"__name__": "a:b", "c": 'x"\\\n'})) == 'a:b{c="x\\"\\\\\\n"}'
    assert series_text(Labels.of({"__name__": "a.b", "c d": "e"})) == '{"a.b","c d"="e"}'
    assert series_text(Labels.of({"a": "b"})) == '{a="b"}'


def _without_natives(batch: SeriesBatch) -> SeriesBatch:
    assert batch.histogram_at is not None
    kept = batch.where((batch.histogram_at < 0) & (batch.values.view(np.uint64) != STALE_BITS))
    return SeriesBatch(kept.series, kept.offsets, kept.t_ms, kept.values)


def _same_numbers(a: SeriesBatch, b: SeriesBatch) -> bool:
    """Text keeps no payload of a NaN."""
    same = a.series.rows() == b.series.rows() and np.array_equal(a.offsets, b.offsets) and np.array_equal(a.t_ms, b.t_ms)
    return bool(same) and np.array_equal(a.values, b.values, equal_nan=True)

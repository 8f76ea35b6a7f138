"""Imports: what comes in is what was there, once, however often and however far it was run."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks.peers import free_port
from tests.tsdb import prometheus_files as files
from tests.tsdb.batches import grid_batch, histogram_batch, same_samples
from tests.tsdb.test_prometheus_block import chunk, points, row, some_series
from treering.cli import main
from treering.transfer.import_part import Content, Part, Wanted, content_of, fingerprint
from treering.transfer.import_progress import Progress
from treering.transfer.import_text import line_ranges, parse_series, parse_text
from treering.transfer.importing import MARKERS, ImportOptions, ImportReport, import_parts, windows_of
from tsdb.block.block import Block, list_blocks
from tsdb.bucket.bucket import Bucket, FolderBucket, PrefixBucket, open_bucket
from tsdb.compaction.bucket_index import Inventory, read_inventory, scan_bucket, write_index
from tsdb.merge import MergeSource, merge_batches
from tsdb.model.errors import BadData, Corrupt, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_BITS, STALE_NAN, SeriesBatch
from tsdb.model.source import MAX_MS, MIN_MS, Selection

HOUR_MS = 3_600_000
ALL = Selection((), MIN_MS, MAX_MS)


def stored(bucket: Bucket) -> SeriesBatch:
    blocks = [Block(bucket, meta) for meta in list_blocks(bucket)]
    return merge_batches(list(MergeSource(blocks).select(ALL))) if blocks else SeriesBatch.empty()


def part_of(batch: SeriesBatch, name: str = "part") -> Part:
    return Part(name, fingerprint(name), batch.samples, lambda: content_of(batch))


def run(bucket: Bucket, *parts: Part, **options: bool) -> ImportReport:
    with Progress(1, console=Console(quiet=True)) as progress:
        return import_parts(bucket, parts, ImportOptions(Wanted(), **options), progress=progress, now_ms=lambda: 10**12)


def cli(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def bucket_of(data: Path, tenant: str = "anonymous") -> Bucket:
    return PrefixBucket(FolderBucket(data / "bucket"), tenant)


def test_windows_are_aligned_and_few() -> None:
    assert windows_of(0, 1) == [(0, 2 * HOUR_MS)]
    assert windows_of(-1, 2 * HOUR_MS + 1) == [(-2 * HOUR_MS, 0), (0, 2 * HOUR_MS), (2 * HOUR_MS, 4 * HOUR_MS)]
    assert [end - start for start, end in windows_of(0, 54 * HOUR_MS)] == [24 * HOUR_MS] * 3
    assert {end - start for start, end in windows_of(0, 400 * 24 * HOUR_MS)} == {28 * 24 * HOUR_MS}
    with pytest.raises(BadData, match="are the times in another unit"):
        windows_of(0, 10**15)


def test_a_second_run_skips_what_is_there_and_readers_know_the_blocks(tmp_path: Path) -> None:
    bucket, batch = FolderBucket(tmp_path), grid_batch(20, 2000)
    report = run(bucket, part_of(batch), verify=True)
    assert (report.parts, report.samples, report.series, report.failures) == (1, 40_000, 20, [])
    assert same_samples(stored(bucket), batch)
    scan = scan_bucket(bucket, Inventory())
    write_index(bucket, Inventory(), scanned_ms=10**12)  # as a compactor that had listed the bucket just before
    assert read_inventory(bucket, Inventory(), now_ms=10**12).metas == scan.inventory.metas != {}
    again = run(bucket, part_of(batch))
    assert (again.parts, again.skipped, again.blocks) == (0, 1, 0)


class Cut:
    """A bucket whose power goes before its k-th put."""

    def __init__(self, bucket: Bucket, puts: int) -> None:
        self._bucket, self._left = bucket, puts

    def put(self, key: str, data: bytes) -> None:
        if self._left == 0:
            raise Unavailable(f"no power for {key}")
        self._left -= 1
        self._bucket.put(key, data)

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._bucket, name)


def test_killed_before_any_put_the_next_run_finishes(tmp_path: Path) -> None:
    batch, natives = grid_batch(6, 1500), histogram_batch(4, 60)
    points_ = 0
    for puts in range(40):
        bucket = FolderBucket(tmp_path / str(puts))
        parts = part_of(batch, "a"), part_of(natives, "b")
        try:
            run(Cut(bucket, puts), *parts)
            break
        except Unavailable:
            points_ += 1
        run(bucket, *parts, verify=True)
        assert same_samples(stored(bucket), merge_batches([batch, natives]))
        assert len(list_blocks(bucket)) == len(windows_of(0, 1500 * 15_000)) + 1
        assert len(list(bucket.list(MARKERS))) == 2
    assert points_ > 10, "too few points to be killed at"
    print(f"{points_} crash points")


def test_years_are_read_in_turns_of_a_few_windows(tmp_path: Path) -> None:
    """400 days are fifteen blocks of 28 days, four at a time; what is empty makes none."""
    batch = grid_batch(5, 400, step_ms=24 * HOUR_MS, start_ms=-50 * 24 * HOUR_MS)
    batch = batch.where((batch.t_ms < 100 * 24 * HOUR_MS) | (batch.t_ms > 200 * 24 * HOUR_MS))
    asked: list[tuple[int, int]] = []

    def read(start_ms: int, end_ms: int) -> Iterator[SeriesBatch]:
        asked.append((start_ms, end_ms))
        return content.read(start_ms, end_ms)

    content = content_of(batch)
    part = Part("years", "years", 1, lambda: Content(content.min_ms, content.max_ms, read))
    report = run(FolderBucket(tmp_path), part, verify=True)
    assert same_samples(stored(FolderBucket(tmp_path)), batch)
    assert len(asked) == 4 and all(end - start <= 4 * 28 * 24 * HOUR_MS for start, end in asked)
    assert report.blocks == len({t // (28 * 24 * HOUR_MS) for t in batch.t_ms.tolist()}) < 15


def test_a_damaged_marker_is_none(tmp_path: Path) -> None:
    bucket, batch = FolderBucket(tmp_path), grid_batch(2, 10)
    run(bucket, part_of(batch))
    (marker,) = [info.key for info in bucket.list(MARKERS)]
    bucket.put(marker, bucket.get(marker)[:-4] + b"zz}\n")
    assert run(bucket, part_of(batch)).parts == 1
    assert same_samples(stored(bucket), batch)


def test_a_part_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    def broken() -> Iterator[SeriesBatch]:
        yield grid_batch(2, 10)
        raise Corrupt("chunks/000001, chunk at byte 8: broken")

    bad = Part("bad", "bad", 1, lambda: Content(0, 10**6, lambda start_ms, end_ms: broken()))
    bucket = FolderBucket(tmp_path)
    report = run(bucket, bad, part_of(grid_batch(3, 5), "good"))
    assert [(f.name, f.problem) for f in report.failures] == [("bad", "chunks/000001, chunk at byte 8: broken")]
    assert report.parts == 1
    assert same_samples(stored(bucket), grid_batch(3, 5))


def test_verify_finds_what_differs(tmp_path: Path) -> None:
    class Lying(Cut):
        def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
            other = FolderBucket(tmp_path / "other")
            return other.get(key, start, size) if key.startswith("0") else self._bucket.get(key, start, size)

    one, other = grid_batch(3, 50, seed=1), grid_batch(3, 50, seed=2)
    run(FolderBucket(tmp_path / "other"), part_of(other))
    report = run(Lying(FolderBucket(tmp_path / "one"), 99), part_of(one), verify=True)
    assert "3 of 3 series have other samples" in report.failures[0].problem


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    report = run(FolderBucket(tmp_path / "b"), part_of(grid_batch(3, 5)), dry_run=True)
    assert (report.samples, report.blocks) == (15, 1)
    assert not (tmp_path / "b").exists()


def test_prometheus_blocks_by_the_command(tmp_path: Path) -> None:
    files.BlockFiles(some_series()).write(tmp_path / "source")
    data = tmp_path / "data"
    flags = (
        "--data",
        data,
        "--tenant",
        "team",
        "--label",
        "cluster=eu",
        "--match",
        'up{a=""}',
        "--match",
        "down",
        "--start",
        "0.005",
    )
    out = cli("import", "prometheus-block", tmp_path / "source", *flags, "--end", "2", "--verify")
    assert "1 parts of up to 3 series became 1 blocks" in out
    found = points(stored(bucket_of(data, "team")))
    assert found['up{Job="a", cluster="eu"}'] == [(1000, 2.0)]
    assert found['up{b="x", cluster="eu"}'] == [(5, 2.5), (10, 3.5)]
    assert len(found['down{cluster="eu"}']) == 199
    assert "1 parts were imported before" in cli("import", "prometheus-block", tmp_path / "source", *flags, "--end", "2")


def test_damaged_blocks_are_told_and_the_status_says_so(tmp_path: Path) -> None:
    good = files.BlockFiles({row(metric="good"): [chunk([(0, 1.0)])]}).write(tmp_path / "source")
    bad = files.BlockFiles(some_series(), ulid="01HF7XJCR018J9RREW81HE9MQH").write(tmp_path / "source")
    data = bytearray((bad / "chunks" / "000001").read_bytes())
    data[20] ^= 4
    (bad / "chunks" / "000001").write_bytes(data)
    lost = files.BlockFiles(some_series(), ulid="01HF7XJCR018J9RREW81HE9MQJ").write(tmp_path / "source")
    (lost / "meta.json").write_text("{")
    out = cli("import", "prometheus-block", tmp_path / "source", "--data", tmp_path / "data", status=1)
    assert f"not imported: block {bad.name}: {bad.name}/chunks/000001, chunk at byte 8: its" in out
    assert f"not imported: block {lost.name}: {lost.name}/meta.json: is no meta.json" in out
    assert "2 parts are NOT imported" in out
    assert list(points(stored(bucket_of(tmp_path / "data")))) == ["good"]
    assert good.exists()


def test_thanos_and_mimir_buckets(tmp_path: Path) -> None:
    thanos = {"labels": {"cluster": "eu", "replica": "1"}}
    files.BlockFiles(some_series(), thanos=thanos).write(tmp_path / "thanos")
    coarse = files.Chunk(0, 299_999, files.AGGREGATE, files.aggregate_chunk([chunk([(299_999, 4.0)]).data, None, None, None, None]))
    files.BlockFiles({row(metric="m"): [coarse]}, ulid="01HF7XJCR018J9RREW81HE9MQH",
                     thanos={**thanos, "downsample": {"resolution": 300_000}}).write(tmp_path / "thanos")  # fmt: skip
    cli("import", "thanos-bucket", tmp_path / "thanos", "--data", tmp_path / "raw", "--label", "replica=")
    assert 'down{cluster="eu"}' in points(stored(bucket_of(tmp_path / "raw")))
    assert not any(name.startswith("m:") for name in points(stored(bucket_of(tmp_path / "raw"))))
    cli("import", "thanos-bucket", tmp_path / "thanos", "--data", tmp_path / "all", "--downsampled")
    assert points(stored(bucket_of(tmp_path / "all")))['m:5m:count{cluster="eu", replica="1"}'] == [(299_999, 4.0)]
    for tenant in ("blue", "green"):
        files.BlockFiles({row(metric=tenant): [chunk([(0, 1.0)])]}).write(tmp_path / "mimir" / tenant)
    cli("import", "mimir-bucket", tmp_path / "mimir", "--data", tmp_path / "m")
    assert list(points(stored(bucket_of(tmp_path / "m", "blue")))) == ["blue"]
    assert list(points(stored(bucket_of(tmp_path / "m", "green")))) == ["green"]
    out = cli("import", "mimir-bucket", tmp_path / "mimir", "--data", tmp_path / "m", "--tenant", "x", status=1)
    assert "the source has 2 tenants" in out
    out = cli("import", "mimir-bucket", tmp_path / "mimir", "--data", tmp_path / "m", "--tenant", "x", "--source-tenant", "blue")
    assert list(points(stored(bucket_of(tmp_path / "m", "x")))) == ["blue"]


def test_from_s3_to_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3, server_of = pytest.importorskip("boto3"), pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of("127.0.0.1", free_port(), verbose=False)
    server.start()
    try:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        place = files.BlockFiles(some_series()).write(tmp_path)
        for bucket in ("thanos", "own"):
            client.create_bucket(Bucket=bucket)
        for path in (path for path in place.rglob("*") if path.is_file()):
            client.upload_file(str(path), "thanos", f"{place.name}/{path.relative_to(place)}")
        options = f"?endpoint={endpoint}&region=us-east-1"
        cli("import", "thanos-bucket", f"s3://thanos{options}", "--bucket", f"s3://own/deep{options}", "--verify")
        assert list(points(stored(PrefixBucket(open_bucket(f"s3://own/deep{options}"), "anonymous")))) == [
            "down", 'up{b="x"}', 'up{a="x"}', 'up{Job="a"}',
        ]  # fmt: skip
    finally:
        server.stop()


def test_nothing_there(tmp_path: Path) -> None:
    assert "there is no such folder" in cli("import", "prometheus-block", tmp_path / "no", "--data", tmp_path / "d", status=1)
    (tmp_path / "empty").mkdir()
    assert "no block there" in cli("import", "prometheus-block", tmp_path / "empty", "--data", tmp_path / "d", status=1)
    assert "there is no such file" in cli("import", "openmetrics", tmp_path / "no", "--data", tmp_path / "d", status=1)


TEXT = b"""# HELP a_total what
# TYPE a counter
a_total{x="1",y="q\\"\\\\\\n}"} 1 1.5
a_total{y="q\\"\\\\\\n}",x="1"} 0.1 2 # {trace="x"} 7

{"a.b", "c d"="e"} +Inf 3
a_total -0 1e3
"bad\tspace"
"""


def test_text_of_all_shapes() -> None:
    found = points(parse_text(TEXT.replace(b'"bad\tspace"\n', b""), scale=1000.0, where="f"))
    assert found == {
        "a_total": [(1_000_000, -0.0)],
        'a_total{x="1", y="q\\"\\\\\\n}"}': [(1500, 1.0), (2000, 0.1)],
        'a.b{c d="e"}': [(3000, np.inf)],
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [("a{b=\"c\" 1 2", "no series begins it"), ("a", "has no value"), ("a 1", "has no time"), ("a 1 # {} 2", "has no time"),
     ("a 1 x", "time is no plain number"), ("a 1 NaN", "time is no plain number"), ("a x 1", "x"),
     ("a{b=c} 1 2", "cannot read the label")],
)  # fmt: skip
def test_bad_lines_are_told_with_their_place(line: str, problem: str) -> None:
    with pytest.raises(BadData, match=r"f|series") as told:
        parse_text(f"ok 1 2\n{line}\n".encode(), scale=1.0, where="f")
    assert problem in str(told.value)


def test_numbers_are_read_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(size=500), rng.integers(-(10**9), 10**9, 500) / 1000, 10.0 ** rng.integers(-320, 308, 300),
                             rng.integers(0, 1 << 63, 300).astype(float), [0.0, -0.0, np.inf, -np.inf]])  # fmt: skip
    text = "".join(f"m {value!r} {i}\n" for i, value in enumerate(values.tolist()))
    found = parse_text(text.encode(), scale=1.0, where="f")
    assert found.values.view(np.uint64).tolist() == values.view(np.uint64).tolist()
    assert found.t_ms.tolist() == list(range(len(values)))


def test_series_text() -> None:
    assert parse_series('{"a b"}') == Labels.of({"__name__": "a b"})
    assert parse_series('up{ job = "x" , i="" ,}') == Labels.of({"__name__": "up", "job": "x"})
    with pytest.raises(BadData, match="character 3"):
        parse_series('up{=""}')


def test_lines_are_cut_between_records(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"h\n" + b'1,"a\nb"\n' * 50)
    ranges = list(line_ranges(path, 64, quotes=True, skip=2))
    assert [start for start, _, _ in ranges[1:]] == [end for _, end, _ in ranges[:-1]]
    assert all((end - 2) % 8 == 0 for _, end, _ in ranges)
    with pytest.raises(BadData, match="longer than 4 bytes"):
        list(line_ranges(path, 4))


def test_openmetrics_from_a_pipe_resumes(tmp_path: Path) -> None:
    text = "a 1 10\na 2 20\n# EOF\n"
    for seen in ("0 parts were imported before", "1 parts were imported before"):
        result = CliRunner().invoke(main, ["import", "openmetrics", "-", "--data", str(tmp_path)], input=text.encode())
        assert result.exit_code == 0 and seen in result.output
    assert points(stored(bucket_of(tmp_path))) == {"a": [(10_000, 1.0), (20_000, 2.0)]}


def test_csv_of_all_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'when;v;host;note\n2026-01-01T00:00:00Z;1.5;a;"x;\ny"\n2026-01-01T01:00:00+01:00;2.5;;\n1999-01-01T00:00:00Z;3;a;\n'
    )
    cli(
        "import",
        "csv",
        tmp_path / "a.csv",
        "--data",
        tmp_path / "d",
        "--time",
        "when",
        "--value",
        "v",
        "--metric",
        "m",
        "--delimiter",
        ";",
    )
    assert points(stored(bucket_of(tmp_path / "d"))) == {
        "m": [(1767225600000, 2.5)], 'm{host="a"}': [(915148800000, 3.0)], 'm{host="a", note="x;\\ny"}': [(1767225600000, 1.5)],
    }  # fmt: skip
    (tmp_path / "b.csv").write_text("time,value,__name__\n1500,1,m\n2500,2,m\n")
    cli("import", "csv", tmp_path / "b.csv", "--data", tmp_path / "e", "--time-unit", "ms")
    assert points(stored(bucket_of(tmp_path / "e"))) == {"m": [(1500, 1.0), (2500, 2.0)]}
    out = cli("import", "csv", tmp_path / "a.csv", "--data", tmp_path / "f", "--time", "when", "--delimiter", ";", status=1)
    assert "no column 'value'; there are when, v, host, note" in out
    assert "nothing tells the metric name" in cli(
        "import",
        "csv",
        tmp_path / "a.csv",
        "--data",
        tmp_path / "f",
        "--time",
        "when",
        "--value",
        "v",
        "--delimiter",
        ";",
        status=1,
    )


def test_markers_tell_imports_apart(tmp_path: Path) -> None:
    """The same source under other labels is another import."""
    files.BlockFiles({row(metric="m"): [chunk([(0, 1.0)])]}).write(tmp_path / "source")
    for cluster in ("a", "b"):
        cli("import", "prometheus-block", tmp_path / "source", "--data", tmp_path / "d", "--label", f"cluster={cluster}")
    assert list(points(stored(bucket_of(tmp_path / "d")))) == ['m{cluster="a"}', 'm{cluster="b"}']
    marker = json.loads(next((tmp_path / "d/bucket/anonymous/imports").iterdir()).read_text())
    assert marker["body"]["samples"] == 1


def test_progress_tells_rate_and_time_left() -> None:
    now, lines = [0.0], Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    progress = Progress(100, console=lines, clock=lambda: now[0])
    part = Part("one", "one", 25, lambda: content_of(SeriesBatch.empty()))
    progress.begin(part)
    now[0] = 10.0
    progress.advance(part, 5000, 1.0)
    progress.end(part)
    assert progress.text() == "5,000 samples, 500 samples/s, 30s left"
    assert "500 samples/s" in lines.export_text()


def test_stale_markers_come_through(tmp_path: Path) -> None:
    files.BlockFiles({row(metric="m"): [chunk([(0, 1.0), (5, STALE_NAN)])]}).write(tmp_path / "s")
    cli("import", "prometheus-block", tmp_path / "s", "--data", tmp_path / "d")
    assert stored(bucket_of(tmp_path / "d")).values.view(np.uint64).tolist() == [files.float_bits(1.0), STALE_BITS]

"""The write-ahead log: what was acknowledged is there after any stop, damage is told and stepped over, and full disks pass."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.test_head import histogram_write, histograms
from tests.tsdb.writes import contents, series, write_of
from tsdb.head.head import Head, HeadOptions
from tsdb.model.errors import BadData, Corrupt, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.write import Exemplar, Metadata
from tsdb.wal.log import FRAME, HEADER, MARKER, Wal, segment_paths
from tsdb.wal.record import (
    MAX_RECORD_LABEL_BYTES,
    MAX_RECORD_SAMPLES,
    ExemplarsRecord,
    HistogramsRecord,
    MetadataRecord,
    SamplesRecord,
    SeriesRecord,
    decode_record,
    encode_record,
    split_histograms,
    split_samples,
    split_series,
)
from tsdb.wal.replay import Mark, ReplayReport, read_marks, read_segment, write_marks

NOW = 10_000_000
ROWS = [series("m", i=str(i)) for i in range(3)]
COMMIT = HeadOptions()

I64S = st.integers(-(1 << 63), (1 << 63) - 1)


def opened(directory: Path, options: HeadOptions = COMMIT) -> Head:
    return Head.open(directory, options=options, now_ms=NOW)


def written(directory: Path, writes: int) -> tuple[Path, list[int]]:
    """A log of `writes` writes with one sample of each series, and where each of their records ends."""
    head = opened(directory)
    ends = []
    for t in range(writes):
        head.append(write_of({row: [(t, float(t))] for row in ROWS}), now_ms=NOW)
        (path,) = segment_paths(directory)
        ends.append(path.stat().st_size)
    head.close()
    return path, ends


def times_of(directory: Path) -> tuple[list[int], ReplayReport]:
    head = opened(directory)
    found = contents(head)
    report = head.replayed
    head.close()
    assert all(points == found[ROWS[0]] for points in found.values()), "series were written together and must be read together"
    assert all(value == t for points in found.values() for t, value in points)
    return [t for t, _ in found.get(ROWS[0], [])], report


@pytest.mark.parametrize("with_start", [False, True])
@given(rows=st.lists(st.tuples(I64S, I64S, I64S), max_size=20))
def test_samples_records_round_trip(with_start: bool, rows: list[tuple[int, int, int]]) -> None:
    ids, t_ms, bits = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    ids = np.abs(ids >> 20)
    record = SamplesRecord(ids, t_ms, bits, bits[::-1].copy() if with_start else None)
    again = decode_record(*encode_record(record))
    assert isinstance(again, SamplesRecord)
    for name in ("ids", "t_ms", "bits", "start_ms"):
        assert np.array_equal(getattr(again, name), getattr(record, name)), name


def test_other_records_round_trip() -> None:
    data = np.frombuffer(b"abcdef" * 200, np.uint8)
    sizes = np.array([0, 200, 1000], np.int64)
    again = decode_record(*encode_record(SeriesRecord(np.array([7, 3, 1 << 40]), sizes, data)))
    assert isinstance(again, SeriesRecord)
    assert (
        again.ids.tolist() == [7, 3, 1 << 40] and again.sizes.tolist() == sizes.tolist() and again.data.tobytes() == data.tobytes()
    )
    metadata = MetadataRecord((Metadata("up", "gauge", "Tells.", "s"), Metadata("é", "counter", "", "")))
    assert decode_record(*encode_record(metadata)) == metadata
    exemplars = ExemplarsRecord((b"\x0a\x00", b""), (Exemplar(1, Labels.of({"a": "b"}), -0.5, 1 << 50),))
    assert decode_record(*encode_record(exemplars)) == exemplars
    values = histograms([2.0, 4.0, 6.0])
    record = HistogramsRecord(np.array([1, 1, 2]), np.array([5, 6, 7]), np.array([0, 1, 2]), values)
    found = decode_record(*encode_record(record))
    assert isinstance(found, HistogramsRecord)
    assert found.histograms.positive.counts.tolist() == values.positive.counts.tolist()
    assert found.histograms.sum.tolist() == values.sum.tolist() and found.histograms.integer.all()


def test_records_are_bounded() -> None:
    count = MAX_RECORD_SAMPLES + 5
    column = np.arange(count, dtype=np.int64)
    parts = list(split_samples(SamplesRecord(column, column, column, None)))
    assert [len(part.ids) for part in parts] == [MAX_RECORD_SAMPLES, 5]
    sizes = np.array([MAX_RECORD_LABEL_BYTES - 1, 1, 1, MAX_RECORD_LABEL_BYTES + 1, 1], np.int64)
    data = np.zeros(int(sizes.sum()), np.uint8)
    named = list(split_series(np.arange(5), sizes, data))
    assert [len(part.ids) for part in named] == [2, 1, 1, 1]
    assert all(len(part.data) == part.sizes.sum() for part in named)
    whole = HistogramsRecord(column[:9], column[:9], column[:9], histograms([1.0] * 9))
    assert sum(len(part.ids) for part in split_histograms(whole)) == 9


@settings(max_examples=300)
@given(kind=st.integers(0, 7), payload=st.binary(max_size=200))
def test_bytes_that_are_no_record_are_corrupt_and_nothing_worse(kind: int, payload: bytes) -> None:
    with suppress(Corrupt):
        decode_record(kind, payload)


def test_a_log_cut_at_every_byte_of_its_last_three_records_keeps_all_before(tmp_path: Path) -> None:
    path, ends = written(tmp_path / "whole", 6)
    whole = path.read_bytes()
    for size in range(ends[2], len(whole)):
        directory = tmp_path / str(size)
        directory.mkdir()
        (directory / path.name).write_bytes(whole[:size])
        times, report = times_of(directory)
        complete = sum(end <= size for end in ends)
        assert times == list(range(complete)), f"cut at byte {size}"
        torn = size - ends[complete - 1]
        assert [(d.offset, d.skipped_bytes, d.torn) for d in report.damage] == ([(ends[complete - 1], torn, True)] if torn else [])
        assert (directory / path.name).stat().st_size == ends[complete - 1], "the torn end is cut off"
        assert times_of(directory)[1].damages == 0, "and told once"
        shutil.rmtree(directory)


def test_every_flipped_bit_of_a_record_loses_that_record_alone(tmp_path: Path) -> None:
    path, ends = written(tmp_path / "whole", 4)
    whole = path.read_bytes()
    for bit in range(8 * ends[1], 8 * ends[2]):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        directory = tmp_path / str(bit)
        directory.mkdir()
        (directory / path.name).write_bytes(damaged)
        times, report = times_of(directory)
        assert times == [0, 1, 3], f"bit {bit}"
        (damage,) = report.damage
        assert (damage.path.name, damage.offset, damage.skipped_bytes, damage.torn) == (
            path.name,
            ends[1],
            ends[2] - ends[1],
            False,
        )
        assert (directory / path.name).with_suffix(".bad").read_bytes() == damaged
        shutil.rmtree(directory)


def test_a_lost_series_record_is_made_good_by_an_earlier_segment(tmp_path: Path) -> None:
    options = HeadOptions(segment_size_bytes=1)
    head = opened(tmp_path, options)
    for t in range(3):
        head.append(write_of({row: [(t, float(t))] for row in ROWS}), now_ms=NOW)
    head.close()
    paths = segment_paths(tmp_path)
    assert len(paths) == 3, "each write has its own segment, which names its series"
    data = bytearray(paths[2].read_bytes())
    data[HEADER.size + FRAME.size] ^= 1
    paths[2].write_bytes(data)
    assert times_of(tmp_path)[0] == [0, 1, 2]
    data = bytearray(paths[0].read_bytes())
    data[HEADER.size + FRAME.size] ^= 1
    paths[0].write_bytes(data)
    times, report = times_of(tmp_path)
    assert times == [1, 2] and report.orphans == 3 and report.damages == 2


def test_a_damaged_header_a_foreign_file_and_rubbish_do_not_stop_a_start(tmp_path: Path) -> None:
    path, _ = written(tmp_path, 3)
    data = bytearray(path.read_bytes())
    data[0] ^= 255
    path.write_bytes(data)
    (tmp_path / "notes.wal").write_text("not a segment")
    (tmp_path / "0000000007.wal").write_bytes(os.urandom(3000) + MARKER * 100)
    (tmp_path / "0000000008.wal").write_bytes(b"")
    (tmp_path / "dropped").write_bytes(b"rubbish")
    times, report = times_of(tmp_path)
    assert times == [0, 1, 2]
    assert report.damages == 4
    head = opened(tmp_path)
    assert head.append(write_of({row: [(5, 5.0)] for row in ROWS}), now_ms=NOW).samples == 3
    head.close()
    assert times_of(tmp_path)[0] == [0, 1, 2, 5]


def test_marks_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    assert read_marks(tmp_path) == []
    marks = [Mark(3, -5), Mark(7, 1 << 50)]
    write_marks(tmp_path, marks)
    assert read_marks(tmp_path) == marks
    path = tmp_path / "dropped"
    for size in range(path.stat().st_size):
        copy = tmp_path / f"cut{size}"
        copy.mkdir()
        (copy / "dropped").write_bytes(path.read_bytes()[:size])
        assert read_marks(copy) == []


@contextmanager
def file_limit(size_bytes: int) -> Iterator[None]:
    """No file may grow past a size: writes then fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_is_unavailable_leaves_nothing_and_passes_when_there_is_room(tmp_path: Path) -> None:
    head = opened(tmp_path)
    head.append(write_of({row: [(1, 1.0)] for row in ROWS}), now_ms=NOW)
    (path,) = segment_paths(tmp_path)
    two = write_of({row: [(2, 2.0)] for row in ROWS})
    with file_limit(path.stat().st_size + 10):
        with pytest.raises(Unavailable, match=path.name):
            head.append(two, now_ms=NOW)
        assert all(points == [(1, 1.0)] for points in contents(head).values()), "what failed is not seen"
    with file_limit(HEADER.size - 1):
        for _ in range(3):
            with pytest.raises(Unavailable, match="cannot begin a segment"):
                head.append(two, now_ms=NOW)
    assert head.append(two, now_ms=NOW).samples == 3
    assert head.append(histogram_write(ROWS[0], [(3, 2.0)]), now_ms=NOW).histograms == 1
    with file_limit(100), pytest.raises(Unavailable):
        head.append(histogram_write(ROWS[0], [(4, 2.0)]), now_ms=NOW)
    assert head.append(histogram_write(ROWS[0], [(4, 2.0), (5, 3.0)]), now_ms=NOW).histograms == 2
    head.close()
    again = opened(tmp_path)
    found = contents(again)
    assert [t for t, _ in found[ROWS[0]]] == [1, 2, 3, 4, 5] and found[ROWS[1]] == [(1, 1.0), (2, 2.0)]
    assert [d.torn for d in again.replayed.damage] == [True]
    again.close()


def test_a_failed_sync_is_unavailable_and_the_retry_is_durable(tmp_path: Path) -> None:
    head = opened(tmp_path)
    head.append(write_of({row: [(1, 1.0)] for row in ROWS}), now_ms=NOW)
    segment = head._wal._segment
    assert segment is not None
    kept = segment.path.stat().st_size
    reader, writer = os.pipe()  # a pipe takes bytes, but cannot be synced
    os.dup2(writer, segment.fd)
    two = write_of({row: [(2, 2.0)] for row in ROWS})
    with pytest.raises(Unavailable, match="sync"):
        head.append(two, now_ms=NOW)
    os.close(reader)
    os.close(writer)
    assert segment.path.stat().st_size == kept
    assert head.append(two, now_ms=NOW).samples == 3, "the sender tries again"
    head.close()
    assert times_of(tmp_path)[0] == [1, 2]


def test_threads_share_syncs_and_each_is_answered_after_one(tmp_path: Path) -> None:
    head = opened(tmp_path)
    rows = [series("m", i=str(i)) for i in range(8)]

    def write(row: Labels) -> None:
        for t in range(25):
            assert head.append(write_of({row: [(t, float(t))]}), now_ms=NOW).samples == 1
            segment = head._wal._segment
            assert segment is not None and segment.synced > HEADER.size

    threads = [Thread(target=write, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < head.stats().wal_syncs <= 200
    head.close()
    again = opened(tmp_path)
    assert contents(again) == {row: [(t, float(t)) for t in range(25)] for row in rows}
    again.close()


def test_a_log_tells_what_it_is_asked_wrongly(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="'never'"):
        HeadOptions(wal_sync="never")
    with pytest.raises(Unavailable, match="no segment is open"):
        Wal(tmp_path).write([])
    with pytest.raises(Unavailable, match="cannot begin a segment"):
        Wal(tmp_path / "missing").prepare()


def test_unknown_records_are_stepped_over(tmp_path: Path) -> None:
    path, _ = written(tmp_path, 1)
    report = ReplayReport()
    assert len(list(read_segment(path, report))) == 2 and report.damages == 0
    assert decode_record(99, b"of a later version") is None


WRITER = """
import sys
from pathlib import Path
from tests.tsdb.writes import series, write_of
from tsdb.head.head import Head, HeadOptions
head = Head.open(Path(sys.argv[1]), options=HeadOptions(segment_size_bytes=20_000), now_ms=0)
t = int(sys.argv[2])
rows = [series("m", i=str(i)) for i in range(50)]
while True:
    head.append(write_of({row: [(t, float(t))] for row in rows}), now_ms=10**12)
    print(t, flush=True)
    if t % 40 == 39:
        cut = head.cut(t - 20)
        if cut is not None:
            head.drop(cut)
    t += 1
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    first, acked = 0, -1
    for turn in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(first)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True, env={**os.environ, "PYTHONPATH": "."})
        assert process.stdout is not None
        for line in process.stdout:
            acked = int(line)
            if acked >= first + 110 + 17 * turn:
                break
        process.kill()
        rest = [int(line) for line in process.stdout.read().split("\n") if line.strip().isdigit()]
        process.wait()
        acked = max([acked, *rest])
        head = opened(tmp_path)
        found = contents(head)
        head.close()
        assert len(found) == 50
        dropped_before = (acked + 1) // 40 * 40 - 21  # the cut after the last one that was told may be under way
        for points in found.values():
            times = [t for t, _ in points]
            assert set(range(dropped_before, acked + 1)) <= set(times) <= set(range(acked + 2))
            assert all(t == value for t, value in points)
        first = acked + 2


def test_a_drop_on_a_full_disk_gives_room_back(tmp_path: Path) -> None:
    head = opened(tmp_path, HeadOptions(segment_size_bytes=200))
    for t in range(20):
        head.append(write_of({row: [(t, float(t))] for row in ROWS}), now_ms=NOW)
    before = head.stats().wal_bytes
    cut = head.cut(15)
    assert cut is not None
    with file_limit(5), pytest.raises(Unavailable, match="marks"):
        head.drop(cut)
    assert head.stats().wal_bytes < before / 2, "segments are deleted though nothing can be written"
    assert head.append(write_of({row: [(20, 20.0)] for row in ROWS}), now_ms=NOW).samples == 3
    later = head.cut(17)
    assert later is not None
    head.drop(later)
    head.close()
    assert times_of(tmp_path)[0] == [17, 18, 19, 20]

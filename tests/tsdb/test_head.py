"""The head: what goes in comes out, in order, whatever the order of arrival, and after every way of stopping."""

from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.writes import ALL, by_name, contents, label_ranges, series, write_of
from tsdb.head import memory as head_memory
from tsdb.head import read, slab
from tsdb.head.head import Head, HeadOptions
from tsdb.model.errors import BadData, Unavailable
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import STALE_NAN, is_stale
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.write import Exemplar, HistogramSamples, Metadata, WriteBatch

NOW = 10_000_000
OS = HeadOptions(wal_sync="os")
UP_A, UP_B, DOWN = series("up", job="a"), series("up", job="b"), series("down", job="b")


@pytest.fixture
def head(tmp_path: Path):
    opened = Head.open(tmp_path / "head", options=OS, now_ms=NOW)
    yield opened
    opened.close()


def reopened(head: Head) -> Head:
    head.close()
    return Head.open(head.directory, options=head.options, now_ms=NOW)


def test_samples_come_back_in_the_order_of_series_and_time(head: Head) -> None:
    result = head.append(write_of({UP_B: [(3, 3.0)], UP_A: [(1, 1.0), (2, 2.0)], DOWN: [(1, 0.5)]}), now_ms=NOW)
    assert (result.samples, result.rejected) == (4, {})
    assert contents(head) == {DOWN: [(1, 0.5)], UP_A: [(1, 1.0), (2, 2.0)], UP_B: [(3, 3.0)]}
    assert head.bounds() == (1, 3)
    assert head.active_series == 3


def test_a_selection_is_by_matchers_and_half_open_time(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (2, 2.0), (3, 3.0)], UP_B: [(9, 9.0)], DOWN: [(2, 5.0)]}), now_ms=NOW)
    assert contents(head, by_name("up", 2, 3)) == {UP_A: [(2, 2.0)]}
    assert contents(head, Selection((Matcher("job", "=~", "b|c"),), 0, 10)) == {DOWN: [(2, 5.0)], UP_B: [(9, 9.0)]}
    assert contents(head, Selection((Matcher("zone", "=", ""),), 0, 3)) == {DOWN: [(2, 5.0)], UP_A: [(1, 1.0), (2, 2.0)]}
    assert head.series(by_name("up", 0, 100)).rows() == [UP_A, UP_B]
    assert head.series(by_name("up", 50, 100)).rows() == []
    assert contents(head, by_name("nothing")) == {}


def test_late_samples_are_sorted_in(head: Head) -> None:
    for t in (50, 10, 40, 20, 30):
        assert head.append(write_of({UP_A: [(t, float(t))]}), now_ms=NOW).samples == 1
    assert contents(head)[UP_A] == [(t, float(t)) for t in (10, 20, 30, 40, 50)]


def test_equal_duplicates_count_as_stored_and_unequal_ones_are_told(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (2, 2.0)]}), now_ms=NOW)
    again = head.append(write_of({UP_A: [(1, 1.0), (2, 2.0), (3, 3.0)]}), now_ms=NOW)
    assert (again.samples, again.rejected) == (3, {})
    other = head.append(write_of({UP_A: [(1, 7.0), (3, 4.0), (4, 4.0)]}), now_ms=NOW)
    assert (other.samples, other.rejected) == (1, {"duplicate-timestamp": 2})
    assert other.message == 'series up{job="a"}: sample at 1 has value 7.0, 1.0 is stored'
    assert contents(head)[UP_A] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_unequal_samples_that_are_sealed_are_settled_by_the_merge_rule(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (5, 5.0)]}), now_ms=NOW)
    with head._lock:
        head._memory.freeze()
    head._memory.seal_full()
    assert head.append(write_of({UP_A: [(1, 9.0)]}), now_ms=NOW).samples == 1
    assert contents(head)[UP_A] == [(1, 9.0), (5, 5.0)]


def test_a_time_between_the_pages_of_a_sealed_part_has_no_samples(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slab, "PAGE_SAMPLES", 1)
    head.append(write_of({UP_A: [(10, 1.0)], UP_B: [(90, 2.0)]}), now_ms=NOW)
    cut = head.cut(100)
    assert cut is not None
    assert contents(head, Selection((), 40, 60)) == {}
    assert contents(cut, Selection((), 0, 60)) == {UP_A: [(10, 1.0)]}


def test_samples_too_far_in_the_future_are_refused(head: Head) -> None:
    result = head.append(write_of({UP_A: [(NOW + 600_000, 1.0), (NOW + 600_001, 2.0)], UP_B: [(1 << 60, 1.0)]}), now_ms=NOW)
    assert (result.samples, result.rejected) == (1, {"too-far-in-future": 2})
    assert str(NOW + 600_001) in result.message
    assert head.active_series == 1, "a series of which nothing is stored is not kept"


@pytest.mark.parametrize("sealed", [False, True])
def test_a_batch_has_fewer_series_where_histograms_are_heavy(head: Head, monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    monkeypatch.setattr(read, "BATCH_SAMPLES", 20)
    monkeypatch.setattr(slab, "PAGE_HISTOGRAM_BYTES", 400)
    for i in range(20):
        head.append(histogram_write(Labels.of({"__name__": "h", "pod": f"p{i:02}"}), [(1, 2.0), (2, 4.0)]), now_ms=NOW)
    if sealed:
        with head._lock:
            head._memory.freeze()
        head._memory.seal_full()
    batches = list(head.select(Selection((), 0, 10)))
    assert len(batches) >= 10 and sum(batch.samples for batch in batches) == 40
    assert all(batch.histograms is not None and len(batch.histograms) == batch.samples for batch in batches)


@pytest.mark.parametrize(("window_ms", "late", "reason"), [(0, 99, "out-of-order"), (50, 49, "too-old")])
def test_an_out_of_order_window_bounds_how_late(tmp_path: Path, window_ms: int, late: int, reason: str) -> None:
    head = Head.open(tmp_path, options=HeadOptions(wal_sync="os", out_of_order_window_ms=window_ms), now_ms=NOW)
    head.append(write_of({UP_A: [(100, 1.0)], UP_B: [(10, 1.0)]}), now_ms=NOW)
    assert head.append(write_of({UP_A: [(late, 2.0)]}), now_ms=NOW).rejected == {reason: 1}
    assert head.append(write_of({UP_B: [(11, 2.0)]}), now_ms=NOW).samples == 1, "what is newest in its series is in order"
    if window_ms:
        assert head.append(write_of({UP_A: [(60, 2.0)]}), now_ms=NOW).samples == 1


def test_series_limits(tmp_path: Path) -> None:
    options = HeadOptions(wal_sync="os", max_series=3, max_series_per_metric=2)
    head = Head.open(tmp_path, options=options, now_ms=NOW)
    result = head.append(write_of({series("up", job=str(i)): [(1, 1.0)] for i in range(4)}), now_ms=NOW)
    assert (result.samples, result.rejected) == (2, {"series-limit": 2})
    assert "limit of 2 series a metric" in result.message and "'up'" in result.message
    result = head.append(write_of({series(f"m{i}"): [(1, 1.0)] for i in range(3)}), now_ms=NOW)
    assert (result.samples, result.rejected) == (1, {"series-limit": 2})
    assert "limit of 3 series" in result.message
    assert head.append(write_of({series("up", job="0"): [(2, 1.0)]}), now_ms=NOW).samples == 1


def test_series_of_equal_hash_are_told_apart_by_their_bytes(head: Head) -> None:
    data, start, end, _ = label_ranges([UP_A, UP_B, DOWN])
    same = np.full(3, 42, np.uint64)
    row, t_ms = np.arange(3, dtype=np.int32), np.full(3, 5, np.int64)
    for t in (5, 6):
        head.append(WriteBatch(data, start, end, same, row, t_ms + t, np.array([1.0, 2.0, 3.0])), now_ms=NOW)
    assert contents(head) == {DOWN: [(10, 3.0), (11, 3.0)], UP_A: [(10, 1.0), (11, 1.0)], UP_B: [(10, 2.0), (11, 2.0)]}


def test_one_series_twice_in_a_batch_is_one_series(head: Head) -> None:
    data, start, end, hashes = label_ranges([UP_A, UP_A])
    values = np.array([1.0, 2.0])
    head.append(WriteBatch(data, start, end, hashes, np.arange(2, dtype=np.int32), np.array([1, 2]), values), now_ms=NOW)
    assert contents(head) == {UP_A: [(1, 1.0), (2, 2.0)]}
    assert head.active_series == 1


def test_label_bytes_that_are_none_are_bad_data_and_leave_nothing(head: Head) -> None:
    batch = write_of({UP_A: [(1, 1.0)]})
    for cut in (b"\x0a", b"\x0a\x05\x0a\x01a", b"\x12\x00", b"\x0a\x80\x80\x80\x80\x80\x01"):
        data = np.frombuffer(cut, np.uint8)
        end = np.array([len(cut)], np.int64)
        with pytest.raises(BadData, match="not canonical"):
            head.append(WriteBatch(data, end - len(cut), end, batch.hash, batch.row, batch.t_ms, batch.values), now_ms=NOW)
    assert contents(head) == {} and head.active_series == 0


def test_stale_markers_and_start_times_survive_sealing_and_a_restart(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (2, STALE_NAN)]}, start_ms=77), now_ms=NOW)
    head.append(write_of({UP_A: [(3, 3.0)]}), now_ms=NOW)
    for stage in (head, reopened(head)):
        with stage._lock:
            stage._memory.freeze()
        for sealed in (False, True):
            if sealed:
                stage._memory.seal_full()
            (batch,) = stage.select(ALL)
            assert is_stale(batch.values).tolist() == [False, True, False]
            assert batch.start_ms is not None and batch.start_ms.tolist() == [77, 77, 0]


def histograms(counts: list[float]) -> Histograms:
    n = len(counts)
    sides = Buckets(np.arange(n + 1) * 2, np.tile(np.array([1, 3], np.int32), n), np.repeat(counts, 2) / 2)
    return Histograms(
        np.full(n, 2, np.int8), np.zeros(n, np.uint8), np.ones(n, bool), np.array(counts), np.array(counts) * 3, np.full(n, 1e-128),
        np.zeros(n), sides, Buckets.empty(n), np.zeros(n + 1, np.int64), np.empty(0),
    )  # fmt: skip


def histogram_write(labels: Labels, points: list[tuple[int, float]]) -> WriteBatch:
    values = histograms([count for _, count in points])
    t_ms = np.array([t for t, _ in points], np.int64)
    samples = HistogramSamples(np.zeros(len(points), np.int32), t_ms, np.zeros(len(points), np.int64), values)
    none = np.empty(0, np.int64)
    return WriteBatch(*label_ranges([labels]), none.astype(np.int32), none, none.astype(np.float64), histograms=samples)


def histogram_counts(head: Head) -> list[tuple[int, float]]:
    found = []
    for batch in head.select(ALL):
        assert batch.histograms is not None and batch.histogram_at is not None
        for t, at in zip(batch.t_ms.tolist(), batch.histogram_at.tolist(), strict=True):
            found.append((t, float(batch.histograms.count[at]) if at >= 0 else -1.0))
    return found


def test_histograms_are_values_like_others(head: Head) -> None:
    assert head.append(histogram_write(UP_A, [(1, 2.0), (2, 4.0)]), now_ms=NOW).histograms == 2
    head.append(write_of({UP_A: [(3, 1.0)]}), now_ms=NOW)
    result = head.append(histogram_write(UP_A, [(2, 4.0), (3, 9.0), (5, 8.0), (4, 6.0)]), now_ms=NOW)
    assert (result.histograms, result.rejected) == (3, {"duplicate-timestamp": 1})
    assert result.message == 'series up{job="a"}: sample at 3 has value a native histogram, 1.0 is stored'
    expected = [(1, 2.0), (2, 4.0), (3, -1.0), (4, 6.0), (5, 8.0)]
    assert histogram_counts(head) == expected
    with head._lock:
        head._memory.freeze()
    head._memory.seal_full()
    assert histogram_counts(head) == expected
    again = reopened(head)
    assert histogram_counts(again) == expected
    (batch,) = again.select(by_name("up", 4, 5))
    assert batch.histograms is not None and batch.histograms.positive.index.tolist() == [1, 3]
    assert batch.histograms.positive.counts.tolist() == [3.0, 3.0]
    again.close()


def test_exemplars_and_metadata_survive_a_restart_and_truncation(head: Head) -> None:
    trace = Labels.of({"trace_id": "abc"})
    batch = write_of({UP_A: [(100, 1.0)]})
    exemplars = (Exemplar(0, trace, 0.5, 90), Exemplar(0, trace, 0.7, 10**12))
    metadata = (Metadata("up", "gauge", "Is it up?", ""),)
    full = WriteBatch(*(getattr(batch, f) for f in ("label_bytes", "start", "end", "hash", "row", "t_ms", "values")),
                      exemplars=exemplars, metadata=metadata)  # fmt: skip
    result = head.append(full, now_ms=NOW)
    assert (result.exemplars, result.rejected) == (1, {"too-far-in-future": 1})
    cut = head.cut(1000)
    assert cut is not None
    head.append(write_of({UP_B: [(2000, 1.0)]}), now_ms=NOW)
    head.drop(cut)
    again = reopened(head)
    assert contents(again) == {UP_B: [(2000, 1.0)]}
    (found,) = again.exemplars([(Matcher("job", "=", "a"),)], start_ms=0, end_ms=90)
    assert found.labels == UP_A and found.exemplars[0].labels == trace and found.exemplars[0].value == 0.5
    assert again.metadata() == list(metadata)
    again.close()


def test_a_cut_is_set_apart_stays_readable_and_takes_no_later_sample(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (9, 9.0)], UP_B: [(2, 2.0)]}), now_ms=NOW)
    assert head.cut(1) is None
    cut = head.cut(5)
    assert cut is not None and head.cut(5) is None and head.cuts == (cut,)
    head.append(write_of({UP_A: [(3, 3.0)]}), now_ms=NOW)
    assert contents(cut) == {UP_A: [(1, 1.0)], UP_B: [(2, 2.0)]}
    assert contents(head) == {UP_A: [(1, 1.0), (3, 3.0), (9, 9.0)], UP_B: [(2, 2.0)]}
    assert cut.series(ALL).rows() == [UP_A, UP_B]
    head.drop(cut)
    head.drop(cut)
    assert contents(head) == {UP_A: [(3, 3.0), (9, 9.0)]}
    assert head.active_series == 1, "a series without samples leaves"
    assert head.bounds() == (3, 9)
    again = reopened(head)
    assert contents(again) == {UP_A: [(3, 3.0), (9, 9.0)]}
    again.close()


def test_a_younger_cut_may_be_dropped_before_an_older_one(head: Head) -> None:
    head.append(write_of({UP_A: [(1, 1.0), (5, 5.0), (9, 9.0)]}), now_ms=NOW)
    older, younger = head.cut(3), head.cut(7)
    assert older is not None and younger is not None
    head.drop(younger)
    assert contents(head) == {UP_A: [(1, 1.0), (9, 9.0)]}
    again = reopened(head)
    assert contents(again)[UP_A][0] == (1, 1.0), "what is in no block is replayed"
    again.close()


def test_segments_go_once_their_samples_are_in_blocks(tmp_path: Path) -> None:
    head = Head.open(tmp_path, options=HeadOptions(wal_sync="os", segment_size_bytes=1000), now_ms=NOW)
    for t in range(100):
        head.append(write_of({UP_A: [(t, float(t))]}), now_ms=NOW)
    before = head.stats().wal_segments
    cut = head.cut(90)
    assert cut is not None and before >= 5
    head.drop(cut)
    assert head.stats().wal_segments <= 2
    again = reopened(head)
    assert contents(again)[UP_A] == [(t, float(t)) for t in range(90, 100)]
    again.close()


def test_refs_of_series_that_left_are_given_to_others(head: Head) -> None:
    for turn in range(4):
        at = 1000 * turn
        head.append(write_of({series("m", turn=str(turn), i=str(i)): [(at + i, float(i))] for i in range(50)}), now_ms=NOW)
        head.append(write_of({DOWN: [(at + 500, 1.0)]}), now_ms=NOW)
        cut = head.cut(at + 500)
        assert cut is not None
        head.drop(cut)
        assert contents(head) == {DOWN: [(at + 500, 1.0)]}
        assert head.active_series == 1
    assert head._memory.index.room == 1024
    again = reopened(head)
    assert contents(again) == {DOWN: [(3500, 1.0)]}
    again.close()


def test_a_closed_head_refuses_writes(head: Head) -> None:
    head.close()
    with pytest.raises(Unavailable, match="closed"):
        head.append(write_of({UP_A: [(1, 1.0)]}), now_ms=NOW)


def test_a_reader_sees_whole_writes_while_others_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_memory, "MIN_LOG", 256)
    head = Head.open(tmp_path, options=OS, now_ms=NOW)
    rows = [series("m", i=str(i)) for i in range(20)]
    failures: list[str] = []

    def write(first: int) -> None:
        for t in range(first, first + 100):
            head.append(write_of({row: [(t, float(t))] for row in rows}), now_ms=NOW)

    def read() -> None:
        for _ in range(60):
            found = contents(head)
            if len({tuple(points) for points in found.values()}) > 1:
                failures.append("a write was seen in part")
            if any(value != t for points in found.values() for t, value in points):
                failures.append("a wrong value")

    threads = [Thread(target=write, args=(i * 1000,)) for i in range(3)] + [Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(map(len, contents(head).values())) == 3 * 100 * 20
    assert head.stats().sealed_samples > 0
    head.close()


STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), min_size=1, max_size=12)),
    st.tuples(st.just("cut"), st.integers(0, 61)),
    st.tuples(st.just("drop"), st.integers(0, 3)),
    st.tuples(st.just("reopen"), st.booleans()),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_any_order_of_appends_cuts_drops_and_restarts_keeps_what_is_in_no_block(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, object]]
) -> None:
    monkeypatch.setattr(head_memory, "MIN_LOG", 8)
    rows = [series(f"m{i % 3}", i=str(i)) for i in range(8)]
    directory = tmp_path_factory.mktemp("head")
    options = HeadOptions(wal_sync="os", segment_size_bytes=600)
    head = Head.open(directory, options=options, now_ms=NOW)
    ever: dict[tuple[int, int], float] = {}
    kept: set[tuple[int, int]] = set()
    cut_keys: dict[object, set[tuple[int, int]]] = {}
    for verb, argument in steps:
        if verb == "append":
            assert isinstance(argument, list)
            keys = dict.fromkeys(argument)
            write = {rows[i]: [(t, i + t / 100) for j, t in keys if j == i] for i in {i for i, _ in keys}}
            assert head.append(write_of(write), now_ms=NOW).samples == len(keys)
            kept |= keys.keys() - ever.keys()
            ever |= {(i, t): i + t / 100 for i, t in keys}
        elif verb == "cut":
            assert isinstance(argument, int)
            cut = head.cut(argument)
            if cut is not None:
                taken = {(i, t) for i, t in kept if t < argument} - set().union(*cut_keys.values())
                cut_keys[cut] = taken
                found = {(rows.index(row), t) for row, points in contents(cut).items() for t, _ in points}
                assert taken <= found <= ever.keys()
        elif verb == "drop" and head.cuts:
            assert isinstance(argument, int)
            cut = head.cuts[argument % len(head.cuts)]
            head.drop(cut)
            kept -= cut_keys.pop(cut)
        elif verb == "reopen":
            if argument:
                head.close()
            head = Head.open(directory, options=options, now_ms=NOW)
            cut_keys.clear()
        seen = {(rows.index(row), t): value for row, points in contents(head).items() for t, value in points}
        assert kept <= seen.keys(), "an acknowledged sample is lost"
        assert seen.items() <= ever.items(), "a sample nobody sent"
    head.close()


def test_selection_bounds_are_the_whole_of_time() -> None:
    assert (ALL.start_ms, ALL.end_ms) == (MIN_MS, MAX_MS)

"""The head's kernels: compiled and as plain Python they do the same, and label bytes from outside are never trusted."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.writes import label_ranges, series
from tsdb.kernel.append import (
    CONFLICT,
    DUPLICATE,
    NEVER_MS,
    NO_SERIES,
    PIECE_BYTES,
    STORED,
    TOO_NEW,
    TOO_OLD,
    LogColumns,
    SeriesTableArrays,
    add_series,
    append_samples,
    chain_places,
    find_series,
    hash_ranges,
    metric_names,
    number_labels,
)
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME, decode_labels


@pytest.fixture(autouse=True)
def plain_python_wraps_like_machine_words() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def table(slots: int, room: int) -> SeriesTableArrays:
    return SeriesTableArrays(
        np.full(slots, -1, np.int32), np.zeros(room, np.uint64), np.zeros(room, np.int64), np.full(room, -1, np.int32),
        np.zeros(64, np.int32), np.full(64, -1, np.int32), np.zeros(65, np.int64), np.zeros(4096, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("mask", [0xFFFFFFFFFFFFFFFF, 3, 0])
def test_series_are_found_by_their_bytes_however_hashes_collide(compiled: bool, mask: int) -> None:
    find, add = (find_series, add_series) if compiled else (find_series.py_func, add_series.py_func)
    rows = [series("m", host="h" * PIECE_BYTES, i=str(i)) for i in range(12)]
    data, start, end, hashes = label_ranges(rows)
    hashes = hashes & np.uint64(mask)
    arrays, refs = table(32, 16), np.full(12, -1, np.int32)
    assert find(arrays, data, start, end, hashes, refs) == 12 and set(refs.tolist()) == {-1}
    which = np.array([3, 5, 3, 7], np.int64)
    fresh = np.array([4, 2, 9, 0], np.int32)
    taken, used, pieces = add(arrays, 0, 0, data, start, end, hashes, which, fresh, refs)
    assert taken == 3, "a series twice takes one ref"
    assert used == 6 and pieces == 4, "what series have in common is kept once"
    kept = [arrays.arena[a:b].tobytes() for a, b in zip(arrays.piece_at[:4], arrays.piece_at[1:5], strict=True)]
    assert b"".join(kept[k] for k in arrays.pieces[:2]) == rows[3].encode()
    refs[:] = -1
    assert find(arrays, data, start, end, hashes, refs) == 9
    assert [(i, int(r)) for i, r in enumerate(refs) if r >= 0] == [(3, 4), (5, 2), (7, 9)]


SAMPLES = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 20), st.integers(0, 3)), max_size=30)


@settings(deadline=None)  # the first example compiles
@given(rows=SAMPLES, floor_ms=st.integers(0, 20), ceiling_ms=st.integers(10, 25))
def test_append_does_what_its_plain_python_does_and_what_it_says(
    rows: list[tuple[int, int, int]], floor_ms: int, ceiling_ms: int
) -> None:
    results = []
    for kernel in (append_samples, append_samples.py_func):
        count = len(rows)
        log = LogColumns(np.zeros(40, np.int32), np.zeros(40, np.int32), np.zeros(40, np.int64), np.zeros(40, np.int64))
        newest = np.array([[NEVER_MS, 0]] * 4, np.int64)
        last = np.full(4, -1, np.int32)
        refs = np.array([0, 1, 2, 3, -1], np.int32)
        row, t_ms, bits = (np.array([r[k] for r in rows], d) for k, d in enumerate((np.int32, np.int64, np.int64)))
        row[row < 0] = 4
        code, ref, saved = np.zeros(count, np.uint8), np.zeros(count, np.int32), np.zeros((count, 2), np.int64)
        end = kernel(log, 5, last, newest, refs, row, t_ms, bits, floor_ms, ceiling_ms, code, ref, saved)
        results.append(
            [end, code.tolist(), ref.tolist(), newest.tolist(), last.tolist(), *(column[5:end].tolist() for column in log)]
        )
    assert results[0] == results[1]
    seen: dict[tuple[int, int], int] = {}
    newest_ms: dict[int, int] = {}
    for (series_row, t, bit), code_ in zip(rows, results[0][1], strict=True):
        known = seen.get((series_row, t))
        if t > ceiling_ms:
            want = TOO_NEW
        elif series_row < 0:
            want = NO_SERIES
        elif t < newest_ms.get(series_row, NEVER_MS) and t < floor_ms:
            want = TOO_OLD
        elif known is not None:
            want = DUPLICATE if known == bit else CONFLICT
        else:
            want = STORED
            seen[series_row, t] = bit
            newest_ms[series_row] = max(t, newest_ms.get(series_row, NEVER_MS))
        assert code_ == want


@settings(deadline=None)  # the first example compiles
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30), low=st.integers(0, 20), room=st.integers(0, 40)
)
def test_chains_give_each_series_in_the_order_of_arrival(rows: list[tuple[int, int]], low: int, room: int) -> None:
    prev, t_ms, last = np.zeros(40, np.int32), np.zeros(40, np.int64), np.full(4, -1, np.int32)
    for place, (ref, t) in enumerate(rows):
        prev[place], t_ms[place], last[ref] = last[ref], t, place
    count = len(rows) * 2 // 3
    refs = np.array([2, 0, 3], np.int32)
    wanted = [[p for p in range(count) if rows[p][0] == ref and low <= rows[p][1] < 15] for ref in refs.tolist()]
    for kernel in (chain_places, chain_places.py_func):
        lengths, out = np.zeros(3, np.int64), np.zeros(room, np.int64)
        total = kernel(prev, t_ms, last, count, refs, low, 15, lengths, out)
        assert lengths.tolist() == [len(part) for part in wanted] and total == sum(lengths)
        if total <= room:
            assert out[:total].tolist() == [place for part in wanted for place in part]


@settings(max_examples=300)
@given(data=st.binary(max_size=60), flip=st.integers(0, 10_000))
def test_label_bytes_from_outside_are_read_like_decode_labels_reads_them(data: bytes, flip: int) -> None:
    whole = bytearray(series("up", job="a", zone="eu").encode() if flip % 3 else data)
    if flip % 3 == 1:
        whole[flip % len(whole)] ^= 1 << flip % 8
    array = np.frombuffer(bytes(whole), np.uint8).copy()
    start, end, which = np.zeros(1, np.int64), np.array([len(whole)], np.int64), np.zeros(1, np.int64)
    name_start, name_end = np.zeros(1, np.int64), np.zeros(1, np.int64)
    wrong = metric_names(array, start, end, which, name_start, name_end)
    again = metric_names.py_func(array, start, end, which, np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert wrong == again
    try:
        labels = decode_labels(bytes(whole))
    except BadData:
        return  # the kernel may take text that is no UTF-8; whoever received it has checked that
    if wrong < 0:
        assert bytes(whole[int(name_start[0]) : int(name_end[0])]).decode() == labels.get(METRIC_NAME)


def test_labels_are_numbered_once_each() -> None:
    rows = [series("up", job="a", zone="a"), series("down", job="a"), series("up", up="job")]
    data, start, end, _ = label_ranges(rows)
    for kernel in (number_labels, number_labels.py_func):
        symbol_start, symbol_end = np.zeros(30, np.int64), np.zeros(30, np.int64)
        pairs = [np.zeros(30, np.int32) for _ in range(3)]
        count, symbols = kernel(data, end - start, np.full(64, -1, np.int32), symbol_start, symbol_end, *pairs)
        texts = [data[a:b].tobytes().decode() for a, b in zip(symbol_start[:symbols], symbol_end[:symbols], strict=True)]
        assert len(set(texts)) == symbols
        found = [(int(r), texts[n], texts[v]) for r, n, v in zip(*(column[:count] for column in pairs), strict=True)]
        assert found == [(i, name, value) for i, row in enumerate(rows) for name, value in row]


def test_hashes_of_ranges_are_those_of_labels() -> None:
    rows = [series("up", job="a" * n) for n in range(0, 90, 7)]
    data, start, end, _ = label_ranges(rows)
    assert hash_ranges(data, start, end).tolist() == [row.stable_hash() for row in rows]

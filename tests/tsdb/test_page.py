"""Pages: whole, clipped, damaged; every float, native histograms, start times and further columns."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import NASTY, batches, grid_batch, histogram_batch, histogram_texts, same_samples
from tsdb.block import page as page_file
from tsdb.block.page import Series, decode_page, encode_page, open_page, page_columns
from tsdb.compaction.downsample import downsample
from tsdb.model.errors import Corrupt
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.windows import COLUMNS


def round_trip(batch: SeriesBatch) -> SeriesBatch:
    columns = decode_page(encode_page(batch))
    return SeriesBatch(
        batch.series, columns.offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at, columns.start_ms
    )


@given(batches(max_samples=30, max_ms=1 << 40))
@settings(max_examples=200)
def test_any_batch_comes_back_bit_for_bit(batch: SeriesBatch) -> None:
    assert same_samples(round_trip(batch), batch)


def test_every_nasty_float_survives_in_every_company() -> None:
    bits = np.array([[nasty, *[company] * 39] for nasty in NASTY for company in NASTY], np.int64)
    t_ms = np.tile(np.arange(40, dtype=np.int64), len(bits))
    batch = SeriesBatch(SeriesTable.empty(len(bits)), np.arange(len(bits) + 1) * 40, t_ms, bits.ravel().view(np.float64))
    assert np.array_equal(decode_page(encode_page(batch)).values.view(np.int64), bits.ravel())


def test_a_page_of_nothing() -> None:
    assert decode_page(encode_page(SeriesBatch.empty())).offsets.tolist() == [0]
    hollow = SeriesBatch(SeriesTable.empty(3), np.zeros(4, np.int64), np.empty(0, np.int64), np.empty(0))
    assert decode_page(encode_page(hollow)).offsets.tolist() == [0, 0, 0, 0]


def test_start_times_and_histograms_come_back() -> None:
    batch = histogram_batch(7, 40)
    batch = replace(batch, start_ms=batch.t_ms - 1000)
    back = round_trip(batch)
    assert same_samples(back, batch)
    assert histogram_texts(back) == histogram_texts(batch)


@pytest.mark.parametrize("rows", [[0], [3, 4, 6], [1, 2, 5], [], list(range(7))])
def test_histograms_of_some_series_are_those_of_the_whole_page(rows: list[int]) -> None:
    batch = histogram_batch(7, 40)
    local = np.array(rows, np.int64)
    columns = page_columns(open_page(encode_page(batch)), local)
    series = batch.series.take(local)
    back = SeriesBatch(series, columns.offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at)
    assert same_samples(back, batch.take(local)) and histogram_texts(back) == histogram_texts(batch.take(local))
    assert back.histograms is not None and len(back.histograms) == np.count_nonzero(back.histogram_at >= 0)


def test_histograms_code_as_counters() -> None:
    batch = histogram_batch(20, 200)
    assert len(encode_page(batch)) < 12 * batch.samples


def test_windows_are_columns_beside_the_values() -> None:
    batch = downsample(grid_batch(3, 500), 300_000)
    data = encode_page(batch)
    back = decode_page(data)
    assert back.windows is not None and np.array_equal(back.windows, batch.windows) and np.array_equal(back.values, batch.values)
    with pytest.raises(Corrupt, match="its columns are"):
        open_page(encode_page_with_columns(batch, "count", "summ"))


def encode_page_with_columns(batch: SeriesBatch, old: str, new: str) -> bytes:
    """The page as a later version might write it, with a column that this one does not know."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_file, "COLUMNS", tuple(new if name == old else name for name in COLUMNS))
        return encode_page(batch)


@given(batches(), st.integers(-5, 45), st.integers(-5, 45), st.randoms())
@settings(max_examples=100)
def test_any_rows_and_any_range_can_be_read(batch: SeriesBatch, start_ms: int, end_ms: int, random) -> None:
    rows = np.array([i for i in range(len(batch)) if random.random() < 0.6], np.int64)
    page = open_page(encode_page(batch))
    low, size = page.spans(rows, start_ms, max(start_ms, end_ms))
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    wanted = batch.take(rows).where((batch.take(rows).t_ms >= start_ms) & (batch.take(rows).t_ms < end_ms))
    for values in (None, page.whole_values()):
        t_ms, columns = np.zeros(int(offsets[-1]), np.int64), np.zeros((1, int(offsets[-1])))
        page.copy_series(Series(rows, low, size, offsets[:-1]), values, t_ms, columns, None)
        found = SeriesBatch(batch.series.take(rows), offsets, t_ms, columns[0])
        assert same_samples(found.take(np.flatnonzero(size)), wanted)


def test_small_pages_of_many_series_stay_small() -> None:
    batch = grid_batch(2000, 32)
    assert len(encode_page(batch)) < 1.6 * batch.samples


@pytest.mark.parametrize("make", [lambda: grid_batch(4, 60), lambda: histogram_batch(4, 20)])
def test_no_damage_crashes_the_reader(make) -> None:
    """Pages in a block lie under a checksum; even without it the kernels stay inside their arrays."""
    good = encode_page(make())
    rng = np.random.default_rng(3)
    for _ in range(1500):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        try:
            decode_page(bytes(bad))
        except Corrupt:
            continue
    for cut in range(0, len(good), 7):
        with pytest.raises(Corrupt):
            decode_page(good[:cut])

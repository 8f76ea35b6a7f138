"""The cache of pages: values are kept of pages wanted again, within bounds, and more than fits does not push out what is used."""

import numpy as np
import pytest

from tests.tsdb.batches import grid_batch
from tsdb.block.page import Page, PageValues, encode_page
from tsdb.block.page_cache import KEEP_FROM, PageCache
from tsdb.block.value_cache import IDLE_S, ValueCache

BATCH = grid_batch(64, 100)


def opened(cache: PageCache) -> Page:
    cache.open(("page",), encode_page(BATCH))
    found = cache.find([("page",)])[0]
    assert found is not None
    return found


def values(number: int) -> PageValues:
    return PageValues.of(np.full(10, float(number)), np.array([0, 10]))


def read(cache: ValueCache, number: int) -> bool:
    """Whether the values of page `number`, 80 bytes, are kept."""
    found = cache.get((number,), 80, lambda: values(number))
    assert found is None or found.values[0] == number
    return found is not None


def test_values_are_those_of_the_page() -> None:
    cache = PageCache(1 << 20)
    assert cache.find([("page",), ("other",)]) == [None, None]
    kept = cache.values_of(("page",), opened(cache), len(BATCH))
    assert kept is not None
    assert np.array_equal(kept.values.view(np.int64), BATCH.values.view(np.int64)) and np.array_equal(kept.at, BATCH.offsets)
    assert cache.values_of(("page",), opened(cache), len(BATCH)) is kept


def test_few_series_of_a_page_do_not_make_it_decoded_whole() -> None:
    cache = PageCache(1 << 20)
    page = opened(cache)
    assert cache.values_of(("page",), page, len(BATCH) // KEEP_FROM - 1) is None and cache.values.size_bytes == 0
    kept = cache.values_of(("page",), page, len(BATCH) // KEEP_FROM)
    assert kept is not None
    assert cache.values_of(("page",), page, 1) is kept, "what is kept serves few series too"


def test_both_halves_are_bounded() -> None:
    cache = PageCache(2 * 8 * BATCH.samples - 2)  # a byte less than the values need
    assert cache.values_of(("page",), opened(cache), len(BATCH)) is None
    small = PageCache(2000)
    small.open(("page",), encode_page(BATCH))
    assert small.size_bytes == 0 and small.find([("page",)]) == [None]


def test_who_reads_more_than_fits_finds_a_part_every_time() -> None:
    cache = ValueCache(limit_bytes=800)
    for turn in range(5):
        kept = [read(cache, number) for number in range(100)]
        assert kept == [True] * 10 + [False] * (len(kept) - 10), turn
        assert cache.size_bytes == 800


def test_what_is_used_no_more_makes_room() -> None:
    now = [0.0]
    cache = ValueCache(limit_bytes=800, clock=lambda: now[0])
    for number in range(10):
        assert read(cache, number)
    now[0] = IDLE_S - 1
    assert read(cache, 3) and not read(cache, 100)
    now[0] = IDLE_S
    assert [read(cache, number) for number in range(100, 110)] == [True] * 9 + [False]
    assert read(cache, 3), "used meanwhile"
    assert cache.size_bytes == 800


def test_one_page_over_the_limit_pushes_nothing_out() -> None:
    cache = ValueCache(limit_bytes=800)
    assert read(cache, 1)
    for _ in range(40):
        assert cache.get(("large",), 801, lambda: values(0)) is None
    assert read(cache, 1) and cache.hits == 1


def test_a_page_that_cannot_be_decoded_takes_no_room() -> None:
    cache = ValueCache(limit_bytes=800)

    def fail() -> PageValues:
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError):
            cache.get((1,), 800, fail)
    assert cache.size_bytes == 0 and read(cache, 1)

"""The kernels over many pages against themselves as plain Python, which reads the same addresses."""

from dataclasses import replace

import numpy as np
import pytest

from tests.tsdb.batches import grid_batch
from tsdb.block.page import EVERY_SAMPLE, NO_TIMES, Page, encode_page, open_page
from tsdb.compaction.downsample import downsample
from tsdb.kernel import pages
from tsdb.model.series import SeriesBatch

I64 = np.int64


def page_of(batch: SeriesBatch) -> Page:
    return open_page(encode_page(batch))


def placed(kernel: object, words: np.ndarray, bounds: np.ndarray, grid: np.ndarray = EVERY_SAMPLE) -> list[np.ndarray]:
    """counts, low, high, size and to of two shares: series 1 and 3 of the first page are rows 0 and 1, series 0 to 2 of the other
    all."""
    share_at, local, rows = np.array([0, 2, 5]), np.array([1, 3, 0, 1, 2]), np.array([0, 1, 0, 1, 2])
    counts, (low, high, size, to) = np.zeros(3, I64), np.zeros((4, 5), I64)
    kernel(words, share_at, local, rows, bounds, grid, counts, low, high, size, to)  # type: ignore[operator]
    return [counts, low, high, size, to, share_at, local, rows]


@pytest.mark.parametrize("bounds", [(-1, 1 << 60), (60_000, 300_000), (5, 6), (1 << 50, 1 << 60)])
def test_places_compiled_and_as_python(bounds: tuple[int, int]) -> None:
    two = [page_of(grid_batch(5, 30, seed=seed)) for seed in (1, 2)]
    words, of_each = np.stack([page.words for page in two]), np.array([bounds, bounds])
    compiled, plain = (placed(kernel, words, of_each) for kernel in (pages.place_shares, pages.place_shares.py_func))
    assert all(np.array_equal(a, b) for a, b in zip(compiled, plain, strict=True))
    counts, low, high, size, to, share_at, local, _ = compiled
    assert np.array_equal(high - low, size)
    for s, page in enumerate(two):
        part = slice(share_at[s], share_at[s + 1])
        want_low, want_size = page.spans(local[part], *bounds)
        assert np.array_equal(size[part], want_size) and np.array_equal(low[part][want_size > 0], want_low[want_size > 0])
    assert to[:2].tolist() == [0, 0] and to[2:].tolist() == [size[0], size[1], 0]
    assert counts.tolist() == [size[0] + size[2], size[1] + size[3], size[4]]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("kind", ["raw", "starts", "windows", "mixed"])
def test_samples_compiled_and_as_python(kind: str, kept: bool) -> None:
    raw = grid_batch(5, 30, seed=3)
    batches = [raw, grid_batch(5, 30, seed=4)]
    if kind == "starts":
        batches[0] = replace(raw, start_ms=np.where(raw.t_ms > 100_000, 90_000, 0))
    elif kind != "raw":
        coarse = [downsample(batch, 60_000) for batch in batches]
        batches = coarse if kind == "windows" else [coarse[0], batches[1]]
    two = [page_of(batch) for batch in batches]
    values = [page.whole_values() if kept and not page.names else None for page in two]
    words = np.stack([page.words_with(known) for page, known in zip(two, values, strict=True)])
    shares = placed(pages.place_shares, words, np.array([(0, 200_000), (200_000, 1 << 60)]))
    counts, low, high, size, to, share_at, local, rows = shares
    offsets = np.concatenate([[0], np.cumsum(counts)])
    wide = 13 if kind in ("windows", "mixed") else 1
    wanted = np.arange(wide) % 3 == 0
    results = []
    for kernel in (pages.copy_shares, pages.copy_shares.py_func):
        t_ms, columns, start_ms = np.zeros(offsets[-1], I64), np.zeros((wide, offsets[-1])), np.full(offsets[-1], -1)
        kernel(words, share_at, local, low, high, size, to + offsets[rows], EVERY_SAMPLE, wanted, t_ms, columns, start_ms)
        results.append((t_ms, columns.view(I64), start_ms))
    for compiled, plain in zip(*results, strict=True):
        assert np.array_equal(compiled, plain)
    t_ms, columns, start_ms = results[0]
    assert (t_ms > 0).any() and columns[0].any() and (start_ms >= 0).all() and start_ms.any() == (kind == "starts")


@pytest.mark.parametrize("reach", [0, 1, 20_000, 44_999])
@pytest.mark.parametrize("grid", [(7_000, 60_000), (-3_000, 45_000), (100_000, 1), (250_000, 1 << 50)])
def test_only_what_is_seen_from_a_grid(grid: tuple[int, int], reach: int) -> None:
    grid = (*grid, reach)
    two = [page_of(grid_batch(5, 30, seed=seed)) for seed in (6, 7)]
    kept = two[0].whole_values()  # the other's are decoded for this
    words, bounds = np.stack([two[0].words_with(kept), two[1].words]), np.array([(20_000, 400_000), (400_000, 1 << 60)])
    found = [placed(kernel, words, bounds, np.array(grid)) for kernel in (pages.place_shares, pages.place_shares.py_func)]
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    counts, low, high, size, to, share_at, local, rows = found[0]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    for kernel in (pages.copy_shares, pages.copy_shares.py_func):
        t_ms, values = np.zeros(offsets[-1], I64), np.zeros((1, offsets[-1]))
        places = (share_at, local, low, high, size, to + offsets[rows], np.array(grid), np.ones(1, bool))
        kernel(words, *places, t_ms, values, NO_TIMES)
        for k, page in enumerate([two[0]] * 2 + [two[1]] * 3):
            begin = page.time_at[page.time_ref[local[k]]]
            times = page.times[begin + low[k] : begin + high[k]]
            own = page.whole_values().values[page.whole_values().at[local[k]] + low[k] :][: len(times)]
            cells = -((grid[0] - times) // grid[1])  # the number of the first time of the grid that is not before it
            newest = np.append(np.diff(cells) > 0, np.ones(min(len(times), 1), bool))
            seen = (grid[0] - times) % grid[1] < reach if reach else newest
            mine = slice(offsets[rows[k]] + to[k], offsets[rows[k]] + to[k] + size[k])
            assert np.array_equal(t_ms[mine], times[seen])
            assert np.array_equal(values[0, mine].view(I64), own[seen].view(I64))


def test_what_is_not_wanted_is_left_alone() -> None:
    page = page_of(grid_batch(5, 30, seed=5))
    every, values = np.arange(5), np.zeros((1, page.samples))
    to = np.cumsum(page.counts) - page.counts
    pages.copy_shares(
        page.words[None], np.array([0, 5]), every, 0 * every, page.counts, page.counts, to, EVERY_SAMPLE, np.ones(1, bool),
        NO_TIMES, values, NO_TIMES,
    )  # fmt: skip
    assert np.array_equal(values[0], page.whole_values().values)

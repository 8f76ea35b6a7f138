"""Shares of pages joined to one batch: every page is decoded, or copied if it is decoded, straight to where its samples belong."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tsdb.block.page import EVERY_SAMPLE, NO_TIMES, Page, PageValues, page_histograms
from tsdb.kernel.pages import WORDS, copy_shares, place_shares
from tsdb.kernel.ranges import copy_ranges
from tsdb.merge import merge_batches, without_covered
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.series import I64, SeriesBatch, SeriesTable
from tsdb.model.source import MIN_MS, Grid
from tsdb.model.windows import wanted_columns
from tsdb.model.work import submit

SPLIT_SAMPLES = 100_000
"""A batch with fewer samples is decoded in less time than it takes to hand a half of it to a thread."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a page gives to a batch: its series `local` i64[r] are series `rows` i64[r] of it, ascending, in [start_ms, end_ms).

    `values` are those of the whole page, where they are decoded already.
    """

    page: Page
    local: I64
    rows: I64
    start_ms: int
    end_ms: int
    values: PageValues | None = None


def join_shares(
    table: SeriesTable,
    shares: Sequence[Share],
    executor: Executor | None = None,
    *,
    apart: bool = True,
    keep_empty: bool = False,
    columns: Sequence[str] | None = None,
    grid: Grid | None = None,
) -> SeriesBatch:
    """The batch of those series of `table` that have samples in the shares, or of all where `keep_empty`.

    Where some pages hold windows and others raw samples, these become windows of one; those that lie in a window are left out. Of
    window columns there are only those that are named (None = all), others are of no meaning. Of floats only those samples are
    copied that are seen from a time of the grid, if there is one.

    Shares of one series come by rising time and do not overlap; if the caller does not know that (`apart`), it is found out, and
    those that do are merged. About 4 ns a sample, 2 if it is decoded, shared among the executor's threads.
    """
    if not apart:
        layers = _layers(shares, len(table))
        if len(layers) > 1:
            return merge_batches([join_shares(table, layer, executor, columns=columns, grid=grid) for layer in layers], columns)
        shares = layers[0] if layers else []
    rule = _rule(shares, grid)
    placed = _place(shares, len(table), rule)
    total = int(placed.offsets[-1])
    t_ms = np.empty(total, np.int64)
    floats = np.empty((1 + max((len(share.page.names) for share in shares), default=0), total))
    wanted = np.ones(len(floats), bool)
    wanted[1:] = wanted_columns(columns)[: len(floats) - 1]
    start_ms = np.empty(total, np.int64) if any(share.page.with_start for share in shares) else None

    def copy(first: int, last: int) -> None:
        starts = NO_TIMES if start_ms is None else start_ms
        copy_shares(
            placed.words[first:last], placed.share_at[first : last + 1], placed.local, placed.low, placed.high, placed.size,
            placed.to, rule, wanted, t_ms, floats, starts,
        )  # fmt: skip

    half = len(shares) // 2
    if executor is not None and half and int((placed.high - placed.low).sum()) >= SPLIT_SAMPLES:
        other = submit(executor, partial(copy, 0, half))
        copy(half, len(shares))
        other.result()
    else:
        copy(0, len(shares))
    windows = floats[1:] if len(floats) > 1 else None
    histograms, histogram_at = _histograms(shares, placed, executor)
    batch = SeriesBatch(table, placed.offsets, t_ms, floats[0], histograms, histogram_at, start_ms, windows=windows)
    batch = batch if keep_empty else _without_empty(batch)
    return without_covered(batch) if len({share.page.names for share in shares}) > 1 else batch


def _layers(shares: Sequence[Share], count: int) -> list[list[Share]]:
    """The shares in as few lists as need be for no series, of `count`, to have samples twice at a time; by rising time in each."""
    layers: list[list[Share]] = []
    last_ms: list[I64] = []
    for share in sorted(shares, key=lambda share: share.page.min_ms):
        page = share.page
        low, size = page.spans(share.local, share.start_ms, share.end_ms)
        some = np.flatnonzero(size)
        at, rows = page.time_at[page.time_ref[share.local[some]]] + low[some], share.rows[some]
        first, last = page.times[at], page.times[at + size[some] - 1]
        free = next((i for i, until in enumerate(last_ms) if (until[rows] < first).all()), len(layers))
        if free == len(layers):
            layers.append([])
            last_ms.append(np.full(count, MIN_MS, np.int64))
        layers[free].append(share)
        last_ms[free][rows] = last
    return layers


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where the samples of shares stand in their pages and in the batch, for `copy_shares`; offsets i64[n+1] of the batch."""

    words: I64
    share_at: I64
    local: I64
    low: I64
    high: I64
    size: I64
    to: I64
    offsets: I64


def _rule(shares: Sequence[Share], grid: Grid | None) -> I64:
    """The grid for the kernels; that of every sample where more depends on which there are than their times and values."""
    more = any(share.page.names or share.page.with_start or share.page.layout is not None for share in shares)
    return EVERY_SAMPLE if grid is None or more else np.array([grid.at_ms, grid.every_ms, grid.range_ms])


def _place(shares: Sequence[Share], count: int, rule: I64) -> _Placed:
    """The shares of a batch of `count` series one behind another."""
    words = np.array([share.page.words_with(share.values) for share in shares], np.int64).reshape(-1, WORDS)
    bounds = np.array([(share.start_ms, max(share.start_ms, share.end_ms)) for share in shares], np.int64).reshape(-1, 2)
    share_at = np.cumsum([0, *(len(share.local) for share in shares)])
    local = np.concatenate([*(share.local for share in shares), NO_TIMES])
    rows = np.concatenate([*(share.rows for share in shares), NO_TIMES])
    counts = np.zeros(count, np.int64)
    low, high, size, to = np.empty((4, len(local)), np.int64)
    place_shares(words, share_at, local, rows, bounds, rule, counts, low, high, size, to)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    to += offsets[rows]
    return _Placed(words, share_at, local, low, high, size, to, offsets)


def _without_empty(batch: SeriesBatch) -> SeriesBatch:
    counts = np.diff(batch.offsets)
    if counts.all():
        return batch
    keep = np.flatnonzero(counts)
    offsets = np.append(batch.offsets[:-1][keep], batch.offsets[-1])
    return replace(batch, series=batch.series.take(keep), offsets=offsets)


def _histograms(shares: Sequence[Share], placed: _Placed, executor: Executor | None) -> tuple[Histograms | None, I64 | None]:
    """(the histograms of all shares, the one i64[m] of each sample or -1); (None, None) where no page has any."""
    native = [i for i, share in enumerate(shares) if share.page.layout is not None]
    if not native:
        return None, None
    out, count = np.full(int(placed.offsets[-1]), -1, np.int64), 0
    spans = [slice(*placed.share_at[i : i + 2].tolist()) for i in native]
    asked = [(shares[i], placed.low[span], placed.size[span]) for i, span in zip(native, spans, strict=True)]
    parts = list((map if executor is None else executor.map)(_own_histograms, *zip(*asked, strict=True)))
    for span, (histograms, at) in zip(spans, parts, strict=True):
        size = placed.size[span]
        copy_ranges(np.where(at >= 0, at + count, -1), np.cumsum(size) - size, size, out, placed.to[span])
        count += len(histograms)
    return concat_histograms([histograms for histograms, _ in parts]), out


def _own_histograms(share: Share, low: I64, size: I64) -> tuple[Histograms, I64]:
    """(the histograms of a share, the one i64[m] of each of its samples or -1)."""
    page, local = share.page, share.local
    assert page.layout is not None, "asked only of pages with histograms"
    histograms, at = page_histograms(page, page.layout, local)
    if int(size.sum()) == len(at):
        return histograms, at
    ends = np.cumsum(size)
    first = np.cumsum(page.counts[local]) - page.counts[local] + low
    chosen = np.empty(int(size.sum()), np.int64)
    copy_ranges(at, first, size, chosen, ends - size)
    used = np.flatnonzero(chosen >= 0)
    histograms = histograms.take(chosen[used])
    chosen[used] = np.arange(len(used))
    return histograms, chosen

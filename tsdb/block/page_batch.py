"""Shares of pages joined to one batch: every page is decoded, or copied if it is decoded, straight to where its samples belong."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from tsdb.block.page import Page, PageValues, Series, page_histograms
from tsdb.kernel.ranges import copy_ranges
from tsdb.merge import merge_batches, without_covered
from tsdb.model.histogram import Histograms, concat_histograms
from tsdb.model.series import F64, I64, Bool, SeriesBatch, SeriesTable
from tsdb.model.source import MIN_MS
from tsdb.model.windows import wanted_columns

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
) -> SeriesBatch:
    """The batch of those series of `table` that have samples in the shares, or of all where `keep_empty`.

    Where some pages hold windows and others raw samples, these become windows of one; those that lie in a window are left out. Of
    window columns there are only those that are named (None = all), others are of no meaning.

    Shares of one series come by rising time and do not overlap; if the caller does not know that (`apart`), it is found out, and
    those that do are merged. About 4 ns a sample, 2 if it is decoded, shared among the executor's threads.
    """
    if not apart:
        layers = _layers(shares, len(table))
        if len(layers) > 1:
            return merge_batches([join_shares(table, layer, executor, columns=columns) for layer in layers], columns)
        shares = layers[0] if layers else []
    counts = np.zeros(len(table), np.int64)
    placed = [_place(share, counts) for share in shares]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    t_ms = np.empty(total, np.int64)
    shape = (1 + max((len(share.page.names) for share in shares), default=0), total)
    floats = np.empty(shape)
    wanted = np.append(True, wanted_columns(columns))
    start_ms = np.empty(total, np.int64) if any(share.page.with_start for share in shares) else None

    def fill(part: Sequence[_Placed]) -> None:
        for one in part:
            _fill(one, offsets, t_ms, floats, start_ms, wanted)

    half = len(placed) // 2
    if executor is not None and half and total >= SPLIT_SAMPLES:
        other = executor.submit(fill, placed[:half])
        fill(placed[half:])
        other.result()
    else:
        fill(placed)
    windows = floats[1:] if len(floats) > 1 else None
    histograms, histogram_at = _histograms(placed, offsets, executor)
    batch = SeriesBatch(table, offsets, t_ms, floats[0], histograms, histogram_at, start_ms, windows=windows)
    batch = batch if keep_empty or counts.all() else _drop_empty(batch, counts)
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
    """A share; of its series the samples from `low` on, `size` of them, go to `to` behind the offset of their row; i64[r] each."""

    share: Share
    low: I64
    size: I64
    to: I64


def _place(share: Share, counts: I64) -> _Placed:
    """The share behind those already counted, which it is added to."""
    low, size = share.page.spans(share.local, share.start_ms, share.end_ms)
    to = counts[share.rows]
    counts[share.rows] = to + size
    return _Placed(share, low, size, to)


def _fill(placed: _Placed, offsets: I64, t_ms: I64, floats: F64, start_ms: I64 | None, wanted: Bool) -> None:
    share = placed.share
    to = placed.to + offsets[share.rows]
    share.page.copy_series(Series(share.local, placed.low, placed.size, to), share.values, t_ms, floats, start_ms, wanted)


def _drop_empty(batch: SeriesBatch, counts: I64) -> SeriesBatch:
    keep = np.flatnonzero(counts)
    offsets = np.append(batch.offsets[:-1][keep], batch.offsets[-1])
    return replace(batch, series=batch.series.take(keep), offsets=offsets)


def _histograms(placed: Sequence[_Placed], offsets: I64, executor: Executor | None) -> tuple[Histograms | None, I64 | None]:
    """(the histograms of all shares, the one i64[m] of each sample or -1); (None, None) where no page has any."""
    native = [one for one in placed if one.share.page.layout is not None]
    if not native:
        return None, None
    out, count = np.full(int(offsets[-1]), -1, np.int64), 0
    parts = list((map if executor is None else executor.map)(_own_histograms, native))
    for one, (histograms, at) in zip(native, parts, strict=True):
        to = one.to + offsets[one.share.rows]
        copy_ranges(np.where(at >= 0, at + count, -1), np.cumsum(one.size) - one.size, one.size, out, to)
        count += len(histograms)
    return concat_histograms([histograms for histograms, _ in parts]), out


def _own_histograms(placed: _Placed) -> tuple[Histograms, I64]:
    """(the histograms of a share, the one i64[m] of each of its samples or -1)."""
    page, local = placed.share.page, placed.share.local
    assert page.layout is not None, "asked only of pages with histograms"
    histograms, at = page_histograms(page, page.layout, local)
    if int(placed.size.sum()) == len(at):
        return histograms, at
    ends = np.cumsum(placed.size)
    first = np.cumsum(page.counts[local]) - page.counts[local] + placed.low
    chosen = np.empty(int(placed.size.sum()), np.int64)
    copy_ranges(at, first, placed.size, chosen, ends - placed.size)
    used = np.flatnonzero(chosen >= 0)
    histograms = histograms.take(chosen[used])
    chosen[used] = np.arange(len(used))
    return histograms, chosen

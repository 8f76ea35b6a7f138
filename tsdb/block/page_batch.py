"""Shares of pages joined to one batch: every page is decoded straight to where its samples belong."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from tsdb.block.page import Page, page_columns
from tsdb.merge import merge_batches
from tsdb.model.series import F64, I64, Bool, SeriesBatch, SeriesTable
from tsdb.model.windows import COLUMNS

SPLIT_SAMPLES = 100_000
"""A batch with fewer samples is decoded in less time than it takes to hand a half of it to a thread."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a page gives to a batch: its series `local` i64[r] are series `rows` i64[r] of it, ascending, in [start_ms, end_ms)."""

    page: Page
    local: I64
    rows: I64
    start_ms: int
    end_ms: int


def join_shares(
    table: SeriesTable, shares: Sequence[Share], executor: Executor | None = None, *, columns: Sequence[str] | None = None
) -> SeriesBatch:
    """The batch of those series of `table` that have samples in the shares; of window columns only these (None = all), others 0.

    Shares of one series come by rising time and do not overlap. About 4 ns a sample, shared among the executor's threads.
    """
    if any(share.page.layout is not None for share in shares):
        return merge_batches([_with_histograms(table, share) for share in shares])
    counts = np.zeros(len(table), np.int64)
    placed = [_place(share, counts) for share in shares]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    t_ms = np.empty(total, np.int64)
    shape = (1 + max((len(share.page.names) for share in shares), default=0), total)
    floats = np.empty(shape) if columns is None else np.zeros(shape)  # zeros that nobody looks at take no room
    wanted = None if columns is None else np.array([True, *(name in columns for name in COLUMNS)])
    start_ms = np.empty(total, np.int64) if any(share.page.with_start for share in shares) else None

    def decode(part: Sequence[_Placed]) -> None:
        for one in part:
            _decode(one, offsets, t_ms, floats, wanted, start_ms)

    half = len(placed) // 2
    if executor is not None and half and total >= SPLIT_SAMPLES:
        other = executor.submit(decode, placed[:half])
        decode(placed[half:])
        other.result()
    else:
        decode(placed)
    windows = floats[1:] if len(floats) > 1 else None
    batch = SeriesBatch(table, offsets, t_ms, floats[0], start_ms=start_ms, windows=windows)
    return batch if counts.all() else _drop_empty(batch, counts)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A share; samples low:high of each series of the page go to `to` behind the offset of its series, all i64[n]; -1 skips one."""

    share: Share
    low: I64
    high: I64
    to: I64


def _place(share: Share, counts: I64) -> _Placed:
    """The share behind those already counted, which it is added to."""
    low, high = share.page.spans(share.start_ms, share.end_ms)
    to = np.full(len(share.page), -1, np.int64)
    to[share.local] = counts[share.rows]
    counts[share.rows] += (high - low)[share.local]
    return _Placed(share, low, high, to)


def _decode(placed: _Placed, offsets: I64, t_ms: I64, floats: F64, wanted: Bool | None, start_ms: I64 | None) -> None:
    page, low, high, to = placed.share.page, placed.low, placed.high, placed.to
    to[placed.share.local] += offsets[placed.share.rows]
    page.copy_times(low, high, to, t_ms)
    if len(floats) == 1:
        page.copy_values(low, high, to, floats[0])
    else:
        page.copy_windows(low, high, to, floats, wanted)
    if start_ms is not None:
        page.copy_start(low, high, to, start_ms)


def _drop_empty(batch: SeriesBatch, counts: I64) -> SeriesBatch:
    keep = np.flatnonzero(counts)
    offsets = np.append(batch.offsets[:-1][keep], batch.offsets[-1])
    return replace(batch, series=batch.series.take(keep), offsets=offsets)


def _with_histograms(table: SeriesTable, share: Share) -> SeriesBatch:
    """One page's chosen series with their histograms."""
    columns = page_columns(share.page)
    whole = SeriesBatch(
        SeriesTable.empty(len(columns.offsets) - 1), columns.offsets, columns.t_ms, columns.values, columns.histograms,
        columns.histogram_at, columns.start_ms, windows=columns.windows,
    )  # fmt: skip
    chosen = whole if len(share.local) == len(whole) else whole.take(share.local)
    return replace(chosen, series=table.take(share.rows)).clip(share.start_ms, share.end_ms)

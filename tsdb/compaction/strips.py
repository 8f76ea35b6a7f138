"""Rows of long series, a stretch of time after another: the pages of a month of 128 series without the month in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np

from tsdb.block.block import Block, cells_of
from tsdb.block.index import Directory
from tsdb.block.page_batch import Share, join_shares
from tsdb.block.writer import MAX_SLABS, SLAB_SAMPLES, row_edges, slabs_of
from tsdb.merge import union_tables
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.series import I64, SeriesBatch, SeriesTable
from tsdb.model.source import Selection

STRIP_SLABS = 32
"""Slabs of ordinary length that a strip takes: 64 MiB of numbers."""

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Row:
    """Series that share their pages, and their samples by stretches of rising time: batches of all series, some of them empty."""

    series: SeriesTable
    strips: Iterator[SeriesBatch]
    slab_samples: int


@dataclass(frozen=True, slots=True)
class _Member:
    """A block and its directory; its row i is series places[i] of all, i64[r]."""

    block: Block
    directory: Directory
    places: I64
    failed: Callable[[str, Exception], Exception]


def long_rows(blocks: Sequence[Block], failed: Callable[[str, Exception], Exception]) -> Iterator[Row] | None:
    """The rows of blocks that follow one another by rising time, None where they are short enough to be held whole.

    A strip is what the pages of its time decode to, and is made when it is asked for. What `failed` makes of its ulid and error is
    raised where a block is damaged or gone.
    """
    found = [_attempt(block, failed, partial(_open, block)) for block in blocks]
    table, places = union_tables([series for series, _ in found])
    members = [_Member(block, directory, at, failed) for block, (_, directory), at in zip(blocks, found, places, strict=True)]
    words = _words(members, len(table))
    slabs = slabs_of(int(words[-1]), len(table))
    return _rows(members, table, words, slabs) if slabs > STRIP_SLABS else None


def _open(block: Block) -> tuple[SeriesTable, Directory]:
    index = block.index()
    return index.table(index.rows(())), index.directory()


def _attempt(block: Block, failed: Callable[[str, Exception], Exception], work: Callable[[], Made]) -> Made:
    try:
        return work()
    except (Corrupt, NotFound, BadData) as error:
        raise failed(block.meta.ulid, error) from error


def _rows(members: Sequence[_Member], table: SeriesTable, words: I64, slabs: int) -> Iterator[Row]:
    low, high = members[0].block.meta.min_ms, members[-1].block.meta.max_ms
    slab_samples = SLAB_SAMPLES * max(MAX_SLABS, slabs) // MAX_SLABS
    strips = -(-slabs // STRIP_SLABS)
    edges = [low + (high - low) * i // strips for i in range(strips + 1)]
    for a, b in row_edges(words, slabs):
        part = table.take(slice(a, b))
        yield Row(part, (_strip(members, part, a, b, start_ms, end_ms) for start_ms, end_ms in pairwise(edges)), slab_samples)


def _words(members: Sequence[_Member], series: int) -> I64:
    """i64[n+1] how many numbers the samples of all series before each have, by the average of its pages."""
    each = np.zeros(series)
    for member in members:
        directory = member.directory
        share = directory.words / (directory.row_to - directory.row_from)
        for a, b, words in zip(directory.row_from.tolist(), directory.row_to.tolist(), share.tolist(), strict=True):
            each[member.places[a:b]] += words
    return np.asarray(np.rint(np.concatenate([[0.0], np.cumsum(each)])), np.int64)


def _strip(members: Sequence[_Member], table: SeriesTable, a: int, b: int, start_ms: int, end_ms: int) -> SeriesBatch:
    """The samples of series [a, b), which `table` names, in [start_ms, end_ms)."""
    shares: list[Share] = []
    for member in members:
        meta = member.block.meta
        low_ms, high_ms = max(start_ms, meta.min_ms), min(end_ms, meta.max_ms)
        if low_ms < high_ms:
            shares += _attempt(member.block, member.failed, partial(_shares, member, a, b, low_ms, high_ms))
    return join_shares(table, shares, keep_empty=True)


def _shares(member: _Member, a: int, b: int, start_ms: int, end_ms: int) -> list[Share]:
    first, last = np.searchsorted(member.places, [a, b])
    rows = np.arange(first, last)
    cells = cells_of(member.directory, rows, Selection((), start_ms, end_ms))
    numbers = [cell.page for cell in cells]
    return [
        Share(
            loaded.page, rows[cell.a : cell.b] - int(member.directory.row_from[cell.page]),
            member.places[rows[cell.a : cell.b]] - a, start_ms, end_ms,
        )
        for cell, loaded in zip(cells, member.block.load_pages(member.directory, numbers), strict=True)
    ]  # fmt: skip

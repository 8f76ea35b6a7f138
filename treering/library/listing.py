"""Whole listings over a `Source`: the series, names, values and samples behind the metadata API and the Python store."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.answer import Answer
from promql.matrix import Matrix
from tsdb.merge import merge_batches
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable, concat_tables
from tsdb.model.source import Selection, Source

TRUNCATED = "results truncated due to limit"

Sets = Sequence[tuple[Matcher, ...]]
"""Matcher sets of which any may match; an empty set matches every series."""


def truncate(answer: Answer, limit: int) -> Answer:
    """The first `limit` series of an answer (0 = all), with a warning if that cut any."""
    if not limit or not isinstance(answer.value, Matrix) or len(answer.value) <= limit:
        return answer
    cut = answer.value.take(np.arange(limit))
    return replace(answer, value=cut, warnings=(*answer.warnings, TRUNCATED))


def select_all(source: Source, matchers: tuple[Matcher, ...], *, start_ms: int, end_ms: int) -> SeriesBatch:
    """All matching series with their samples in [start_ms, end_ms), in one batch."""
    batches = list(source.select(Selection(matchers, start_ms, end_ms)))
    return merge_batches(batches) if batches else SeriesBatch.empty()


def values_of(table: SeriesTable, name: str) -> list[str]:
    """The values of a label, ascending."""
    used = np.unique(table.column(name))
    return sorted(table.texts(used[used >= 0]).tolist())


def names_of(table: SeriesTable) -> list[str]:
    """The label names that any series has."""
    return [name for name, ids in zip(table.names, table.ids, strict=True) if bool(np.any(ids >= 0))]


def union_of(source: Source, sets: Sets, *, start_ms: int, end_ms: int) -> SeriesTable:
    """The series that match any of the matcher sets, each once, in the order of series; [start_ms, end_ms]."""
    tables = [source.series(Selection(matchers, start_ms, end_ms + 1)) for matchers in sets]
    if len(tables) == 1:
        return tables[0]
    table = concat_tables(tables)
    _, first = table.group()
    table = table.take(first)
    return table.take(table.order())

from collections.abc import Iterator

import numpy as np
import pytest

from promql.answer import Answer
from promql.matrix import Matrix, Steps
from promql.syntax.parser import parse_selector
from treering.library.listing import TRUNCATED, names_of, select_all, truncate, union_of, values_of
from tsdb.model.labels import Labels
from tsdb.model.matcher import select_rows
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection

ROWS = [Labels.of({"__name__": name, "job": job}) for name, job in (("a", "x"), ("a", "y"), ("b", "x"), ("c", ""))]


class Rows:
    """A source of one sample a series, in batches of two."""

    def series(self, selection: Selection) -> SeriesTable:
        table = SeriesTable.of(ROWS)
        return table.take(np.flatnonzero(select_rows(table, selection.matchers)))

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        table = self.series(selection)
        for at in range(0, len(table), 2):
            part = table.take(np.arange(at, min(at + 2, len(table))))
            n = len(part)
            yield SeriesBatch(part, np.arange(n + 1), np.full(n, 5), np.arange(n, dtype=float) + at)


def union(*selectors: str) -> SeriesTable:
    return union_of(Rows(), [parse_selector(text) for text in selectors], start_ms=0, end_ms=9)


def test_a_union_has_each_series_once_in_order() -> None:
    assert union("b", 'a{job="x"}', '{job="x"}').rows() == [ROWS[0], ROWS[2]]
    assert union("nothing").rows() == [] and union("nothing", "none").rows() == []


def test_names_and_values() -> None:
    assert names_of(union("c")) == ["__name__"]
    assert names_of(union("a", "c")) == ["__name__", "job"]
    assert values_of(union("a", "b"), "job") == ["x", "y"]
    assert values_of(union("c"), "job") == [] and values_of(union("a"), "none") == []


def test_all_batches_become_one() -> None:
    batch = select_all(Rows(), parse_selector('{__name__=~".+"}'), start_ms=0, end_ms=9)
    assert batch.series.rows() == ROWS and batch.values.tolist() == [0, 1, 2, 3]
    assert len(select_all(Rows(), parse_selector("nothing"), start_ms=0, end_ms=9)) == 0


@pytest.mark.parametrize(("limit", "left"), [(0, 4), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_truncating(limit: int, left: int) -> None:
    steps = Steps.instant(0)
    matrix = Matrix(SeriesTable.of(ROWS), steps, np.zeros((4, 1)), np.ones((4, 1), bool))
    answer = truncate(Answer("vector", matrix, warnings=("w",)), limit)
    assert isinstance(answer.value, Matrix) and answer.value.series.rows() == ROWS[:left]
    assert answer.warnings == (("w",) if left == 4 else ("w", TRUNCATED))
    assert truncate(Answer("string", "text"), 1).value == "text"

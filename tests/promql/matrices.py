"""Small matrices for tests, written as text: `matrix({'up{job="a"}': [1, None, 3]})`."""

from collections.abc import Mapping, Sequence

import numpy as np

from promql.matrix import Matrix, Scalar, Steps
from promql.syntax.ast import VectorSelector
from promql.syntax.parser import parse
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesTable

STEP_MS = 60_000


def steps(size: int) -> Steps:
    return Steps(0, (size - 1) * STEP_MS, STEP_MS)


def labels(text: str) -> Labels:
    """The labels of a selector of equalities; "{}" has none."""
    if text == "{}":
        return Labels(())
    selector = parse(text)
    assert isinstance(selector, VectorSelector)
    return Labels.of([(m.name, m.value) for m in selector.matchers])


def matrix(rows: Mapping[str, Sequence[float | None]] | Sequence[tuple[str, Sequence[float | None]]], size: int = 1) -> Matrix:
    """Series by their text and their values at each step, None where there is no sample."""
    pairs = list(rows.items()) if isinstance(rows, Mapping) else list(rows)
    if not pairs:
        return Matrix.empty(steps(size))
    values = np.array([[np.nan if v is None else v for v in row] for _, row in pairs], float)
    present = np.array([[v is not None for v in row] for _, row in pairs], bool)
    return Matrix(SeriesTable.of([labels(text) for text, _ in pairs]), steps(values.shape[1]), values, present)


def scalar(*values: float) -> Scalar:
    return Scalar(steps(len(values)), np.array(values, float))


def rows(value: Matrix) -> list[tuple[str, list[float | None]]]:
    """The series in their order, as text, with None where there is no sample."""
    return [
        (str(label), [v if p else None for v, p in zip(vs, ps, strict=True)])
        for label, vs, ps in zip(value.series.rows(), value.values.tolist(), value.present.tolist(), strict=True)
    ]

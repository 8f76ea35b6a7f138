"""Histograms under `anchored` and `smoothed`: every answer is that of the float series of the same counts."""

import numpy as np
import pytest

from promql.engine import QueryOptions, query_range
from promql.matrix import Matrix, Steps
from tests.promql.memory import MemorySource, batch_of
from tsdb.model.source import Source

OPTIONS = QueryOptions(features=frozenset(["promql-extended-range-selectors"]))
COUNTS = [3, 8, 8, 20, 5, 9, 2, 4, 30, 31]
"""A counter that falls twice."""


def source() -> Source:
    native = " ".join(f"{{{{count:{count} sum:{count} offset:1 buckets:[{count}]}}}}" for count in COUNTS)
    return MemorySource([batch_of(f"load 15s\n  native {native}\n  plain {' '.join(map(str, COUNTS))}\n")])


def values(query: str) -> np.ndarray:
    answer = query_range(source(), query, Steps(10_000, 160_000, 10_000), OPTIONS)
    assert isinstance(answer.value, Matrix)
    return np.where(answer.value.present, answer.value.values, np.nan)


@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
@pytest.mark.parametrize("func", ["rate", "increase", "delta"])
@pytest.mark.parametrize("window", ["20s", "40s", "1m"])
def test_range_functions_agree_with_floats(func: str, window: str, modifier: str) -> None:
    expected = values(f"{func}(plain[{window}] {modifier})")
    for part in ("count", "sum"):
        np.testing.assert_allclose(values(f"histogram_{part}({func}(native[{window}] {modifier}))"), expected, atol=1e-9)


def test_smoothed_selectors_agree_with_floats_between_resets() -> None:
    found, plain = values("histogram_count(native smoothed)")[0], values("plain smoothed")[0]
    seconds = np.arange(10, 161, 10)
    falling = np.isin(seconds // 15, [3, 5])  # here a histogram starts from zero, a float is drawn down
    np.testing.assert_allclose(found[~falling], plain[~falling])
    assert np.all(found[falling & (seconds % 15 > 0)] <= plain[falling & (seconds % 15 > 0)])

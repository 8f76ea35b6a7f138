"""The limits of queries: the strictest of several tenants', and a source that holds to them."""

from collections.abc import Iterator

import numpy as np
import pytest

from remote.limits import Limits
from remote.query_limits import BoundedSource, QueryLimits, query_limits
from tests.tsdb.batches import grid_batch
from tsdb.merge import merge_batches
from tsdb.model.errors import LimitExceeded
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection

H = 3_600_000
NOW_MS = 100 * H


class Held:
    """A `Source` of one batch."""

    def __init__(self, batch: SeriesBatch) -> None:
        self.batch = batch

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        yield self.batch.clip(selection.start_ms, selection.end_ms)

    def series(self, selection: Selection) -> SeriesTable:
        return self.batch.clip(selection.start_ms, selection.end_ms).series


BATCH = grid_batch(3, 240, start_ms=NOW_MS - H)


def source(**limits: int) -> BoundedSource:
    return BoundedSource(Held(BATCH), QueryLimits(**limits), NOW_MS)


def test_the_smallest_of_several_tenants_holds_and_none_is_no_limit() -> None:
    found = query_limits((Limits(max_samples=5, max_query_points=9), Limits(max_samples=0, max_query_points=3), Limits()))
    assert found == QueryLimits(max_samples=5, max_query_points=3)
    assert query_limits((Limits(),)) == QueryLimits()


def test_a_selection_over_too_much_time_is_refused_with_value_and_limit() -> None:
    bounded = source(max_query_length_ms=2 * H)
    assert merge_batches(list(bounded.select(Selection((), NOW_MS - 2 * H, NOW_MS)))).samples == BATCH.samples
    with pytest.raises(LimitExceeded, match=r"reads 3 hours of samples, the limit is 2 hours \(7200000 ms, max_query_length_ms\)"):
        bounded.select(Selection((), NOW_MS - 3 * H, NOW_MS))
    assert len(bounded.series(Selection((), MIN_MS, MAX_MS))) == 3, "lists of series have no length"


def test_what_is_older_than_the_lookback_is_not_there() -> None:
    bounded = source(max_query_lookback_ms=H // 2, max_query_length_ms=H)
    seen = merge_batches(list(bounded.select(Selection((), NOW_MS - 50 * H, NOW_MS))))
    assert np.all(seen.t_ms >= NOW_MS - H // 2) and 0 < seen.samples < BATCH.samples
    assert merge_batches(list(bounded.select(Selection((), NOW_MS - 50 * H, NOW_MS - 40 * H)))).samples == 0
    assert len(bounded.series(Selection((), NOW_MS - 50 * H, NOW_MS - 40 * H))) == 0

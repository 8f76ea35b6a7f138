from collections.abc import Iterator

import pytest

from remote.federation import TENANT_LABEL, FederatedSource
from tests.remote.batches import series_batch
from tests.remote.test_store_gateway import points
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection


class Held:
    """One batch as a Source."""

    def __init__(self, batch: SeriesBatch) -> None:
        self.batch = batch

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        rows = select_rows(self.batch.series, selection.matchers).nonzero()[0]
        yield self.batch.take(rows)

    def series(self, selection: Selection) -> SeriesTable:
        return self.batch.series.take(select_rows(self.batch.series, selection.matchers))


SERIES = {Labels.of({"__name__": name, "Zone": zone, "job": job}): [(1, 1.0)] for name in "ab" for zone in "xy" for job in "pq"}
ODD = {Labels.of({"__name__": "a", "Zone": "x", TENANT_LABEL: t, "job": j}): [(1, 2.0)] for t in ("u", "v") for j in "pq"}
SOURCE = FederatedSource({"t1": Held(series_batch(SERIES)), "t2": Held(series_batch(SERIES)), "odd": Held(series_batch(ODD))})


@pytest.mark.parametrize(
    ("matchers", "count"),
    [
        ((), 20),
        ((Matcher(TENANT_LABEL, "=", "t1"),), 8),
        ((Matcher(TENANT_LABEL, "=~", "t.*"), Matcher("job", "=", "p")), 8),
        ((Matcher(TENANT_LABEL, "!=", "t1"),), 12),
        ((Matcher(TENANT_LABEL, "=", "u"),), 0),
        ((Matcher("__tenant_id__original", "=", "u"),), 2),
    ],
)
def test_each_series_says_whose_it_is(matchers: tuple[Matcher, ...], count: int) -> None:
    selection = Selection(matchers, MIN_MS, MAX_MS)
    tables = [batch.series for batch in SOURCE.select(selection)]
    rows = [labels for table in tables for labels in table.rows()]
    assert len(rows) == len(set(rows)) == count
    assert all(table.order().tolist() == list(range(len(table))) for table in tables)
    assert {labels.get(TENANT_LABEL) for labels in rows} <= {"t1", "t2", "odd"}
    assert all((labels.get("__tenant_id__original") != "") == (labels.get(TENANT_LABEL) == "odd") for labels in rows)
    assert SOURCE.series(selection).rows() == rows


def test_samples_and_warnings_come_along() -> None:
    told = SeriesBatch.empty(("block 01 is damaged",))
    source = FederatedSource({"t1": Held(series_batch({Labels.of({"__name__": "a"}): [(1, 1.0)]})), "t2": Held(told)})
    batches = list(source.select(Selection((), MIN_MS, MAX_MS)))
    assert points(batches[0]) == {'a{__tenant_id__="t1"}': [(1, 1.0)]}
    assert [warning for batch in batches for warning in batch.warnings] == ["tenant t2: block 01 is damaged"]

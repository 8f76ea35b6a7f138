"""The index of the head: every series found, by bytes and by matchers, in the order of series, whoever comes and goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.writes import label_ranges, series
from tsdb.head import series_index
from tsdb.head.series_index import SeriesIndex, keys_of, refs_of
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesTable, concat_tables


def added(index: SeriesIndex, rows: list[Labels]) -> None:
    data, start, end, hashes = label_ranges(rows)
    refs, _ = index.find(data, start, end, hashes)
    which = np.flatnonzero(refs < 0)
    if len(which):
        index.add(data, start, end, hashes, which=which, metrics=index.metrics_of(data, start, end, which), refs=refs)
    assert index.find(data, start, end, hashes)[1] == 0
    assert [index.labels(ref) for ref in refs.tolist()] == rows


def removed(index: SeriesIndex, rows: list[Labels]) -> None:
    data, start, end, hashes = label_ranges(rows)
    refs, _ = index.find(data, start, end, hashes)
    live = index.alive.copy()
    live[refs[refs >= 0]] = False
    index.keep(live)


def found(index: SeriesIndex, *matchers: Matcher) -> list[Labels]:
    parts = index.select(matchers)
    for part in parts:
        assert [index.labels(ref) for ref in refs_of(part.keys).tolist()] == part.table.rows()
        assert part.keys.tolist() == keys_of(refs_of(part.keys), index.metric).tolist()
    return concat_tables([part.table for part in parts] or [SeriesTable.empty()]).rows()


NAMES = st.sampled_from(["a", "b", "aa", "B", "é", "up", "up_total"])
ROW = st.builds(
    lambda name, labels: Labels.of({"__name__": name, **labels}),
    NAMES,
    st.dictionaries(st.sampled_from(["job", "zone", "A"]), st.sampled_from(["1", "2", "ü", "x" * 90])),
)
MATCHERS = st.lists(
    st.builds(Matcher, st.sampled_from(["__name__", "job", "zone", "none"]), st.sampled_from(["=", "!=", "=~", "!~"]),
              st.sampled_from(["", "1", "up", "a|b", "up.*", ".*", ".+"])), max_size=3,
)  # fmt: skip


@settings(max_examples=150)
@given(steps=st.lists(st.tuples(st.booleans(), st.lists(ROW, min_size=1, max_size=8, unique=True)), max_size=8), matchers=MATCHERS)
def test_it_finds_what_a_table_of_all_series_would(steps: list[tuple[bool, list[Labels]]], matchers: list[Matcher]) -> None:
    whole = series_index.SHELF_SERIES
    series_index.SHELF_SERIES = 4
    try:
        index, known = SeriesIndex(), set[Labels]()
        for grow, rows in steps:
            if grow:
                added(index, rows)
                known |= set(rows)
            else:
                removed(index, rows)
                known -= set(rows)
            assert len(index) == len(known)
            table = SeriesTable.of(list(known))
            table = table.take(table.order())
            assert found(index) == table.rows()
            assert found(index, *matchers) == table.take(np.flatnonzero(select_rows(table, matchers))).rows()
            sizes = {name: sum(row.get("__name__") == name for row in known) for name in {row.get("__name__") for row in known}}
            assert index.metric_sizes() == sizes
    finally:
        series_index.SHELF_SERIES = whole


def test_many_series_grow_every_column_and_leave_room_when_they_go() -> None:
    index = SeriesIndex()
    rows = [series(f"metric_{i % 300}", instance=f"host-{i}", filler="f" * 100) for i in range(5000)]
    for first in range(0, len(rows), 700):
        added(index, rows[first : first + 700])
    assert len(index) == 5000
    assert index.label_bytes < sum(len(row.encode()) for row in rows) // 2, "a metric has its filler once"
    assert len(found(index)) == 5000
    room = index.room
    removed(index, rows[100:])
    assert len(index) == 100 and index.label_bytes < 2 * sum(len(row.encode()) for row in rows[:100])
    assert sorted(found(index)) == sorted(rows[:100])
    added(index, rows[2000:4000])
    assert index.room == room, "refs of series that left are used again"
    wanted = [row for row in rows[:100] + rows[2000:4000] if row.get("__name__") == "metric_7"]
    assert sorted(found(index, Matcher("__name__", "=", "metric_7"))) == sorted(wanted)


def test_one_metric_of_many_series_stands_on_one_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_index, "SHELF_SERIES", 4)
    index = SeriesIndex()
    added(index, [series("big", i=str(i)) for i in range(20)] + [series("a"), series("c")])
    assert [len(part.table) for part in index.select([Matcher("__name__", "=", "big")])] == [20]

"""Metadata of metric families: the newest counts, and there is a bound."""

from tsdb.head.metadata import MAX_TEXT_BYTES, MetadataTable
from tsdb.model.write import Metadata


def test_the_newest_of_a_family_counts() -> None:
    table = MetadataTable()
    old, new = Metadata("up", "gauge", "old", ""), Metadata("up", "gauge", "new", "")
    assert table.put(old) and not table.put(old) and table.put(new)
    assert table.get("up") == new and table.get("down") is None
    assert table.put_all([new, Metadata("a", "counter", "", "s")]) == (Metadata("a", "counter", "", "s"),)
    assert [m.metric for m in table.all()] == ["a", "up"] and len(table) == 2


def test_families_and_texts_are_bounded() -> None:
    table = MetadataTable(capacity=2)
    for metric in ("a", "b", "a", "c"):
        table.put(Metadata(metric, "gauge", f"{len(table)}" + "h" * 10_000, ""))
    assert [m.metric for m in table.all()] == ["a", "c"], "b was heard of longest ago"
    assert all(len(m.help) == MAX_TEXT_BYTES for m in table.all())
    assert not table.put(Metadata("c", "gauge", "2" + "h" * 10_000, "")), "cut alike it is no news"

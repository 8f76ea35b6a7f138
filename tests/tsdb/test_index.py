"""The index: any table of series comes back, matchers find what they find on the table, and only what is needed is read."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import label_sets
from tsdb.block import index as index_file
from tsdb.block.index import Index, IndexWriter, PageEntry
from tsdb.block.part_cache import PartCache
from tsdb.bucket.range_cache import RangeKey
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher, select_rows
from tsdb.model.series import SeriesTable


def open_index(data: bytes, reads: list[tuple[int, int]] | None = None) -> Index:
    def read(start: int, size: int) -> bytes:
        if reads is not None:
            reads.append((start, size))
        return data[start : start + size]

    return Index(RangeKey("block/index", 0, len(data), zlib.crc32(data)), read, PartCache())


def ordered(rows: list[Labels]) -> SeriesTable:
    table = SeriesTable.of(rows)
    return table.take(table.order())


def write(*tables: SeriesTable, pages: int = 0) -> bytes:
    writer = IndexWriter()
    for table in tables:
        writer.add_series(table)
    for i in range(pages):
        writer.add_page(PageEntry(i, i + 1, 0, i * 1000, 1000, 4_000_000_000 + i, -5 + i, 1 << 41, 7))
    return writer.finish()


MATCHERS = st.builds(
    Matcher,
    st.sampled_from(["__name__", "a", "b", "absent"]),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.sampled_from(["", "x", "y", "x|y", "é"]),
)


@given(st.lists(label_sets(), max_size=12, unique=True), st.lists(MATCHERS, max_size=3), st.integers(0, 12))
@settings(max_examples=300)
def test_matchers_find_what_they_find_on_the_table(rows: list[Labels], matchers: list[Matcher], cut: int) -> None:
    table = ordered(rows)
    index = open_index(write(table.take(slice(0, cut)), table.take(slice(cut, None))))
    found = index.rows(matchers)
    assert found.tolist() == np.flatnonzero(select_rows(table, matchers)).tolist()
    assert index.table(found).rows() == table.take(found).rows()


def test_row_groups_and_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "GROUP_ROWS", 16)
    table = ordered(
        [Labels.of({"__name__": f"m{i % 3}", "i": f"{i:03d}", **({"odd": "yes"} if i % 2 else {})}) for i in range(100)]
    )
    index = open_index(write(table, pages=5))
    assert index.series == 100
    for matchers in (
        [Matcher("__name__", "=", "m1")],
        [Matcher("odd", "=", "yes"), Matcher("__name__", "!=", "m0")],
        [Matcher("i", "=~", "0.5")],
    ):
        assert index.rows(matchers).tolist() == np.flatnonzero(select_rows(table, matchers)).tolist()
    rows = np.array([0, 15, 16, 50, 99])
    assert index.table(rows).rows() == table.take(rows).rows()
    directory = index.directory()
    assert directory.offset.tolist() == [0, 1000, 2000, 3000, 4000]
    assert directory.t_min.tolist() == [-5, -4, -3, -2, -1] and directory.crc[4] == 4_000_000_004


def test_one_metric_reads_only_its_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "GROUP_ROWS", 256)
    monkeypatch.setattr(index_file, "READ_AHEAD_BYTES", 64)
    rng = np.random.default_rng(1)
    table = ordered([Labels.of({"__name__": f"m{i:04d}", "r": str(rng.integers(1 << 40))}) for i in range(4096)])
    data = write(table)
    reads: list[tuple[int, int]] = []
    index = open_index(data, reads)
    rows = index.rows([Matcher("__name__", "=", "m2000")])
    assert index.table(rows).rows() == table.take(rows).rows() and len(rows) == 1
    assert len(reads) <= 6  # the end, footer, symbols, metrics, and two columns
    assert index.rows([Matcher("__name__", "=", "m2001")]).tolist() == [2001]
    assert len(reads) <= 6


def test_odd_texts_survive() -> None:
    texts = ["", "\0", "a\0b", "\n", "日本", "🌲", "x" * 5000, '"\\']
    table = ordered([Labels.of({"__name__": "m", "utf8.näme\n": text, "i": str(i)}) for i, text in enumerate(texts)])
    assert open_index(write(table)).table(np.arange(len(table))).rows() == table.rows()


def test_series_against_the_order_are_refused() -> None:
    a, b = Labels.of({"__name__": "a"}), Labels.of({"__name__": "b", "x": "1"})
    for rows in ([b, a], [a, a]):
        with pytest.raises(BadData, match="order of series"):
            write(SeriesTable.of(rows))
        with pytest.raises(BadData, match="order of series"):
            write(SeriesTable.of(rows[:1]), SeriesTable.of(rows[1:]))


def test_every_flipped_bit_is_found() -> None:
    table = ordered([Labels.of({"__name__": f"m{i % 5}", "i": str(i)}) for i in range(60)])
    good = write(table, pages=3)
    for bit in range(0, 8 * len(good), 5):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt, match="block/index"):
            index = open_index(bytes(bad))
            index.directory()
            index.rows([Matcher("__name__", "=", "m1")])
            index.table(np.arange(60))

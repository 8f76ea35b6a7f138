"""What sums of histograms tell: every answer is that of Prometheus's loop over the series, one at a time."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.histogram.sums import NativeSums
from promql.matrix import Matrix
from promql.syntax.ast import Aggregate
from promql.syntax.parser import parse
from tests.promql.histograms import histograms
from tests.promql.matrices import labels, steps
from tsdb.model.series import SeriesTable

LITERALS = {
    "exponential": "schema:0 sum:5 count:4 buckets:[1 2 1]",
    "custom": "schema:-53 sum:9 count:8 custom_values:[1 5] buckets:[3 5]",
    "finer": "schema:-53 sum:9 count:8 custom_values:[1 2 5] buckets:[3 4 1]",
}
kinds = st.sampled_from(["float", *LITERALS])
batches = st.lists(st.lists(kinds, min_size=1, max_size=3).filter(lambda batch: set(batch) != {"float"}), min_size=1, max_size=3)


def as_matrix(batch: Sequence[str], first: int) -> Matrix:
    """One step of series s0, s1 … of these kinds, numbered from `first`."""
    native = [kind for kind in batch if kind != "float"]
    cells = np.array([[-1 if kind == "float" else batch[:i].count("float")] for i, kind in enumerate(batch)], np.int64)
    cells = np.where(cells < 0, -1, np.arange(len(batch))[:, None] - cells)
    table = SeriesTable.of([labels(f"s{first + i}") for i in range(len(batch))])
    values = np.where(cells < 0, 1.0, np.nan)
    return Matrix(table, steps(1), values, np.ones(cells.shape, bool), histograms(*(LITERALS[kind] for kind in native)), cells)


def one_by_one(series: Sequence[str]) -> tuple[set[str], bool]:
    """(what is told, whether there is a histogram in the end)."""
    told: set[str] = set()
    has_float, has_native, custom, bounds = False, False, None, None
    for i, kind in enumerate(series):
        if kind == "float":
            has_float = True
        elif has_native or not has_float:
            has_native = True
            if custom not in (None, kind != "exponential"):
                return {*told, f"s{i}", *(["mix"] if has_float else [])}, False
            if bounds not in (None, kind):
                told.add("reconciled")
            custom, bounds = kind != "exponential", "custom" if bounds not in (None, kind) else kind
        else:
            return {"mix"}, False
    return told | ({"mix"} if has_float else set()), not has_float


@given(batches, st.sampled_from(["sum", "avg"]), st.booleans())
def test_notes_are_those_of_a_loop_over_series(parts: list[list[str]], op: str, small_room: bool) -> None:
    node = parse(f"{op}(x)")
    assert isinstance(node, Aggregate)
    sums, notes = NativeSums(node, 1, room_bytes=0 if small_room else 1 << 20), Annotations("sum(x)")
    series = [kind for part in parts for kind in part]
    for i, part in enumerate(parts):
        sums.add(as_matrix(part, sum(map(len, parts[:i]))), np.zeros(len(part), np.int64))
        if small_room:
            sums.room_bytes = 0
    cells, _, mixed = sums.finish(1, np.array([["float" in series]]), notes)
    found = " ".join([*notes.warnings, *notes.infos])
    told, present = one_by_one(series)
    assert {word for word in ("mix", "reconciled") if f"{word} of histograms and floats" in found or f"were {word}" in found} == {
        word for word in told if word in ("mix", "reconciled")
    }
    for i in range(len(series)):
        assert (f'"s{i}"' in found) == (f"s{i}" in told)
    assert (cells[0, 0] >= 0) == present
    assert mixed[0, 0] == ("float" in series)


def test_what_fits_is_added() -> None:
    node = parse("sum(x)")
    assert isinstance(node, Aggregate)
    sums = NativeSums(node, 1)
    sums.add(as_matrix(["custom", "finer", "custom"], 0), np.zeros(3, np.int64))
    cells, result, _ = sums.finish(1, np.array([[False]]), Annotations("sum(x)"))
    assert result.count[cells[0, 0]] == pytest.approx(24)
    assert result.bounds.tolist() == [1, 5]

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from promql.functions.label_columns import set_label
from promql.operators.grouping import GroupNumbers, match_groups
from promql.operators.set_operators import group_presence
from promql.syntax.ast import Aggregate, Matching
from promql.syntax.parser import parse
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesTable

LABELS = st.dictionaries(st.sampled_from(["__name__", "a", "b", "c"]), st.sampled_from(["x", "y", "xy"])).map(Labels.of)


def node(query: str) -> Aggregate:
    expr = parse(query)
    assert isinstance(expr, Aggregate)
    return expr


@given(
    st.lists(st.lists(LABELS, min_size=1, max_size=6), min_size=1, max_size=5),
    st.sampled_from(["by (a, b)", "without (a)", "by ()"]),
)
def test_groups_are_numbered_by_their_labels_over_all_batches(batches: list[list[Labels]], clause: str) -> None:
    groups = GroupNumbers(node(f"sum {clause} (m)"))
    got = [int(g) for batch in batches for g in groups.assign(SeriesTable.of(batch))]
    kept = {"by (a, b)": {"a", "b"}, "without (a)": {"b", "c"}, "by ()": set()}[clause]
    keys = [Labels(tuple((n, v) for n, v in row if n in kept)) for batch in batches for row in batch]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    assert got == [numbers[key] for key in keys]
    assert groups.series().rows() == list(numbers)
    assert len(groups) == len(numbers)


def test_series_match_by_on_and_ignoring() -> None:
    left = SeriesTable.of([Labels.of({"__name__": "l", "a": "1", "b": "1"}), Labels.of({"__name__": "l", "a": "2"})])
    right = SeriesTable.of([Labels.of({"__name__": "r", "a": "2", "c": "9"}), Labels.of({"__name__": "r", "a": "1"})])
    lefts, rights, size = match_groups(Matching(on=True, labels=("a",)), left, right)
    assert size == 2 and lefts[0] == rights[1] and lefts[1] == rights[0]
    lefts, rights, size = match_groups(Matching(labels=("b", "c")), left, right)
    assert size == 2 and lefts[0] == rights[1] and lefts[1] == rights[0]
    assert match_groups(Matching(on=True), left, right)[2] == 1


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 3))
def test_group_presence_is_any(group: list[int], k: int) -> None:
    present = np.random.default_rng(len(group)).random((len(group), k)) > 0.5
    got = group_presence(np.array(group, np.int64), present, 5)
    want = [[any(present[i, j] for i, g in enumerate(group) if g == number) for j in range(k)] for number in range(5)]
    assert got.tolist() == want


def test_a_label_is_set_with_old_and_new_texts() -> None:
    table = SeriesTable.of([Labels.of({"a": "x"}), Labels.of({"a": "y", "b": "x"}), Labels.of({"b": "y"})])
    which = np.array([0, 1, 2])
    assert [str(row) for row in set_label(table, "b", ["x", "new", ""], which).rows()] == [
        '{a="x", b="x"}',
        '{a="y", b="new"}',
        "{}",
    ]
    kept = set_label(table, "b", ["x", "new", ""], which, np.array([False, True, False]))
    assert [str(row) for row in kept.rows()] == ['{a="x"}', '{a="y", b="new"}', '{b="y"}']
    assert len(set(kept.symbols.tolist())) == len(kept.symbols)

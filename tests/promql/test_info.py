from dataclasses import replace

import numpy as np
import pytest

from promql.annotations import Annotations
from promql.functions.info import info
from promql.matrix import Matrix
from promql.matrix_rows import non_empty
from promql.names import settle
from promql.syntax.ast import Call
from promql.syntax.parser import parse
from tests.promql.matrices import matrix, rows
from tsdb.model.errors import QueryFailed
from tsdb.model.matcher import Matcher, select_rows

FEATURES = frozenset(["promql-experimental-functions"])
BASE = matrix([('m{instance="a", job="1"}', [0, 1, 2]), ('m{instance="a", job="2"}', [3, 4, None])])
TARGETS = matrix([
    ('target_info{instance="a", job="1", version="old"}', [0, 0, None]),
    ('target_info{instance="a", job="1", version="new"}', [None, None, 120_000]),
    ('build_info{instance="a", job="1", commit="c"}', [0, 60_000, 120_000]),
])  # fmt: skip


def run(query: str, base: Matrix = BASE, store: Matrix = TARGETS) -> list[tuple[str, list[float | None]]]:
    node = parse(query, features=FEATURES)
    assert isinstance(node, Call)

    def select_info(matchers: tuple[Matcher, ...]) -> Matrix:
        return non_empty(store.take(select_rows(store.series, matchers)))

    return rows(settle(info(node, base, select_info, Annotations(query))))


@pytest.mark.parametrize(
    ("query", "want"),
    [
        (
            "info(m)",
            [
                ('m{instance="a", job="1", version="old"}', [0, 1, None]),
                ('m{instance="a", job="1", version="new"}', [None, None, 2]),
                ('m{instance="a", job="2"}', [3, 4, None]),
            ],
        ),
        (
            'info(m, {version=~"old"})',
            [('m{instance="a", job="1", version="old"}', [0, 1, None])],
        ),
        (
            'info(m, {__name__="build_info"})',
            [('m{commit="c", instance="a", job="1"}', [0, 1, 2]), ('m{instance="a", job="2"}', [3, 4, None])],
        ),
        (
            'info(m, {__name__=~".+_info", commit=~".+"})',
            [('m{commit="c", instance="a", job="1"}', [0, 1, 2])],
        ),
        ('info(m, {__name__="nothing_info"})', rows(BASE)),
        ('info(m, {__name__="nothing_info", version=~".+"})', []),
    ],
)
def test_info(query: str, want: list[tuple[str, list[float | None]]]) -> None:
    assert run(query) == want


def test_info_series_are_left_alone_and_base_labels_win() -> None:
    targets = TARGETS.take(np.arange(2))
    assert run("info(x)", targets) == rows(targets)
    own = matrix([('m{instance="a", job="1", commit="mine"}', [1, 1, 1])])
    assert run('info(m, {__name__="build_info"})', own) == rows(own)


def test_a_name_marked_to_go_stays_marked() -> None:
    marked = replace(BASE, drop_name=np.array([True, True]))
    assert [name for name, _ in run('info(m, {__name__="build_info"})', marked)] == [
        '{commit="c", instance="a", job="1"}',
        '{instance="a", job="2"}',
    ]


def test_contradictions() -> None:
    other = matrix([
        ('target_info{instance="a", job="1", x="1"}', [0, 0, 0]),
        ('build_info{instance="a", job="1", x="2"}', [0, 0, 0]),
    ])  # fmt: skip
    with pytest.raises(QueryFailed, match="conflicting label: x"):
        run('info(m, {__name__=~".+_info"})', store=other)
    twins = matrix([(f'target_info{{instance="a", job="1", x="{i}"}}', [0, 0, 0]) for i in range(2)])
    with pytest.raises(QueryFailed, match="found duplicate series for info metric: existing"):
        run("info(m)", store=twins)


def test_too_many_targets_for_one_pattern_are_still_found() -> None:
    base = matrix([(f'm{{instance="host-{i:04}", job="1"}}', [1]) for i in range(600)])
    store = matrix([(f'target_info{{instance="host-{i:04}", job="1", x="{i}"}}', [0]) for i in range(600)])
    out = run("info(m)", base, store)
    assert len(out) == 600
    assert out[7][0] == 'm{instance="host-0007", job="1", x="7"}'

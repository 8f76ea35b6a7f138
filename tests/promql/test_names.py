from dataclasses import replace

import numpy as np
import pytest

from promql.matrix_rows import concat_matrices, non_empty
from promql.names import mark, merge_equal, settle
from tests.promql.matrices import matrix, rows
from tsdb.model.errors import QueryFailed

TYPED = matrix([('x{__type__="counter", __unit__="s", job="a"}', [1]), ('y{__type__="gauge", job="b"}', [2])])


def test_marked_series_lose_name_type_and_unit() -> None:
    assert rows(settle(mark(TYPED))) == [('{job="a"}', [1]), ('{job="b"}', [2])]
    one = replace(TYPED, drop_name=np.array([True, False]))
    assert rows(settle(one)) == [('{job="a"}', [1]), ('y{__type__="gauge", job="b"}', [2])]
    assert settle(one).drop_name is None


def test_series_that_become_equal_are_merged_unless_they_meet() -> None:
    apart = mark(matrix([("x", [1, None, None]), ("y", [None, 2, None]), ("z", [None, None, 3])]))
    assert rows(settle(apart)) == [("{}", [1, 2, 3])]
    with pytest.raises(QueryFailed, match="vector cannot contain metrics with the same labelset"):
        settle(mark(matrix([("x", [1, 1]), ("y", [None, 2])])))


def test_merging_keeps_the_place_of_the_first_and_any_mark() -> None:
    value = matrix([('x{a="1"}', [1, None]), ("y", [5, 5]), ('x{a="1"}', [None, 2])])
    out = merge_equal(replace(value, drop_name=np.array([False, False, True])))
    assert rows(out) == [('x{a="1"}', [1, 2]), ("y", [5, 5])]
    assert out.drop_name is not None and out.drop_name.tolist() == [True, False]


def test_matrices_are_put_together_with_their_histograms_and_marks() -> None:
    value = concat_matrices([matrix([("x", [1])]), mark(matrix([("y", [2])])), matrix([])])
    assert rows(value) == [("x", [1]), ("y", [2])]
    assert value.drop_name is not None and value.drop_name.tolist() == [False, True]
    assert rows(concat_matrices([matrix([]), matrix([])])) == []


def test_non_empty_keeps_series_with_any_sample() -> None:
    assert rows(non_empty(matrix([("x", [None, None]), ("y", [None, 1])]))) == [("y", [None, 1])]

import numpy as np
import pytest

from promql import pieces
from promql.engine import QueryOptions, query_range
from promql.matrix import Matrix, Steps
from promql.pieces import instant_pieces, range_pieces
from promql.syntax.typecheck import ALL_FEATURES
from promql.window.windows import Windows
from tests.promql.memory import batch_of, source_of, texts
from tsdb.model.errors import QueryTimeout

SCRIPT = "load 10s\n" + "\n".join(f'  x_total{{i="{i}"}} {i}+{i}x12' for i in range(9))
STEPS = Steps(0, 120_000, 10_000)


def test_series_are_shared_out_by_the_work_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(SCRIPT)  # 9 series of 13 samples
    monkeypatch.setattr(pieces, "MAX_WORK", 100)
    assert [len(piece) for piece in instant_pieces(iter([batch]), STEPS)] == [3, 3, 3]  # 9 * 26 = 234
    windows = Windows(STEPS, STEPS.ms, 60_000)
    assert [len(piece) for piece in range_pieces(iter([batch]), windows, once=True)] == [3, 3, 3]
    assert len(list(range_pieces(iter([batch]), windows, once=False))) == 9  # 117 * 6 + 117 = 819
    fixed = Windows(STEPS, np.full(len(STEPS), 60_000), 60_000)
    assert [len(piece) for piece in range_pieces(iter([batch]), fixed, once=False)] == [3, 3, 3]


@pytest.mark.parametrize(
    "query", ["x_total", "rate(x_total[30s])", "quantile_over_time(0.5, x_total[1m])", "sum(max_over_time(x_total[1m]))"]
)
def test_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    options = QueryOptions(features=ALL_FEATURES)
    whole = query_range(source_of(SCRIPT), query, STEPS, options).value
    monkeypatch.setattr(pieces, "MAX_WORK", 30)
    cut = query_range(source_of(SCRIPT), query, STEPS, options).value
    assert isinstance(whole, Matrix) and isinstance(cut, Matrix)
    assert texts(cut.series) == texts(whole.series)
    np.testing.assert_array_equal(cut.values[cut.present], whole.values[whole.present])


@pytest.mark.parametrize("query", ["topk(2, x_total)", "quantile by (i) (0.5, x_total)", "quantile(0.9, x_total)"])
def test_what_looks_at_all_series_of_a_step_can_be_stopped_between_steps(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    whole = query_range(source_of(SCRIPT), query, STEPS).value
    monkeypatch.setattr(pieces, "MAX_CELLS", 18)  # two of the 13 steps
    left = 7

    def deadline() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise QueryTimeout("late")

    with pytest.raises(QueryTimeout):
        query_range(source_of(SCRIPT), query, STEPS, deadline=deadline)
    cut = query_range(source_of(SCRIPT), query, STEPS).value
    assert isinstance(whole, Matrix) and isinstance(cut, Matrix)
    np.testing.assert_array_equal(cut.present, whole.present)
    np.testing.assert_array_equal(cut.values[cut.present], whole.values[whole.present])


def test_slices_of_steps_cover_all_of_them_with_a_check_before_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_CELLS", 20)
    checks: list[int] = []
    matrix = query_range(source_of(SCRIPT), "x_total", STEPS).value
    assert isinstance(matrix, Matrix)
    slices = [*pieces.step_slices(matrix, lambda: checks.append(1))]
    assert [*range(13)] == [i for one in slices for i in range(13)[one]]
    assert len(checks) == len(slices) == 7

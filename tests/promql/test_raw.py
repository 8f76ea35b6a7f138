import numpy as np
import pytest

from promql.engine import query_instant
from promql.matrix import Steps
from promql.window.raw import concat_batches, in_window
from promql.window.windows import Windows
from tests.promql.memory import batch_of, source_of, texts
from tests.promql.test_engine import OPTIONS
from tsdb.model.errors import QueryFailed
from tsdb.model.series import SeriesBatch

SCRIPT = """load 10s
  x{i="1"} 0 10 20 30 40
  x{i="2"} _ _ 5
  x{i="3"} 1
"""


def samples(modifier: str, at_s: float, range_s: float) -> dict[str, list[tuple[int, float]]]:
    answer = query_instant(source_of(SCRIPT), f"x[{range_s}s] {modifier}", round(at_s * 1000), OPTIONS)
    batch = answer.value
    assert isinstance(batch, SeriesBatch)
    rows = zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True)
    points = [list(zip(batch.t_ms[a:b].tolist(), batch.values[a:b].tolist(), strict=True)) for a, b in rows]
    return dict(zip(texts(batch.series), points, strict=True))


def test_plain_windows_are_open_at_their_start() -> None:
    assert samples("", 30, 20) == {'x{i="1"}': [(20_000, 20), (30_000, 30)], 'x{i="2"}': [(20_000, 5)]}


def test_anchored_windows_carry_values_to_their_edges() -> None:
    assert samples("anchored", 25, 20) == {
        'x{i="1"}': [(5_000, 0), (10_000, 10), (20_000, 20), (25_000, 20)],
        'x{i="2"}': [(5_000, 5), (20_000, 5), (25_000, 5)],
    }


def test_smoothed_windows_interpolate_at_their_edges() -> None:
    assert samples("smoothed", 25, 20) == {
        'x{i="1"}': [(5_000, 5), (10_000, 10), (20_000, 20), (25_000, 25)],
        'x{i="2"}': [(5_000, 5), (20_000, 5), (25_000, 5)],
    }


def test_an_edge_on_a_sample_is_that_sample() -> None:
    assert samples("smoothed", 20, 10)['x{i="1"}'] == [(10_000, 10), (20_000, 20)]
    assert samples("anchored", 20, 10)['x{i="1"}'] == [(10_000, 10), (20_000, 20)]


def test_edges_of_histograms_are_not_made_up() -> None:
    batch = batch_of("load 10s\n  x {{count:1}}x4")
    windows = Windows(Steps.instant(25_000), np.array([25_000]), 20_000, 300_000, anchored=True)
    with pytest.raises(QueryFailed, match="need a function around them"):
        in_window(batch, windows)


def test_batches_with_and_without_histograms_go_together() -> None:
    floats, natives = batch_of("load 10s\n  x 1 2"), batch_of("load 10s\n  y {{count:1}} {{count:2}}")
    both = concat_batches([floats, natives, SeriesBatch.empty(), natives])
    assert texts(both.series) == ["x", "y", "y"]
    assert both.histogram_at is not None
    assert both.histograms is not None
    assert both.histogram_at.tolist() == [-1, -1, 0, 1, 2, 3]
    assert both.histograms.count.tolist() == [1, 2, 1, 2]
    assert len(concat_batches([])) == 0

import time

import numpy as np
import pytest

from promql.engine import QueryOptions
from promql.explain import ExplainedNode, Explanation, analyze, explain
from promql.matrix import Steps
from promql.syntax.errors import ParseError
from promql.syntax.typecheck import ALL_FEATURES
from tests.promql.memory import MemorySource, source_of
from tsdb.model.errors import BadData, QueryTimeout
from tsdb.model.estimate import Estimate
from tsdb.model.matcher import select_rows
from tsdb.model.source import Selection

OPTIONS = QueryOptions(features=ALL_FEATURES)
STEPS = Steps(0, 120_000, 30_000)
SCRIPT = """load 10s
  x_total{job="a", i="1"} 0+1x12
  x_total{job="b", i="1"} 0+2x12
  x_total{job="b", i="2"} 0+3x12
"""


class Telling(MemorySource):
    """Says what it has in pages of one series."""

    all_samples = True

    def estimate(self, selection: Selection) -> Estimate:
        series = sum(int(select_rows(batch.series, selection.matchers).sum()) for batch in self.batches)
        return Estimate(series, 1, series, 100 * series, 13 * series, (0,))


def source(batch_size: int = 1) -> Telling:
    return Telling(source_of(SCRIPT, batch_size).batches)


def found(told: Explanation, name: str) -> list[ExplainedNode]:
    assert told.root is not None
    nodes, stack = [], [told.root]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(reversed(node.children))
    return [node for node in nodes if node.name == name]


def test_what_each_selector_will_read() -> None:
    asked = source()
    told = explain(asked, 'sum by (job) (rate(x_total{job="b"}[1m])) * 2', STEPS, OPTIONS)
    assert asked.asked == []
    (rate,) = found(told, "rate")
    (read,) = rate.reads
    assert (read.selector, read.start_ms, read.end_ms, read.resolution_ms) == ('x_total{job="b"}', -59_999, 120_001, 0)
    assert (read.series, read.pages, read.bytes, read.samples, read.blocks) == (2, 2, 200, 26, 1)
    assert read.read_samples is None and rate.seconds is None and not told.analyzed


def test_what_the_plan_does_with_each_part() -> None:
    told = explain(
        source(),
        "sum(rate(x_total[1m])) / sum(x_total @ 60) + sum(rate(x_total[1m])) + max_over_time(x_total[1m:20s])",
        STEPS,
        OPTIONS,
    )
    first, fixed, again = found(told, "sum")
    assert "folds batches into groups as they come" in first.notes
    assert fixed.steps == 1 and "the same at all 5 steps: evaluated once" in fixed.notes
    assert again.notes == ("same as above: not evaluated again",) and again.children == ()
    (rate,) = found(told, "rate")
    assert rate.notes == ("a batch of series at a time",)
    (inner,) = found(told, "max_over_time")[0].children
    assert inner.steps == 9  # the subquery's own


def test_reading_is_what_the_engine_reads() -> None:
    for query in (
        "x_total offset 1m",
        "rate(x_total[1m] @ 100)",
        "increase(x_total[1m] smoothed)",
        "timestamp(x_total)",
        "-x_total > 1",
    ):
        real, told = source(9), explain(source(), query, STEPS, OPTIONS)
        answer = analyze(real, query, STEPS, OPTIONS, clock=time.perf_counter)
        reads = [(read.start_ms, read.end_ms) for node in _nodes(told) for read in node.reads]
        assert reads == [(selection.start_ms, selection.end_ms) for selection in real.asked]
        assert _shape(told.root) == _shape(answer.root)


def test_time_and_samples_after_a_run() -> None:
    told = analyze(source(), "sum(x_total)", STEPS, OPTIONS, clock=time.perf_counter)
    (total,), (selector,) = found(told, "sum"), found(told, "selector")
    assert told.analyzed and (told.samples, total.series, selector.series, selector.batches) == (39, 1, 3, 3)
    assert selector.samples == 15 and selector.reads[0].read_samples == 39
    assert told.seconds is not None and total.seconds is not None and selector.seconds is not None
    assert told.seconds >= total.seconds >= selector.seconds > 0


def test_text() -> None:
    text = str(explain(source(), "topk(1 + 1, sum by (job) (x_total)) > 3", STEPS, OPTIONS))
    assert text.splitlines() == [
        ">: topk(2, sum by (job) (x_total)) > 3  [5 steps]",
        "├─ topk(2, sum by (job) (x_total))  [5 steps]",
        "│  ├─ 2",
        "│  └─ sum by (job) (x_total)  [5 steps; folds batches into groups as they come]",
        "│     └─ selector: x_total  [5 steps; a batch of series at a time]",
        "│        └─ read x_total  (1969-12-31 23:55:00, 1970-01-01 00:02:00) raw: 3 series; "
        "1 blocks (raw): 3 pages, 300 bytes, about 39 samples",
        "└─ 3",
    ]
    assert "samples looked at" in str(analyze(source(), "x_total", 60_000, OPTIONS, clock=time.perf_counter))


def test_instant_queries_of_every_kind() -> None:
    for query in ("x_total", "1 + 1", '"text"', "x_total[1m]", "x_total[1m:10s]", "absent(nothing)", "nothing"):
        for told in (
            explain(source(), query, 60_000, OPTIONS),
            analyze(source(), query, 60_000, OPTIONS, clock=time.perf_counter),
        ):
            assert told.root is not None and (told.start_ms, told.step_ms) == (60_000, 0)


def test_errors_are_those_of_the_query() -> None:
    with pytest.raises(ParseError):
        explain(source(), "sum(", STEPS, OPTIONS)
    with pytest.raises(BadData, match="exceeded maximum resolution"):
        explain(source(), "x_total", Steps(0, 20_000_000, 1), OPTIONS)

    def late() -> None:
        raise QueryTimeout("late")

    with pytest.raises(QueryTimeout):
        analyze(source(), "x_total", STEPS, OPTIONS, clock=time.perf_counter, deadline=late)


def test_a_source_that_cannot_tell_counts_its_series() -> None:
    class Counting(MemorySource):
        def series(self, selection: Selection):  # type: ignore[no-untyped-def]
            (batch,) = self.batches
            return batch.series.take(np.flatnonzero(select_rows(batch.series, selection.matchers)))

    told = explain(Counting(source_of(SCRIPT).batches), "x_total", STEPS, OPTIONS)
    assert told.root is not None and (told.root.reads[0].series, told.root.reads[0].pages) == (3, 0)


def _nodes(told: Explanation) -> list[ExplainedNode]:
    assert told.root is not None
    nodes, stack = [], [told.root]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(reversed(node.children))
    return nodes


def _shape(node: ExplainedNode | None) -> object:
    return None if node is None else (node.name, node.steps, len(node.reads), [_shape(part) for part in node.children])

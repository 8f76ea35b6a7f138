"""Samples that a query looks at on each step, by Prometheus's rules, and what the nodes of a query say of themselves."""

import time

import pytest

from promql.answer import PER_STEP_STATS, NodeStats, QueryStats
from promql.engine import QueryOptions, query_instant, query_range
from promql.matrix import Steps
from promql.measure import histogram_weights
from promql.syntax.typecheck import ALL_FEATURES
from tests.promql.memory import batch_of, source_of

OPTIONS = QueryOptions(features=ALL_FEATURES)
STEPS = Steps(25_000, 55_000, 10_000)
SCRIPT = """load 10s
  x_total{i="1"} 0+1x12
  x_total{i="2"} 0 1 _ _ 4 5 stale 7 8
"""


def stats(query: str, batch_size: int = 1, options: QueryOptions = OPTIONS) -> QueryStats:
    answer = query_range(source_of(SCRIPT, batch_size), query, STEPS, options, clock=time.perf_counter)
    assert answer.stats is not None
    return answer.stats


@pytest.mark.parametrize("batch_size", [1, 9])
@pytest.mark.parametrize(
    ("query", "counts"),
    [
        ("x_total", [2, 2, 2, 2]),  # the lookback reaches over the gap
        ("x_total[20s]", None),
        ("rate(x_total[20s])", [3, 2, 3, 4]),  # 2 of the first series in every window
        ("sum(rate(x_total[20s]))", [3, 2, 3, 4]),
        ("timestamp(x_total)", [2, 2, 2, 2]),
        ("x_total @ 25", [2, 2, 2, 2]),  # looked at once, counted at each step
        ("sum(x_total @ 25) + x_total", [4, 4, 4, 4]),
        ("sum(x_total) / (sum(x_total) + 1)", [4, 4, 4, 4]),  # read once, counted at both places
        ("max_over_time(x_total[20s:10s])", [4, 4, 4, 4]),  # the inner values count, not what they were made from
        ("count_over_time(x_total[26s]) + 1", [5, 4, 4, 5]),
        ("time()", [0, 0, 0, 0]),
    ],
)
def test_samples_looked_at(query: str, counts: list[int] | None, batch_size: int) -> None:
    if counts is None:
        answer = query_instant(source_of(SCRIPT, batch_size), query, 25_000, OPTIONS, clock=time.perf_counter)
        assert answer.stats is not None and answer.stats.per_step is not None
        assert answer.stats.per_step.tolist() == [3]
        return
    found = stats(query, batch_size).per_step
    assert found is not None
    assert found.tolist() == counts


def test_single_steps_are_told_with_the_feature_only() -> None:
    assert not stats("x_total").tell_steps
    assert stats("x_total", options=QueryOptions(features=frozenset({PER_STEP_STATS}))).tell_steps


def test_without_a_clock_nothing_is_measured() -> None:
    found = query_range(source_of(SCRIPT), "rate(x_total[20s])", STEPS, OPTIONS).stats
    assert found is not None
    assert (found.root, found.per_step, found.samples) == (None, None, 8)


def parts(node: NodeStats) -> list[tuple[str, bool, bool]]:
    """(name, streamed, taken from above) of the node and all below."""
    found = [(node.name, node.streamed, node.again is not None)]
    for part in node.parts:
        found += parts(part)
    return found


def test_the_tree_of_nodes() -> None:
    root = stats("sum(rate(x_total[20s])) / (sum(rate(x_total[20s])) + 1)").root
    assert root is not None
    assert parts(root) == [
        ("/", False, False),
        ("sum", False, False),
        ("rate", True, False),
        ("+", False, False),
        ("sum", False, True),
        ("NumberLiteral", False, False),
    ]
    rate = root.parts[0].parts[0]
    assert (rate.batches, rate.series, len(rate.reads)) == (2, 2, 1)
    assert (rate.reads[0].series, rate.reads[0].samples, rate.reads[0].batches) == (2, 8, 2)
    assert root.seconds >= root.parts[0].seconds >= rate.seconds > 0


def test_a_histogram_counts_as_its_room() -> None:
    script = "load 10s\n  h {{schema:0 count:7 sum:3 buckets:[1 2 3] n_buckets:[1]}}x3"
    histograms = batch_of(script).histograms
    assert histograms is not None
    assert set(histogram_weights(histograms).tolist()) == {(168 + 8 * 4 + 8 * 2 + 8) // 16}
    answer = query_instant(source_of(script), "h", 20_000, OPTIONS, clock=time.perf_counter)
    assert answer.stats is not None and answer.stats.per_step is not None
    assert answer.stats.per_step.tolist() == [(168 + 8 * 4 + 8 * 2 + 8) // 16]

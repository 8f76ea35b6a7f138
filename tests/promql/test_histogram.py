"""Arithmetic on native histograms against one-at-a-time models and tables of Prometheus's rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.histogram import arithmetic as histogram
from promql.histogram.arithmetic import Terms
from tests.promql.histogram_literal import HistogramLiteral, from_histograms, same_histogram, to_histograms
from tests.promql.histograms import as_f64, coarser, custom, exponential, filled, histograms
from tsdb.model.histogram import COUNTER_RESET, GAUGE, NOT_COUNTER_RESET, UNKNOWN_RESET, Histograms


def only(result: Histograms) -> HistogramLiteral:
    assert len(result) == 1
    return from_histograms(result, 0)


@given(st.lists(exponential(), min_size=1, max_size=5))
def test_a_sum_has_the_coarsest_schema_and_all_observations(literals: list[HistogramLiteral]) -> None:
    rows = np.arange(len(literals))
    out = only(histogram.combine(to_histograms(literals), Terms(np.array([0, len(rows)]), rows, np.ones(len(rows)))).histograms)
    schema = min(literal.schema for literal in literals)
    assert out.schema == schema
    for side in ("positive", "negative"):
        expected: dict[int, float] = {}
        for literal in literals:
            for index, count in coarser(getattr(literal, side), literal.schema - schema).items():
                expected[index] = expected.get(index, 0.0) + count
        assert getattr(out, side) == filled(expected)
    for name in ("count", "sum", "zero_count"):
        assert getattr(out, name) == sum(getattr(literal, name) for literal in literals)


@given(exponential(), exponential())
def test_what_is_added_can_be_taken_away(a: HistogramLiteral, b: HistogramLiteral) -> None:
    left, right = to_histograms([a]), to_histograms([b])
    back = histogram.subtract(histogram.add(left, right).histograms, right).histograms
    shift = a.schema - min(a.schema, b.schema)
    assert only(back).positive == filled(coarser(a.positive, shift))
    assert only(back).negative == filled(coarser(a.negative, shift))


@given(exponential(thresholds=(0.0, 0.3, 1.0, 3.0)), exponential(thresholds=(0.0, 0.5, 2.0)))
def test_a_common_zero_bucket_loses_nothing_and_cuts_no_bucket(a: HistogramLiteral, b: HistogramLiteral) -> None:
    ab = only(histogram.add(to_histograms([a]), to_histograms([b])).histograms)
    ba = only(histogram.add(to_histograms([b]), to_histograms([a])).histograms)
    assert same_histogram(ab, ba)
    assert ab.zero_threshold >= max(a.zero_threshold, b.zero_threshold)
    assert ab.zero_count + sum(ab.positive.values()) + sum(ab.negative.values()) == a.count + b.count


@given(custom(), custom())
def test_custom_histograms_meet_on_the_bounds_both_have(a: HistogramLiteral, b: HistogramLiteral) -> None:
    out = histogram.add(to_histograms([a]), to_histograms([b]))
    result = only(out.histograms)
    assert set(result.bounds) == set(a.bounds) & set(b.bounds)
    assert out.reconciled[0] == (a.bounds != b.bounds)
    assert sum(result.positive.values()) == a.count + b.count
    for i, bound in enumerate(result.bounds):  # counts up to a shared bound are exact
        below = sum(count for index, count in result.positive.items() if index <= i)
        assert below == sum(
            c for h in (a, b) for index, c in h.positive.items() if index < len(h.bounds) and h.bounds[index] <= bound
        )


def test_exponential_and_custom_do_not_mix() -> None:
    parts = histograms(
        "schema:0 count:1 buckets:[1]", "schema:-53 count:1 custom_values:[5] buckets:[1]", "schema:0 count:2 buckets:[2]"
    )
    out = histogram.combine(parts, Terms(np.array([0, 2, 4]), np.array([0, 1, 0, 2]), np.ones(4)))
    assert out.incompatible.tolist() == [True, False]
    assert from_histograms(out.histograms, 1).positive == {0: 3.0}
    assert out.histograms.count.tolist() == [0.0, 3.0]


def test_sums_are_compensated() -> None:
    parts = histograms("count:1 sum:5.3", "count:2 sum:1e100", "count:3 sum:1", "count:4 sum:-1e100")
    out = histogram.combine(parts, Terms(np.array([0, 4]), np.arange(4), np.ones(4)))
    assert out.histograms.sum[0] == pytest.approx(6.3, rel=1e-15)


def test_a_mean_survives_an_overflowing_sum() -> None:
    parts = histograms("count:1.7e308 sum:1 buckets:[1.7e308]", "count:1.7e308 sum:2 buckets:[1.7e308]")
    out = histogram.mean(parts, Terms(np.array([0, 2]), np.arange(2), np.ones(2))).histograms
    assert out.count[0] == pytest.approx(1.7e308)
    assert out.positive.counts.tolist() == [pytest.approx(1.7e308)]
    assert out.sum[0] == 1.5


HINTS = [
    (UNKNOWN_RESET, UNKNOWN_RESET, UNKNOWN_RESET, False),
    (NOT_COUNTER_RESET, NOT_COUNTER_RESET, NOT_COUNTER_RESET, False),
    (COUNTER_RESET, COUNTER_RESET, COUNTER_RESET, False),
    (GAUGE, NOT_COUNTER_RESET, GAUGE, False),
    (COUNTER_RESET, GAUGE, GAUGE, False),
    (UNKNOWN_RESET, NOT_COUNTER_RESET, UNKNOWN_RESET, False),
    (COUNTER_RESET, UNKNOWN_RESET, UNKNOWN_RESET, False),
    (COUNTER_RESET, NOT_COUNTER_RESET, UNKNOWN_RESET, True),
]


@pytest.mark.parametrize(("left", "right", "expected", "collision"), HINTS)
def test_hints_of_sums(left: int, right: int, expected: int, *, collision: bool) -> None:
    words = ["unknown", "reset", "not_reset", "gauge"]
    one, other = (histograms(f"count:1 counter_reset_hint:{words[hint]}") for hint in (left, right))
    for a, b in ((one, other), (other, one)):
        out = histogram.add(a, b)
        assert out.histograms.hint.tolist() == [expected]
        assert out.collision.tolist() == [collision]
    assert histogram.subtract(one, other).histograms.hint.tolist() == [GAUGE]


def test_scaling() -> None:
    one = histograms("schema:0 count:6 sum:9 z_bucket:1 z_bucket_w:0.5 buckets:[2 0 2] n_buckets:[1]")
    twice = only(histogram.scale(one, as_f64(2)))
    assert (twice.count, twice.sum, twice.zero_count) == (12, 18, 2)
    assert (twice.positive, twice.negative, twice.hint) == ({0: 4, 1: 0, 2: 4}, {0: 2}, UNKNOWN_RESET)
    assert histogram.negate(one).hint.tolist() == [GAUGE]
    none = only(histogram.divide(one, as_f64(0)))
    assert (none.count, none.positive, none.negative) == (np.inf, {}, {})
    assert only(histogram.divide(one, as_f64(-2))).hint == GAUGE


def test_equality_is_bit_for_bit_but_ignores_hints_and_empty_buckets() -> None:
    base = "schema:1 count:3 sum:4 buckets:[1 2]"
    same = ["schema:1 count:3 sum:4 buckets:[1 2 0] counter_reset_hint:gauge", "schema:1 count:3 sum:4 offset:-1 buckets:[0 1 2]"]
    other = [
        "schema:0 count:3 sum:4 buckets:[1 2]",
        "schema:1 count:3 sum:4 buckets:[1 3]",
        "schema:1 count:3 sum:4 buckets:[1 2 1]",
        "schema:1 count:3 sum:4 offset:1 buckets:[1 2]",
        "schema:1 count:3 sum:5 buckets:[1 2]",
        "schema:1 count:3 sum:4 n_buckets:[1 2]",
        "schema:1 count:3 sum:4 z_bucket_w:0.1 buckets:[1 2]",
    ]
    many = histograms(*same, *other)
    assert histogram.equal(histograms(*[base] * len(many)), many).tolist() == [True] * len(same) + [False] * len(other)
    bounds = histograms("schema:-53 count:1 custom_values:[1 2] buckets:[1]", "schema:-53 count:1 custom_values:[1 3] buckets:[1]")
    assert histogram.equal(bounds, bounds.take(np.array([0, 0]))).tolist() == [True, False]


RESETS = [
    ("count:4 buckets:[1 3]", "count:5 buckets:[2 3]", False),
    ("count:4 buckets:[1 3]", "count:3 buckets:[1 3]", True),  # the count fell
    ("count:4 buckets:[1 3]", "count:5 buckets:[2 2]", True),  # a bucket fell
    ("count:4 buckets:[1 3]", "count:5 buckets:[5]", True),  # a bucket vanished
    ("count:4 n_buckets:[1 3]", "count:5 n_buckets:[5]", True),
    ("count:4 buckets:[1 0 3]", "count:5 buckets:[1] offset:0", True),
    ("count:1 buckets:[1 0]", "count:1 buckets:[1]", False),  # an empty bucket may vanish
    ("count:1 z_bucket:1", "count:1 z_bucket:0", True),
    ("schema:0 count:4 buckets:[1 3]", "schema:1 count:9 buckets:[9 9 9 9]", True),  # a finer schema
    ("schema:1 count:4 buckets:[1 1 2]", "schema:0 count:5 buckets:[1 4]", False),  # a coarser one that holds all
    ("schema:1 count:4 buckets:[1 1 2]", "schema:0 count:5 buckets:[1 2]", True),
    ("count:1 z_bucket_w:0.5 z_bucket:1", "count:2 z_bucket_w:0.25 z_bucket:2", True),  # a smaller zero bucket
    ("count:3 z_bucket_w:0.25 z_bucket:1 offset:0 buckets:[2]", "count:3 z_bucket_w:1 z_bucket:3", False),  # swallows a bucket
    ("count:3 z_bucket_w:0.25 z_bucket:1 offset:0 buckets:[2]", "count:3 z_bucket_w:1 z_bucket:2", True),
    ("count:3 z_bucket_w:0.25 z_bucket:1 offset:0 buckets:[2]", "count:3 z_bucket_w:0.75 z_bucket:3", True),  # cuts one
    ("count:3 z_bucket_w:0.25 z_bucket:1 offset:1 buckets:[2]", "count:4 z_bucket_w:0.75 z_bucket:1 buckets:[1 2]", False),
    ("count:1 buckets:[1]", "schema:-53 count:1 custom_values:[5] buckets:[1]", True),
    ("schema:-53 count:1 custom_values:[5] buckets:[1]", "count:1 buckets:[1]", True),
    ("schema:-53 count:3 custom_values:[5 9] buckets:[1 2]", "schema:-53 count:3 custom_values:[9] buckets:[3]", False),
    ("schema:-53 count:3 custom_values:[5 9] buckets:[1 2]", "schema:-53 count:3 custom_values:[9] buckets:[2 1]", True),
    ("count:9", "count:1 counter_reset_hint:not_reset", False),
    ("count:1", "count:9 counter_reset_hint:reset", True),
    ("count:9", "count:1 counter_reset_hint:gauge", True),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), RESETS)
def test_counter_resets(before: str, after: str, *, expected: bool) -> None:
    assert histogram.resets(histograms(before, after), np.array([0]), np.array([1])).tolist() == [expected]


def test_all_resets_at_once_are_those_one_by_one() -> None:
    pairs = histograms(*(text for before, after, _ in RESETS for text in (before, after)))
    at = np.arange(0, len(pairs), 2)
    assert histogram.resets(pairs, at, at + 1).tolist() == [expected for _, _, expected in RESETS]


@settings(max_examples=30)
@given(st.integers(-(2**31), 2**31 - 1))
def test_a_wild_bucket_index_needs_little_room(index: int) -> None:
    one = histograms("count:2 buckets:[1]")
    wild = to_histograms([HistogramLiteral(schema=8, count=1.0, positive={index: 1.0})])
    assert histogram.add(wild, one).histograms.positive.counts.sum() == 2.0


def test_nothing_to_add() -> None:
    empty = Terms(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0))
    assert len(histogram.combine(Histograms.empty(), empty).histograms) == 0

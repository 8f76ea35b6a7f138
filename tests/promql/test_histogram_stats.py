"""Quantiles, fractions, moments, trims, bucket bounds and texts of native histograms."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promql.annotations import Annotations
from promql.histogram import stats
from promql.histogram.buckets import CLOSED, OPEN_LEFT, OPEN_RIGHT, bucket_rows, go_float, to_text
from promql.histogram.layout import columns
from promql.histogram.trim import trim
from tests.promql.histogram_literal import HistogramLiteral, to_histograms
from tests.promql.histograms import as_f64, custom, exponential, histograms
from tsdb.kernel import histogram as kernel
from tsdb.model.series import strings

INF = np.inf
EXAMPLE = "schema:0 count:12 sum:100 z_bucket:2 z_bucket_w:0.001 buckets:[2 3 0 1 4]"
none = st.just(0.0)
either = st.one_of(exponential(thresholds=(0.0, 1e-30), least=1), custom(least=1))


@given(either, st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_quantiles_rise_with_q(literal: HistogramLiteral, qs: list[float]) -> None:
    many = to_histograms([literal] * len(qs))
    values = stats.quantile(as_f64(*sorted(qs)), many)
    assert not np.isnan(values).any()
    assert np.all(values[1:] >= values[:-1] - 1e-9 * np.abs(values[:-1]))


@given(exponential(zeros=none, least=1), st.floats(0.001, 0.999))
def test_fraction_undoes_quantile(literal: HistogramLiteral, q: float) -> None:
    one = to_histograms([literal])
    value = stats.quantile(as_f64(q), one)
    assert stats.fraction(as_f64(-INF), value, one)[0] == pytest.approx(q, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "q", "expected"),
    [
        (EXAMPLE, 0.5, 1.5874010519681994),
        (EXAMPLE, 0.1, 0.0006),
        (EXAMPLE, 0.0, 0.0),
        (EXAMPLE, 1.0, 16.0),
        (EXAMPLE, -0.1, -INF),
        (EXAMPLE, 1.1, INF),
        (EXAMPLE, np.nan, np.nan),
        ("", 0.5, np.nan),
        ("schema:-53 count:4 custom_values:[5 10] buckets:[1 2 1]", 0.5, 7.5),
        ("schema:-53 count:4 custom_values:[5 10] buckets:[1 2 1]", 1.0, 10.0),  # the last bucket has no end
        ("schema:-53 count:4 custom_values:[-5 10] buckets:[4]", 0.5, -5.0),  # nor has the first a start
        ("schema:0 count:15 sum:NaN buckets:[12]", 0.8, 1.0),
        ("schema:0 count:15 sum:NaN buckets:[12]", 0.81, np.nan),
        ("count:5 sum:1", 0.0, np.nan),  # no bucket is populated: 0/0 at the ends
        ("count:5 sum:1", 0.5, 0.0),
        ("count:5 sum:1", 1.0, np.nan),
    ],
)
def test_quantile_of(text: str, q: float, expected: float) -> None:
    assert stats.quantile(as_f64(q), histograms(text))[0] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "low", "high", "expected"),
    [
        (EXAMPLE, 0, INF, 1.0),
        (EXAMPLE, -INF, 0, 0.0),
        (EXAMPLE, 0, 1.5, 0.4795739585136224),
        (EXAMPLE, 42, 3, 0.0),
        (EXAMPLE, np.nan, 3, np.nan),
        ("", 0, 1, np.nan),
        ("schema:-53 count:4 custom_values:[5 10] buckets:[1 2 1]", 0, 7.5, 0.5),
        ("schema:-53 count:4 custom_values:[-5 10] buckets:[4]", -INF, -6, 1.0),
        ("schema:-53 count:10 custom_values:[-5 5] buckets:[0 10]", -3, 0, 0.0),  # a custom bucket around 0 begins there
        ("schema:-53 count:13 custom_values:[-5 5] buckets:[3 10]", -3, 2.5, 5 / 13),
        ("schema:0 count:15 sum:NaN buckets:[12]", -INF, INF, 0.8),
    ],
)
def test_fraction_of(text: str, low: float, high: float, expected: float) -> None:
    assert stats.fraction(as_f64(low), as_f64(high), histograms(text))[0] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "q", "expected"),
    [
        ("schema:-53 count:6 custom_values:[5] buckets:[1 5]", 0.1, False),
        ("schema:-53 count:6 custom_values:[5] buckets:[1 5]", 0.5, True),
        ("schema:-53 count:6 custom_values:[5] buckets:[6]", 0.9, False),  # its -Inf is taken for 0
        ("schema:-53 count:6 custom_values:[-5] buckets:[6]", 0.9, True),
        ("schema:-53 count:6 custom_values:[5]", 0.5, False),
        (EXAMPLE, 1.0, False),
    ],
)
def test_quantiles_in_buckets_without_end(text: str, q: float, *, expected: bool) -> None:
    for kernel_of in (kernel.in_endless, kernel.in_endless.py_func):
        assert kernel_of(columns(histograms(text)), as_f64(q)).tolist() == [expected]


def test_moments() -> None:
    many = histograms("schema:2 count:4 sum:10 buckets:[1 0 0 0 1 0 0 1 1]", "", "count:2 sum:Inf buckets:[2]")
    assert stats.average(many)[0] == 2.5
    assert stats.deviation(many)[0] == pytest.approx(1.0787993180043811)
    assert np.isnan(stats.variance(many)[1])
    assert stats.variance(many)[2] == INF


def test_notes_on_observations_of_nan() -> None:
    notes = Annotations("x")
    many = histograms("count:15 sum:NaN buckets:[12]", "count:1 sum:1 buckets:[1]")
    q = as_f64(0.9, 0.9)
    stats.note_nan_quantiles(many, q, stats.quantile(q, many), strings(["a", "b"]), (0, 1), notes)
    stats.note_nan_fractions(many, as_f64(0, 0), as_f64(1, 1), strings(["a", "b"]), (0, 1), notes)
    assert list(notes.infos) == [
        'PromQL info: input to histogram_quantile has NaN observations, result is NaN for metric name "a" (1:1)',
        "PromQL info: input to histogram_fraction has NaN observations, which are excluded from all fractions"
        ' for metric name "a" (1:1)',
    ]


def test_no_notes_where_all_observations_are_in_buckets() -> None:
    notes = Annotations("x")
    many = histograms("count:12 sum:NaN buckets:[12]", "schema:-53 count:15 sum:NaN custom_values:[5] buckets:[1 5]")
    q = as_f64(0.5, 0.9)  # the second, though it has some elsewhere, in the bucket to +Inf
    stats.note_nan_quantiles(many, q, stats.quantile(q, many), strings(["a", "b"]), (0, 1), notes)
    stats.note_nan_fractions(many.take(np.array([0])), as_f64(0), as_f64(1), strings(["a"]), (0, 1), notes)
    assert not notes.infos


@given(st.one_of(exponential(zeros=none, least=1), custom(least=1)), st.floats(1e-6, 100), st.sampled_from([-1, 1]))
def test_trims_keep_the_fraction(literal: HistogramLiteral, size: float, sign: int) -> None:
    at = sign * size
    assume(not literal.bounds or at < literal.bounds[-1])  # a bucket without end goes whole, but has a fraction
    one = to_histograms([literal])
    below = stats.fraction(as_f64(-INF), as_f64(at), one) * literal.count
    assert trim(one, as_f64(at), upper=True).count == pytest.approx(below, abs=1e-6)


@given(exponential(), st.floats(-1e6, 1e6))
def test_two_trims_share_the_observations(literal: HistogramLiteral, at: float) -> None:
    one = to_histograms([literal])
    both = trim(one, as_f64(at), upper=True).count + trim(one, as_f64(at), upper=False).count
    assert both == pytest.approx(literal.count)


def test_trims_at_nan_leave_no_bucket() -> None:
    one = histograms("schema:-53 count:6 sum:10 custom_values:[1 5] buckets:[1 2 3]")
    for upper in (True, False):
        out = trim(one, as_f64(np.nan), upper=upper)
        assert (out.count[0], out.sum[0], len(out.positive.index)) == (0, 0, 0)


def test_trims_without_effect_change_nothing() -> None:
    one = histograms(EXAMPLE)
    for out in (trim(one, as_f64(INF), upper=True), trim(one, as_f64(-INF), upper=False)):
        assert (out.count[0], out.sum[0]) == (12, 100)
    assert trim(one, as_f64(-INF), upper=True).count[0] == 0


def test_buckets_from_low_to_high() -> None:
    rows = bucket_rows(
        histograms(
            "schema:0 count:9 z_bucket:1 z_bucket_w:0.75 buckets:[2 0 1] n_buckets:[3 2]",
            "",
            "schema:-53 count:3 custom_values:[-1 5] buckets:[1 1 1]",
        )
    )
    assert rows.offsets.tolist() == [0, 5, 5, 8]
    assert rows.lower.tolist() == [-2, -1, -0.75, 0.75, 2, -INF, -1, 5]
    assert rows.upper.tolist() == [-1, -0.75, 0.75, 1, 4, -1, 5, INF]
    assert rows.counts.tolist() == [2, 3, 1, 2, 1, 1, 1, 1]
    assert rows.bounds.tolist() == [OPEN_RIGHT, OPEN_RIGHT, CLOSED, OPEN_LEFT, OPEN_LEFT, CLOSED, OPEN_LEFT, OPEN_LEFT]


def test_bounds_at_the_ends_of_the_floats() -> None:
    rows = bucket_rows(to_histograms([HistogramLiteral(schema=-4, count=1.0, positive={64: 1.0, -67: 1.0})]))
    assert rows.upper.tolist() == [2.0**-1072, 1.7976931348623157e308]
    assert rows.lower.tolist() == [0.0, 2.0**1008]


def test_text() -> None:
    many = histograms(
        "count:6 sum:1e7 z_bucket:1 z_bucket_w:0.001 buckets:[1 0 2] n_buckets:[2.5]", "schema:-53 custom_values:[5] buckets:[1 1]"
    )
    assert to_text(many, 0) == "{count:6, sum:1e+07, [-1,-0.5):2.5, [-0.001,0.001]:1, (0.5,1]:1, (2,4]:2}"
    assert to_text(many, 1) == "{count:0, sum:0, [-Inf,5]:1, (5,+Inf]:1}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.5, "1.5"), (1e6, "1e+06"), (123456.0, "123456"), (1e-5, "1e-05"), (0.0001, "0.0001"),
        (-1234567.5, "-1.2345675e+06"), (INF, "+Inf"), (-INF, "-Inf"), (np.nan, "NaN"),
    ],
)  # fmt: skip
def test_go_float(value: float, text: str) -> None:
    assert go_float(value) == text

import math

import pytest

from promql.message_text import general, is_label_name, labels_text, open_metrics, parse_float
from tsdb.model.labels import Labels


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0, "0"), (1.1, "1.1"), (-0.5, "-0.5"), (100000, "100000"), (1e6, "1e+06"), (1234567, "1.234567e+06"), (1e19, "1e+19"),
        (0.0001, "0.0001"), (0.00001, "1e-05"), (1e-300, "1e-300"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_general_is_go_s_g(value: float, want: str) -> None:
    assert general(value) == want


@pytest.mark.parametrize(
    ("value", "want"), [(0, "0.0"), (1, "1.0"), (0.25, "0.25"), (1e6, "1e+06"), (math.nan, "NaN"), (math.inf, "+Inf")]
)
def test_open_metrics_shows_that_it_is_a_float(value: float, want: str) -> None:
    assert open_metrics(value) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0.5", 0.5), ("+Inf", math.inf), ("-inf", -math.inf), ("infinity", math.inf), ("1e3", 1000), (".5", 0.5), ("5.", 5),
        ("0x1p-2", 0.25),
        ("", None), ("1_0", None), (" 1", None), ("0x10", None), ("1e999", None), ("--1", None), ("١", None), ("+nan", None),
    ],
)  # fmt: skip
def test_parse_float_reads_what_go_reads(text: str, want: float | None) -> None:
    assert parse_float(text) == want


def test_labels_text_puts_the_name_among_the_labels() -> None:
    assert (
        labels_text(Labels.of({"__name__": "up", "job": 'a"b', "my.label": "x"})) == '{__name__="up", job="a\\"b", "my.label"="x"}'
    )
    assert labels_text(Labels(())) == "{}"


def test_label_names() -> None:
    assert is_label_name("a") and is_label_name("schlüssel ") and not is_label_name("") and not is_label_name("a\udcc5z")

"""JSON text of samples, against Python's own digits laid out by Go's rules."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsdb.kernel.text import NAMES, POINT_BYTES, STAMP_BYTES, is_plain, write_series


def text(
    kernel: Callable[..., int], labels: list[dict[str, str]], t_ms: list[int], values: npt.NDArray[np.float64], **more: Any
) -> str:
    """The text of series that share the values equally; `t_ms` are the times of each of them, or with `base` of each value."""
    names = sorted({name for row in labels for name in row})
    known = sorted({value for row in labels for value in row.values()})
    pieces = [b"{", b"[", b"]", *(name.encode() + b":" for name in names), *(value.encode() for value in known)]
    ids = [[NAMES + len(names) + known.index(row[name]) if name in row else -1 for row in labels] for name in names]
    tails = [b""] * len(labels) if "tails" not in more else more["tails"]
    present = more.get("present", np.ones(len(values), bool))
    rows = np.array(more.get("rows", range(len(labels))), np.int64)
    offsets = np.linspace(0, len(values), len(labels) + 1).astype(np.int64)
    told = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in rows])
    digits = [float(v) for v in values[told][present[told]] if not is_plain(v)]
    out = np.full(1000 + POINT_BYTES * len(values), 0xEE, np.uint8)
    used = kernel(
        rows, np.frombuffer(bytearray(b"".join(pieces)), np.uint8), ends(pieces),
        np.array(ids, np.int32).reshape(len(names), len(labels)),
        np.frombuffer(bytearray(b"".join(tails)), np.uint8), ends(tails), offsets, present, values, np.array(t_ms, np.int64),
        more.get("base", -1), np.frombuffer(bytearray(orjson.dumps(digits)), np.uint8),
        np.empty((len(t_ms), STAMP_BYTES + 1), np.uint8), out,
    )  # fmt: skip
    return out[:used].tobytes().decode()


def ends(texts: list[bytes]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *map(len, texts)]).astype(np.int64)


def pairs(t_ms: list[int], values: npt.NDArray[np.float64]) -> str:
    """`[[t,"v"],…]` of one series."""
    whole = text(write_series, [{}], t_ms, values)
    assert whole.startswith("{}") and whole.endswith("}")
    return whole[2:-1] or "[]"


def go(value: float) -> str:
    """strconv.FormatFloat with 'f', or 'e' below 1e-6 and from 1e21 on, from the digits of Python's repr."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len((whole + fraction).lstrip("0")))
    digits = digits.rstrip("0")
    if not digits:
        return sign + "0"
    if abs(value) < 1e-6 or abs(value) >= 1e21:
        rest = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{'-' if point < 1 else '+'}{abs(point - 1):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return sign + digits[:point].ljust(point, "0") + ("." + digits[point:] if len(digits) > point else "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (-1.5, "-1.5"), (math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf"),
        (1e-7, "1e-07"), (1.5e-7, "1.5e-07"), (1e-6, "0.000001"), (1.25e-6, "0.00000125"), (9.9e-6, "0.0000099"),
        (1e-5, "0.00001"), (-2e-6, "-0.000002"), (1e16, "10000000000000000"), (1.2345678901234568e17, "123456789012345680"),
        (1e20, "100000000000000000000"), (123456789012345680000.0, "123456789012345680000"), (1e21, "1e+21"), (1e22, "1e+22"),
        (1.5e300, "1.5e+300"), (5e-324, "5e-324"), (9007199254740992.0, "9007199254740992"), (0.1, "0.1"),
        (9007199254740993.0, "9007199254740992"), (-9e15, "-9000000000000000"),
    ],
)  # fmt: skip
def test_values_as_go_writes_them(value: float, text: str) -> None:
    assert go(value) == text
    assert pairs([0], np.array([value])) == f'[[0,"{text}"]]'


@settings(max_examples=300)
@given(st.lists(st.one_of(st.floats(), st.floats(-1e-5, 1e-5), st.floats(1e15, 1e23), st.integers(-(1 << 62), 1 << 62).map(float))))
@example([1e-6, 9.999999999999999e-7, 1e-5, 9.999999999999999e20, 1e21, 1e15, 1e16])
def test_values_against_python(values: list[float]) -> None:
    want = ",".join(f'[{i},"{go(v)}"]' for i, v in enumerate(values))
    assert pairs([i * 1000 for i in range(len(values))], np.array(values)) == f"[{want}]"


def test_powers_of_ten_and_two() -> None:
    values = [sign * base**power for sign in (1, -1) for base in (10.0, 2.0) for power in range(-300, 300)]
    got = pairs([0] * len(values), np.array(values))
    assert got == "[" + ",".join(f'[0,"{go(v)}"]' for v in values) + "]"


@pytest.mark.parametrize(
    ("t_ms", "text"),
    [
        (0, "0"), (1, "0.001"), (1500, "1.500"), (1_700_000_000_000, "1700000000"), (-1, "-0.001"), (-1500, "-1.500"),
        (1 << 53, "9007199254740.992"),
    ],
)  # fmt: skip
def test_times(t_ms: int, text: str) -> None:
    assert pairs([t_ms], np.array([1.0])) == f'[[{text},"1"]]'


LABELS = [{"a": "x", "b": "y"}, {"b": "x"}, {}, {"a": "y"}]
VALUES = np.array([1.0, 0.5, 1e-7, 1e17, math.nan, -3.0, 0.25, 2.0])
ABSENT = np.array([True, True, False, True, False, False, True, False])


@pytest.mark.parametrize("kernel", [write_series, write_series.py_func])
def test_series_with_labels_pairs_and_tails(kernel: Callable[..., int]) -> None:
    assert text(kernel, LABELS, [5, 61_000], VALUES) == (
        '{a:x,b:y}[[0.005,"1"],[61,"0.5"]]},{b:x}[[0.005,"0.0000001"],[61,"100000000000000000"]]},'
        '{}[[0.005,"NaN"],[61,"-3"]]},{a:y}[[0.005,"0.25"],[61,"2"]]}'
    ).replace("0.0000001", "1e-07")
    tails = [b"", b"", b"T", b"U"]
    assert text(kernel, LABELS, [5, 61_000], VALUES, present=ABSENT, tails=tails) == (
        '{a:x,b:y}[[0.005,"1"],[61,"0.5"]]},{b:x}[[61,"100000000000000000"]]},{}T},{a:y}[[0.005,"0.25"]]U}'
    )


@pytest.mark.parametrize("kernel", [write_series, write_series.py_func])
def test_some_series_with_times_of_their_own(kernel: Callable[..., int]) -> None:
    times = [1000 * i for i in range(4, 8)]
    got = text(kernel, LABELS, times, VALUES, rows=[2, 3], base=4)
    assert got == '{}[[4,"NaN"],[5,"-3"]]},{a:y}[[6,"0.25"],[7,"2"]]}'

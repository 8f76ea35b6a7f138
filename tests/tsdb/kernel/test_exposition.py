"""Lines to columns: the compiled scan and its plain Python, and decimals against Python's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdb.kernel.exposition import read_decimal, scan_exposition
from tsdb.prometheus.chunk import padded


@given(st.one_of(st.from_regex(r"[+-]?[0-9]{0,17}\.?[0-9]{0,17}([eE][+-]?[0-9]{1,3})?", fullmatch=True), st.floats().map(repr)))
def test_a_decimal_that_is_called_exact_is(text: str) -> None:
    value, exact = read_decimal(np.frombuffer(text.encode(), np.uint8), 0, len(text))
    if exact:
        assert np.float64(value).view(np.uint64) == np.float64(float(text)).view(np.uint64)


@pytest.mark.parametrize("text", ["1", "-0", "+12.5", "0.1", ".5", "5.", "1e3", "123456.789e-3", "000000000000000000001"])
def test_usual_decimals_are_exact(text: str) -> None:
    assert read_decimal(np.frombuffer(text.encode(), np.uint8), 0, len(text)) == (float(text), True)


@pytest.mark.parametrize("text", ["", "-", ".", "e5", "1e", "1e+", "0x1", "1.2.3", "NaN", "1 "])
def test_others_are_not(text: str) -> None:
    assert not read_decimal(np.frombuffer(text.encode(), np.uint8), 0, len(text))[1]


@pytest.mark.parametrize(
    "text", ['a 1 2\nb{c="}"} NaN 3 # {} 1\n\n# x\r\n', "a 1\n", "a{ 1 2\n", "a\n", "a 1 x\n", 'a{b="\\"} 1 2', "  a\t1\t2\r\n"]
)
def test_compiled_and_plain_agree(text: str) -> None:
    data, answers = padded(text.encode()), []
    for run in (scan_exposition, scan_exposition.py_func):
        start, end, t_ms, slow = np.zeros(9, np.int64), np.zeros(9, np.int64), np.zeros(9, np.int64), np.zeros((3, 9), np.int64)
        hashes, values = np.zeros(9, np.uint64), np.zeros(9)
        with np.errstate(over="ignore"):
            out = run(data, 0, len(text), 1000.0, start, end, hashes, values, t_ms, slow)
        answers.append([column.tolist() for column in (out, start, end, hashes, values, t_ms, slow)])
    assert answers[0] == answers[1]

"""The column codec: every column comes back bit for bit, and the compiled kernels do what their Python text says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import NASTY
from tsdb.kernel import codec
from tsdb.kernel.decode import ADDED, FIELDS, SMALL, START, STEP, STREAM, decode_columns
from tsdb.kernel.entropy import MARGIN

RNG = np.random.default_rng(7)
COLUMNS = {
    "empty": [],
    "one": [5],
    "two": [5, -7],
    "constant": [9] * 100,
    "rising": list(range(0, 3000, 30)),
    "jitter": [15_000 * i + (i * 7919) % 5 for i in range(200)],
    "counter": np.cumsum(RNG.integers(0, 1000, 300)).tolist(),
    "gauge": RNG.integers(-500, 500, 300).tolist(),
    "pages": (RNG.integers(0, 1000, 300) * 4096).tolist(),
    "extremes": [-(1 << 63), (1 << 63) - 1, 0, -1, 1, -(1 << 63), -(1 << 63), (1 << 63) - 1],
    "every width": [sign * (1 << bits) for bits in range(63) for sign in (1, -1)],
    "nasty": NASTY,
    "top bit": [0, -(1 << 63)] * 5,
}


def encode(
    columns: list[list[int]], kernel=codec.encode_columns, neighbours=codec.NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(streams one after another, classes of the tables, descriptors, lengths)"""
    lengths = np.array([len(column) for column in columns], np.int64)
    x = np.array([i for column in columns for i in column], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    descriptors = np.zeros((11, len(columns)), np.int64)
    descriptors[codec.SCALE] = codec.BITS
    with np.errstate(over="ignore"):
        streams, classes = kernel(x, offsets, np.zeros(len(columns), np.int64), descriptors, neighbours)
    assert len(streams) == descriptors[codec.SIZE].sum()
    return streams, classes, descriptors, lengths


def decode(coded, low, high, kernel=decode_columns, wanted=None) -> list[list[int]]:
    """Samples [low, high) of each column, or of those that are wanted, clipped to its length."""
    streams, classes, descriptors, lengths = coded
    wanted = np.arange(len(lengths)) if wanted is None else np.array(wanted)
    high = np.minimum(lengths[wanted], high)
    low = np.minimum(low, high)
    at = np.concatenate([[0], np.cumsum(high - low)]).astype(np.int64)
    out = np.zeros(int(at[-1]), np.int64)
    places = np.array([wanted, low, high, at[:-1]])
    none = np.empty(0, np.int64)
    records = np.zeros((len(lengths) + 1, FIELDS), np.int64)
    for row in range(codec.SECOND + 1):
        records[:-1, SMALL] |= (descriptors[row] & 255) << 8 * row
    records[:-1, [START, STEP, ADDED]] = descriptors[[codec.FIRST, codec.SLOPE, codec.BASE]].T
    records[1:, STREAM] = np.cumsum(descriptors[codec.SIZE])
    data = np.concatenate([streams, np.zeros(MARGIN, np.uint8)])
    with np.errstate(over="ignore"):
        kernel(data, classes, records, lengths, places, none, none, out, out.view(np.float64))
    return [out[a:b].tolist() for a, b in itertools.pairwise(at)]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_comes_back(name: str) -> None:
    assert decode(encode([COLUMNS[name]]), 0, 1 << 40) == [COLUMNS[name]]


def test_columns_share_tables_and_any_stretch_of_them_can_be_read() -> None:
    columns = list(COLUMNS.values())
    coded = encode(columns)
    for low, high in ((0, 1000), (0, 1), (1, 2), (2, 3), (1, 60), (5, 5), (63, 200)):
        assert decode(coded, low, high) == [column[low:high] for column in columns]


def test_python_text_and_compiled_kernel_agree() -> None:
    columns = list(COLUMNS.values())
    for mine, theirs in zip(encode(columns), encode(columns, codec.encode_columns.py_func), strict=True):
        assert np.array_equal(mine, theirs)
    assert decode(encode(columns), 1, 50, decode_columns.py_func) == [column[1:50] for column in columns]


def test_some_columns_are_read_without_the_others() -> None:
    rng = np.random.default_rng(11)
    used, free = (np.cumsum(rng.integers(-99, 99, 300)) for _ in range(2))
    sums = [used + i * free for i in range(-1, 3)]  # of which each refers to two before it
    columns = [column.tolist() for column in (used, free, *sums, 3 * used, np.full(300, 7), rng.integers(0, 999, 300))]
    coded = encode(columns)
    assert np.count_nonzero(coded[2][codec.REFER : codec.SECOND + 1]) > 3
    for wanted in ([0], [5], [2, 4], [8, 3], [1, 7], [7], list(range(9))):
        for kernel in (decode_columns, decode_columns.py_func):
            assert decode(coded, 10, 290, kernel, wanted) == [columns[c][10:290] for c in wanted]


def test_regular_times_and_constants_take_no_bytes() -> None:
    streams, classes, _, _ = encode([COLUMNS["constant"], COLUMNS["rising"]])
    assert len(streams) == len(classes) == 0


def test_what_follows_from_columns_before_takes_no_bytes() -> None:
    used, free, rare = (np.cumsum(RNG.integers(-99, 99, 300)) for _ in range(3))
    alone = len(encode([used.tolist(), free.tolist(), rare.tolist()])[0])
    columns = [used, free, rare, used + free, 1000 - rare, used]
    coded = encode([column.tolist() for column in columns])
    assert len(coded[0]) == alone
    assert (
        coded[2][codec.REFER : codec.SECOND + 1, 3:].tolist() == [[-2, -2, -5], [-3, 0, 0]]
        or (coded[2][codec.TABLE, 3:] == 0).all()
    )
    assert decode(coded, 10, 200) == [column[10:200].tolist() for column in columns]


def test_only_columns_of_one_group_refer_to_each_other() -> None:
    column = RNG.integers(0, 99, 200)
    descriptors = np.zeros((11, 2), np.int64)
    codec.encode_columns(np.tile(column, 2), np.array([0, 200, 400]), np.array([0, 1]), descriptors, codec.NEIGHBOURS)
    assert descriptors[codec.REFER].tolist() == [0, 0]


def test_many_kinds_of_noise_share_the_tables_there_are() -> None:
    columns = [(RNG.integers(0, 40, 300) << (i % 50)).tolist() for i in range(120)]
    columns = [[value + j % (i + 2) for j, value in enumerate(column)] for i, column in enumerate(columns)]
    coded = encode(columns)
    assert 1 < len(coded[1]) <= codec.MAX_TABLES
    assert decode(coded, 0, 300) == columns


def test_a_rare_event_takes_a_fraction_of_a_bit() -> None:
    steps = np.zeros(4000, np.int64)
    steps[::200] = 1
    assert len(encode([np.cumsum(steps).tolist()])[0]) < 4000 / 8 * 0.08


@given(
    st.lists(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=40), min_size=1, max_size=4),
    st.integers(0, 40),
    st.integers(0, 40),
)
@settings(max_examples=300)
def test_any_integers_come_back(columns: list[list[int]], low: int, high: int) -> None:
    assert decode(encode(columns), low, max(low, high)) == [column[low : max(low, high)] for column in columns]


def integers(values: np.ndarray, offsets: list[int], kernel=codec.to_integers):
    out = np.zeros(len(values), np.int64)
    with np.errstate(all="ignore"):
        return (*kernel(values, values.view(np.int64), np.array(offsets, np.int64), out), out)


@pytest.mark.parametrize(
    ("values", "scale", "exceptions"),
    [
        ([1.0, 2.0, 3.0], 0, 0),
        ([0.25, 1.5, 2.0], 2, 0),
        ([0.1, 0.2, 123.456], 3, 0),
        ([i / 1e9 for i in range(5)], 9, 0),
        ([0.1 + 0.2, 0.7], -1, 0),
        ([-0.0, 1.0], -1, 0),
        ([1.0] * 31 + [np.nan], 0, 1),
        ([np.inf, *[2.5] * 40], 1, 1),
        ([np.nan] * 3, -1, 0),
        ([2.0**53], -1, 0),
    ],
)
def test_the_least_decimal_exponent_is_found(values: list[float], scale: int, exceptions: int) -> None:
    array = np.array(values)
    found, counts, positions, _ = integers(array, [0, len(array)])
    assert (found.tolist(), counts.tolist(), len(positions)) == ([scale], [exceptions], exceptions)


def test_scaling_agrees_with_its_python_text() -> None:
    values = np.concatenate([np.array(NASTY).view(np.float64), np.round(RNG.normal(size=200), 3), np.full(40, 2.5), [np.nan, -0.0]])
    offsets = [0, 5, len(NASTY), len(values) - 20, len(values)]
    for mine, theirs in zip(integers(values, offsets), integers(values, offsets, codec.to_integers.py_func), strict=True):
        assert np.array_equal(mine, theirs)


def test_series_scraped_together_share_one_time_column() -> None:
    a, b = [0, 10, 20], [0, 11, 20]
    times = np.array([*a, *b, *a, *a[:2], *b], np.int64)
    offsets = np.array([0, 3, 6, 9, 11, 14])
    ref, first = codec.share_times(times, offsets)
    assert ref.tolist() == [0, 1, 0, 2, 1]
    assert first.tolist() == [0, 1, 3]
    assert [x.tolist() for x in codec.share_times.py_func(times, offsets)] == [ref.tolist(), first.tolist()]


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_come_back_when_they_are_coded_quickly(name: str) -> None:
    column = COLUMNS[name]
    coded = encode([column, column[:2], column[:1]], neighbours=0)
    assert decode(coded, np.zeros(3, np.int64), coded[3]) == [column, column[:2], column[:1]]


def test_without_neighbours_no_column_refers_to_another() -> None:
    column = RNG.integers(0, 99, 200)
    descriptors = np.zeros((11, 2), np.int64)
    codec.encode_columns(np.tile(column, 2), np.array([0, 200, 400]), np.array([0, 0]), descriptors, 0)
    assert descriptors[codec.REFER].tolist() == [0, 0]

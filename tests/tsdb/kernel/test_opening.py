"""The kernels that open pages against themselves as plain Python, over sound and damaged descriptions."""

import numpy as np
import pytest

from tests.tsdb.batches import grid_batch, histogram_batch
from tsdb.block.page import encode_page, open_page
from tsdb.kernel import opening
from tsdb.kernel.codec import REFER, SCALE, SHIFT
from tsdb.kernel.decode import EXCEPTION, FIELDS, SMALL
from tsdb.kernel.entropy import MAX_CLASS

I64 = np.int64
SERIES, TIMES, COLUMNS, TABLES, EXCEPTION_COUNT = 5, 2, 7, 2, 3


def arrays() -> list[np.ndarray]:
    """Those that `read_description` fills, in its order."""
    return [
        np.full((TIMES + COLUMNS + 1, FIELDS), -7), np.zeros((TABLES, 256), np.uint8), np.zeros(EXCEPTION_COUNT, I64),
        np.zeros(EXCEPTION_COUNT, I64), np.zeros(SERIES, I64), np.zeros(SERIES, I64), np.zeros(TIMES + 1, I64),
    ]  # fmt: skip


def description(seed: int) -> np.ndarray:
    """Random bytes of the right length, of which some describe a page as far as can be told without its streams."""
    size = SERIES * 4 + TIMES * 4 + (TIMES + COLUMNS) * opening.COLUMN_BYTES + TABLES * 256 + EXCEPTION_COUNT * 12
    rng = np.random.default_rng(seed)
    about = rng.integers(0, 256, size, dtype=np.uint8)
    about[: SERIES * 4] = 0
    about[:SERIES] = rng.integers(0, TIMES + (seed % 3 == 0), SERIES)
    tables_at = SERIES * 4 + TIMES * 4 + (TIMES + COLUMNS) * 14
    about[tables_at : tables_at + TABLES * 256] = rng.integers(0, MAX_CLASS + 1 + (seed % 4 == 0), TABLES * 256)
    return about


@pytest.mark.parametrize("seed", range(24))
def test_reading_compiled_and_as_python(seed: int) -> None:
    about, compiled, plain = description(seed), arrays(), arrays()
    wrong = opening.read_description(about, *compiled)
    assert wrong == opening.read_description.py_func(about, *plain)
    if wrong == opening.SOUND:
        assert all(np.array_equal(a, b) for a, b in zip(compiled, plain, strict=True))
        words = about[SERIES * 4 :][: TIMES * 4].reshape(4, TIMES).T.copy().view("<u4").ravel()
        assert np.array_equal(np.diff(compiled[6]), words)


def test_each_fault_is_seen() -> None:
    seen = {int(opening.read_description(description(seed), *arrays())) for seed in range(48)}
    assert seen == {opening.SOUND, opening.WRONG_TIMES, opening.WRONG_CLASS}


@pytest.mark.parametrize("make", [lambda: grid_batch(6, 40), lambda: histogram_batch(3, 20)])
def test_columns_that_leave_their_arrays_are_told(make) -> None:
    page = open_page(encode_page(make()))
    tables, columns = len(page.classes), len(page.lengths)
    parts = np.array([columns])

    def asked(number: int, column: int, value: int) -> int:
        records = page.records.copy()
        small = records[:, [SMALL]].view(np.int8)
        small[column, number] = value
        records[:, SMALL] = small.view(np.int64)[:, 0]
        return found(records)

    def found(records: np.ndarray) -> int:
        args = (records, page.lengths, parts, tables, page.position)
        column = opening.check_columns(*args)
        assert column == opening.check_columns.py_func(*args)
        return column

    assert found(page.records) == -1
    assert asked(REFER, 2, 3) == asked(REFER, 2, -3) == 2
    assert asked(SHIFT, 1, 64) == asked(SCALE, 1, 23) == asked(SCALE, 1, -2) == 1
    more = page.records.copy()
    more[2:, EXCEPTION] += len(page.position) + 1
    assert found(more) == 1

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.flush import HOUR_MS, MANY_SAMPLES, MAX_BLOCKS_PER_CUT, HeadClock, block_windows, cut_before


def hours(*values: float | None) -> list[int | None]:
    return [None if value is None else int(value * HOUR_MS) for value in values]


@pytest.mark.parametrize(
    ("oldest", "newest", "boundary", "cut_at", "now", "want"),
    [
        (0, 2.99, None, 0, 2.99, None),
        (0, 3, None, 0, 3, 2),
        (0, 5.5, None, 0, 5.5, 4),
        (2, 4.9, 2, 3, 4.9, None),
        (2, 5, 2, 3, 5, 4),
        (-500, 4, 2, 3, 4, None),  # something old came after the cut: it waits
        (-500, 5, 2, 3, 5, 4),
        (2, 2.5, 2, 3, 4.9, None),  # nothing comes any more
        (2, 2.5, 2, 3, 5, 4),
        (-1000, -997, None, 3, 3.1, -998),  # history as fast as it comes
        (-1000, -993, -996, 3, 3.1, -994),
        (-1000, -994.5, -996, 3, 4.9, None),
        (-1000, -994.5, -996, 3, 5, 4),
        (2.5, 3.1, None, 0, 3.1, None),
        (0, 9, None, 0, 3.2, 2),  # a newest sample from the future moves no boundary
    ],
)
def test_cut_before(oldest: float, newest: float, boundary: float | None, cut_at: float, now: float, want: float | None) -> None:
    oldest_ms, newest_ms, boundary_ms, cut_at_ms, now_ms, want_ms = hours(oldest, newest, boundary, cut_at, now, want)
    assert cut_before(HeadClock(oldest_ms, newest_ms, boundary_ms, cut_at_ms), now_ms=now_ms) == want_ms


def test_a_large_backfill_does_not_wait() -> None:
    old, new, cut = -500 * HOUR_MS, 4 * HOUR_MS, 3 * HOUR_MS
    assert cut_before(HeadClock(old, new, 2 * HOUR_MS, cut, MANY_SAMPLES - 1), now_ms=new) is None
    assert cut_before(HeadClock(old, new, 2 * HOUR_MS, cut, MANY_SAMPLES), now_ms=new) == 2 * HOUR_MS
    assert cut_before(HeadClock(2 * HOUR_MS, new, 2 * HOUR_MS, cut, MANY_SAMPLES), now_ms=new) is None


def test_live_samples_make_one_block_of_two_hours() -> None:
    assert block_windows(np.array([5])) == [(10 * HOUR_MS, 12 * HOUR_MS)]
    assert block_windows(np.array([5, -3])) == [(-6 * HOUR_MS, -4 * HOUR_MS), (10 * HOUR_MS, 12 * HOUR_MS)]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=300))
def test_windows_cover_all_and_are_few_and_apart(occupied: list[int]) -> None:
    windows = block_windows(np.array(occupied))
    assert len(windows) <= MAX_BLOCKS_PER_CUT
    assert all(end <= start for (_, end), (start, _) in pairwise(windows))
    for number in occupied:
        at = number * 2 * HOUR_MS
        assert sum(start <= at and at + 2 * HOUR_MS <= end for start, end in windows) == 1


def test_history_goes_into_wider_blocks() -> None:
    year = np.arange(365 * 12)
    widths = {end - start for start, end in block_windows(year)}
    assert widths == {28 * 24 * HOUR_MS}
    assert {end - start for start, end in block_windows(year[:300])} == {24 * HOUR_MS}

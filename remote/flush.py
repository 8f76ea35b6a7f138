"""When a head is cut, and into which blocks a cut goes. Decisions only: values in, values out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HOUR_MS = 3_600_000
BLOCK_RANGE_MS = 2 * HOUR_MS
"""Prometheus's: the head then holds 1 to 3 hours."""
WIDE_RANGES_MS = (24 * HOUR_MS, 28 * 24 * HOUR_MS)
"""Widths for history that would fall into too many blocks; the compactor's, so that it finds them in their place."""
MAX_BLOCKS_PER_CUT = 128
"""A year of backfill in one cut is 366 blocks of a day and 14 of 28 days; a sender with wild clocks could make millions."""
MANY_SAMPLES = 50_000_000
"""What a backfill may put into memory before it is written out: about 100 MB sealed."""


@dataclass(frozen=True, slots=True)
class HeadClock:
    """What decides about the next cut: sample times oldest and newest in the head, the last boundary it was cut at (None before
    the first), when that was, and how many samples have come since."""

    oldest_ms: int
    newest_ms: int
    boundary_ms: int | None
    cut_at_ms: int
    samples_since: int = 0


def cut_before(clock: HeadClock, *, now_ms: int, block_range_ms: int = BLOCK_RANGE_MS) -> int | None:
    """The time before which all samples should leave the head now, a multiple of the block range, or None for not yet.

    The boundary is the last one that the newest sample has passed by half a range (as Prometheus: when the head spans one and
    a half). Older samples that arrive later wait for the next boundary, so that they do not make a block each tick, unless
    they are very many; and where samples stopped coming, the clock passes the boundaries in their stead.
    """
    by_samples = _boundary(min(clock.newest_ms, now_ms), block_range_ms)
    if clock.oldest_ms < by_samples and (clock.boundary_ms is None or by_samples > clock.boundary_ms):
        return by_samples
    by_clock = _boundary(now_ms, block_range_ms)
    is_time = now_ms - clock.cut_at_ms >= block_range_ms or clock.samples_since >= MANY_SAMPLES
    return by_clock if is_time and clock.oldest_ms < by_clock else None


def block_windows(occupied: npt.NDArray[np.int64], *, block_range_ms: int = BLOCK_RANGE_MS) -> list[tuple[int, int]]:
    """[start, end) of each block for samples in these windows (i64, numbers of block ranges since the epoch).

    Blocks lie on multiples of their width, the narrowest width that needs at most MAX_BLOCKS_PER_CUT; failing all, one block.
    """
    starts_ms = np.unique(occupied) * block_range_ms
    for width_ms in (block_range_ms, *WIDE_RANGES_MS):
        windows = np.unique(starts_ms // width_ms) * width_ms
        if len(windows) <= MAX_BLOCKS_PER_CUT:
            return [(start, start + width_ms) for start in windows.tolist()]
    return [(int(starts_ms[0]), int(starts_ms[-1]) + block_range_ms)]


def _boundary(at_ms: int, block_range_ms: int) -> int:
    return (at_ms - block_range_ms // 2) // block_range_ms * block_range_ms

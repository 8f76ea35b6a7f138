"""Which blocks answer: every moment once, coarse before fine, late samples never overlooked while raw blocks are there."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tsdb.block.meta import BlockMeta
from tsdb.compaction.coverage import Coverage, Shelf, cover
from tsdb.compaction.lineage import live_blocks
from tsdb.model.source import Selection

H, D = 3_600_000, 86_400_000
M5 = 300_000
COUNTER = iter(range(1_000_000))


def block(start_ms: int, end_ms: int, *sources: str, resolution_ms: int = 0, level: int = 1) -> BlockMeta:
    """A block of the samples in [start_ms, end_ms), or of their windows."""
    shift = 1 if resolution_ms else 0
    ulid = f"{next(COUNTER):026d}"
    return BlockMeta(ulid, start_ms + shift, end_ms + shift, 1, 1, level, sources or (ulid,), resolution_ms, ())


def chosen(coverage: Coverage) -> list[tuple[int, int, int]]:
    """(resolution, start, end) of each piece; neighbours of one resolution joined."""
    out: list[tuple[int, int, int]] = []
    for piece in coverage.pieces:
        if out and out[-1][0] == piece.meta.resolution_ms and out[-1][2] == piece.start_ms:
            out[-1] = (out[-1][0], out[-1][1], piece.end_ms)
        else:
            out.append((piece.meta.resolution_ms, piece.start_ms, piece.end_ms))
    return out


def select(metas: Sequence[BlockMeta], start_ms: int, end_ms: int, resolution_ms: int = 0, fallback_ms: int = 0) -> Coverage:
    return cover(Shelf.of(live_blocks(metas)), Selection((), start_ms, end_ms, resolution_ms, fallback_ms))


RAW = [block(i * 7 * D, (i + 1) * 7 * D, f"s{i}") for i in range(5)]
FIVE = [block(i * 7 * D, (i + 1) * 7 * D, f"s{i}", resolution_ms=M5) for i in range(5)]
HOUR = [block(0, 28 * D, "s0", "s1", "s2", "s3", resolution_ms=H)]


def test_coarse_windows_first_then_finer_then_raw() -> None:
    metas = [*RAW, *FIVE[:4], *HOUR]
    assert chosen(select(metas, 1, 35 * D, H)) == [(H, 1, 28 * D + 1), (0, 28 * D + 1, 35 * D)]
    assert chosen(select([*RAW, *FIVE, *HOUR], 1, 36 * D, H)) == [(H, 1, 28 * D + 1), (M5, 28 * D + 1, 35 * D + 1)]
    assert chosen(select(metas, 1, 35 * D, M5)) == [(M5, 1, 28 * D + 1), (0, 28 * D + 1, 35 * D)]
    assert chosen(select(metas, 1, 35 * D)) == [(0, 1, 35 * D)]


def test_what_is_only_there_coarser_is_told_or_taken_as_a_last_resort() -> None:
    metas = [*RAW[2:], *FIVE, *HOUR]
    coverage = select(metas, 1, 35 * D)
    assert chosen(coverage) == [(0, 14 * D, 35 * D)]
    assert {(piece.meta.resolution_ms, piece.start_ms, piece.end_ms) for piece in coverage.coarser_only} >= {
        (M5, 1, 7 * D + 1),
        (M5, 7 * D + 1, 14 * D),
    }
    fallen = select(metas, 1, 35 * D, 0, M5)
    assert chosen(fallen) == [(M5, 1, 14 * D), (0, 14 * D, 35 * D)] and not fallen.coarser_only


def test_windows_without_late_samples_give_way_to_raw_blocks() -> None:
    late = block(10 * D + 7200_000, 10 * D + 2 * 7200_000, "late")
    found = chosen(select([*RAW, *FIVE, *HOUR, late], 1, 28 * D + 1, M5))
    start = 10 * D + 7200_000 - M5 + 1
    assert found[0] == (M5, 1, start) and found[-1] == (M5, 10 * D + 4 * H + 1, 28 * D + 1)
    assert {one[0] for one in found[1:-1]} == {0} and found[1][1] == start
    merged = block(7 * D, 14 * D, "s1", "late", level=2)
    assert chosen(select([RAW[0], merged, *RAW[2:], *FIVE], 1, 21 * D, M5)) == [
        (M5, 1, 7 * D + 1), (0, 7 * D + 1, 14 * D + 1), (M5, 14 * D + 1, 21 * D),
    ]  # fmt: skip
    again = block(7 * D, 14 * D, "s1", "late", resolution_ms=M5)
    assert chosen(select([RAW[0], merged, *RAW[2:], *FIVE, again], 1, 21 * D, M5)) == [(M5, 1, 21 * D)]


def test_where_raw_blocks_are_gone_what_came_late_is_read_beside_the_windows() -> None:
    late = block(10 * D, 10 * D + 2 * H, "late")
    beside = (0, 10 * D, 10 * D + 2 * H)
    for resolution_ms, fallback_ms in ((M5, 0), (0, M5)):
        found = select([late, *FIVE], 1, 28 * D, resolution_ms, fallback_ms)
        windows = [piece for piece in found.pieces if piece.meta is not late]
        assert chosen(Coverage(tuple(windows), ())) == [(M5, 1, 28 * D)]
        assert [(0, piece.start_ms, piece.end_ms) for piece in found.pieces if piece.meta is late] == [beside]
    raw = select([late, *FIVE], 1, 28 * D)
    assert chosen(raw) == [beside] and len(raw.coarser_only) == 4, "what the windows have is missing there too"
    taken_in = block(7 * D, 14 * D, "late", resolution_ms=M5)
    assert all(piece.meta is not late for piece in select([late, *FIVE, taken_in], 1, 28 * D, M5).pieces)


@given(
    st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)), st.booleans(), st.integers(-10, 900), st.integers(1, 900),
    st.sampled_from([0, M5, H]), st.sampled_from([0, M5, H]),
)  # fmt: skip
def test_every_moment_is_answered_once(
    raw: set[int], five: set[int], hour: bool, start_h: int, hours: int, resolution_ms: int, fallback_ms: int
) -> None:
    metas = [*(RAW[i] for i in raw), *(FIVE[i] for i in five), *(HOUR if hour else ())]
    start_ms, end_ms = start_h * H, (start_h + hours) * H
    coverage = select(metas, start_ms, end_ms, resolution_ms, fallback_ms)
    allowed = [meta for meta in metas if meta.resolution_ms <= max(resolution_ms, fallback_ms)]
    for at in np.linspace(start_ms, end_ms - 1, 50).astype(int).tolist():
        answering = [piece for piece in coverage.pieces if piece.start_ms <= at < piece.end_ms]
        there = [meta for meta in allowed if meta.min_ms <= at < meta.max_ms]
        assert len(answering) == min(1, len(there))
        refused = [meta for meta in metas if meta not in allowed and meta.min_ms <= at < meta.max_ms]
        told = any(piece.start_ms <= at < piece.end_ms for piece in coverage.coarser_only)
        assert told == (not there and bool(refused))

"""Which resolutions a selector asks for: exact ones first, approximations only where they are allowed."""

import numpy as np
import pytest

from promql.answer import START_TIMESTAMPS, QueryOptions
from promql.resolution import AUTO, INSTANT, RAW, Read, Use, read_for

M, H = 60_000, 3_600_000


def use(func: str, every_ms: int, range_ms: int = 0, offset_ms: int = 0, *, bent: bool = False) -> Use:
    return Use(func, np.arange(1, 20, dtype=np.int64) * every_ms - offset_ms, range_ms, bent)


@pytest.mark.parametrize(
    ("wanted", "limit_ms", "step_ms", "read"),
    [
        (use("rate", H, 2 * H), 0, H, RAW),
        (use("rate", H, 2 * H), AUTO, H, Read(H, H, H)),
        (use("rate", H, 2 * H), 5 * M, H, Read(5 * M, 5 * M, 5 * M)),
        (use("rate", H, 2 * H), 30 * M, H, Read(5 * M, 5 * M, 5 * M)),
        (use("rate", H, 2 * H), 4 * M, H, RAW),
        (use("rate", H, 90 * M), AUTO, H, Read(5 * M, 5 * M, 5 * M)),
        (use("rate", 5 * M, 5 * M), AUTO, 5 * M, Read(5 * M, 5 * M, 5 * M)),
        (use("rate", M, H), AUTO, M, RAW),
        (use("rate", 61 * M, H), AUTO, 61 * M, Read(0, 5 * M, 0)),
        (use("rate", 61 * M, 6 * M), AUTO, 61 * M, RAW),
        (use("rate", 61 * M, H), 5 * M, 61 * M, Read(5 * M, 5 * M, 0)),
        (use("rate", 61 * M, 6 * M), 5 * M, 61 * M, RAW),
        (use("rate", 65 * M, 10 * H), H, 65 * M, Read(5 * M, H, 5 * M)),
        (use("rate", H, 2 * H, offset_ms=M), AUTO, H, Read(0, 5 * M, 0)),
        (use("irate", H, 2 * H), AUTO, H, Read(0, 5 * M, 0)),
        (use("irate", H, 2 * H), AUTO, 0, RAW),
        (use("irate", H, 2 * H), H, H, Read(H, H, 0)),
        (use("rate", H, 2 * H, bent=True), AUTO, H, Read(0, 5 * M, 0)),
        (use(INSTANT, H), AUTO, H, Read(H, H, H)),
        (use(INSTANT, 5 * M), AUTO, 5 * M, Read(5 * M, 5 * M, 5 * M)),
        (use(INSTANT, H, offset_ms=1), AUTO, H, Read(0, 5 * M, 0)),
        (use(INSTANT, H, offset_ms=1), H, H, Read(H, H, 0)),
        (use(INSTANT, H), AUTO, 0, Read(H, H, H)),
    ],
)
def test_what_is_asked_for(wanted: Use, limit_ms: int, step_ms: int, read: Read) -> None:
    assert read_for(wanted, QueryOptions(resolution_ms=limit_ms), step_ms) == read


def test_start_timestamps_need_raw_samples() -> None:
    options = QueryOptions(features=frozenset({START_TIMESTAMPS}), resolution_ms=AUTO)
    assert read_for(use("rate", H, 2 * H), options, H) == Read(0, 5 * M, 0)
    assert read_for(use("sum_over_time", H, 2 * H), options, H) == Read(H, H, H)

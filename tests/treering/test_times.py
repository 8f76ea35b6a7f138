from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from treering.times import format_duration, parse_duration_ms, parse_time_ms, step_to_ms, to_ms
from tsdb.model.errors import BadData
from tsdb.model.source import MAX_MS

NOW_MS = 1_795_700_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("4", 4000),
        ("1700000000", 1_700_000_000_000),
        ("1700000000.5", 1_700_000_000_500),
        ("1700000000.0005", 1_700_000_000_001),
        ("-1.5", -1500),
        ("1.79e12", 1_790_000_000_000_000),  # Grafana's probe in milliseconds
        ("1e30", MAX_MS),
        ("2026-11-26T12:00:00Z", 1_795_694_400_000),
        ("2026-11-26T13:00:00.250+01:00", 1_795_694_400_250),
    ],
)
def test_times_of_the_api(text: str, ms: int) -> None:
    assert parse_time_ms(text) == ms


@pytest.mark.parametrize("text", ["", "now", "yesterday", "2026-11-26", "2026-11-26T12:00:00", "NaN", "1_0", "9" * 5000])
def test_no_times_of_the_api(text: str) -> None:
    with pytest.raises(BadData, match='invalid parameter "start"'):
        parse_time_ms(text, name="start")


@pytest.mark.parametrize(
    ("text", "ms"),
    [("15", 15_000), ("0.5", 500), ("15s", 15_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("5ms", 5), ("1y", 31_536_000_000)],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5x", "m5", "1m1h", "9" * 5000 + "s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadData, match='invalid parameter "step"'):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (5_400_000, "1h30m"), (250, "250ms"), (90_061_001, "1d1h1m1s1ms"), (-60_000, "-1m")]
)
def test_format_duration(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@pytest.mark.parametrize(
    ("moment", "ms"),
    [
        ("now", NOW_MS),
        ("-6h", NOW_MS - 6 * 3_600_000),
        ("now-1d/d", (NOW_MS - 86_400_000) // 86_400_000 * 86_400_000),
        ("now+5m", NOW_MS + 300_000),
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.25, 1_700_000_000_250),
        ("2026-11-26T12:00:00Z", 1_795_694_400_000),
        (datetime(2026, 11, 26, 12, tzinfo=UTC), 1_795_694_400_000),
        (datetime(2026, 11, 26, 13, tzinfo=timezone(timedelta(hours=1))), 1_795_694_400_000),
        (date(2026, 11, 26), 1_795_651_200_000),
        (np.datetime64("2026-11-26T12:00:00"), 1_795_694_400_000),
    ],
)
def test_times_of_people(moment: object, ms: int) -> None:
    assert to_ms(moment, now_ms=NOW_MS) == ms  # type: ignore[arg-type]


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(BadData, match="no time zone"):
        to_ms(datetime(2026, 11, 26, 12), now_ms=NOW_MS)


def test_steps() -> None:
    assert [step_to_ms(step) for step in ("1m", 60, 0.5, timedelta(minutes=1))] == [60_000, 60_000, 500, 60_000]

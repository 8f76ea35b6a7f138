"""Times and durations as people and clients write them, to int64 milliseconds.

Never through `datetime`, which refuses the year 50000.
Grafana probes with epoch 4 and with milliseconds where seconds are meant; both must parse.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import SupportsFloat

from promql.resolution import AUTO
from tsdb.model.errors import BadData
from tsdb.model.source import MAX_MS, MIN_MS

TimeLike = datetime | date | int | float | str | SupportsFloat
"""A point in time: epoch seconds, "2026-11-01T12:00:00Z", "now", "-6h", "now-1d/d", datetime, NumPy or pandas time."""

MAX_TIME_CHARS = 64

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_RELATIVE = re.compile(r"(?:now)?\s*([+-]\s*[0-9a-z]+)?(?:/([smhdw]))?")


def parse_time_ms(text: str, *, name: str = "time") -> int:
    """Milliseconds of epoch seconds or RFC 3339 text, as the HTTP API takes them. BadData names the parameter."""
    _check_length(text, name)
    if _FLOAT.fullmatch(text):
        return _clamp(float(text) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or "T" not in text.upper() or moment.tzinfo is None:
        raise BadData(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp')
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def parse_duration_ms(text: str, *, name: str = "step") -> int:
    """Milliseconds of float seconds or of a duration such as `1h30m`. BadData names the parameter."""
    _check_length(text, name)
    if _FLOAT.fullmatch(text):
        return _clamp(float(text) * 1000)
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise BadData(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration')
    sizes = [_UNITS_MS[unit] for unit in ("y", "w", "d", "h", "m", "s", "ms")]
    return _clamp(sum(int(count) * size for count, size in zip(found.groups("0"), sizes, strict=True)))


def parse_resolution_ms(text: str, *, name: str = "max_source_resolution") -> int:
    """The coarsest downsampled data that may answer (`QueryOptions.resolution_ms`) by `auto`, `raw` or a duration; 0s is raw."""
    if text in ("", "auto", "raw"):
        return 0 if text == "raw" else AUTO
    return max(0, parse_duration_ms(text, name=name))


def format_duration(ms: int) -> str:
    """The shortest Prometheus text of a duration, such as `1h30m` or `250ms`."""
    if ms == 0:
        return "0s"
    parts, rest = [], abs(ms)
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS_MS[unit])
        parts.append(f"{count}{unit}" if count else "")
    return ("-" if ms < 0 else "") + "".join(parts)


def to_ms(moment: TimeLike, *, now_ms: int) -> int:
    """Milliseconds of whatever a Python user or the command line means by a time. BadData where it is ambiguous."""
    if isinstance(moment, str):
        return _relative_ms(moment.strip(), now_ms=now_ms)
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise BadData(f"{moment!r} has no time zone; say which, for example with .replace(tzinfo=timezone.utc)")
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    if isinstance(moment, date):
        return to_ms(datetime(moment.year, moment.month, moment.day, tzinfo=UTC), now_ms=now_ms)
    if hasattr(moment, "astype"):  # numpy.datetime64, without loading NumPy's types here
        return int(moment.astype("datetime64[ms]").astype("int64"))
    try:
        return _clamp(float(moment) * 1000)
    except (TypeError, ValueError):
        raise BadData(f"{moment!r} is no time: give epoch seconds, a datetime, RFC 3339 text, 'now' or '-6h'") from None


def step_to_ms(step: str | float | timedelta) -> int:
    """Milliseconds of a duration given as text, seconds or timedelta."""
    if isinstance(step, timedelta):
        return step // timedelta(milliseconds=1)
    return parse_duration_ms(step) if isinstance(step, str) else _clamp(step * 1000)


def _check_length(text: str, name: str) -> None:
    if len(text) > MAX_TIME_CHARS:
        raise BadData(f'invalid parameter "{name}": {len(text)} characters, over the limit of {MAX_TIME_CHARS}')


def _relative_ms(text: str, *, now_ms: int) -> int:
    found = _RELATIVE.fullmatch(text)
    if found is None or not text:
        return parse_time_ms(text)
    shift, unit = found.groups()
    at_ms = now_ms
    if shift:
        sign, size = shift[0], shift[1:].strip()
        at_ms += parse_duration_ms(size, name="time") * (-1 if sign == "-" else 1)
    if unit:
        at_ms -= at_ms % _UNITS_MS[unit]
    return at_ms


def _clamp(ms: float) -> int:
    if ms != ms:
        raise BadData("NaN is no time")
    return int(max(MIN_MS, min(MAX_MS, ms if isinstance(ms, int) else _round_half_up(ms))))


def _round_half_up(ms: float) -> float:
    return ms if abs(ms) > 2**53 else float(int(ms + 0.5) if ms >= 0 else -int(-ms + 0.5))

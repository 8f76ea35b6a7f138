"""Which downsampled data may answer a selector: the coarsest resolution, and the column to read of it.

A downsampled sample stands for the raw ones of the window that it ends. Of a raw sample the count is 1 and every other column
its value, so that raw and downsampled stretches of a series may follow one another.
"""

from dataclasses import dataclass

WINDOWS_PER_RANGE = 5
"""A range must span this many downsampled windows: what its edges cut is then at most a fifth."""

COLUMNS = {
    "sum_over_time": "sum",
    "count_over_time": "count",
    "min_over_time": "min",
    "max_over_time": "max",
    "rate": "counter",
    "increase": "counter",
    "irate": "counter",
    **dict.fromkeys(("delta", "idelta", "last_over_time", "first_over_time", "present_over_time", "absent_over_time"), ""),
    **dict.fromkeys(("deriv", "predict_linear", "ts_of_first_over_time", "ts_of_last_over_time"), ""),
}
"""The column for each function that has one; all others need every raw sample."""


@dataclass(frozen=True, slots=True)
class Read:
    """What to ask of storage (see `Selection`), and the function that then gives the result."""

    resolution_ms: int
    aggregate: str
    func: str


RAW = Read(0, "", "")


def read_for_range(func: str, *, range_ms: int, limit_ms: int) -> Read:
    """How to read for `func` over a range, at most as coarse as limit_ms. `avg_over_time` is its callers' sum by count."""
    resolution_ms = min(limit_ms, range_ms // WINDOWS_PER_RANGE)
    if resolution_ms <= 0 or func not in COLUMNS:
        return Read(0, "", func)
    return Read(resolution_ms, COLUMNS[func], "sum_over_time" if func == "count_over_time" else func)


def read_for_instant(*, lookback_ms: int, limit_ms: int) -> Read:
    """How to read for an instant selector: windows longer than the lookback would leave gaps."""
    return Read(min(limit_ms, lookback_ms), "", "")

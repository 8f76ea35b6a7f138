"""The parts of a date: minute, hour, day_of_week and so on, in UTC, of seconds since 1970."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from promql.functions.elementwise import floats_only
from promql.matrix import F64, I64, Matrix

DAY_S = 86_400
TO_ABSOLUTE_S = np.uint64(9_223_372_028_715_321_600)
"""Go counts seconds modulo 2^64 from the first of January of ABSOLUTE_YEAR, so that even NaN has a year: 292277026596."""
ABSOLUTE_YEAR = -292_277_022_399
"""The first of a cycle of 400 years, and its first of January is a Monday."""
DAYS_IN_400_YEARS, DAYS_IN_100_YEARS, DAYS_IN_4_YEARS = 146_097, 36_524, 1_461
DAYS_BEFORE_MONTH = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365])


U64 = npt.NDArray[np.uint64]


def part(name: str, vector: Matrix) -> Matrix:
    """The part `name` of PARTS of each float, cut to whole seconds."""
    return floats_only(vector, PARTS[name](_absolute_s(vector.values)).astype(np.float64))


def _absolute_s(values: F64) -> U64:
    """Go's int64(f) as amd64 does it, NaN and what does not fit becoming the smallest int64; then moved to ABSOLUTE_YEAR."""
    fits = (values >= -(2.0**63)) & (values < 2.0**63)
    seconds = np.where(fits, values, 0).astype(np.int64)
    whole = np.where(fits, seconds, np.iinfo(np.int64).min).astype(np.int64)
    return np.asarray(whole.view(np.uint64) + TO_ABSOLUTE_S)


def _days(seconds: U64) -> I64:
    return (seconds // np.uint64(DAY_S)).astype(np.int64)


def _second_of_day(seconds: U64) -> I64:
    return (seconds % np.uint64(DAY_S)).astype(np.int64)


def _year_and_day(seconds: U64) -> tuple[I64, I64]:
    """(year, day of the year from 0)."""
    days = _days(seconds)
    cycles, days = np.divmod(days, DAYS_IN_400_YEARS)
    centuries = np.minimum(days // DAYS_IN_100_YEARS, 3)  # the last day of a cycle is in its fourth century, not in a fifth
    days = days - centuries * DAYS_IN_100_YEARS
    fours, days = np.divmod(days, DAYS_IN_4_YEARS)
    years = np.minimum(days // 365, 3)
    return ABSOLUTE_YEAR + 400 * cycles + 100 * centuries + 4 * fours + years, days - 365 * years


def _is_leap(year: I64) -> I64:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)), np.int64)


def _month_and_day(seconds: U64) -> tuple[I64, I64]:
    """(month from 0, day of the month from 0)."""
    year, day = _year_and_day(seconds)
    leap = _is_leap(year)
    is_leap_day = (leap == 1) & (day == 59)
    day = day - ((leap == 1) & (day > 59))
    month = np.searchsorted(DAYS_BEFORE_MONTH, day, side="right") - 1
    month = np.where(is_leap_day, 1, month)
    return month, np.where(is_leap_day, 28, day - DAYS_BEFORE_MONTH[month])


def _days_in_month(seconds: U64) -> I64:
    month, _ = _month_and_day(seconds)
    year, _ = _year_and_day(seconds)
    return np.asarray(np.diff(DAYS_BEFORE_MONTH)[month] + np.where(month == 1, _is_leap(year), 0))


PARTS: dict[str, Callable[[U64], I64]] = {
    "minute": lambda s: _second_of_day(s) % 3600 // 60,
    "hour": lambda s: _second_of_day(s) // 3600,
    "day_of_week": lambda s: (_days(s) + 1) % 7,
    "day_of_month": lambda s: _month_and_day(s)[1] + 1,
    "day_of_year": lambda s: _year_and_day(s)[1] + 1,
    "days_in_month": _days_in_month,
    "month": lambda s: _month_and_day(s)[0] + 1,
    "year": lambda s: _year_and_day(s)[0],
}
"""Sunday is day 0 of the week; every other part counts as people do."""

"""Which downsampled data may answer a selector, and what of the answer is then approximated.

Windows are (end - r, end] with ends at multiples of r, so that the windows of a query whose times and range are multiples of r
consist of whole ones: `EXACT` functions and instant selectors then give what raw samples would. Everything else is approximated
where it meets downsampled samples, and says so.
"""

from dataclasses import dataclass

from promql.answer import START_TIMESTAMPS, QueryOptions
from promql.matrix import I64
from tsdb.model.windows import RESOLUTIONS_MS

AUTO = -1
"""As `QueryOptions.resolution_ms`: downsampled data wherever it changes nothing, and where raw samples are gone."""
STEPS_PER_WINDOW = 5
"""Of AUTO, where raw samples are gone: windows are at most a fifth of a step, as with Thanos's."""
WINDOWS_PER_RANGE = 2
"""The least windows in a range that is not cut along them (Thanos's rule for `rate` and its like)."""

COUNTERS = frozenset({"rate", "increase", "resets"})
EXACT = COUNTERS | {
    "delta",
    "changes",
    "count_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
}
"""Functions over floats that follow from whole windows."""
EXACT_NATIVE = frozenset(
    [
        "rate",
        "increase",
        "delta",
        "resets",
        "count_over_time",
        "first_over_time",
        "last_over_time",
        "present_over_time",
        "absent_over_time",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
    ]
)
"""Functions over native histograms that follow from the first, the last and those beside resets."""
INSTANT = "an instant selector"
"""What notes call a selector without a range."""


@dataclass(frozen=True, slots=True)
class Read:
    """How coarse the samples may be that a selector reads: see `Selection`. `exact_ms` says up to where nothing is lost."""

    resolution_ms: int = 0
    fallback_ms: int = 0
    exact_ms: int = 0


RAW = Read()


@dataclass(frozen=True, slots=True)
class Use:
    """What a selector is read for: a function over ranges of range_ms, or INSTANT (range_ms 0), at ends_ms i64[k].

    `bent`: an `anchored` or `smoothed` selector, which looks at samples outside of its windows.
    """

    func: str
    ends_ms: I64
    range_ms: int = 0
    bent: bool = False


def read_for(use: Use, options: QueryOptions, step_ms: int) -> Read:
    """How to read for a use in a query with a step (0: an instant query)."""
    limit_ms = options.resolution_ms
    if limit_ms == 0:
        return RAW
    allowed = [ms for ms in RESOLUTIONS_MS if limit_ms in (AUTO,) or ms <= limit_ms]
    exact_ms = max((ms for ms in allowed if is_exact(use, ms, options)), default=0)
    rough_limit_ms = step_ms // STEPS_PER_WINDOW if limit_ms == AUTO else limit_ms
    if use.range_ms:
        rough_limit_ms = min(rough_limit_ms, use.range_ms // WINDOWS_PER_RANGE)
    rough_ms = max((ms for ms in allowed if ms <= rough_limit_ms), default=0)
    preferred_ms = exact_ms if exact_ms or limit_ms == AUTO else rough_ms
    return Read(preferred_ms, max(exact_ms, rough_ms), exact_ms)


def is_exact(use: Use, resolution_ms: int, options: QueryOptions) -> bool:
    """Whether windows of a resolution, of floats, answer as raw samples would."""
    if use.bent or (use.func != INSTANT and use.func not in EXACT):
        return False
    if use.func in COUNTERS and START_TIMESTAMPS in options.features:
        return False
    return use.range_ms % resolution_ms == 0 and not bool((use.ends_ms % resolution_ms).any())

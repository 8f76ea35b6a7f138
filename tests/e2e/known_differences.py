"""Where Prometheus 3, and so Treering, answers otherwise than Prometheus 2.42, each with the change that explains it.

The last resort beside changes is rounding, where an answer is the small difference of large numbers.
"""

import re
from dataclasses import dataclass

_LABELS = r"[\w, ]*"


@dataclass(frozen=True, slots=True)
class KnownDifference:
    """A change between the versions.

    `query` and `different` are patterns that a random query and the words of its difference must both hold for the change to
    explain it; `example` is a query over `random_data` that shows it, instant and range, or only over a range.
    """

    reason: str
    query: str
    different: str
    example: str


KNOWN = (
    KnownDifference(
        "3 takes the metric name away where atan2 has one scalar operand; 2.42 forgets to",
        r"\batan2\b",
        r"is only in the (first|second)|^status",
        "quota atan2 0.25",
    ),
    KnownDifference(
        "3 tells of matches that are not unique before a comparison drops any of them; 2.42 only looks at those it keeps",
        r"(==|!=|<|>)",
        r"^status error \(multiple matches for labels: .*and success",
        "flat == on (job) quota",
    ),
    KnownDifference(
        "3 keeps the range of predict_linear(x[d] @ t, s) in its place at every step; 2.42 moves it along with the steps",
        r"predict_linear\(.*\].* @",
        r"times \d+ and \d+| at \d+: |is only in the",
        "predict_linear(mem_bytes[5m3s] @ start(), 60)",
    ),
    KnownDifference(
        "3 makes stddev and stdvar of one NaN or infinite sample NaN; 2.42 makes them 0",
        r"\b(stddev|stdvar)\b(?!_over)",
        r": NaN and \S+$|times \d+ and \d+|is only in the",
        'stddev by (text) (odd * Inf) or stdvar(quota{job="api"} * NaN)',
    ),
    KnownDifference(
        "3 groups count_values by the same labels at every step; 2.42 loses the last of three or more after the first step",
        rf"count_values by \({_LABELS},{_LABELS},{_LABELS}\)",
        r"is only in the (first|second)|times \d+ and \d+",
        'count_values by (version, job, instance) ("v", build_info)',
    ),
    KnownDifference(
        "3 keeps infinity in the compensated sums of a regression; in 2.42 the compensation becomes NaN",
        r"\b(predict_linear|deriv)\(",
        r": [+-]Inf and NaN$",
        "predict_linear(odd[10m1s] offset -2m, 60)",
    ),
    KnownDifference(
        "no change, but rounding: the spread of times is 1e-10 of them, and series are added up in another order",
        r"\b(stddev|stdvar)\b.*\b(timestamp|time)\(",
        r" at \d+: (\d+\.\d{4})\d* and \1",
        "stddev(timestamp(err_total))",
    ),
    KnownDifference(
        "3 extrapolates a rate to the window's edge only where a sample is due there, then cuts at zero; 2.42 the other way round",
        r"\byoung\b",
        r" at \d+: ",
        "increase(young[5m3s])",
    ),
)


def explained(query: str, different: str) -> str:
    """The reason of a known difference, "" for an unknown one."""
    return next((one.reason for one in KNOWN if re.search(one.query, query) and re.search(one.different, different)), "")

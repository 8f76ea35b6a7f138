"""Where Prometheus 3, and so Treering, answers otherwise than Prometheus 2.42, each with the change that explains it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownDifference:
    """A query and a difference that both patterns are found in."""

    reason: str
    query: str
    different: str


KNOWN: tuple[KnownDifference, ...] = ()


def explained(query: str, different: str) -> str:
    """The reason of a known difference, "" for an unknown one."""
    return next((one.reason for one in KNOWN if re.search(one.query, query) and re.search(one.different, different)), "")

"""What the queries of a tenant, or of several together, may take: the strictest limits, and a source that holds to them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from remote.limits import Limits
from tsdb.model.errors import LimitExceeded
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """See the fields of these names in `remote.limits.Limits`; 0 = unlimited."""

    max_samples: int = 0
    max_fetched_series: int = 0
    max_query_points: int = 0
    max_query_length_ms: int = 0
    max_query_lookback_ms: int = 0
    query_timeout_ms: int = 0
    max_concurrent_queries: int = 0


@lru_cache(maxsize=1024)
def query_limits(limits: tuple[Limits, ...]) -> QueryLimits:
    """Of each limit the smallest that any of the tenants has."""
    return QueryLimits(
        *(least(*(getattr(one, name) for one in limits)) for name in QueryLimits.__dataclass_fields__)  # all are ints
    )


def least(*limits: int) -> int:
    """The smallest of limits of which 0 means none; 0 if none is set."""
    return min((limit for limit in limits if limit), default=0)


@dataclass(frozen=True, slots=True)
class BoundedSource:
    """A source without what is older than the lookback, that refuses selections over more time than the query length."""

    source: Source
    limits: QueryLimits
    now_ms: int

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`. LimitExceeded for a selection that is too long."""
        within, limit_ms = self._within(selection), self.limits.max_query_length_ms
        length_ms = within.end_ms - within.start_ms
        if 0 < limit_ms < length_ms:
            raise LimitExceeded(
                f"the query reads {length_ms / 3_600_000:.6g} hours of samples, the limit is {limit_ms / 3_600_000:.6g} hours "
                f"({limit_ms} ms, max_query_length_ms)"
            )
        return self.source.select(within)

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`."""
        return self.source.series(self._within(selection))

    def estimate(self, selection: Selection) -> Estimate:
        """See `tsdb.model.estimate`."""
        return estimate(self.source, self._within(selection))

    def _within(self, selection: Selection) -> Selection:
        if not self.limits.max_query_lookback_ms:
            return selection
        start_ms = max(selection.start_ms, self.now_ms - self.limits.max_query_lookback_ms)
        return replace(selection, start_ms=start_ms, end_ms=max(start_ms, selection.end_ms))

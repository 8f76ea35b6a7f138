"""`Peer`: an ingester as the others see it, in this process or over the network."""

from collections.abc import Sequence
from typing import Protocol

from tsdb.head.exemplars import ExemplarSeries
from tsdb.model.matcher import Matcher
from tsdb.model.source import Source
from tsdb.model.write import Metadata, PushResult, WriteBatch


class Peer(Protocol):
    """What distributors and queriers ask of an ingester. A call that takes too long is the peer's to end, with Unavailable."""

    def push(self, tenant: str, batch: WriteBatch, *, now_ms: int) -> PushResult: ...

    def source(self, tenant: str) -> Source:
        """What the ingester holds of the tenant; empty if it has never heard of it."""
        ...

    def oldest_ms(self, tenant: str) -> int | None:
        """The time of the oldest sample that `source` has; None without any."""
        ...

    def exemplars(
        self, tenant: str, selectors: Sequence[tuple[Matcher, ...]], *, start_ms: int, end_ms: int
    ) -> list[ExemplarSeries]:
        """Exemplars in [start_ms, end_ms] of the series that match any of the selectors, in the order of series."""
        ...

    def metadata(self, tenant: str) -> list[Metadata]:
        """What is known of the tenant's metric families, by metric name."""
        ...

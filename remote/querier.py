"""The querier: what a tenant, or several together, has in all ingesters and in the bucket, as one Source."""

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import chain

from remote.federation import FederatedSource
from remote.peer import Peer
from remote.replicas import Answer, Ask, Failures, PeerOf, ask_all, started, tolerated
from remote.ring.membership import Membership
from remote.store_gateway import StoreGateway
from tsdb.head.exemplars import ExemplarSeries
from tsdb.merge import merge_streams, merge_tables
from tsdb.model.estimate import Estimate, estimate, together
from tsdb.model.labels import Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source
from tsdb.model.write import Metadata


class Querier:
    """Reads for any tenant. `executor` asks several ingesters at once; None asks them in turn."""

    def __init__(
        self, membership: Membership | None, peer_of: PeerOf, gateway: StoreGateway, *, executor: Executor | None = None
    ) -> None:
        self._membership, self._peer_of, self._gateway, self._executor = membership, peer_of, gateway, executor

    def source(self, *tenants: str) -> Source:
        """All that the tenants have. Of several, each series says whose it is in the label `__tenant_id__`.

        Unavailable, when it is asked, if too few ingesters answer for the answer to be whole.
        """
        if len(tenants) == 1:
            return _TenantSource(self, tenants[0])
        return FederatedSource({tenant: _TenantSource(self, tenant) for tenant in tenants})

    def exemplars(
        self, tenants: Sequence[str], selectors: Sequence[tuple[Matcher, ...]], *, start_ms: int, end_ms: int
    ) -> list[ExemplarSeries]:
        """Exemplars in [start_ms, end_ms] of the series that match any of the selectors, in the order of series."""
        found: dict[Labels, ExemplarSeries] = {}
        for tenant in tenants:

            def ask(peer: Peer, number: int, failures: Failures, tenant: str = tenant) -> list[ExemplarSeries]:
                return peer.exemplars(tenant, selectors, start_ms=start_ms, end_ms=end_ms)

            for answer in self._ask_all(ask):
                for one in answer:
                    known = found.get(one.labels)
                    found[one.labels] = one if known is None else _joined(known, one)
        return sorted(found.values(), key=lambda one: one.labels)

    def metadata(self, tenants: Sequence[str]) -> list[Metadata]:
        """What is known of metric families, by metric name; two that differ are both told."""
        found: set[Metadata] = set()
        for tenant in tenants:

            def ask(peer: Peer, number: int, failures: Failures, tenant: str = tenant) -> list[Metadata]:
                return peer.metadata(tenant)

            for answer in self._ask_all(ask):
                found.update(answer)
        return sorted(found, key=lambda one: (one.metric, one.kind, one.help, one.unit))

    def streams(self, tenant: str, selection: Selection) -> list[Iterator[SeriesBatch]]:
        """The ingesters' streams, begun; then that of the bucket's blocks.

        In this order: what leaves an ingester's memory meanwhile is in a block that the gateway knew before.
        """

        def ask(peer: Peer, number: int, failures: Failures) -> list[Iterator[SeriesBatch]]:
            return started(tolerated(peer.source(tenant).select(selection), number, failures))

        parts = self._parts(tenant, selection)
        streams = self._ask_all(ask)
        blocks = self._gateway.source(tenant)
        return [*chain.from_iterable(streams), *(stream for part in parts for stream in started(blocks.select(part)))]

    def _parts(self, tenant: str, selection: Selection) -> list[Selection]:
        """What is asked of the blocks: of the time from which ingesters hold samples none that are downsampled, for a window does
        not tell which samples are in it, and one that is in memory too, as after a crash, would count twice."""
        if selection.resolution_ms == 0:
            return [selection]

        def ask(peer: Peer, number: int, failures: Failures) -> int | None:
            return peer.oldest_ms(tenant)

        oldest_ms = min([at for at in self._ask_all(ask) if at is not None], default=selection.end_ms)
        cut_ms = (oldest_ms - 1) // selection.resolution_ms * selection.resolution_ms + 1  # a window's time is its end
        if cut_ms <= selection.start_ms:
            return [replace(selection, resolution_ms=0)]
        if cut_ms >= selection.end_ms:
            return [selection]
        return [replace(selection, end_ms=cut_ms), replace(selection, start_ms=cut_ms, resolution_ms=0)]

    def tables(self, tenant: str, selection: Selection) -> list[SeriesTable]:
        """The labels of the matching series as each ingester and the bucket know them."""

        def ask(peer: Peer, number: int, failures: Failures) -> SeriesTable:
            return peer.source(tenant).series(selection)

        tables = self._ask_all(ask)
        return [*tables, self._gateway.source(tenant).series(selection)]

    def estimate(self, tenant: str, selection: Selection) -> Estimate:
        """What reading a selection takes (see `tsdb.model.estimate`)."""

        def ask(peer: Peer, number: int, failures: Failures) -> Estimate:
            return estimate(peer.source(tenant), selection)

        parts = [*self._ask_all(ask), estimate(self._gateway.source(tenant), selection)]
        counts = [part.series for part in parts if part.series]
        return together(parts, len(self.source(tenant).series(selection)) if len(counts) > 1 else sum(counts))

    def _ask_all(self, ask: Ask[Answer]) -> list[Answer]:
        if self._membership is None:
            return []
        return ask_all(self._membership.snapshot(), self._peer_of, ask, executor=self._executor)


class _TenantSource:
    """All that one tenant has."""

    def __init__(self, querier: Querier, tenant: str) -> None:
        self._querier, self._tenant = querier, tenant

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        streams = self._querier.streams(self._tenant, selection)
        yield from streams[0] if len(streams) == 1 else merge_streams(streams, selection.columns)

    def series(self, selection: Selection) -> SeriesTable:
        return merge_tables(self._querier.tables(self._tenant, selection))

    def estimate(self, selection: Selection) -> Estimate:
        return self._querier.estimate(self._tenant, selection)


def _joined(one: ExemplarSeries, other: ExemplarSeries) -> ExemplarSeries:
    """The exemplars of both, each once, by rising time."""
    unique = {(o.t_ms, o.labels, struct.pack("<d", o.value)): o for o in (*one.exemplars, *other.exemplars)}
    return ExemplarSeries(one.labels, tuple(unique[key] for key in sorted(unique)))

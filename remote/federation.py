"""Several tenants read as one: each series says whose it is, as in Cortex."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from tsdb.merge import MergeSource
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source

TENANT_LABEL = "__tenant_id__"
ORIGINAL = "__tenant_id__original"
"""What a label of that name that the data brings along is called instead. Cortex says `original___tenant_id__`, but then the
series of a tenant would no longer be in their order."""


class FederatedSource:
    """The sources of several tenants, each series with its tenant in `__tenant_id__`. Matchers on that label choose tenants."""

    def __init__(self, tenants: Mapping[str, Source]) -> None:
        self._sources = {tenant: _Labelled(source, tenant) for tenant, source in tenants.items()}

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self._chosen(selection).select(selection)

    def series(self, selection: Selection) -> SeriesTable:
        return self._chosen(selection).series(selection)

    def estimate(self, selection: Selection) -> Estimate:
        return estimate(self._chosen(selection), selection)

    def _chosen(self, selection: Selection) -> Source:
        wanted = [matcher for matcher in selection.matchers if matcher.name == TENANT_LABEL]
        return MergeSource([source for tenant, source in self._sources.items() if all(m.matches(tenant) for m in wanted)])


class _Labelled:
    """One tenant's source with its name as a label; one more label that is the same in all series changes no order."""

    def __init__(self, source: Source, tenant: str) -> None:
        self._source, self._tenant = source, tenant

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        for batch in self._source.select(_inner(selection)):
            warnings = tuple(f"tenant {self._tenant}: {warning}" for warning in batch.warnings)
            yield replace(batch, series=_label(batch.series, self._tenant), warnings=warnings)

    def series(self, selection: Selection) -> SeriesTable:
        return _label(self._source.series(_inner(selection)), self._tenant)

    def estimate(self, selection: Selection) -> Estimate:
        return estimate(self._source, _inner(selection))


def _inner(selection: Selection) -> Selection:
    """What the tenant itself is asked: the matchers on the added label are answered already."""
    inner = [
        Matcher(TENANT_LABEL, matcher.op, matcher.value) if matcher.name == ORIGINAL else matcher
        for matcher in selection.matchers
        if matcher.name != TENANT_LABEL
    ]
    return replace(selection, matchers=tuple(inner))


def _label(series: SeriesTable, tenant: str) -> SeriesTable:
    if TENANT_LABEL in series.names:
        series = series.with_column(ORIGINAL, series.values(TENANT_LABEL))
    return series.with_column(TENANT_LABEL, np.full(len(series), tenant, object))

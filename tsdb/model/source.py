"""`Source`: the one interface through which anything that holds series is read: head, block, merge, peer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable

MIN_MS, MAX_MS = -(1 << 62), 1 << 62
"""The whole of time."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The times at_ms + i * every_ms, for all whole numbers i; every_ms is at least 1.

    From each the newest sample at or before it is seen or, with a range_ms, all samples that are less than that before it.
    """

    at_ms: int
    every_ms: int
    range_ms: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """All that storage may know of a query; sent between nodes as it is.

    All matchers must match. Samples in [start_ms, end_ms). `resolution_ms` is the coarsest downsampling that the asker likes to
    get (0 = raw only), `fallback_ms` the coarsest that it takes where there is nothing finer. A batch with downsampled samples says
    so (`SeriesBatch.windows`); raw and downsampled stretches of one series follow one another in it. `columns` names the window
    columns that the asker looks at, None = all: what is in the others has no meaning. Where the asker looks only at samples that
    are seen from the times of `grid`, a source may leave out others.
    """

    matchers: tuple[Matcher, ...]
    start_ms: int
    end_ms: int
    resolution_ms: int = 0
    fallback_ms: int = 0
    columns: tuple[str, ...] | None = None
    grid: Grid | None = None


class Source(Protocol):
    """Series that can be asked for."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """The matching series that have samples in the range, in the order of series, in batches of whole series.

        No series is in two batches. Each batch stands alone (own symbols allowed); batches are bounded, so that a reader
        that keeps none of them needs the memory of one.
        """
        ...

    def series(self, selection: Selection) -> SeriesTable:
        """The labels of the matching series that may have samples in the range, in the order of series; reads no samples."""
        ...

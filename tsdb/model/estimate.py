"""What reading a selection will take, told before anything is read: for `explain`.

A source that knows has a method `estimate`; of any other the series are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tsdb.model.source import Selection, Source


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much a selection touches: series at most, and of blocks the pages with their stored bytes and about how many samples.

    `resolutions_ms` are those of the blocks, ascending, 0 = raw. What is in memory counts as series only.
    """

    series: int = 0
    blocks: int = 0
    pages: int = 0
    size_bytes: int = 0
    samples: int = 0
    resolutions_ms: tuple[int, ...] = ()


@runtime_checkable
class Estimating(Protocol):
    """A source that tells what a selection takes, having read no samples."""

    def estimate(self, selection: Selection) -> Estimate: ...


def estimate(source: Source, selection: Selection) -> Estimate:
    """What the source says, or else its series counted. Errors are those of `Source.series`."""
    return source.estimate(selection) if isinstance(source, Estimating) else Estimate(len(source.series(selection)))


def together(parts: Sequence[Estimate], series: int) -> Estimate:
    """The estimate for a merge of sources that has `series` distinct series."""
    return Estimate(
        series,
        sum(part.blocks for part in parts),
        sum(part.pages for part in parts),
        sum(part.size_bytes for part in parts),
        sum(part.samples for part in parts),
        tuple(sorted({resolution for part in parts for resolution in part.resolutions_ms})),
    )


def merged(sources: Sequence[Source], whole: Source, selection: Selection) -> Estimate:
    """The estimate for `whole`, the merge of `sources`; its labels are only read where two sources have any."""
    parts = [estimate(source, selection) for source in sources]
    counts = [part.series for part in parts if part.series]
    return together(parts, len(whole.series(selection)) if len(counts) > 1 else sum(counts))

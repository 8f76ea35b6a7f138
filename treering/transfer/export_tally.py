"""Counting what an export writes and what it has to leave out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tsdb.model.series import SeriesBatch


@dataclass(slots=True)
class Tally:
    """Series and samples so far; what the format cannot hold; warnings of the store."""

    series: int = 0
    samples: int = 0
    histograms_left_out: int = 0
    stale_left_out: int = 0
    warnings: list[str] = field(default_factory=list)

    def count(self, batches: Iterator[SeriesBatch]) -> Iterator[SeriesBatch]:
        """The same batches, without empty ones."""
        for batch in batches:
            self.warnings += [text for text in batch.warnings if text not in self.warnings]
            if batch.samples:
                self.series += len(batch)
                self.samples += batch.samples
                yield batch

    def text(self) -> str:
        """All of it in a line."""
        out = f"{self.series:,} series, {self.samples:,} samples"
        if self.histograms_left_out:
            out += f"; {self.histograms_left_out:,} native histograms are left out: only Parquet holds them"
        if self.stale_left_out:
            out += f"; {self.stale_left_out:,} stale markers are left out: only Parquet holds them"
        return out

"""What the head knows of metric families: kind, help and unit, the newest that was sent, of at most `capacity` families.

Not thread-safe: the head's lock guards it.
"""

from collections.abc import Iterable

from tsdb.model.write import Metadata

CAPACITY = 50_000
"""Families; about 300 bytes each. Past it the family that was heard of longest ago is forgotten."""
MAX_TEXT_BYTES = 4096
"""Help and unit are cut here."""


class MetadataTable:
    """Metadata by metric family."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._by_metric: dict[str, Metadata] = {}

    def __len__(self) -> int:
        return len(self._by_metric)

    def put(self, metadata: Metadata) -> bool:
        """Keeps one; false where it was known just so."""
        metadata = _bounded(metadata)
        if self._by_metric.get(metadata.metric) == metadata:
            return False
        self._by_metric.pop(metadata.metric, None)
        self._by_metric[metadata.metric] = metadata
        if len(self._by_metric) > self._capacity:
            del self._by_metric[next(iter(self._by_metric))]
        return True

    def get(self, metric: str) -> Metadata | None:
        return self._by_metric.get(metric)

    def all(self) -> list[Metadata]:
        """All there is, by metric."""
        return sorted(self._by_metric.values(), key=lambda m: m.metric)

    def put_all(self, metadata: Iterable[Metadata]) -> tuple[Metadata, ...]:
        """Keeps them and returns those that are news."""
        return tuple(_bounded(m) for m in metadata if self.put(m))


def _bounded(metadata: Metadata) -> Metadata:
    if len(metadata.help) <= MAX_TEXT_BYTES and len(metadata.unit) <= MAX_TEXT_BYTES:
        return metadata
    return Metadata(metadata.metric, metadata.kind, metadata.help[:MAX_TEXT_BYTES], metadata.unit[:MAX_TEXT_BYTES])

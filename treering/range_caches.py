"""The caches of a process for what it reads from the bucket: made from the configuration, told of in metrics and log."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from treering.config import Config
from treering.telemetry import Gauge
from tsdb.bucket.disk_cache import DiskCache
from tsdb.bucket.memcached import MemcachedCache
from tsdb.bucket.range_cache import CacheCounts, RangeCache, TieredCache

log = logging.getLogger("treering.cache")


class RangeCaches:
    """The disk's and memcached's, those that are configured."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._disk = self._memcached = None
        if config.cache_path:
            self._disk = DiskCache(Path(config.cache_path), config.cache_disk_bytes, clock=clock, tell=log.warning)
        if config.memcached:
            self._memcached = MemcachedCache(config.memcached, clock=time.monotonic, tell=log.warning)

    @property
    def ranges(self) -> RangeCache | None:
        """All as one, the disk first; None if there are none."""
        tiers = tuple(cache for cache in (self._disk, self._memcached) if cache is not None)
        return (tiers[0] if len(tiers) == 1 else TieredCache(tiers)) if tiers else None

    def gauges(self) -> Iterator[Gauge]:
        if self._disk is not None:
            yield Gauge("treering_store_disk_cache_bytes", "Bytes in the disk cache.", self._disk.size_bytes)
            yield from _counts("disk", self._disk.counts)
        if self._memcached is not None:
            yield from _counts("memcached", self._memcached.counts)

    def close(self) -> None:
        for cache in (self._disk, self._memcached):
            if cache is not None:
                cache.close()


def _counts(name: str, counts: CacheCounts) -> Iterator[Gauge]:
    yield Gauge(f"treering_store_{name}_cache_hits", f"Ranges found in the {name} cache.", counts.hits)
    yield Gauge(f"treering_store_{name}_cache_misses", f"Ranges not found in the {name} cache.", counts.misses)
    yield Gauge(f"treering_store_{name}_cache_errors", f"Failed requests to the {name} cache, and broken ranges.", counts.errors)

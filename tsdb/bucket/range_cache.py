"""Ranges of immutable objects kept nearer than the bucket: what a cache on disk or in memcached can do, and reading through it.

What comes from a cache is checked as what comes from the bucket is, and only what passed is kept: a torn, foreign or flipped entry
is never an answer. No block is ever written again under its name, so nothing kept has to be taken back when one is deleted.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock
from typing import Protocol

from tsdb.model.errors import Corrupt

Get = Callable[[int, int], bytes]
"""The bytes of a range, by start and size."""


@dataclass(frozen=True, slots=True)
class RangeKey:
    """A range of an object (`<ulid>/…`) that has the crc32."""

    name: str
    start: int
    size: int
    crc32: int

    @property
    def digest(self) -> str:
        """32 hex digits for what caches keep under this key."""
        return blake2b(f"{self.name} {self.start} {self.size} {self.crc32:08x}".encode(), digest_size=16).hexdigest()

    def fits(self, data: bytes | memoryview) -> bool:
        """Whether these are the bytes."""
        return len(data) == self.size and zlib.crc32(data) == self.crc32


class RangeCache(Protocol):
    """What every cache of ranges can do; safe for many threads. None of it fails: a cache that is away is a miss."""

    def find(self, keys: Sequence[RangeKey]) -> list[bytes | None]:
        """What is kept under each key, unchecked; None where nothing is."""
        ...

    def keep(self, key: RangeKey, data: bytes) -> None:
        """Remember a range that fits its key."""
        ...

    def drop(self, key: RangeKey) -> None:
        """Forget what turned out not to fit."""
        ...


class CacheCounts:
    """What became of the requests to a cache, in ranges; `errors` also counts entries that did not fit."""

    def __init__(self) -> None:
        self.hits = self.misses = self.errors = 0
        self._lock = Lock()

    def asked(self, found: Sequence[bytes | None]) -> None:
        missed = sum(data is None for data in found)
        with self._lock:
            self.misses += missed
            self.hits += len(found) - missed

    def failed(self) -> None:
        with self._lock:
            self.errors += 1


@dataclass(frozen=True, slots=True)
class TieredCache:
    """Caches one behind the other, the nearest first, which also keeps what those behind it had."""

    tiers: tuple[RangeCache, ...]

    def find(self, keys: Sequence[RangeKey]) -> list[bytes | None]:
        """See `RangeCache.find`."""
        found: list[bytes | None] = [None] * len(keys)
        for number, tier in enumerate(self.tiers):
            missing = [i for i, data in enumerate(found) if data is None]
            for i, data in zip(missing, tier.find([keys[i] for i in missing]) if missing else [], strict=True):
                found[i] = data
                if data is not None and number and keys[i].fits(data):
                    for nearer in self.tiers[:number]:
                        nearer.keep(keys[i], data)
        return found

    def keep(self, key: RangeKey, data: bytes) -> None:
        for tier in self.tiers:
            tier.keep(key, data)

    def drop(self, key: RangeKey) -> None:
        for tier in self.tiers:
            tier.drop(key)


def find_sound(cache: RangeCache | None, keys: Sequence[RangeKey]) -> list[bytes | None]:
    """Of each range what the cache has, if it fits; what does not is dropped."""
    if cache is None:
        return [None] * len(keys)
    found = cache.find(keys)
    for i, (key, data) in enumerate(zip(keys, found, strict=True)):
        if data is not None and not key.fits(data):
            cache.drop(key)
            found[i] = None
    return found


def read_range(key: RangeKey, cache: RangeCache | None, get: Get) -> bytes:
    """The range from the cache, or else as `read_checked` gives it."""
    found = find_sound(cache, [key])[0]
    return bytes(read_checked(key, cache, get)) if found is None else found


def read_checked(key: RangeKey, cache: RangeCache | None, get: Get, first: memoryview | None = None) -> bytes | memoryview:
    """The range as read (or as `first`, a reading before), and then kept. Corrupt, if it does not fit twice.

    Bits flip on the way too, and then a second reading is right.
    """
    for data in (first, None):
        body = get(key.start, key.size) if data is None else data
        if key.fits(body):
            if cache is not None:
                cache.keep(key, bytes(body))
            return body
    raise Corrupt(f"{key.name}: the {key.size} bytes at byte {key.start} do not have the checksum {key.crc32:08x}")

"""Decoded values of pages that are read again and again, bounded in bytes, shared by many blocks and threads."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from tsdb.block.page import PageValues
from tsdb.block.part_cache import Key

IDLE_S = 60.0
"""Values that were not used for so long make room for others."""


@dataclass(slots=True)
class _Kept:
    values: PageValues
    used_s: float


class ValueCache:
    """Values by page. What comes takes only free room, or that of values that were not used for IDLE_S.

    So who reads more than there is room for finds a part of it every time; if the least recently used went, each page would go
    just before it is wanted again.
    """

    def __init__(self, limit_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.size_bytes = 0
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Key) -> PageValues | None:
        """The values of that page if they are here; who asks so does not want them kept."""
        with self._lock:
            found = self._kept.get(key)
            return None if found is None else self._used(key, found)

    def get(self, key: Key, size_bytes: int, decode: Callable[[], PageValues]) -> PageValues | None:
        """The values of that page. Where they are not here and there is no room for size_bytes: None, without `decode`."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                return self._used(key, found)
            self.misses += 1
            if not self._make_room(size_bytes):
                return None
            self.size_bytes += size_bytes  # promised to this thread
        try:
            values = decode()
        except BaseException:
            with self._lock:
                self.size_bytes -= size_bytes
            raise
        with self._lock:
            if key in self._kept:  # another thread was faster
                self.size_bytes -= size_bytes
            self._kept[key] = _Kept(values, self._clock())
        return values

    def _used(self, key: Key, found: _Kept) -> PageValues:
        self.hits += 1
        found.used_s = self._clock()
        self._kept.move_to_end(key)
        return found.values

    def _make_room(self, size_bytes: int) -> bool:
        """Whether there is room now; values long unused go for it."""
        if size_bytes > self.limit_bytes:
            return False
        while self.size_bytes + size_bytes > self.limit_bytes:
            if not self._kept or self._clock() - next(iter(self._kept.values())).used_s < IDLE_S:
                return False
            gone = self._kept.popitem(last=False)[1].values
            self.size_bytes -= gone.values.nbytes
        return True

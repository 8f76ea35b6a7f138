"""Decoded values of pages that are read again and again, bounded in bytes, shared by many blocks and threads."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from tsdb.block.page import PageValues
from tsdb.block.part_cache import Key

MAX_SEEN = 1 << 14
"""Pages of which it is known when they were looked for, though their values are not here."""


@dataclass(slots=True)
class _Kept:
    values: PageValues
    used: int


class ValueCache:
    """Values by page. What comes takes only free room, or that of values not used since it was itself looked for the last time.

    So who reads more than there is room for finds a part of it every time; if the least recently used went, each page would go
    just before it is wanted again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.size_bytes = 0
        self._lookups = 0
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._seen: OrderedDict[Key, int] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Key) -> PageValues | None:
        """The values of that page if they are here; who asks so does not want them kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            return self._used(key, found)

    def get(self, key: Key, size_bytes: int, decode: Callable[[], PageValues]) -> PageValues | None:
        """The values of that page. Where they are not here and there is no room for size_bytes: None, without `decode`."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                return self._used(key, found)
            self._lookups += 1
            self.misses += 1
            if not self._make_room(size_bytes, self._look(key)):
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
            self._kept[key] = _Kept(values, self._lookups)
        return values

    def _used(self, key: Key, found: _Kept) -> PageValues:
        self._lookups += 1
        self.hits += 1
        found.used = self._lookups
        self._kept.move_to_end(key)
        return found.values

    def _look(self, key: Key) -> int:
        """When the page was last looked for, 0 = not known; and it is now."""
        before = self._seen.pop(key, 0)
        self._seen[key] = self._lookups
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return before

    def _make_room(self, size_bytes: int, before: int) -> bool:
        """Whether there is room now; values that were used before that look-up, and not since, go for it."""
        if size_bytes > self.limit_bytes:
            return False
        while self.size_bytes + size_bytes > self.limit_bytes:
            if not self._kept or next(iter(self._kept.values())).used >= before:
                return False
            gone = self._kept.popitem(last=False)[1].values
            self.size_bytes -= gone.values.nbytes
        return True

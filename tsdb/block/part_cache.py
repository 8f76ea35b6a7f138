"""A cache of parts of blocks (index columns, symbols, directories), bounded in bytes, shared by many blocks and threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import TypeVar, cast

DEFAULT_BYTES = 64 << 20

Key = tuple[Hashable, ...]
T = TypeVar("T")


class PartCache:
    """The least recently used parts go when the bytes are over the limit; one part larger than the limit is not kept."""

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.size_bytes = 0
        self._parts: OrderedDict[Key, tuple[object, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key, load: Callable[[], tuple[T, int]]) -> T:
        """The part of that key; where it is not known, `load()` gives it and its size in bytes.

        Two threads that miss at once both load.
        """
        found = self.find([key])[0]
        if found is not None:
            return cast(T, found)
        part, size_bytes = load()
        self.keep(key, part, size_bytes)
        return part

    def find(self, keys: Sequence[Key]) -> list[object | None]:
        """The parts of those keys, None for each that is not known."""
        out: list[object | None] = []
        with self._lock:
            for key in keys:
                found = self._parts.get(key)
                if found is not None:
                    self._parts.move_to_end(key)
                out.append(None if found is None else found[0])
            misses = sum(part is None for part in out)
            self.misses += misses
            self.hits += len(out) - misses
        return out

    def keep(self, key: Key, part: object, size_bytes: int) -> None:
        """Remember a part, which is not None, unless it is larger than the limit."""
        if size_bytes > self.limit_bytes:
            return
        with self._lock:
            self.size_bytes += size_bytes - self._parts.get(key, (None, 0))[1]
            self._parts[key] = (part, size_bytes)
            self._parts.move_to_end(key)
            while self.size_bytes > self.limit_bytes:
                self.size_bytes -= self._parts.popitem(last=False)[1][1]

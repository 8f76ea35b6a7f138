"""Ranges of objects in memcached, over pymemcache, which is imported when the first server is used.

Each range lies on one server, by rendezvous hashing: where a server is added or gone, only its own share is read anew. A server
that fails is left alone for OFF_S, so that a dead one costs a query one timeout and not many.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tsdb.bucket.range_cache import CacheCounts, RangeKey

CHUNK_BYTES = 1_000_000
"""A value of memcached may have 1 MiB with its key and head."""
MAX_CHUNKS = 16
TIMEOUT_S = 0.1
"""Longer than that the bucket itself takes."""
OFF_S = 10.0
CONNECTIONS = 64
PREFIX = "treering-1:"


@dataclass(slots=True)
class _Server:
    name: str
    client: Any
    failing: bool = False
    off_until_s: float = 0.0


class MemcachedCache:
    """See `RangeCache`. Servers are `host:port`; `tell` gets a sentence when one fails; `clock` gives seconds that never fall."""

    def __init__(self, servers: Sequence[str], *, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        import pymemcache

        self.counts = CacheCounts()
        self._failures = (pymemcache.MemcacheError, OSError, ValueError, RuntimeError)
        self._clock, self._tell = clock, tell
        self._servers = [
            _Server(
                name,
                pymemcache.PooledClient(
                    name, connect_timeout=TIMEOUT_S, timeout=TIMEOUT_S, no_delay=True, max_pool_size=CONNECTIONS
                ),
            )
            for name in servers
        ]

    def find(self, keys: Sequence[RangeKey]) -> list[bytes | None]:
        """See `RangeCache.find`: one request to each server that has a share."""
        shares: dict[str, list[str]] = {}
        for key in keys:
            shares.setdefault(self._server_of(key).name, []).extend(_chunk_names(key))
        found: dict[str, bytes] = {}
        for server in self._servers:
            if server.name in shares:
                found |= self._ask(server, lambda client, names: client.get_many(names), shares[server.name]) or {}
        out = [_joined([found.get(name) for name in _chunk_names(key)]) for key in keys]
        self.counts.asked(out)
        return out

    def keep(self, key: RangeKey, data: bytes) -> None:
        """See `RangeCache.keep`; nothing above MAX_CHUNKS values."""
        names = _chunk_names(key)
        if len(names) > MAX_CHUNKS:
            return
        parts = {name: data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i, name in enumerate(names)}
        self._ask(self._server_of(key), lambda client, parts: client.set_many(parts, noreply=True), parts)

    def drop(self, key: RangeKey) -> None:
        """See `RangeCache.drop`."""
        self.counts.failed()
        self._ask(self._server_of(key), lambda client, names: client.delete_many(names, noreply=True), _chunk_names(key))

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            server.client.close()

    def _server_of(self, key: RangeKey) -> _Server:
        digest = key.digest
        return max(self._servers, key=lambda server: blake2b(f"{server.name} {digest}".encode(), digest_size=8).digest())

    def _ask(self, server: _Server, request: Callable[[Any, Any], Any], argument: object) -> Any:
        """The answer; None from a server that fails, or did lately."""
        if server.failing and self._clock() < server.off_until_s:
            return None
        try:
            answer = request(server.client, argument)
        except self._failures as error:
            self.counts.failed()
            if not server.failing:
                self._tell(f"memcached {server.name}: {error!r}; tried again every {OFF_S:g} s")
            server.off_until_s, server.failing = self._clock() + OFF_S, True
            return None
        server.failing = False
        return answer


def _chunk_names(key: RangeKey) -> list[str]:
    digest = key.digest
    return [f"{PREFIX}{digest}.{i}" for i in range(max(1, -(-key.size // CHUNK_BYTES)))]


def _joined(parts: Sequence[bytes | None]) -> bytes | None:
    """The chunks of a range one after another; None if one is not there."""
    have = [part for part in parts if part is not None]
    return b"".join(have) if len(have) == len(parts) else None

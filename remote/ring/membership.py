"""Who is in the ring. This one lives in memory, for one process with any number of instances."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from remote.ring.ring import HEARTBEAT_TIMEOUT_MS, Instance, Ring, State, make_ring
from tsdb.model.errors import BadData, NotFound


class Membership(Protocol):
    """The ring as its members see it. A snapshot is immutable, and the same object as long as nothing changes."""

    def join(self, instance: Instance) -> None:
        """Adds the instance, or puts it in the place of the one with its id."""
        ...

    def set_state(self, instance_id: str, state: State) -> None: ...

    def leave(self, instance_id: str) -> None:
        """Removes the instance; nothing happens if it is not there."""
        ...

    def heartbeat(self, instance_id: str, now_ms: int) -> None: ...

    def snapshot(self) -> Ring: ...


class MemoryMembership:
    """Membership without a network: what one member does, all see at once. Thread-safe."""

    def __init__(
        self, *, replication_factor: int = 1, zone_aware: bool = False, heartbeat_timeout_ms: int = HEARTBEAT_TIMEOUT_MS
    ) -> None:
        if replication_factor < 1:
            raise BadData(f"replication factor {replication_factor} is below 1")
        self._lock = threading.Lock()
        self._factor, self._zone_aware, self._timeout_ms = replication_factor, zone_aware, heartbeat_timeout_ms
        self._ring = self._make(())

    def join(self, instance: Instance) -> None:
        self._change(lambda members: (*(i for i in members if i.id != instance.id), instance))

    def set_state(self, instance_id: str, state: State) -> None:
        """NotFound if the instance is not in the ring."""
        self._known(instance_id)
        self._change(lambda members: tuple(replace(i, state=state) if i.id == instance_id else i for i in members))

    def leave(self, instance_id: str) -> None:
        self._change(lambda members: tuple(i for i in members if i.id != instance_id))

    def heartbeat(self, instance_id: str, now_ms: int) -> None:
        """NotFound if the instance is not in the ring: it was forgotten and must join again."""
        self._known(instance_id)
        with self._lock:
            self._ring = self._ring.beat(instance_id, now_ms)

    def snapshot(self) -> Ring:
        return self._ring

    def _known(self, instance_id: str) -> None:
        if all(instance.id != instance_id for instance in self._ring.instances):
            raise NotFound(f"instance {instance_id!r} is not in the ring")

    def _change(self, change: Callable[[tuple[Instance, ...]], tuple[Instance, ...]]) -> None:
        with self._lock:
            self._ring = self._make(change(self._ring.instances), self._ring.updated_ms)

    def _make(self, instances: tuple[Instance, ...], updated_ms: int = 0) -> Ring:
        return make_ring(
            instances,
            replication_factor=self._factor,
            zone_aware=self._zone_aware,
            heartbeat_timeout_ms=self._timeout_ms,
            updated_ms=updated_ms,
        )

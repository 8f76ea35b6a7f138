"""Reads from several ingesters, of which some may fail: as many as leave every sample with one that answers.

A written sample is on a majority of its replicas, so the answer is whole as long as fewer than a majority are missing
(`remote.ring.replication.read_set`); up to then failures are not told to the reader, and the one too many fails the read.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import chain
from typing import TypeVar

from remote.peer import Peer
from remote.ring.replication import ReadSet, read_set
from remote.ring.ring import Instance, Ring
from tsdb.model.errors import BadData, LimitExceeded, QueryCanceled, QueryTimeout, TreeringError, Unavailable
from tsdb.model.series import SeriesBatch

Answer = TypeVar("Answer")
PeerOf = Callable[[Instance], Peer]
Ask = Callable[[Peer, int, "Failures"], Answer]
"""A question to a peer: with its number in the ring and the failures counted so far, to count later ones itself."""

_NOT_THE_PEER_S = (BadData, LimitExceeded, QueryTimeout, QueryCanceled)
"""Errors that any peer would give: asking another one does not help."""


class Failures:
    """Counts the ingesters that failed during one read. Thread-safe."""

    def __init__(self, ring: Ring, read: ReadSet) -> None:
        self._ring, self._read, self._lock = ring, read, threading.Lock()
        self._failed: set[str] = set()

    def add(self, number: int, error: Exception) -> None:
        """Unavailable when this is one more than the read can do without."""
        instance = self._ring.instances[number]
        with self._lock:
            self._failed.add(instance.zone if self._read.by_zone else instance.id)
            count = len(self._failed)
        if count > self._read.max_errors:
            unit = "zones" if self._read.by_zone else "ingesters"
            raise Unavailable(
                f"{count} {unit} failed, and {self._read.max_errors} may; the last is {instance.id}: {error}"
            ) from error


def started(batches: Iterator[SeriesBatch]) -> list[Iterator[SeriesBatch]]:
    """The stream with its first batch made, so that it looks at its data as it is now; [] if it has none."""
    first = next(batches, None)
    return [] if first is None else [chain([first], batches)]


def tolerated(batches: Iterator[SeriesBatch], number: int, failures: Failures) -> Iterator[SeriesBatch]:
    """The batches of one ingester; where it fails the stream ends and the failure is counted: what it did not give, others do."""
    try:
        yield from batches
    except _NOT_THE_PEER_S:
        raise
    except (TreeringError, OSError) as error:
        failures.add(number, error)


def ask_all(ring: Ring, peer_of: PeerOf, ask: Ask[Answer], *, executor: Executor | None = None) -> list[Answer]:
    """The answers of all ingesters that must be asked and did not fail; in parallel if there is an executor."""
    read = read_set(ring)
    failures = Failures(ring, read)

    def attempt(number: int) -> list[Answer]:
        try:
            return [ask(peer_of(ring.instances[number]), number, failures)]
        except _NOT_THE_PEER_S:
            raise
        except (TreeringError, OSError) as error:
            failures.add(number, error)
            return []

    parallel = executor is not None and len(read.instances) > 1
    answers = executor.map(attempt, read.instances) if parallel and executor else map(attempt, read.instances)
    return [answer for one in answers for answer in one]

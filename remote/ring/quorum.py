"""Writes that need a quorum: one call to each instance, counted for each set of replicas, as Cortex's DoBatch counts.

All series of one set of replicas share their fate, so the counting is per set, not per series. A write is not atomic: where
it fails, some series may be stored all the same; the sender repeats it and equal duplicates are accepted.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass

import numpy as np

from remote.ring.replication import Placement
from remote.ring.ring import I32, I64, Instance
from tsdb.model.errors import Corrupt, TreeringError, Unavailable
from tsdb.model.write import PushResult, WriteBatch

MAX_CALLS_PER_PEER = 64
"""Calls that may wait for one peer at once. A slow one then fails fast and counts as down, before the bodies kept for it fill
the memory of every distributor (cortex#1895)."""

Send = Callable[[Instance, WriteBatch], PushResult]
Outcome = PushResult | TreeringError | OSError


class Gate:
    """Counts the calls under way to each peer, those included that nobody waits for any more. Thread-safe."""

    def __init__(self, limit: int = MAX_CALLS_PER_PEER) -> None:
        self._lock, self._limit = threading.Lock(), limit
        self._under_way: dict[str, int] = {}

    def enter(self, peer: str) -> bool:
        """Whether one more call may start; then `leave` must follow."""
        with self._lock:
            count = self._under_way.get(peer, 0)
            if count >= self._limit:
                return False
            self._under_way[peer] = count + 1
            return True

    def leave(self, peer: str) -> None:
        with self._lock:
            self._under_way[peer] -= 1
            if self._under_way[peer] == 0:
                del self._under_way[peer]


@dataclass(frozen=True, slots=True)
class _Call:
    """One instance's part of a write."""

    number: int
    instance: Instance
    batch: WriteBatch


def push_quorum(
    placement: Placement, batch: WriteBatch, sets: I32, send: Send, *, executor: Executor | None, gate: Gate
) -> PushResult:
    """Sends each series to all replicas of its set (`sets` i32[n], or of one number for all) and returns once every set has
    its quorum; slower replicas are still served.

    Raises the error of the family (the caller's, ours) that made a set fail: of {ok, 4xx, 5xx} per replica the family that
    exceeds what the set can spare, or, when nothing is left to wait for, the more frequent one, on a tie the caller's.
    Without an executor the calls are made one after another in the order of instances.
    """
    involved = np.unique(sets).astype(np.int64)
    for i in involved.tolist():
        if placement.problems[i]:
            raise Unavailable(placement.problems[i])
    calls = _calls(placement, batch, sets, involved)
    if len(calls) == 1:
        return send(calls[0].instance, calls[0].batch)
    tally = Tally(placement, involved)
    results = []
    for call, outcome in _outcomes(calls, send, executor, gate):
        if isinstance(outcome, PushResult):
            results.append((call.batch, outcome))
        if tally.record(call.number, None if isinstance(outcome, PushResult) else outcome):
            break
    if len(involved) == 1:
        return _agreed([result for _, result in results], int(placement.needed[involved[0]]))
    return _mean(batch, results)


class Tally:
    """Who has answered what, by set of replicas; decides when a write has succeeded or failed."""

    def __init__(self, placement: Placement, involved: I64) -> None:
        self._members = placement.members[involved]
        self._needed, self._spare = placement.needed[involved], placement.spare[involved]
        self._stored, self._waiting = np.zeros(len(involved), np.int64), self._members.sum(axis=1)
        self._failed = np.zeros((2, len(involved)), np.int64)  # row 0: the caller's fault, row 1: ours
        self._errors: list[tuple[int, TreeringError | OSError]] = []

    def record(self, number: int, error: TreeringError | OSError | None) -> bool:
        """Counts one instance's answer; whether all sets now have their quorum. Raises once one cannot reach it."""
        touched = self._members[:, number]
        self._waiting -= touched
        if error is None:
            self._stored += touched
        else:
            self._errors.append((number, error))
            self._failed[int(is_server_error(error))] += touched
        if self._errors:
            self._raise_if_lost()
        return bool(np.all(self._stored >= self._needed))

    def _raise_if_lost(self) -> None:
        too_many = (self._failed > self._spare) & (self._stored < self._needed)
        out_of_calls = (self._waiting == 0) & (self._stored < self._needed)
        lost = np.flatnonzero(too_many.any(axis=0) | out_of_calls)
        if len(lost) == 0:
            return
        i = int(lost[0])
        server = bool(too_many[1, i] if too_many[:, i].any() else self._failed[1, i] > self._failed[0, i])
        raise self._last_error(i, server)

    def _last_error(self, i: int, server: bool) -> TreeringError:
        family = [(n, error) for n, error in self._errors if self._members[i, n] and is_server_error(error) == server]
        error = family[-1][1]
        if isinstance(error, TreeringError) and not isinstance(error, Corrupt):
            return error
        return Unavailable(f"{len(family)} of {int(self._members[i].sum())} replicas failed, the last with: {error}")


def is_server_error(error: TreeringError | OSError) -> bool:
    """Whether the failure is ours, so that the same request may work later (5xx), and not the caller's (4xx)."""
    return isinstance(error, (Unavailable, Corrupt, OSError))


def _calls(placement: Placement, batch: WriteBatch, sets: I32, involved: I64) -> list[_Call]:
    """One call for each instance that any of the sets has, with its rows."""
    ring = placement.ring
    members = placement.members[involved]
    if len(involved) == 1:
        return [_Call(i, ring.instances[i], batch) for i in np.flatnonzero(members[0]).tolist()]
    calls = []
    for i in np.flatnonzero(members.any(axis=0)).tolist():
        mine = placement.members[sets, i]
        calls.append(_Call(i, ring.instances[i], batch if mine.all() else batch.take(np.flatnonzero(mine))))
    return calls


def _outcomes(calls: list[_Call], send: Send, executor: Executor | None, gate: Gate) -> Iterator[tuple[_Call, Outcome]]:
    """What became of each call, as they end."""
    if executor is None:
        for call in calls:
            yield call, _attempt(send, call)
        return
    under_way: dict[Future[Outcome], _Call] = {}
    for call in calls:
        if gate.enter(call.instance.id):
            under_way[executor.submit(_attempt_through, gate, send, call)] = call
        else:
            yield call, Unavailable(f"ingester {call.instance.id}: {MAX_CALLS_PER_PEER} writes are waiting for it already")
    while under_way:
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            yield under_way.pop(future), future.result()


def _attempt_through(gate: Gate, send: Send, call: _Call) -> Outcome:
    try:
        return _attempt(send, call)
    finally:
        gate.leave(call.instance.id)


def _attempt(send: Send, call: _Call) -> Outcome:
    try:
        return send(call.instance, call.batch)
    except (TreeringError, OSError) as error:
        return error


def _agreed(results: list[PushResult], needed: int) -> PushResult:
    """What `needed` replicas have stored: of those that answered, the count that as many reach."""
    by_stored = sorted(results, key=lambda result: result.samples + result.histograms + result.exemplars)
    return by_stored[len(results) - needed]


def _mean(batch: WriteBatch, results: list[tuple[WriteBatch, PushResult]]) -> PushResult:
    """What became of a write whose parts went to different replicas: their counts over the mean number of copies."""
    copies = sum(_size(part) for part, _ in results) / max(_size(batch), 1)
    total = PushResult(len(batch.t_ms), 0 if batch.histograms is None else len(batch.histograms.row), len(batch.exemplars))
    if not any(result.rejected for _, result in results):
        return total
    rejected: dict[str, int] = {}
    for _, result in results:
        for reason, count in result.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    message = next(result.message for _, result in results if result.message)
    for reason, count in rejected.items():
        if share := int(count / copies + 0.5):
            total.reject(reason, share, message)
    total.samples = _share(total.samples, [result.samples for _, result in results], copies)
    total.histograms = _share(total.histograms, [result.histograms for _, result in results], copies)
    total.exemplars = _share(total.exemplars, [result.exemplars for _, result in results], copies)
    return total


def _share(sent: int, stored: list[int], copies: float) -> int:
    return min(sent, int(sum(stored) / copies + 0.5))


def _size(batch: WriteBatch) -> int:
    """Samples of both kinds."""
    return len(batch.t_ms) + (0 if batch.histograms is None else len(batch.histograms.row))

"""Writes, flushes, refreshes and reads at once, with real threads: a read misses nothing that was acknowledged before it began."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from remote.distributor import Distributor
from remote.ingester import Ingester, IngesterOptions
from remote.limits import LimitsTable
from remote.querier import Querier
from remote.ring.membership import MemoryMembership
from remote.ring.ring import Instance, State, instance_tokens
from remote.store_gateway import StoreGateway
from tests.remote.writes import write_batch
from tsdb.bucket.bucket import FolderBucket
from tsdb.model.labels import Labels
from tsdb.model.source import MAX_MS, MIN_MS, Selection

SERIES = [Labels.of({"__name__": "m", "i": str(i)}) for i in range(20)]
WRITES = 150


@pytest.mark.parametrize("told", [True, False])
def test_no_read_misses_what_moves_meanwhile(told: bool, tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path / "bucket")
    gateway, membership = StoreGateway(bucket), MemoryMembership()
    options = IngesterOptions(wal_sync="os", keep_flushed_ms=0 if told else 1 << 40)
    ingester = Ingester("i", tmp_path / "wal", bucket, LimitsTable(), options, now_ms=0, announce=gateway.add if told else None)
    membership.join(Instance("i", "", State.ACTIVE, "", instance_tokens("i"), 0, 0))
    distributor = Distributor(membership, lambda instance: ingester, LimitsTable())
    querier = Querier(membership, lambda instance: ingester, gateway)
    stop, acked = threading.Event(), [0]

    def write() -> None:
        t_ms = acked[0] + 1
        distributor.push("a", write_batch({labels: [(t_ms, float(t_ms))] for labels in SERIES}), now_ms=t_ms)
        acked[0] = t_ms

    def flush() -> None:
        assert ingester.flush(acked[0]).failed == {}
        ingester.tick(acked[0])

    write()  # compiles
    with ThreadPoolExecutor(3) as executor:
        works = [executor.submit(_until, stop, work) for work in (write, flush, lambda: gateway.refresh(0))]
        try:
            while acked[0] < WRITES and not any(work.done() for work in works):
                _check_all_read(querier, newest_ms=acked[0])
        finally:
            stop.set()
        for work in works:
            work.result()


def _check_all_read(querier: Querier, *, newest_ms: int) -> None:
    """Every series is read once, with a sample at each time from 1 up to at least newest_ms."""
    everything = Selection((), MIN_MS, MAX_MS)
    seen = 0
    for batch in querier.source("a").select(everything):
        assert batch.warnings == ()
        for i in range(len(batch)):
            t_ms = batch.t_ms[batch.offsets[i] : batch.offsets[i + 1]]
            assert np.array_equal(t_ms, np.arange(1, len(t_ms) + 1)) and len(t_ms) >= newest_ms
            seen += 1
    assert seen == len(SERIES)
    assert len(querier.source("a").series(everything)) == len(SERIES)


def _until(stop: threading.Event, work: Callable[[], object]) -> None:
    while not stop.is_set():
        work()

"""Acknowledged means readable exactly once, whatever fails: requests, answers, buckets, whole ingesters."""

from pathlib import Path

import pytest

from tests.sim.cluster import HOUR_MS, Cluster
from tsdb.model.errors import Unavailable
from tsdb.model.labels import Labels

SERIES = [Labels.of({"__name__": f"metric_{i % 3}", "instance": f"host-{i}", "job": "node"}) for i in range(12)]


def run(cluster: Cluster, steps: int) -> None:
    """A history of writes, ticks, flushes, crashes and restarts, with a check of everything now and then."""
    dice = cluster.dice
    for _ in range(steps):
        match dice.choices(["write", "old", "wait", "flush", "crash", "weather", "check"], [10, 2, 6, 1, 2, 1, 2])[0]:
            case "write":
                write(cluster, cluster.now_ms - dice.randrange(60_000), times=dice.randint(1, 20))
            case "old":
                write(cluster, cluster.now_ms - dice.randrange(200 * HOUR_MS), times=dice.randint(1, 5))
            case "wait":
                cluster.advance(dice.choice([15_000, 15_000, 20 * 60_000, HOUR_MS]))
                cluster.tick()
            case "flush":
                peer = dice.choice(list(cluster.peers.values()))
                if peer.up:
                    peer.ingester.flush(cluster.now_ms)
            case "crash":
                crash_or_restart(cluster)
            case "weather":
                cluster.bucket.rate = dice.choice([0.0, 0.0, 0.1, 0.5])
                for peer in cluster.peers.values():
                    peer.rate = dice.choice([0.0, 0.0, 0.2])
            case "check":
                check_in_fair_weather(cluster)
    check_in_fair_weather(cluster)


def write(cluster: Cluster, newest_ms: int, *, times: int) -> None:
    dice = cluster.dice
    series = dice.sample(SERIES, dice.randint(1, len(SERIES)))
    samples = {labels: [newest_ms - 15_000 * i for i in reversed(range(times))] for labels in series}
    tenant = dice.choice(["team-a", "team-b"])
    if not cluster.push(tenant, samples) and dice.random() < 0.7:
        cluster.push(tenant, samples)  # as a sender does


def crash_or_restart(cluster: Cluster) -> None:
    down = [name for name, peer in cluster.peers.items() if not peer.up]
    if down:
        cluster.restart(down[0])
    else:
        cluster.crash(cluster.dice.choice(list(cluster.peers)))


def check_in_fair_weather(cluster: Cluster) -> None:
    rate, cluster.bucket.rate = cluster.bucket.rate, 0.0
    cluster.refresh()
    if cluster.replication_factor == 1 and not all(peer.up for peer in cluster.peers.values()):
        crash_or_restart(cluster)
    cluster.check()
    start_ms = cluster.now_ms - cluster.dice.randrange(220 * HOUR_MS)
    for tenant in cluster.sent:
        cluster.check_tenant(tenant, start_ms=start_ms, end_ms=start_ms + cluster.dice.randrange(1, 50 * HOUR_MS))
    cluster.bucket.rate = rate


@pytest.mark.parametrize("seed", range(24))
def test_three_replicas(seed: int, tmp_path: Path) -> None:
    run(Cluster(tmp_path, seed), 60)


@pytest.mark.parametrize("seed", range(8))
def test_one_ingester(seed: int, tmp_path: Path) -> None:
    run(Cluster(tmp_path, seed, ingesters=1, replication_factor=1, announce=True), 80)


@pytest.mark.parametrize("seed", range(6))
def test_six_ingesters_in_three_zones(seed: int, tmp_path: Path) -> None:
    run(Cluster(tmp_path, seed, ingesters=6, zones=3), 60)


@pytest.mark.parametrize("seed", range(6))
def test_five_ingesters_share_the_series(seed: int, tmp_path: Path) -> None:
    run(Cluster(tmp_path, seed, ingesters=5), 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_many_histories(seed: int, tmp_path: Path) -> None:
    run(Cluster(tmp_path, seed, ingesters=1 + seed % 5, replication_factor=1 + 2 * (seed % 5 > 1)), 150)


def test_two_of_three_down_is_told(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 0)
    cluster.push("a", {SERIES[0]: [cluster.now_ms]})
    cluster.crash("ingester-0")
    assert cluster.push("a", {SERIES[1]: [cluster.now_ms]})
    cluster.check()
    cluster.crash("ingester-1")
    assert not cluster.push("a", {SERIES[2]: [cluster.now_ms]})
    with pytest.raises(Unavailable, match="2 ingesters failed, and 1 may"):
        cluster.check()


def test_zones_may_be_lost_one_at_a_time(tmp_path: Path) -> None:
    """Six ingesters in three zones: all of one zone may be gone; one more elsewhere is one too many for some series."""
    cluster = Cluster(tmp_path, 0, ingesters=6, zones=3)
    everything = {labels: [cluster.now_ms] for labels in SERIES}
    assert cluster.push("a", everything)
    for name in ("ingester-0", "ingester-3"):
        cluster.crash(name)
        assert cluster.push("a", {labels: [cluster.now_ms + 1] for labels in SERIES})
        cluster.check()
    cluster.advance(120_000)
    assert cluster.push("a", {labels: [cluster.now_ms] for labels in SERIES})
    cluster.check()
    cluster.crash("ingester-1")
    assert not cluster.push("a", {labels: [cluster.now_ms + 2] for labels in SERIES})
    with pytest.raises(Unavailable):
        cluster.check()
    cluster.restart("ingester-1")
    cluster.check()


def test_every_operation_of_a_flush_may_fail(tmp_path: Path) -> None:
    """A bucket that fails at its k-th operation, for all k, before or after having done it; then a crash at that point."""
    points = 0
    for k in range(1, 200):
        cluster = Cluster(tmp_path / str(k), k, ingesters=1, replication_factor=1)
        now_ms = cluster.now_ms
        cluster.push("a", {labels: [now_ms - 7 * HOUR_MS, now_ms - 15_000, now_ms] for labels in SERIES})
        cluster.bucket.fail_at = cluster.bucket.operations + k
        report = cluster.peers["ingester-0"].ingester.flush(now_ms)
        if not report.failed:
            break
        points += 1
        cluster.check()
        if k % 2:
            cluster.restart("ingester-0")
        cluster.refresh()
        cluster.check()
        assert not cluster.peers["ingester-0"].ingester.flush(now_ms).failed
        cluster.refresh()
        cluster.check()
        assert cluster.peers["ingester-0"].ingester.stores()["a"].head.stats().samples == 0
    assert points >= 6

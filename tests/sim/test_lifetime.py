"""Random histories of write, flush, compact, downsample, delete, expire and crash: every query equals a simple model's."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.lifetime import DAY_MS, HOUR_MS, SERIES, WINDOWS_ONLY, Lifetime
from tsdb.model.errors import Unavailable
from tsdb.model.matcher import Matcher

MATCHERS = [
    (), (Matcher("job", "=", "api"),), (Matcher("job", "=", "debug"),), (Matcher("__name__", "=", "m1"),),
    (Matcher("__name__", "=", "m0"), Matcher("host", "=~", "0|2")), (Matcher("host", "!=", "3"),),
]  # fmt: skip
STEPS = ["write", "history", "again", "flush", "compact", "wait", "long wait", "delete", "storm", "restart", "check"]
WEIGHTS = [10, 4, 3, 3, 10, 6, 2, 2, 2, 2, 3]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a sync of each object would take most of the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def live(life: Lifetime, steps: int) -> None:
    dice = life.dice
    for _ in range(steps):
        match dice.choices(STEPS, WEIGHTS)[0]:
            case "write":
                write(life, life.now_ms - dice.randrange(HOUR_MS), times=dice.randint(1, 8), step_ms=dice.choice([15_000, 600_000]))
            case "history":
                write(
                    life,
                    life.now_ms - dice.randrange(60 * DAY_MS),
                    times=dice.randint(1, 40),
                    step_ms=dice.choice([60_000, HOUR_MS]),
                )
            case "again":
                life.write_again(40)
            case "flush":
                life.flush()
            case "compact":
                life.compact()
            case "wait":
                life.advance(dice.choice([60_000, HOUR_MS, 3 * HOUR_MS, 8 * HOUR_MS]))
                life.ingester.tick(life.now_ms)
                life.refresh()
            case "long wait":
                life.advance(dice.choice([DAY_MS, 7 * DAY_MS]))
                life.ingester.tick(life.now_ms)
                life.refresh()
            case "delete":
                start_ms = life.now_ms - dice.randrange(60 * DAY_MS)
                life.delete(dice.choice(MATCHERS), start_ms, start_ms + dice.choice([HOUR_MS, DAY_MS, 30 * DAY_MS]))
            case "storm":
                life.bucket.rate = dice.choice([0.0, 0.0, 0.02, 0.1, 0.5])
            case "restart":
                restart(life)
            case "check":
                check(life)
    check(life)
    settle(life)
    check(life)


def write(life: Lifetime, newest_ms: int, *, times: int, step_ms: int) -> None:
    series = life.dice.sample(SERIES, life.dice.randint(1, len(SERIES)))
    life.write({labels: [newest_ms - step_ms * i for i in reversed(range(times))] for labels in series})


def restart(life: Lifetime) -> None:
    what = life.dice.choice([life.restart_ingester, life.restart_compactor, life.restart_reader])
    try:
        what()
    except Unavailable:
        rate, life.bucket.rate = life.bucket.rate, 0.0
        what()
        life.bucket.rate = rate


def check(life: Lifetime) -> None:
    rate, life.bucket.rate = life.bucket.rate, 0.0
    life.refresh()
    life.check()
    start_ms = life.now_ms - life.dice.randrange(62 * DAY_MS)
    life.check(life.dice.choice(MATCHERS), start_ms, start_ms + life.dice.randrange(1, 10 * DAY_MS))
    life.check_counts()
    life.bucket.rate = rate


def settle(life: Lifetime) -> None:
    """Days of fair weather: everything that can be compacted is, and what was replaced is gone."""
    life.bucket.rate = 0.0
    assert life.flush()
    for _ in range(12):
        life.advance(7 * HOUR_MS)
        for _ in range(6):
            life.compact()
    life.refresh()
    inventory = life.gateway.blocks("team").inventory
    assert inventory.damaged == {} and inventory.no_compact == {}
    assert not inventory.tombstones, "all deletions are reclaimed"
    assert not inventory.deletions or life.compactor.tick(life.now_ms).made == []


@pytest.mark.parametrize("seed", range(60))
def test_every_query_equals_the_model(seed: int, folder: Path) -> None:
    live(Lifetime(folder, seed), 60)


@pytest.mark.parametrize("seed", range(100, 140))
def test_where_raw_samples_go_first_no_sample_counts_twice(seed: int, folder: Path) -> None:
    live(Lifetime(folder, seed, WINDOWS_ONLY), 90)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_many_lifetimes(seed: int, folder: Path) -> None:
    live(Lifetime(folder, seed), 120)

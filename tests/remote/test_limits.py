import pytest

from remote import limits as limits_module
from remote.limits import Limits, LimitsTable, RateLimiter
from tsdb.model.errors import LimitExceeded

RATE = Limits(ingestion_rate=100, ingestion_burst_size=50)


def test_a_fresh_store_takes_everything() -> None:
    RateLimiter().take("anonymous", Limits(), samples=10**9, metadata=0, now_ms=0)


def test_burst_then_rate() -> None:
    rates = RateLimiter()
    rates.take("a", RATE, samples=40, metadata=10, now_ms=0)
    with pytest.raises(LimitExceeded) as refused:
        rates.take("a", RATE, samples=20, metadata=3, now_ms=0)
    assert str(refused.value) == "ingestion rate limit (100) exceeded while adding 20 samples and 3 metadata"
    assert refused.value.retry_after_s == pytest.approx(0.23)
    rates.take("b", RATE, samples=50, metadata=0, now_ms=0)
    rates.take("a", RATE, samples=20, metadata=3, now_ms=230)


def test_more_than_the_burst_passes_once_and_is_paid_back() -> None:
    rates = RateLimiter()
    rates.take("a", RATE, samples=500, metadata=0, now_ms=0)
    with pytest.raises(LimitExceeded) as refused:
        rates.take("a", RATE, samples=1, metadata=0, now_ms=1000)
    assert refused.value.retry_after_s == pytest.approx(3.51)
    rates.take("a", RATE, samples=1, metadata=0, now_ms=1000 + 3510)


def test_distributors_share_the_rate() -> None:
    rates = RateLimiter()
    rates.take("a", RATE, samples=50, metadata=0, now_ms=0, distributors=2)
    with pytest.raises(LimitExceeded):
        rates.take("a", RATE, samples=30, metadata=0, now_ms=500, distributors=2)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    rates = RateLimiter()
    rates.take("a", RATE, samples=50, metadata=0, now_ms=10_000)
    for now_ms in (0, 10_000):
        with pytest.raises(LimitExceeded):
            rates.take("a", RATE, samples=1, metadata=0, now_ms=now_ms)


def test_remembered_tenants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_BUCKETS", 10)
    rates = RateLimiter()
    for i in range(100):
        rates.take(f"t{i}", RATE, samples=50, metadata=0, now_ms=i)
    assert len(rates._buckets) <= 10
    with pytest.raises(LimitExceeded):
        rates.take("t99", RATE, samples=50, metadata=0, now_ms=100)


def test_overrides() -> None:
    table = LimitsTable(Limits(max_exemplars=1), {"a": Limits(max_exemplars=2)})
    assert (table.of("a").max_exemplars, table.of("b").max_exemplars) == (2, 1)

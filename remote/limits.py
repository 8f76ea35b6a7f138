"""What a tenant may ask for: its limits, and the rate limiter that holds its writes to them.

Names and defaults are Cortex's where it has them, so that its overrides carry over; 0 means unlimited. The two that differ:
samples of any age are accepted, and ingestion is not rate limited until it is configured, for a fresh store must take
whatever history it is given. Those on queries stand beside the bounds of the whole server (`treering.config`): the smaller holds.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tsdb.model.errors import LimitExceeded

MAX_BUCKETS = 10_000
"""Tenants whose rate is remembered at once; past it the half that has been idle longest is forgotten."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """`matchers` is a series selector such as `{job="debug"}`, `keep` a duration such as `7d`."""

    matchers: str
    keep: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one tenant; 0 = unlimited."""

    ingestion_rate: float = 0.0
    """Samples a second, exemplars and metadata counted as samples."""
    ingestion_burst_size: int = 50_000
    """How many samples may come at once on top of the rate."""
    max_global_series_per_user: int = 0
    max_global_series_per_metric: int = 0
    max_label_names_per_series: int = 100
    """Cortex has 30, which Kubernetes metrics with OpenTelemetry's resource labels pass."""
    max_label_name_length: int = 1024
    max_label_value_length: int = 8192
    """Cortex has 2,048, which command lines and stack names in labels pass."""
    out_of_order_time_window_ms: int | None = None
    """How far before a series' newest sample another may lie; None = any age."""
    creation_grace_period_ms: int = 600_000
    """How far in the future a sample may lie; a sender's wrong clock must not poison the head."""
    max_exemplars: int = 100_000
    max_metadata_per_user: int = 8_000

    max_samples: int = 0
    """Samples and result cells that one query may hold at one time: its memory, at 24 bytes each."""
    max_fetched_series: int = 0
    """Series that all selectors of one query may read together."""
    max_query_points: int = 0
    """Steps of a range query."""
    max_query_length_ms: int = 0
    """The time over which one selector may read samples, its range and the lookback included."""
    max_query_lookback_ms: int = 0
    """How far back queries see; what is older is as if it were not there."""
    query_timeout_ms: int = 0
    max_concurrent_queries: int = 0
    """Queries at work at once in one process; more wait for their turn."""

    retention_ms: int = 0
    """How long samples are kept, at any resolution; 0 = for ever, as in what follows."""
    retention_raw_ms: int = 0
    """How long raw samples are kept, if shorter; not before they are downsampled."""
    retention_5m_ms: int = 0
    retention_1h_ms: int = 0
    retention: tuple[RetentionRule, ...] = ()
    """Series that are kept for a shorter time than others."""


@dataclass(frozen=True, slots=True)
class LimitsTable:
    """The limits of every tenant: its own, or the default."""

    default: Limits = field(default_factory=Limits)
    overrides: Mapping[str, Limits] = field(default_factory=dict)

    def of(self, tenant: str) -> Limits:
        return self.overrides.get(tenant, self.default)


@dataclass(slots=True)
class _TokenBucket:
    tokens: float
    at_ms: int


class RateLimiter:
    """A token bucket for each tenant. Thread-safe; the clock is the caller's.

    A write larger than the burst passes when the bucket is full and leaves it in debt (Cortex refuses it for ever, so that
    its sender retries for ever).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, _TokenBucket] = {}

    def take(self, tenant: str, limits: Limits, *, samples: int, metadata: int, now_ms: int, distributors: int = 1) -> None:
        """Takes the write's tokens, or LimitExceeded with the time after which there will be enough.

        `distributors` share the tenant's rate, as each sees only its part of the writes.
        """
        rate, burst = limits.ingestion_rate / distributors, max(limits.ingestion_burst_size, 1)
        if rate <= 0:
            return
        count = samples + metadata
        with self._lock:
            bucket = self._bucket(tenant, burst, now_ms)
            bucket.tokens = min(burst, bucket.tokens + rate * max(0, now_ms - bucket.at_ms) / 1000)
            bucket.at_ms = max(bucket.at_ms, now_ms)
            lacking = min(count, burst) - bucket.tokens
            if lacking <= 0:
                bucket.tokens -= count
                return
        raise LimitExceeded(
            f"ingestion rate limit ({rate:g}) exceeded while adding {samples} samples and {metadata} metadata",
            retry_after_s=lacking / rate,
        )

    def _bucket(self, tenant: str, burst: int, now_ms: int) -> _TokenBucket:
        if tenant not in self._buckets:
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget_idle()
            self._buckets[tenant] = _TokenBucket(float(burst), now_ms)
        return self._buckets[tenant]

    def _forget_idle(self) -> None:
        oldest_first = sorted(self._buckets, key=lambda tenant: self._buckets[tenant].at_ms)
        for tenant in oldest_first[: MAX_BUCKETS // 2]:
            del self._buckets[tenant]

"""Treering, a long-term store for Prometheus metrics.

    import treering
    store = treering.open("./treering-data")            # or "s3://bucket/prefix", or "http://127.0.0.1:9009"
    store.query_range("sum by (job) (rate(http_requests_total[5m]))", start="-6h").to_pandas()

Importing this package loads nothing heavy; `open` does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from treering.version import VERSION as __version__

if TYPE_CHECKING:
    from treering.library.store import Store

__all__ = ["__version__", "open"]


def open(
    url: str = "./treering-data",
    *,
    tenant: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 120,
    **config: object,
) -> "Store":
    """A store over a data folder (read and write, in this process), a bucket `s3://…` (read), or a server `http://…`.

    `tenant` is "anonymous" unless given; `headers` and `timeout` (seconds) are for servers; further keywords are keys of the
    configuration, such as `bucket="s3://…"`. Unavailable if another process has the data folder open.
    With a store in this process malloc keeps up to 256 MiB of what was freed for the next query (glibc's M_TRIM_THRESHOLD).
    """
    from treering.library.opening import open_store

    return open_store(url, tenant=tenant, headers=headers or {}, timeout_s=timeout, config=config)

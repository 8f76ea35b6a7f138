"""From a URL to a `Store`."""

from collections.abc import Mapping

from treering.config import load_config
from treering.library.backends import HttpBackend, NodeBackend
from treering.library.store import Store
from treering.node import Node
from treering.resident import keep_freed_memory
from tsdb.model.errors import BadData


def open_store(
    url: str, *, tenant: str | None, headers: Mapping[str, str], timeout_s: float, config: Mapping[str, object]
) -> Store:
    """The store that a URL names. BadData on a scheme that is not known."""
    scheme, colon, _ = url.partition("://")
    if scheme in ("http", "https"):
        if config:
            raise BadData(f"{', '.join(config)}: configuration is for a store in this process; {url} has its own")
        return Store(HttpBackend(url, tenant, headers, timeout_s))
    if colon and scheme == "s3":
        settings = {"bucket": url, "target": ("querier", "store-gateway"), **config}
    elif colon and scheme != "file":
        raise BadData(f"{url}: unknown scheme {scheme!r}; want a folder, s3://, http:// or https://")
    else:
        settings = {"data": url.removeprefix("file://"), **config}
    keep_freed_memory(server=False)
    return Store(NodeBackend(Node(load_config(None, settings)), tenant or "anonymous"))

"""Who asks: tenant ids out of `X-Scope-OrgID` headers, by Cortex's rules with its gaps closed.

A tenant id becomes a folder name and an object key, so nothing that is not plainly a name passes: at most 150 bytes of
`[a-zA-Z0-9!\\-_.*'()]`. Ids are case-sensitive. The header is trusted; who may send it is decided before this.
"""

import re
from collections.abc import Sequence

from tsdb.model.errors import BadData, TreeringError

HEADER = "X-Scope-OrgID"
ANONYMOUS = "anonymous"
"""The one tenant of a store without multitenancy."""
MAX_TENANT_BYTES = 150
MAX_FEDERATED_TENANTS = 16
"""Each tenant of a federated read is a whole query; Cortex has no bound here, and one header could ask for all tenants."""

_ALLOWED = re.compile(r"[a-zA-Z0-9!\-_.*'()]*")
_RESERVED = frozenset({".", "..", "user-index.json.gz"})
"""Names that folders and Cortex's buckets give a meaning of their own; so have all of the form `__…__`."""


class Unauthorized(TreeringError):
    """The request does not say, or may not say, for whom it asks: status 401."""


def resolve_tenant(headers: Sequence[str], *, multitenancy: bool) -> str:
    """The one tenant of a request, from the values of its `X-Scope-OrgID` headers; for writes and everything not federated.

    Unauthorized without an id, BadData for one that can be no tenant. Without multitenancy headers are not looked at.
    """
    tenants = resolve_tenants(headers, multitenancy=multitenancy)
    if len(tenants) > 1:
        raise BadData(f"multiple org IDs present: {'|'.join(tenants)!r}, but only reads can be of several tenants")
    return tenants[0]


def resolve_tenants(headers: Sequence[str], *, multitenancy: bool) -> tuple[str, ...]:
    """The tenants of a read, sorted and each once: `a|b` asks for both together."""
    if not multitenancy:
        return (ANONYMOUS,)
    if not headers or headers == [""]:
        raise Unauthorized("no org id")
    if len(headers) > 1:
        raise BadData(f"{len(headers)} {HEADER} headers in one request, want one")
    parts = headers[0].split("|")
    for part in parts:
        check_tenant(part)
    tenants = tuple(sorted(set(parts)))
    if len(tenants) > MAX_FEDERATED_TENANTS:
        raise BadData(f"too many tenants, max: {MAX_FEDERATED_TENANTS}, actual: {len(tenants)}")
    return tenants


def check_tenant(tenant: str) -> None:
    """BadData unless this can be a tenant id, and so one part of a path or of an object key."""
    if not tenant:
        raise BadData("tenant ID is empty")
    size_bytes = len(tenant.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_TENANT_BYTES:
        raise BadData(f"tenant ID is too long: {size_bytes} bytes, max {MAX_TENANT_BYTES} bytes")
    plain = _ALLOWED.match(tenant)
    if plain is None or plain.end() < len(tenant):
        at = plain.end() if plain else 0
        raise BadData(f"tenant ID {tenant!r} contains unsupported character {tenant[at]!r} at position {at}")
    if tenant in _RESERVED or (tenant.startswith("__") and tenant.endswith("__")):
        raise BadData(f"tenant ID {tenant!r} is reserved")

"""What a server does for its first dashboard, right after a start.

The first queries after a restart would open the indexes of the newest blocks and run code that nothing has run yet: a third to a
half of the first answer's time. A thread asks one small question for each tenant that writes here, while nobody waits.
"""

import logging
from collections.abc import Callable

from treering.http.json_text import query_response
from treering.node import Node, Query
from tsdb.model.errors import TreeringError

log = logging.getLogger("treering.look_ahead")

MAX_TENANTS = 16
"""A server of more tenants reads the lists of all their blocks, and opens those of so many."""

QUESTION = "up"
"""Every Prometheus writes it: few series, of all targets."""

SPAN_MS, STEP_MS = 6 * 3_600_000, 60_000
"""Of the question: a dashboard's default is a few hours."""


def look_ahead(node: Node, canceled: Callable[[], bool]) -> None:
    """Reads and opens what first queries of this node's tenants need. Unavailable where the lists of blocks cannot be read; a
    tenant whose question fails is left to its own queries, which tell it."""
    tenants = node.own_tenants()
    node.store_gateway.look_ahead(tenants)
    for tenant in tenants[:MAX_TENANTS]:
        try:
            end_ms = node.newest_ms(tenant)
            if end_ms is not None and not canceled():
                query_response(node.query((tenant,), Query(QUESTION, end_ms - SPAN_MS, end_ms, STEP_MS), canceled=canceled))
        except TreeringError as error:
            log.info("looking ahead failed", extra={"fields": {"tenant": tenant, "error": error}})

"""The threads that serve queries, shared fairly: tenants take turns, and none has more queries at work than its limit.

A tenant's queries wait behind its own; those of another overtake them. How many of one tenant may wait is bounded, so that the
bound on all of them leaves room for others.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from treering.http.asgi import Handler, Request, Response, Start, serve
from tsdb.model.errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    handler: Handler
    future: "Future[Response]"


class QueryPool:
    """Thread-safe. `tenant_of` says whose a request is (what it raises is the request's answer), `limit_of` how many of a
    tenant's queries may run at once (0 = as many as there are threads)."""

    def __init__(
        self, *, threads: int, max_waiting: int, tenant_of: Callable[[Request], str], limit_of: Callable[[str], int]
    ) -> None:
        self._executor = ThreadPoolExecutor(threads, "query")
        self._threads, self._max_waiting = threads, max_waiting
        self._tenant_of, self._limit_of = tenant_of, limit_of
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._running: dict[str, int] = {}
        self._free = threads

    def serving(self, handler: Handler) -> Start:
        """Serves requests by a handler. LimitExceeded, to be tried again, where too many of the tenant wait already."""

        def start(request: Request) -> "Future[Response]":
            return self._submit(self._tenant_of(request), _Job(request, handler, Future()))

        return start

    def _submit(self, tenant: str, job: _Job) -> "Future[Response]":
        with self._lock:
            waiting = self._waiting.setdefault(tenant, deque())
            if len(waiting) >= self._max_waiting:
                raise LimitExceeded(
                    f"{len(waiting)} queries of tenant {tenant} are waiting, its share of the queue is {self._max_waiting} "
                    "(half of max_queued_queries); try again",
                    retry_after_s=1.0,
                )
            waiting.append(job)
            self._begin()
        return job.future

    def _begin(self) -> None:
        """Gives free threads to those whose turn it is; the lock is held."""
        while self._free and (tenant := self._next()) is not None:
            waiting = self._waiting[tenant]
            job = waiting.popleft()
            if waiting:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            self._running[tenant] = self._running.get(tenant, 0) + 1
            self._free -= 1
            self._executor.submit(self._run, tenant, job)

    def _next(self) -> str | None:
        for tenant in self._waiting:
            if self._running.get(tenant, 0) < (self._limit_of(tenant) or self._threads):
                return tenant
        return None

    def _run(self, tenant: str, job: _Job) -> None:
        try:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(serve(job.handler, job.request))
                except BaseException as error:
                    job.future.set_exception(error)
        finally:
            with self._lock:
                self._free += 1
                self._running[tenant] -= 1
                if not self._running[tenant]:
                    del self._running[tenant]
                self._begin()

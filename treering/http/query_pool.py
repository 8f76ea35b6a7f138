"""The threads that serve queries, shared fairly: tenants take turns, and none has more queries at work than its limit.

A tenant's queries wait behind its own; those of another overtake them. How many of one tenant may wait is bounded, so that the
bound on all of them leaves room for others.

A query is not at work twice at a time: equal ones that come meanwhile wait for its end together, and are then answered by one
evaluation, which began after all of them had come, so that each sees what was written before it. It begins once those before it
have their answers: who asks again as soon as he can is then among them.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from treering.http.asgi import Handler, Request, Response, Start, serve
from tsdb.model.errors import LimitExceeded

SEND_S = 100e-6
"""What the event loop needs to send an answer and to take the client's next request."""


class _Everyone(threading.Event):
    """Set once all of these requests' clients have left."""

    def __init__(self, requests: Sequence[Request]) -> None:
        super().__init__()
        self._requests = requests

    def is_set(self) -> bool:
        return all(request.canceled.is_set() for request in self._requests)


@dataclass(eq=False, slots=True)
class _Job:
    """What a handler is to do once for all of these requests."""

    tenant: str
    handler: Handler
    question: Hashable
    asked: "list[tuple[Request, Future[Response]]]" = field(default_factory=list)

    def join(self, request: Request) -> "Future[Response]":
        future: Future[Response] = Future()
        self.asked.append((request, future))
        return future

    def run(self) -> None:
        """Serve those who still wait."""
        asked = [(request, future) for request, future in self.asked if future.set_running_or_notify_cancel()]
        if not asked:
            return
        first = asked[0][0]
        try:
            response = serve(self.handler, replace(first, canceled=_Everyone([request for request, _ in asked])))
        except BaseException as error:
            for _, future in asked:
                future.set_exception(error)
        else:
            for _, future in asked:
                future.set_result(response)


class QueryPool:
    """Thread-safe. `tenant_of` says whose a request is (what it raises is the request's answer), `limit_of` how many of a
    tenant's queries may run at once (0 = as many as there are threads), `question_of` what it asks (None = nothing that another
    could ask too), and `note_shared` is called for each request that is answered together with an equal one."""

    def __init__(
        self,
        *,
        threads: int,
        max_waiting: int,
        tenant_of: Callable[[Request], str],
        limit_of: Callable[[str], int],
        question_of: Callable[[Request], Hashable] = lambda _: None,
        note_shared: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor = ThreadPoolExecutor(threads, "query")
        self._threads, self._max_waiting = threads, max_waiting
        self._tenant_of, self._limit_of, self._question_of, self._note_shared = tenant_of, limit_of, question_of, note_shared
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._next_alike: dict[Hashable, _Job] = {}
        self._at_work: set[Hashable] = set()
        self._asking: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._free = threads

    def serving(self, handler: Handler) -> Start:
        """Serves requests by a handler. LimitExceeded, to be tried again, where too many of the tenant wait already."""

        def start(request: Request) -> "Future[Response]":
            tenant, question = self._tenant_of(request), self._question_of(request)
            return self._submit(_Job(tenant, handler, None if question is None else (tenant, question)), request)

        return start

    def _submit(self, job: _Job, request: Request) -> "Future[Response]":
        with self._lock:
            asking = self._asking[job.tenant]
            if asking >= self._max_waiting:
                raise LimitExceeded(
                    f"{asking} queries of tenant {job.tenant} are waiting, its share of the queue is {self._max_waiting} "
                    "(half of max_queued_queries); try again",
                    retry_after_s=1.0,
                )
            self._asking[job.tenant] += 1
            alike = self._next_alike.get(job.question)
            if alike is not None:
                self._note_shared()
                return alike.join(request)
            future = job.join(request)
            if job.question is not None:
                self._next_alike[job.question] = job
            if job.question not in self._at_work:  # else the end of that one calls it
                self._queue(job)
                self._begin()
        return future

    def _queue(self, job: _Job) -> None:
        self._waiting.setdefault(job.tenant, deque()).append(job)

    def _begin(self) -> None:
        """Gives free threads to those whose turn it is; the lock is held."""
        while self._free and (tenant := self._next()) is not None:
            waiting = self._waiting[tenant]
            job = waiting.popleft()
            if waiting:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            self._asking[tenant] -= len(job.asked)
            if not self._asking[tenant]:
                del self._asking[tenant]
            if job.question is not None:
                del self._next_alike[job.question]
                self._at_work.add(job.question)
            self._running[tenant] = self._running.get(tenant, 0) + 1
            self._free -= 1
            self._executor.submit(self._run, job)

    def _next(self) -> str | None:
        for tenant in self._waiting:
            if self._running.get(tenant, 0) < (self._limit_of(tenant) or self._threads):
                return tenant
        return None

    def _run(self, job: _Job) -> None:
        try:
            job.run()
            if len(job.asked) > 1:  # while they are answered no equal query begins
                time.sleep(SEND_S * len(job.asked))
        finally:
            with self._lock:
                self._free += 1
                self._running[job.tenant] -= 1
                if not self._running[job.tenant]:
                    del self._running[job.tenant]
                self._at_work.discard(job.question)
                alike = self._next_alike.get(job.question)
                if alike is not None:
                    self._queue(alike)
                self._begin()

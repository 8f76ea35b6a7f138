"""Threads that serve writes: each takes all that has queued up, stores what can be stored together, and syncs it once.

Under load many senders' requests then share one append, one log record and one fsync; a single request waits for nobody.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from queue import Empty, SimpleQueue

from treering.http.api_write import Write, WriteApi
from treering.http.asgi import Request, Response
from tsdb.model.errors import TreeringError

MAX_TOGETHER = 16
MAX_TOGETHER_BYTES = 4 << 20
"""Bodies taken at once, as sent: what is stored together should not make its first sender wait for long."""

_Job = tuple[Request, "Future[Response]"]


class WritePool:
    """Daemon threads over one queue; its length is bounded by the gate before it."""

    def __init__(self, api: WriteApi, threads: int) -> None:
        self._api = api
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"write-{number}", daemon=True).start()

    def submit(self, request: Request) -> "Future[Response]":
        """The response to come."""
        future: Future[Response] = Future()
        self._queue.put((request, future))
        return future

    def _work(self) -> None:
        while True:
            decoded = [(write, future) for request, future in self._take() if (write := self._decode(request, future))]
            for together in _groups(decoded):
                self._push(together)

    def _take(self) -> Iterator[_Job]:
        """The next request and those that wait behind it, within bounds."""
        size_bytes = 0
        for number in range(MAX_TOGETHER):
            try:
                request, future = self._queue.get(block=number == 0)
            except Empty:
                return
            yield request, future
            size_bytes += len(request.body)
            if size_bytes >= MAX_TOGETHER_BYTES:
                return

    def _decode(self, request: Request, future: "Future[Response]") -> Write | None:
        try:
            return self._api.decode(request)
        except Exception as error:  # the request's own fault or a defect: the border turns both into a status
            future.set_exception(error)
            return None

    def _push(self, together: Sequence[tuple[Write, "Future[Response]"]]) -> None:
        try:
            responses = self._api.push_together([write for write, _ in together]) if len(together) > 1 else None
        except TreeringError:
            responses = None  # each learns its own
        if responses is not None:
            for (_, future), response in zip(together, responses, strict=True):
                future.set_result(response)
            return
        for write, future in together:
            try:
                future.set_result(self._api.push(write))
            except Exception as error:
                future.set_exception(error)


def _groups(writes: Iterable[tuple[Write, "Future[Response]"]]) -> Iterator[list[tuple[Write, "Future[Response]"]]]:
    """Neighbours that can be stored as one: plain writes of one tenant."""
    for (_, plain), group in groupby(writes, key=lambda job: (job[0].tenant, job[0].is_plain())):
        jobs = list(group)
        yield from [jobs] if plain else [[job] for job in jobs]

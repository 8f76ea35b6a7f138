"""One HTTP connection with bounds on the heads of its requests, which uvicorn has none for: their size and how long they take.

Without them a client could fill the memory with one header, or hold connections open by a byte a minute.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 256 << 10
"""Room for a query of the longest text in a URL, where each of its bytes can take three."""
HEAD_WAIT_S = 30.0


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, which is made to be given to it as a class; answers 400 and closes where a head is over a bound."""

    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_WAIT_S, self._refuse_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            self._head_timer = self._head_timer or self.loop.call_later(HEAD_WAIT_S, self._refuse_late)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head is over the limit of {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def _refuse_late(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response(f"The request's head took over {HEAD_WAIT_S:g} s, the limit.")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

"""One HTTP connection: uvicorn's, with two things that it lacks.

The heads of requests are bounded in size and in how long they take; otherwise a client could fill the memory with one header, or
hold connections open by a byte a minute. And an answer's head leaves together with its body.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 256 << 10
"""Room for a query of the longest text in a URL, where each of its bytes can take three."""
HEAD_WAIT_S = 30.0
SMALL_BYTES = 1024
"""A smaller write waits for the one behind it."""


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, which is made to be given to it as a class; answers 400 and closes where a head is over a bound."""

    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = TogetherTransport(transport, self.loop)  # type: ignore[assignment]
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


class TogetherTransport:
    """A transport that sends a small write together with the next, or alone when the event loop has its next turn.

    Each write is a call of the system, and wakes a client who can do nothing with the head of an answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As asyncio's."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif len(data) < SMALL_BYTES:
            self._held = bytes(data)
            self._loop.call_soon(self._send_held)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """As asyncio's: what was written is sent first."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

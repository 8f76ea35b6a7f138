"""The write half of the HTTP API: remote write 1.0 and 2.0 (`/api/v1/write`, `/api/v1/push`) and `/ingester/flush`."""

from dataclasses import dataclass

from remote.wire import decode_write, write_version
from remote.wire_limits import WireLimits
from treering.asgi import Request, Response
from treering.node import Node
from tsdb.model.write import PushResult

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class WriteApi:
    """Handlers over one node."""

    node: Node

    def write(self, request: Request) -> Response:
        """POST write: 204 once a quorum has it on disk; 400 tells what was refused while the rest is kept."""
        tenant = self.node.tenant_of(request.headers)
        content_type = request.header("content-type")
        version = write_version(content_type)
        limits = WireLimits(max_body_bytes=self.node.config.max_body_bytes, max_decoded_bytes=self.node.config.max_decoded_bytes)
        decoded = decode_write(
            request.body, content_type=content_type, content_encoding=request.header("content-encoding"), limits=limits
        )
        result = self.node.push(tenant, decoded.batch)
        for reason, count in decoded.rejected.rejected.items():
            result.reject(reason, count, decoded.rejected.message)
        return write_response(result, version)

    def flush(self, request: Request) -> Response:
        """GET/POST /ingester/flush: everything in memory into blocks, of one tenant or all; 204 when it is in the bucket."""
        self.node.flush(request.param("tenant"))
        return Response(204)


def write_response(result: PushResult, version: int) -> Response:
    """204 or 400 with the first rejection; the written-count headers of version 2 only (1.0 senders would miscount)."""
    headers: tuple[tuple[str, str], ...] = ()
    if version == 2:
        counts = {"Samples": result.samples, "Histograms": result.histograms, "Exemplars": result.exemplars}
        headers = tuple((f"x-prometheus-remote-write-{kind.lower()}-written", str(count)) for kind, count in counts.items())
    if not result.rejected:
        return Response(204, headers=headers)
    return Response(400, f"{describe(result)}\n".encode(), TEXT, headers)


def describe(result: PushResult) -> str:
    """The first rejection in words, and how many there were of each kind."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(result.rejected.items()))
    return f"{result.message} (rejected: {counts})"

"""The write half of the HTTP API: remote write 1.0 and 2.0 (`/api/v1/write`, `/api/v1/push`) and `/ingester/flush`."""

from collections.abc import Sequence
from dataclasses import dataclass

from remote.wire.decode import Decoded, decode_write, write_version
from remote.wire.limits import WireLimits
from treering.http.asgi import Request, Response
from treering.node import Node
from tsdb.model.write import PushResult, concat_writes

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Write:
    """One decoded request. `version` is that of its message, 1 or 2."""

    tenant: str
    version: int
    decoded: Decoded

    def is_plain(self) -> bool:
        """Whether it carries float samples and nothing else."""
        batch = self.decoded.batch
        return not (batch.exemplars or batch.metadata) and batch.histograms is None and batch.start_ms is None


@dataclass(frozen=True, slots=True)
class WriteApi:
    """Handlers over one node."""

    node: Node

    def decode(self, request: Request) -> Write:
        """What a POST wants stored, and for whom."""
        tenant = self.node.tenant_of(request.headers)
        content_type = request.header("content-type")
        own = self.node.limits.of(tenant)
        limits = WireLimits(
            max_body_bytes=self.node.config.max_body_bytes,
            max_decoded_bytes=self.node.config.max_decoded_bytes,
            label_names=own.max_label_names_per_series,
            name_bytes=own.max_label_name_length,
            value_bytes=own.max_label_value_length,
        )
        decoded = decode_write(
            request.body,
            content_type=content_type,
            content_encoding=request.header("content-encoding"),
            limits=limits,
            known=self.node.known_series(tenant),
        )
        return Write(tenant, write_version(content_type), decoded)

    def push(self, write: Write) -> Response:
        """204 once a quorum has it on disk; 400 tells what was refused while the rest is kept."""
        return write_response(write, self.node.push(write.tenant, write.decoded.batch))

    def push_together(self, writes: Sequence[Write]) -> list[Response] | None:
        """The same for several writes of one tenant, stored and synced as one; None if anything was refused.

        Then each must be pushed by itself to learn its own answer; what is stored already counts as stored again.
        """
        result = self.node.push(writes[0].tenant, concat_writes([write.decoded.batch for write in writes]))
        if result.rejected:
            return None
        return [write_response(write, PushResult(samples=len(write.decoded.batch.row))) for write in writes]

    def flush(self, request: Request) -> Response:
        """GET/POST /ingester/flush: everything in memory into blocks, of one tenant or all; 204 when it is in the bucket."""
        self.node.flush(request.param("tenant"))
        return Response(204)


def write_response(write: Write, result: PushResult) -> Response:
    """204 or 400 with the first rejection; the written-count headers of version 2 only (1.0 senders would miscount)."""
    for reason, count in write.decoded.rejected.rejected.items():
        result.reject(reason, count, write.decoded.rejected.message)
    headers: tuple[tuple[str, str], ...] = ()
    if write.version == 2:
        counts = {"Samples": result.samples, "Histograms": result.histograms, "Exemplars": result.exemplars}
        headers = tuple((f"x-prometheus-remote-write-{kind.lower()}-written", str(count)) for kind, count in counts.items())
    if not result.rejected:
        return Response(204, headers=headers)
    return Response(400, f"{describe(result)}\n".encode(), TEXT, headers)


def describe(result: PushResult) -> str:
    """The first rejection in words, and how many there were of each kind."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(result.rejected.items()))
    return f"{result.message} (rejected: {counts})"

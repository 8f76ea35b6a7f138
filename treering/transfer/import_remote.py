"""Any server that speaks Prometheus' remote read as parts of an import: a window of time each, in streamed chunks.

stream := frame*        frame := size uvarint | crc32c u32 of the message | message (`ChunkedReadResponse`)
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from itertools import count
from typing import IO, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from remote.protos import read_pb2
from remote.wire.client import compress
from treering.transfer.import_part import Content, Part, Wanted, content_of, fingerprint, pick
from treering.transfer.import_rows import batch_of_rows
from tsdb.kernel.crc32c import first_damaged
from tsdb.model.errors import BadData, Corrupt, Unavailable
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.prometheus.chunk import Chunks, decode_chunks, padded

MAX_FRAME_BYTES = 64 << 20
"""Prometheus sends 1 MiB unless a single series has more."""
TIMEOUT_S = 600.0
_STREAMED = "application/x-streamed-protobuf"
_KINDS = ("=", "!=", "=~", "!~")
"""Numbered as on the wire."""


class _Read(Protocol):
    def __call__(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """Where to ask: the URL of a server (or of its read endpoint), and for which tenant."""

    url: str
    tenant: str | None = None

    @property
    def endpoint(self) -> str:
        base = self.url.rstrip("/")
        return base if base.endswith("/read") else f"{base}/api/v1/read"


def remote_parts(server: RemoteServer, wanted: Wanted, *, window_ms: int) -> Iterator[Part]:
    """One part a window of the wanted time, which must have a start and an end; each is known by its place, not its content."""
    for window in range(wanted.start_ms // window_ms, (wanted.end_ms - 1) // window_ms + 1):
        start_ms, end_ms = max(window * window_ms, wanted.start_ms), min((window + 1) * window_ms, wanted.end_ms)
        name = f"{server.endpoint} {np.datetime64(start_ms, 'ms')}Z to {np.datetime64(end_ms, 'ms')}Z"
        print_ = fingerprint("remote-read", server.endpoint, server.tenant, start_ms, end_ms)
        yield Part(name, print_, end_ms - start_ms, _opener(server, wanted, start_ms, end_ms, name))


def read_stream(read: _Read, *, where: str) -> SeriesBatch:
    """The samples of a stream, which `read` gives as `file.read` does. Corrupt where a frame is cut or damaged."""
    rows: list[Labels] = []
    row, encoding, data = [], [], []
    frames = count()
    while (message := _frame(read, where=f"{where}, frame {next(frames)}")) is not None:
        for series in message.chunked_series:
            rows.append(Labels.of([(label.name, label.value) for label in series.labels]))
            for chunk in series.chunks:
                row.append(len(rows) - 1)
                encoding.append(chunk.type)
                data.append(chunk.data)
    if not row:
        return SeriesBatch.empty()
    end = np.cumsum([len(body) for body in data], dtype=np.int64)
    start = end - np.array([len(body) for body in data], np.int64)
    places = [f"{where}, chunk {i} of {rows[j]}" for i, j in enumerate(row)]
    samples = decode_chunks(Chunks(padded(b"".join(data)), start, end, np.array(encoding, np.uint8), places))
    of_sample = np.repeat(np.array(row, np.int64), np.diff(samples.at))
    return batch_of_rows(SeriesTable.of(rows), of_sample, samples.t_ms, samples.values, samples.histograms, samples.histogram_at)


def _opener(server: RemoteServer, wanted: Wanted, start_ms: int, end_ms: int, name: str) -> Callable[[], Content]:
    def open_content() -> Content:
        with _ask(server, wanted.sets, start_ms, end_ms) as answer:
            try:
                batch = read_stream(answer.read, where=name)
            except (OSError, HTTPException) as error:
                raise Unavailable(f"{name}: the answer broke off: {error}") from None
        return content_of(pick(batch.clip(start_ms, end_ms), wanted))

    return open_content


def _ask(server: RemoteServer, sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> IO[bytes]:
    """The body of the answer. BadData where the server refuses or cannot stream, Unavailable where it cannot be reached."""
    request = read_pb2.ReadRequest(accepted_response_types=[read_pb2.ReadRequest.STREAMED_XOR_CHUNKS])
    for matchers in sets or [(Matcher(METRIC_NAME, "!=", ""),)]:
        told = [read_pb2.LabelMatcher(type=_KINDS.index(m.op), name=m.name, value=m.value) for m in matchers]  # type: ignore[arg-type]
        request.queries.append(read_pb2.Query(start_timestamp_ms=start_ms, end_timestamp_ms=end_ms - 1, matchers=told))
    headers = {
        "Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Read-Version": "0.1.0",
        **({"X-Scope-OrgID": server.tenant} if server.tenant else {}),
    }  # fmt: skip
    body = compress(request.SerializeToString())
    try:
        answer = urllib.request.urlopen(urllib.request.Request(server.endpoint, body, headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        text = error.read(1000).decode(errors="replace").strip()
        kind = Unavailable if error.code >= 500 or error.code == 429 else BadData
        raise kind(f"{server.endpoint}: status {error.code}: {text}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise Unavailable(f"{server.endpoint}: {getattr(error, 'reason', error)}") from None
    if not answer.headers.get("Content-Type", "").startswith(_STREAMED):
        raise BadData(f"{server.endpoint}: answers with {answer.headers.get('Content-Type')}, which is no stream of chunks")
    return answer  # type: ignore[no-any-return]


def _frame(read: _Read, *, where: str) -> "read_pb2.ChunkedReadResponse | None":
    """The next message; None at the end of the stream."""
    size = shift = 0
    while True:
        byte = read(1)
        if not byte and shift == 0:
            return None
        if not byte or shift > 28:
            raise Corrupt(f"{where}: its size is cut")
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    if size > MAX_FRAME_BYTES:
        raise Corrupt(f"{where}: says {size} bytes, the limit is {MAX_FRAME_BYTES}")
    sum_, message = read(4), read(size)
    octets = np.frombuffer(message + sum_, np.uint8)
    if len(octets) != size + 4 or first_damaged(octets, np.array([0]), np.array([size])) >= 0:
        raise Corrupt(f"{where}: its {size} bytes do not have their checksum, or are cut")
    try:
        return read_pb2.ChunkedReadResponse.FromString(message)
    except DecodeError as error:
        raise Corrupt(f"{where}: {error}") from None

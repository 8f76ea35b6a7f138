"""Remote-write 1.0 bodies by template: the labels are encoded once, times and values are patched in as arrays.

So that building the load costs next to nothing and every server gets the very same bytes.
"""

import http.client
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import urlsplit

import cramjam
import numpy as np

from tsdb.model.labels import METRIC_NAME, Labels, varint

TIME_BYTES = 6
"""Varint bytes of a time in milliseconds between 2004 and 2109."""

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "treering-benchmark",
}


class Template:
    """The WriteRequest of one or more scrapes of some series: as senders do, a message for each sample, scrape after scrape."""

    def __init__(self, series: Sequence[Labels], scrapes: int = 1) -> None:
        count = len(series) * scrapes
        parts, self._values, self._times = [], np.empty(count, np.int64), np.empty(count, np.int64)
        at = 0
        for i, labels in enumerate([*series] * scrapes):
            sample = b"\x12" + bytes([9 + 1 + TIME_BYTES]) + b"\x09" + bytes(8) + b"\x10" + bytes(TIME_BYTES)
            message = labels.encode() + sample
            head = b"\x0a" + varint(len(message))
            at += len(head) + len(message)
            self._times[i], self._values[i] = at - TIME_BYTES, at - TIME_BYTES - 9
            parts += [head, message]
        self._bytes = np.frombuffer(b"".join(parts), np.uint8).copy()

    def body(self, t_ms: int | np.ndarray, values: np.ndarray) -> bytes:
        """The snappy-compressed request; t_ms of each scrape, values f64[scrapes * n]."""
        eight = np.ascontiguousarray(values, np.float64).view(np.uint8).reshape(-1, 8)
        self._bytes[self._values[:, None] + np.arange(8)] = eight
        times = _varints(np.atleast_1d(t_ms))
        self._bytes[self._times[:, None] + np.arange(TIME_BYTES)] = np.repeat(times, len(values) // len(times), axis=0)
        return bytes(cramjam.snappy.compress_raw(self._bytes.tobytes()))


def _varints(t_ms: np.ndarray) -> np.ndarray:
    """The varints u8[k, TIME_BYTES] of times i64[k]."""
    digits = t_ms[:, None] >> (7 * np.arange(TIME_BYTES)) & 0x7F
    digits[:, :-1] |= 0x80
    return digits.astype(np.uint8)


def fleet(size: int, *, metric: str = "http_requests_total") -> list[Labels]:
    """`size` series of one metric family as a fleet of pods would send them: ten labels, about 200 bytes."""
    return [
        Labels.of(
            {
                METRIC_NAME: f"{metric}" if metric else f"metric_{i % 50}",
                "cluster": "eu-west-1",
                "namespace": f"team-{i % 20}",
                "pod": f"api-{i // 50:05}-{(i * 7919) % 99991:05}",
                "container": "server",
                "instance": f"10.{i // 50 // 250}.{i // 50 % 250}.7:8080",
                "job": f"job-{i % 10}",
                "method": ("GET", "POST", "PUT", "DELETE", "HEAD")[i % 5],
                "path": f"/api/v1/resource/{i % 50}",
                "status": str(200 + i % 4 * 100),
            }
        )
        for i in range(size)
    ]


def send(url: str, path: str, streams: Sequence[Iterable[bytes]]) -> int:
    """Post the bodies of each stream in their order, every stream on a connection of its own, as a sender's shards do.

    How many were sent. RuntimeError on a refusal.
    """
    counts, failures = [0] * len(streams), []

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        try:
            for body in streams[number]:
                if failures:
                    return
                _post(connection, path, body)
                counts[number] += 1
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            failures.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(streams))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise RuntimeError(f"{url}: {failures[0]}")
    return sum(counts)


def rounds(
    templates: Sequence[Template],
    values: Callable[[int, int], np.ndarray],
    *,
    start_ms: int,
    gap_ms: int,
    count: int,
    streams: int = 4,
    scrapes: int = 1,
) -> list[Iterator[bytes]]:
    """`count` scrapes of every template, spread over streams by template; values(round, template) gives f64[n].

    Templates of several scrapes are told by `scrapes`, which divides `count`.
    """

    def stream(number: int) -> Iterator[bytes]:
        for i in range(0, count, scrapes):
            t_ms = start_ms + (i + np.arange(scrapes)) * gap_ms
            for j in range(number, len(templates), streams):
                yield templates[j].body(t_ms, np.concatenate([values(i + later, j) for later in range(scrapes)]))

    return [stream(number) for number in range(streams)]


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", path, body, HEADERS)
    response = connection.getresponse()
    text = response.read()
    if response.status // 100 != 2:
        raise RuntimeError(f"status {response.status}: {text[:300]!r}")

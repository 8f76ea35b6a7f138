"""Range reads from an S3 endpoint through boto3 and obstore: wall time and client CPU of each, at one and at many threads.

usage: python -m benchmarks.ranges [--requests 300] [--delay-ms 20]

The endpoint is a server of this file in a process of its own, that answers ranged GETs with zeros after a delay: the client is
measured.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tsdb.bucket.bucket import Bucket
from tsdb.bucket.obstore import ObstoreBucket
from tsdb.bucket.s3 import S3Bucket, S3Options

OBJECT_BYTES = 64 << 20
_RANGE = re.compile(rb"range: bytes=(\d+)-(\d+)", re.IGNORECASE)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Ranged GETs of one connection."""
    body = memoryview(bytes(8 << 20))
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _RANGE.search(head)
            assert found is not None, head
            start, last = map(int, found.groups())
            await asyncio.sleep(delay_s)
            size = last - start + 1
            writer.write(
                b"HTTP/1.1 206 Partial Content\r\nContent-Type: binary/octet-stream\r\nAccept-Ranges: bytes\r\n"
                b'ETag: "0123456789abcdef0123456789abcdef"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n'
                b"Content-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (size, start, last, OBJECT_BYTES)
            )
            writer.write(body[:size])
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(delay_s: float) -> None:
    server = await asyncio.start_server(lambda r, w: answer(r, w, delay_s), "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def measure(bucket: Bucket, threads: int, sizes: list[int]) -> str:
    starts = np.random.default_rng(1).integers(0, OBJECT_BYTES - (8 << 20), len(sizes)).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: bucket.get("warm", 0, 1000), range(threads)))
        began_s, cpu_s = time.perf_counter(), time.process_time()
        asked = zip(starts, sizes, strict=True)
        found = list(pool.map(lambda one: len(bucket.get("a/01ARZ3NDEKTSV4RRFFQ69G5FAV/pages-000000", *one)), asked))
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    assert found == sizes
    return f"{1000 * wall_s / len(sizes):8.2f} ms wall {1000 * cpu_s / len(sizes):8.2f} ms CPU a request"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--delay-ms", type=float, default=20)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.delay_ms / 1000))
        return
    command = [sys.executable, "-m", "benchmarks.ranges", "--serve", "--delay-ms", str(options.delay_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
            place = S3Options(endpoint, "us-east-1", True, "key", "secret")
            clients: dict[str, Bucket] = {"boto3": S3Bucket("bucket", place), "obstore": ObstoreBucket("bucket", place)}
            for size in (16_000, 100_000, 1_000_000):
                for threads in (1, 16, 64):
                    for name, bucket in clients.items():
                        sizes = [size] * (options.requests if threads > 1 else options.requests // 8)
                        print(f"{size:>9} bytes {threads:>3} threads {name:>8}: {measure(bucket, threads, sizes)}", flush=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main()

"""Compile or load every kernel before the first request: one small journey through a throw-away store."""

import tempfile

import numpy as np

from remote.client import encode_v1, encode_v2
from remote.wire import decode_write
from remote.wire_limits import WireLimits
from treering.config import Config
from treering.json_text import query_response
from treering.node import Node, Query
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.write import WriteBatch

QUERIES = (
    "up",
    "up + on(job) up * 0.5",
    "sum by (job) (rate(up[2m]))",
    "topk(1, max_over_time(up[2m]))",
    "quantile(0.5, quantile_over_time(0.5, up[2m]))",
    "avg_over_time(up[2m:1m])",
    "label_replace(up, 'x', '$1', 'job', '(.*)')",
)
"""Together they reach every kernel that dashboards use."""


def warm_kernels() -> None:
    """Seconds on the very first start of an installation, tenths of a second on later ones."""
    with tempfile.TemporaryDirectory() as folder, Node(Config(data=folder, wal_sync="os")) as node:
        now_ms = node.now_ms()
        rows = [Labels.of({METRIC_NAME: "up", "job": job}) for job in ("a", "b")]
        times = np.repeat(now_ms - np.arange(40)[::-1] * 5000, 2).astype(np.int64)
        row = np.tile(np.arange(2, dtype=np.int32), 40)
        batch = WriteBatch.of(rows, row=row, t_ms=times, values=np.arange(80) / 7)
        for version, body in ((1, encode_v1(batch)), (2, encode_v2(batch))):
            content_type = "application/x-protobuf" + (";proto=io.prometheus.write.v2.Request" if version == 2 else "")
            decoded = decode_write(body, content_type=content_type, content_encoding="snappy", limits=WireLimits())
            node.push("anonymous", decoded.batch)
        for _ in ("head", "block"):
            for text in QUERIES:
                query_response(node.query(("anonymous",), Query(text, now_ms - 120_000, now_ms, 30_000)))
            node.flush()

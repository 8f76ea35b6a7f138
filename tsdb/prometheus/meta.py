"""`meta.json` and `tombstones` of a Prometheus TSDB block, with what Thanos adds to it."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from tsdb.block.meta import META, is_ulid
from tsdb.bucket.bucket import Bucket
from tsdb.kernel.crc32c import first_damaged
from tsdb.model.errors import BadData, Corrupt

FORMAT = 1
TOMBSTONE_MAGIC, TOMBSTONE_FORMAT = 0x0130BA30, 1
DELETION_MARK = "deletion-mark.json"
"""What Thanos, Cortex and Mimir put beside a block that another one stands for, before they delete it."""
MAX_META_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class PrometheusMeta:
    """What a block says of itself: samples in [min_ms, max_ms); `labels` are Thanos' external labels, resolution 0 is raw."""

    ulid: str
    min_ms: int
    max_ms: int
    samples: int
    series: int
    level: int
    resolution_ms: int
    labels: Mapping[str, str]
    digest: str
    """Of the bytes of `meta.json`: tells this block from another of the same name."""


class _Stats(msgspec.Struct):
    numSamples: int = 0
    numSeries: int = 0


class _Compaction(msgspec.Struct):
    level: int = 1


class _Downsample(msgspec.Struct):
    resolution: int = 0


class _Thanos(msgspec.Struct):
    labels: dict[str, str] | None = None
    downsample: _Downsample = msgspec.field(default_factory=_Downsample)


class _File(msgspec.Struct):
    ulid: str
    minTime: int
    maxTime: int
    version: int
    stats: _Stats = msgspec.field(default_factory=_Stats)
    compaction: _Compaction = msgspec.field(default_factory=_Compaction)
    thanos: _Thanos = msgspec.field(default_factory=_Thanos)


def find_prometheus_blocks(bucket: Bucket, prefix: str = "") -> list[str]:
    """The folders `[<prefix>/]<ulid>` that have a `meta.json` and no deletion mark, in the order of their names."""
    found, deleted = [], set()
    for info in bucket.list(f"{prefix}/" if prefix else ""):
        folder, _, name = info.key.rpartition("/")
        if not is_ulid(folder.rpartition("/")[2]):
            continue
        if name == META:
            found.append(folder)
        elif name == DELETION_MARK:
            deleted.add(folder)
    return [folder for folder in found if folder not in deleted]


def read_prometheus_meta(bucket: Bucket, folder: str) -> PrometheusMeta:
    """The meta of the block in a folder ("" for the bucket itself). Corrupt, BadData for a format that is not known, NotFound."""
    key = f"{folder}/{META}".lstrip("/")
    data = bucket.get(key)
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key}: is no meta.json of Prometheus: {error}") from None
    if file.version != FORMAT:
        raise BadData(f"{key}: block version {file.version} is not known; {FORMAT} is")
    if not file.minTime <= file.maxTime:
        raise Corrupt(f"{key}: minTime {file.minTime} is after maxTime {file.maxTime}")
    return PrometheusMeta(
        file.ulid, file.minTime, file.maxTime, file.stats.numSamples, file.stats.numSeries, file.compaction.level,
        file.thanos.downsample.resolution, file.thanos.labels or {}, f"{zlib.crc32(data):08x}",
    )  # fmt: skip


def read_tombstones(data: bytes, *, key: str) -> dict[int, list[tuple[int, int]]]:
    """The deleted times [first, last] of each series, by its number (`PrometheusIndex.ref`). Corrupt; BadData for another format.

    magic u32 | format u8 | (series uvarint, first varint, last varint)* | crc32c of what is between
    """
    if len(data) < 9 or int.from_bytes(data[:4]) != TOMBSTONE_MAGIC:
        raise Corrupt(f"{key}: its {len(data)} bytes are no tombstones of Prometheus")
    if first_damaged(np.frombuffer(data, np.uint8), np.array([5]), np.array([len(data) - 4])) >= 0:
        raise Corrupt(f"{key}: its {len(data)} bytes do not have their checksum")
    if data[4] != TOMBSTONE_FORMAT:
        raise BadData(f"{key}: tombstone format {data[4]} at byte 4 is not known; {TOMBSTONE_FORMAT} is")
    stones: dict[int, list[tuple[int, int]]] = {}
    at, end = 5, len(data) - 4
    while at < end:
        ref, at = _uvarint(data, at, end, key)
        first, at = _uvarint(data, at, end, key)
        last, at = _uvarint(data, at, end, key)
        stones.setdefault(ref, []).append((first >> 1 ^ -(first & 1), last >> 1 ^ -(last & 1)))
    return stones


def _uvarint(data: bytes, at: int, end: int, key: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise Corrupt(f"{key}: a number at byte {at} is cut")

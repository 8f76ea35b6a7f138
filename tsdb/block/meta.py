"""`meta.json` of a block: what it holds, and the size and checksum of its other objects. Its presence is what makes a block exist.

meta.json := {"crc32":"<8 hex digits>","meta":<JSON>} newline          the checksum is over the bytes of <JSON>
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tsdb.bucket.bucket import Bucket
from tsdb.model.errors import BadData, Corrupt

FORMAT = 1
META = "meta.json"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_OPEN, _MIDDLE, _CLOSE = b'{"crc32":"', b'","meta":', b"}\n"


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """An object of a block: its name below `<ulid>/`, size and crc32."""

    name: str
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """What a block holds: samples in [min_ms, max_ms), at one resolution (0 = raw).

    `sources` are the ulids of the level 1 blocks that it was compacted from; `aggregates` the further value columns of downsampled
    samples; `histograms` how many of the samples are native histograms; `edits` the tombstones and rewrites that it was made with.
    """

    ulid: str
    min_ms: int
    max_ms: int
    samples: int
    series: int
    level: int
    sources: tuple[str, ...]
    resolution_ms: int
    objects: tuple[ObjectMeta, ...]
    aggregates: tuple[str, ...] = ()
    histograms: int = 0
    format: int = FORMAT
    edits: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all objects but `meta.json`."""
        return sum(part.size_bytes for part in self.objects)

    def key(self, name: str) -> str:
        """The bucket key of one of its objects."""
        return f"{self.ulid}/{name}"


def new_ulid(now_ms: int, random: bytes) -> str:
    """The ULID of a time and ten random bytes: 26 characters that sort by time."""
    if len(random) != 10 or not 0 <= now_ms < 1 << 48:
        raise BadData(f"ulid: want 10 random bytes and a time below 2^48 ms, got {len(random)} and {now_ms}")
    number = now_ms << 80 | int.from_bytes(random)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    return _ULID.fullmatch(text) is not None


def encode_meta(meta: BlockMeta) -> bytes:
    """The bytes of `meta.json`."""
    body = msgspec.json.encode(meta)
    return b"".join([_OPEN, f"{zlib.crc32(body):08x}".encode(), _MIDDLE, body, _CLOSE])


def decode_meta(data: bytes, *, key: str) -> BlockMeta:
    """The meta in the bytes of `meta.json`. Corrupt, naming `key`, where a bit of it is not what was written."""
    body_at = len(_OPEN) + 8 + len(_MIDDLE)
    body = data[body_at : -len(_CLOSE)]
    crc = f"{zlib.crc32(body):08x}".encode()
    if data != b"".join([_OPEN, crc, _MIDDLE, body, _CLOSE]):
        raise Corrupt(f"{key}: its {len(data)} bytes do not have the checksum that byte {len(_OPEN)} tells, or are no block meta")
    try:
        meta = msgspec.json.decode(body, type=BlockMeta)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key}: at byte {body_at}: {error}") from None
    if meta.format != FORMAT or not key.endswith(f"{meta.ulid}/{META}"):
        raise Corrupt(f"{key}: is of block {meta.ulid!r} in format {meta.format}, want format {FORMAT}")
    return meta


def read_meta(bucket: Bucket, ulid: str) -> BlockMeta:
    """The meta of a block. NotFound where there is no such block; Corrupt."""
    key = f"{ulid}/{META}"
    return decode_meta(bucket.get(key), key=key)


def list_ulids(bucket: Bucket) -> list[str]:
    """The ulids of all blocks, oldest first: whatever has a `meta.json`, sound or not. Lists the bucket."""
    parts = (info.key.split("/") for info in bucket.list())
    return [part[0] for part in parts if len(part) == 2 and part[1] == META and is_ulid(part[0])]


def list_blocks(bucket: Bucket) -> list[BlockMeta]:
    """The metas of all blocks, oldest first. Corrupt at the first that is damaged: use `list_ulids` where the others must go on."""
    return [read_meta(bucket, ulid) for ulid in list_ulids(bucket)]


def find_object(meta: BlockMeta, name: str) -> ObjectMeta:
    """One of the block's objects. Corrupt where the meta does not name it."""
    found: Sequence[ObjectMeta] = [part for part in meta.objects if part.name == name]
    if not found:
        raise Corrupt(f"{meta.key(META)}: names no object {name!r}")
    return found[0]

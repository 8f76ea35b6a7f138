"""Small records as objects of a bucket: JSON under a checksum, so that a flipped bit is never taken for a decision.

sealed := {"crc32":"<8 hex digits>","body":<JSON>} newline          the checksum is over the bytes of <JSON>
"""

import zlib
from typing import TypeVar

import msgspec

from tsdb.model.errors import BadData, Corrupt

_OPEN, _MIDDLE, _CLOSE = b'{"crc32":"', b'","body":', b"}\n"
_BODY_AT = len(_OPEN) + 8 + len(_MIDDLE)

Record = TypeVar("Record")


def seal(record: object) -> bytes:
    """The bytes of a record (a frozen dataclass)."""
    body = msgspec.json.encode(record)
    return b"".join([_OPEN, f"{zlib.crc32(body):08x}".encode(), _MIDDLE, body, _CLOSE])


def unseal(data: bytes, kind: type[Record], *, key: str) -> Record:
    """The record in the bytes of the object `key`. Corrupt, naming it, where a bit is not what was written."""
    body = data[_BODY_AT : -len(_CLOSE)]
    if data != b"".join([_OPEN, f"{zlib.crc32(body):08x}".encode(), _MIDDLE, body, _CLOSE]):
        raise Corrupt(f"{key}: its {len(data)} bytes do not have the checksum that byte {len(_OPEN)} tells")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, BadData) as error:
        raise Corrupt(f"{key}: at byte {_BODY_AT}: {error}") from None

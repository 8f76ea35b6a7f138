"""Keys and ranges of a bucket: what every kind of bucket checks, told in the same words."""

from dataclasses import dataclass

from tsdb.model.errors import BadData

MAX_KEY_BYTES = 900
"""S3 takes 1,024; the rest is for the prefix that a bucket may live under."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    size_bytes: int
    modified_ms: int


def check_key(key: str) -> str:
    """The key itself. BadData unless it is parts with `/` between them that are safe as file names.

    `~` is kept for the temporary files of a folder.
    """
    size_bytes = len(key.encode("utf-8", "replace"))
    if size_bytes > MAX_KEY_BYTES:
        raise BadData(f"bucket key of {size_bytes} bytes is over the limit of {MAX_KEY_BYTES}: {key[:60]!r}…")
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 200 for part in key.split("/")):
        raise BadData(f"bucket key {key!r} is absolute or has an empty, dotted or over-long (200 bytes) part")
    if not key.isprintable() or "\\" in key or "~" in key:
        raise BadData(f"bucket key {key!r} has a control character, a backslash or a tilde")
    return key


def check_range(key: str, start: int, size: int | None, *, object_size: int) -> int:
    """How many bytes the range [start, start + size) has (None: up to the end). BadData where it leaves the object."""
    wanted = object_size - start if size is None else size
    if start < 0 or wanted < 0 or start + wanted > object_size:
        raise BadData(f"range of {size} bytes from byte {start} leaves {key!r} of {object_size} bytes")
    return wanted

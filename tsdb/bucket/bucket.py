"""`Bucket`: named objects that are written whole and read by range, in a folder or on S3.

A key is one or more parts with `/` between them (`tsdb.bucket.key`). An object appears whole or not at all, and once `put`
returns it survives a power cut.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from tsdb.bucket.folder import FolderBucket
from tsdb.bucket.key import ObjectInfo, check_key
from tsdb.bucket.obstore import ObstoreBucket
from tsdb.bucket.s3 import S3Bucket, S3Options
from tsdb.model.errors import BadData

__all__ = ["Bucket", "FolderBucket", "ObjectInfo", "PrefixBucket", "S3Bucket", "S3Options", "open_bucket"]


class Bucket(Protocol):
    """What every bucket can do; safe for many threads. Errors: NotFound, BadData (key, range), Unavailable."""

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whole and durable on return; one of that key is replaced."""
        ...

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes [start, start + size) of an object (None: up to its end). NotFound; BadData where the range leaves it."""
        ...

    def size(self, key: str) -> int:
        """Bytes of an object. NotFound."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in the order of their keys as bytes."""
        ...

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The distinct parts that have objects below them, of keys that begin with `prefix` ("" or ending in `/`), ascending."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        ...

    def sweep(self, before_ms: int) -> int:
        """Delete what puts that a crash cut off have left before that time; how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class PrefixBucket:
    """The objects of a bucket below `<prefix>/`, by the rest of their keys."""

    bucket: Bucket
    prefix: str

    def __post_init__(self) -> None:
        check_key(self.prefix)

    def put(self, key: str, data: bytes) -> None:
        self.bucket.put(self._key(key), data)

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        return self.bucket.get(self._key(key), start, size)

    def size(self, key: str) -> int:
        return self.bucket.size(self._key(key))

    def exists(self, key: str) -> bool:
        return self.bucket.exists(self._key(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        cut = len(self.prefix) + 1
        return (replace(info, key=info.key[cut:]) for info in self.bucket.list(f"{self.prefix}/{prefix}"))

    def folders(self, prefix: str = "") -> Iterator[str]:
        return self.bucket.folders(f"{self.prefix}/{prefix}")

    def delete(self, key: str) -> None:
        self.bucket.delete(self._key(key))

    def sweep(self, before_ms: int) -> int:
        """See `Bucket.sweep`; of the whole bucket below."""
        return self.bucket.sweep(before_ms)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}"


def open_bucket(place: str | Path) -> Bucket:
    """The bucket at a path, a `file://` URL or `s3://bucket/prefix?endpoint=http://…&region=…&path_style=true&client=boto3`.

    Keys come from the usual places of AWS tools, or as `access_key` and `secret_key` of the URL. The client is obstore where that
    is installed, else boto3. BadData for anything else.
    """
    url = urlsplit(str(place))
    if isinstance(place, Path) or "://" not in place:
        return FolderBucket(Path(place))
    if url.scheme == "file":
        return FolderBucket(Path(unquote(url.path)))
    if url.scheme != "s3" or not url.netloc:
        raise BadData(f"bucket {place!r}: want a path, file:///path or s3://bucket/prefix")
    options = _s3_options(place, url.query)
    installed = importlib.util.find_spec("obstore") is not None
    if options.client == "obstore" and not installed:
        raise BadData(f"bucket {place.split('?')[0]!r}: client=obstore needs it: pip install 'treering[s3]'")
    client = options.client or ("obstore" if installed else "boto3")
    bucket: Bucket = S3Bucket(url.netloc, options) if client == "boto3" else ObstoreBucket(url.netloc, options)
    prefix = unquote(url.path).strip("/")
    return PrefixBucket(bucket, prefix) if prefix else bucket


def _s3_options(place: str, query: str) -> S3Options:
    options = S3Options(path_style="endpoint=" in query)
    for name, value in parse_qsl(query, keep_blank_values=True):
        match name:
            case "endpoint":
                options = replace(options, endpoint=value)
            case "region":
                options = replace(options, region=value)
            case "path_style" if value in ("true", "false"):
                options = replace(options, path_style=value == "true")
            case "client" if value in ("boto3", "obstore"):
                options = replace(options, client=value)
            case "access_key":
                options = replace(options, access_key=value)
            case "secret_key":
                options = replace(options, secret_key=value)
            case _:
                known = "endpoint, region, path_style=true|false, access_key, secret_key, client=boto3|obstore"
                raise BadData(f"bucket {place.split('?')[0]!r}: {name}={value!r} is none of the options {known}")
    return options

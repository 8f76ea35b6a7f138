"""A bucket on S3 over obstore (Rust's object_store), which takes a sixth of boto3's CPU for a range of 100 kB.

Used where it is installed (the extra `[s3]`); credentials come from the same places, for boto3 finds them.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from tsdb.bucket.key import ObjectInfo, check_key, check_range
from tsdb.bucket.s3 import ATTEMPTS, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, S3Options
from tsdb.model.errors import BadData, NotFound, TreeringError, Unavailable

RETRIED_S = 60
"""After so long a request that failed is not tried again."""
WHOLE_TIMEOUT_S = 300
"""One request with its body: 64 MiB go through at 0.2 MB a second."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 2

T = TypeVar("T")


class ObstoreBucket:
    """Objects of one S3 bucket. Safe for many threads."""

    def __init__(self, name: str, options: S3Options | None = None) -> None:
        import obstore
        import obstore.exceptions
        import obstore.store

        options = options or S3Options()
        self.name = name
        self._calls: Any = obstore
        self._failures = (obstore.exceptions.BaseError, OSError, ValueError)
        self._store = self._ask("open", name, lambda: obstore.store.S3Store(name, **_settings(options)))

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whole and durable on return; one of that key is replaced."""
        check_key(key)
        self._ask("put", key, lambda: self._calls.put(self._store, key, data, use_multipart=False))

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes [start, start + size) of an object. NotFound; BadData where the range leaves it."""
        check_key(key)
        if start < 0 or (size is not None and size < 0):
            raise BadData(f"range of {size} bytes from byte {start} of {key!r}")
        if size is None and start == 0:
            return self._ask("get", key, lambda: bytes(self._calls.get(self._store, key).bytes()))
        if size is None or size == 0:
            size = check_range(key, start, size, object_size=self.size(key))
            if size == 0:
                return b""
        length = size
        try:
            data = self._ask("get", key, lambda: bytes(self._calls.get_range(self._store, key, start=start, length=length)))
        except Unavailable as error:
            if "range" in str(error.__cause__).lower():  # of one that leaves the object, or that did not come whole
                check_range(key, start, size, object_size=self.size(key))
            raise
        if len(data) < size:
            check_range(key, start, size, object_size=self.size(key))
            raise Unavailable(f"s3 bucket {self.name!r}: get {key!r}: {len(data)} bytes came of {size} from byte {start}")
        return data

    def size(self, key: str) -> int:
        """Bytes of an object. NotFound."""
        check_key(key)
        return int(self._ask("size of", key, lambda: self._calls.head(self._store, key))["size"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in the order of their keys as bytes; a thousand a request."""
        pages = self._ask("list", prefix, lambda: self._calls.list(self._store, prefix.rpartition("/")[0] or None))
        while page := self._ask("list", prefix, lambda: next(pages, None)):
            for found in page:
                if found["path"].startswith(prefix):
                    yield ObjectInfo(found["path"], found["size"], int(found["last_modified"].timestamp() * 1000))

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The distinct parts that have objects below them, of keys that begin with `prefix` ("" or ending in `/`), ascending."""
        found = self._ask("list", prefix, lambda: self._calls.list_with_delimiter(self._store, prefix.rstrip("/") or None))
        return iter(sorted(name.rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]))

    def sweep(self, before_ms: int) -> int:
        """0: an object on S3 appears whole or leaves nothing."""
        return 0

    def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        check_key(key)
        self._ask("delete", key, lambda: self._calls.delete(self._store, key))

    def _ask(self, verb: str, key: str, request: Callable[[], T]) -> T:
        """The answer of one request, its failure told in our words."""
        try:
            return request()
        except self._failures as error:
            raise self._told(verb, key, error) from error

    def _told(self, verb: str, key: str, error: Exception) -> TreeringError:
        text = " ".join(str(error).partition("\n\nDebug source:")[0].split())
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
            return NotFound(f"s3 bucket {self.name!r}: no object {key!r}")
        return Unavailable(f"s3 bucket {self.name!r}: {verb} {key!r}: {text[:1000]}")


def _settings(options: S3Options) -> dict[str, Any]:
    """What obstore's store is made with."""
    settings: dict[str, Any] = {
        "virtual_hosted_style_request": not options.path_style,
        "client_options": {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
            "timeout": timedelta(seconds=WHOLE_TIMEOUT_S),
        },
        "retry_config": {
            "max_retries": ATTEMPTS - 1,
            "retry_timeout": timedelta(seconds=RETRIED_S),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_WAIT_S),
                "max_backoff": timedelta(seconds=LONGEST_WAIT_S),
                "base": 2,
            },
        },
    }
    if options.endpoint is not None:
        settings["endpoint"] = options.endpoint
    if options.access_key is not None:
        settings |= {"access_key_id": options.access_key, "secret_access_key": options.secret_key}
        region = options.region
    else:
        from obstore.auth.boto3 import Boto3CredentialProvider

        settings["credential_provider"] = provider = Boto3CredentialProvider()
        region = options.region or provider.config.get("region")
    return settings | {"region": region or "us-east-1"}

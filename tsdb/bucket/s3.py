"""A bucket on S3 or what speaks its protocol, over boto3, which is imported when the first bucket is opened."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tsdb.bucket.key import ObjectInfo, check_key, check_range
from tsdb.model.errors import BadData, NotFound, TreeringError, Unavailable

ATTEMPTS = 4
"""Tries of one request, with boto3's exponential waits between them (about 3 s in all), before the caller hears of it."""
CONNECTIONS = 64
"""Requests in flight of one bucket: parallel range reads of one query and of its neighbours."""
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 10
HUNG_ATTEMPTS = 2
"""Tries of a request that gets no answer at all: a bucket that hangs holds a query for 20 s, not for a minute."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is. What is not given comes from the usual places: environment, ~/.aws, instance role."""

    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    access_key: str | None = None
    secret_key: str | None = None
    client: str | None = None
    """`boto3` or `obstore`; None = the faster that is installed."""


class S3Bucket:
    """Objects of one S3 bucket. Safe for many threads."""

    def __init__(self, name: str, options: S3Options | None = None) -> None:
        import boto3
        import botocore.config
        import botocore.exceptions

        options = options or S3Options()
        self.name = name
        self._refused = botocore.exceptions.ClientError
        self._failed = (botocore.exceptions.BotoCoreError, OSError)
        self._hung = (botocore.exceptions.ReadTimeoutError, botocore.exceptions.ConnectTimeoutError)
        session = boto3.session.Session()
        self._client = session.client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region or session.region_name or "us-east-1",
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            config=botocore.config.Config(
                retries={"max_attempts": ATTEMPTS, "mode": "standard"},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=CONNECTIONS,
                s3={"addressing_style": "path" if options.path_style else "auto"},
            ),
        )
        self._client.meta.events.register_first("needs-retry.s3", self._end_hung)

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whole and durable on return; one of that key is replaced."""
        check_key(key)
        self._ask("put", key, lambda: self._client.put_object(Bucket=self.name, Key=key, Body=data))

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes [start, start + size) of an object. NotFound; BadData where the range leaves it."""
        check_key(key)
        if start < 0 or (size is not None and size < 0):
            raise BadData(f"range of {size} bytes from byte {start} of {key!r}")
        if size == 0 or (size is None and start > 0):
            wanted = check_range(key, start, size, object_size=self.size(key))
            return self.get(key, start, wanted) if wanted else b""
        data = self._ask("get", key, lambda: self._body(key, start, size))
        if size is not None and len(data) < size:
            check_range(key, start, size, object_size=self.size(key))
            raise Unavailable(f"s3 bucket {self.name!r}: get {key!r}: {len(data)} bytes came of {size} from byte {start}")
        return data

    def size(self, key: str) -> int:
        """Bytes of an object. NotFound."""
        check_key(key)
        return int(self._ask("size of", key, lambda: self._client.head_object(Bucket=self.name, Key=key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in the order of their keys as bytes; a thousand a request."""
        more: dict[str, str] = {}
        while True:
            page = self._ask("list", prefix, self._list_page, prefix, more)
            for found in page.get("Contents", ()):
                yield ObjectInfo(found["Key"], found["Size"], int(found["LastModified"].timestamp() * 1000))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The distinct parts that have objects below them, of keys that begin with `prefix` ("" or ending in `/`), ascending."""
        more: dict[str, str] = {"Delimiter": "/"}
        while True:
            page = self._ask("list", prefix, self._list_page, prefix, more)
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"][len(prefix) :].rstrip("/")
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def sweep(self, before_ms: int) -> int:
        """0: an object on S3 appears whole or leaves nothing."""
        return 0

    def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        check_key(key)
        self._ask("delete", key, lambda: self._client.delete_object(Bucket=self.name, Key=key))

    def _end_hung(self, attempts: int, caught_exception: Exception | None, **_: object) -> None:
        """Ends boto3's repetitions where it would wait once more for who does not answer."""
        if isinstance(caught_exception, self._hung) and attempts >= HUNG_ATTEMPTS:
            raise caught_exception

    def _list_page(self, prefix: str, more: dict[str, str]) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, **more)
        return page

    def _body(self, key: str, start: int, size: int | None) -> bytes:
        """The bytes of a range that has at least one byte, read again where the connection breaks in their middle."""
        ranged = {} if size is None else {"Range": f"bytes={start}-{start + size - 1}"}
        for attempt in range(ATTEMPTS):
            answer = self._client.get_object(Bucket=self.name, Key=key, **ranged)
            try:
                data: bytes = answer["Body"].read()
            except self._failed as error:
                if attempt + 1 == (HUNG_ATTEMPTS if isinstance(error, self._hung) else ATTEMPTS):
                    raise
                continue
            if len(data) == answer["ContentLength"]:
                return data
        raise Unavailable(f"s3 bucket {self.name!r}: get {key!r}: the body broke off {ATTEMPTS} times")

    def _ask(self, verb: str, key: str, request: Callable[..., T], *args: object) -> T:
        """The answer of one request, its failure told in our words."""
        try:
            return request(*args)
        except self._refused as error:
            raise self._told(verb, key, error.response) from error
        except self._failed as error:
            raise Unavailable(f"s3 bucket {self.name!r}: {verb} {key!r}: {error}") from error

    def _told(self, verb: str, key: str, response: dict[str, Any]) -> TreeringError:
        code, message = response["Error"].get("Code", "?"), response["Error"].get("Message", "")
        where = f"s3 bucket {self.name!r}: {verb} {key!r}: {code} {message}"
        if code in ("NoSuchKey", "404", "NotFound"):
            return NotFound(f"s3 bucket {self.name!r}: no object {key!r}")
        return BadData(where) if code in ("InvalidRange", "416") else Unavailable(where)

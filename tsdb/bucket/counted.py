"""A bucket that counts what is asked of it and what fails, and tells when it begins to fail."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from tsdb.bucket.bucket import Bucket
from tsdb.bucket.key import ObjectInfo
from tsdb.model.errors import Unavailable


class CountedBucket:
    """See `Bucket`. `tell` gets the first failure (Unavailable, after its repetitions) since the bucket last answered."""

    def __init__(self, bucket: Bucket, tell: Callable[[str], None]) -> None:
        self.requests = self.failures = self.read_bytes = self.written_bytes = 0
        self._bucket, self._tell = bucket, tell
        self._failing = False
        self._lock = Lock()

    def put(self, key: str, data: bytes) -> None:
        with self._counted(written=len(data)):
            self._bucket.put(key, data)

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        with self._counted():
            data = self._bucket.get(key, start, size)
        with self._lock:
            self.read_bytes += len(data)
        return data

    def size(self, key: str) -> int:
        with self._counted():
            return self._bucket.size(key)

    def exists(self, key: str) -> bool:
        with self._counted():
            return self._bucket.exists(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Bucket.list`; counted as one request."""
        with self._counted():
            yield from self._bucket.list(prefix)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Bucket.folders`; counted as one request."""
        with self._counted():
            yield from self._bucket.folders(prefix)

    def delete(self, key: str) -> None:
        with self._counted():
            self._bucket.delete(key)

    def sweep(self, before_ms: int) -> int:
        return self._bucket.sweep(before_ms)

    @contextmanager
    def _counted(self, *, written: int = 0) -> Iterator[None]:
        with self._lock:
            self.requests += 1
            self.written_bytes += written
        try:
            yield
        except Unavailable as error:
            with self._lock:
                self.failures += 1
                news, self._failing = not self._failing, True
            if news:
                self._tell(str(error))
            raise
        self._failing = False

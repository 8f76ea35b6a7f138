"""Arrays of integers as bytes, all first bytes first: high bytes are alike then, and zstd makes little of them."""

import numpy as np
import numpy.typing as npt

from tsdb.model.errors import Corrupt

U32, I32, I64 = np.dtype("<u4"), np.dtype("<i4"), np.dtype("<i8")


def shuffle(numbers: npt.NDArray[np.integer], dtype: np.dtype[np.generic]) -> bytes:
    """The numbers as little-endian `dtype`, byte 0 of all, then byte 1 of all, ..."""
    words = np.ascontiguousarray(numbers.astype(dtype))
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, dtype.itemsize).T).tobytes()


class Unpacker:
    """A cursor over bytes that never reads past their end; `what` names them in errors."""

    def __init__(self, data: bytes, *, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def take(self, size: int) -> bytes:
        """The next bytes. Corrupt where there are too few."""
        if size < 0 or self._at + size > len(self._data):
            raise Corrupt(f"{self._what}: {size} bytes are wanted at byte {self._at} of {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def array(self, count: int, dtype: np.dtype[np.generic]) -> npt.NDArray[np.int64]:
        """i64[count] of numbers that were shuffled as `dtype`."""
        raw = np.frombuffer(self.take(count * dtype.itemsize), np.uint8).reshape(dtype.itemsize, count)
        return np.ascontiguousarray(raw.T).view(dtype).ravel().astype(np.int64)

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data) - self._at)

"""Ranges of objects in a folder of the local disk, bounded in bytes; the least recently used go first, also after a restart.

<path>/<2 hex digits>/<32 hex digits>       the bytes of one range, as they are; modified when last used, to the hour
<path>/lock                                 held by the one process that writes here

Nothing is synced: what a power cut tears does not fit its checksum and is dropped when it is read. A disk that is full, or a folder
that cannot be written, is told once and counted, and reads go on without.
"""

import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from tsdb.bucket.range_cache import CacheCounts, RangeKey

FILE_BYTES = 4096
"""What a file takes on disk is a multiple of this."""
TOUCH_S = 3600
"""A file's time is brought up to date so seldom, lest each hit cost a write."""


class DiskCache:
    """See `RangeCache`. `tell` gets a sentence when writing begins to fail; `clock` gives seconds since the epoch."""

    def __init__(self, path: Path, limit_bytes: int, *, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self.path, self.limit_bytes = path, limit_bytes
        self.counts = CacheCounts()
        self.size_bytes = 0
        self._clock, self._tell, self._failing = clock, tell, False
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._held = -1
        try:
            self._take()
        except OSError as error:
            self._fail(error)

    def find(self, keys: Sequence[RangeKey]) -> list[bytes | None]:
        """See `RangeCache.find`."""
        found = [self._read(key.digest) for key in keys]
        self.counts.asked(found)
        return found

    def keep(self, key: RangeKey, data: bytes) -> None:
        """See `RangeCache.keep`; nothing larger than an eighth of the limit."""
        if self._held < 0 or len(data) > self.limit_bytes // 8:
            return
        name = key.digest
        file = self._file(name)
        new = file.with_name(f"{name}~{threading.get_ident()}")
        try:
            file.parent.mkdir(exist_ok=True)
            new.write_bytes(data)
            new.rename(file)
        except OSError as error:
            _remove(new)
            self._fail(error)
            return
        self._failing = False
        for old in self._add(name, len(data), self._clock()):
            _remove(self._file(old))

    def drop(self, key: RangeKey) -> None:
        """See `RangeCache.drop`."""
        self.counts.failed()
        self._forget(key.digest)
        _remove(self._file(key.digest))

    def close(self) -> None:
        """Let another process have the folder."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _take(self) -> None:
        """Makes the folder this process's own, and learns what is in it, least recently used first."""
        self.path.mkdir(parents=True, exist_ok=True)
        held = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = []
            for folder in (entry for entry in os.scandir(self.path) if entry.is_dir()):
                for entry in os.scandir(folder):
                    if "~" in entry.name:
                        _remove(Path(entry.path))
                    else:
                        about = entry.stat()
                        found.append((about.st_mtime, entry.name, about.st_size))
        except OSError:
            os.close(held)
            raise
        for used_s, name, size in sorted(found):
            for old in self._add(name, size, used_s):
                _remove(self._file(old))
        self._held = held

    def _read(self, name: str) -> bytes | None:
        with self._lock:
            known = self._files.get(name)
            if known is None:
                return None
            self._files.move_to_end(name)
        file = self._file(name)
        try:
            data = file.read_bytes()
            if self._clock() - known[1] > TOUCH_S:
                now_s = self._clock()
                self._add(name, len(data), now_s)
                os.utime(file, (now_s, now_s))
        except FileNotFoundError:
            self._forget(name)
            return None
        except OSError as error:
            self._fail(error)
            return None
        return data

    def _add(self, name: str, size: int, used_s: float) -> list[str]:
        """Counts a file; the names of those that have to go for it."""
        room = -(-size // FILE_BYTES) * FILE_BYTES
        gone = []
        with self._lock:
            self.size_bytes += room - self._files.get(name, (0, 0.0))[0]
            self._files[name] = (room, used_s)
            self._files.move_to_end(name)
            while self.size_bytes > self.limit_bytes:
                old, (old_room, _) = self._files.popitem(last=False)
                self.size_bytes -= old_room
                gone.append(old)
        return gone

    def _forget(self, name: str) -> None:
        with self._lock:
            self.size_bytes -= self._files.pop(name, (0, 0.0))[0]

    def _file(self, name: str) -> Path:
        return self.path / name[:2] / name

    def _fail(self, error: OSError) -> None:
        self.counts.failed()
        if not self._failing:
            self._failing = True
            self._tell(f"disk cache {self.path}: {error}; reads go on without it")


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return  # it is read-only now; what is in it still fits its checksum or is dropped

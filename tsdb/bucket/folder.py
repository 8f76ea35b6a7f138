"""A bucket in a folder: one file an object.

`put` writes a temporary file beside the object, syncs it, renames it and syncs the folder. A crash leaves at most a file
with a tilde in its name, which no key can have and no listing shows.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tsdb.bucket.key import ObjectInfo, check_key, check_range
from tsdb.model.errors import BadData, NotFound, Unavailable

_PUT_ATTEMPTS = 5
"""A folder that became empty may be removed while an object is put into it; then it is made again."""


@dataclass(frozen=True, slots=True)
class FolderBucket:
    """Objects below `path`, which is made when the first is put."""

    path: Path

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whole and durable on return; one of that key is replaced."""
        target = self._file(key)
        for attempt in range(_PUT_ATTEMPTS):
            try:
                _make_folder(target.parent)
                return _write(target, data)
            except FileNotFoundError as error:
                if attempt == _PUT_ATTEMPTS - 1:
                    raise Unavailable(f"bucket {self.path}: put {key!r}: {error}") from error
            except OSError as error:
                raise Unavailable(f"bucket {self.path}: put {key!r} of {len(data)} bytes: {error}") from error
        raise AssertionError("unreachable")

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes [start, start + size) of an object. NotFound; BadData where the range leaves it."""
        try:
            with self._file(key).open("rb", buffering=0) as file:
                wanted = check_range(key, start, size, object_size=os.fstat(file.fileno()).st_size)
                return _read(file.fileno(), start, wanted)
        except OSError as error:
            raise self._error("get", key, error) from error

    def size(self, key: str) -> int:
        """Bytes of an object. NotFound."""
        try:
            file = self._file(key)
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a folder")
            return file.stat().st_size
        except OSError as error:
            raise self._error("size of", key, error) from error

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in the order of their keys as bytes."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        return (info for info in _walk(self.path / folder, f"{folder}/" if folder else "", prefix) if info.key.startswith(prefix))

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The distinct parts that have objects below them, of keys that begin with `prefix` ("" or ending in `/`), ascending."""
        folder = self.path / check_key(prefix.rstrip("/")) if prefix else self.path
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise Unavailable(f"bucket {folder}: list: {error}") from error
        return iter(sorted(names))

    def sweep(self, before_ms: int) -> int:
        """Delete the temporary files of puts that a crash cut off before that time; how many there were. Walks the whole folder."""
        count = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                file = Path(folder, name)
                try:
                    if "~" in name and file.stat().st_mtime_ns // 1_000_000 < before_ms:
                        file.unlink()
                        count += 1
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise Unavailable(f"bucket {self.path}: sweep {file}: {error}") from error
        return count

    def delete(self, key: str) -> None:
        """Delete an object if it is there, and the folders that it leaves empty."""
        file = self._file(key)
        try:
            file.unlink(missing_ok=True)
            for folder in file.parents[: len(file.parts) - len(self.path.parts) - 1]:
                folder.rmdir()
        except OSError as error:
            if file.exists() and not file.is_dir():
                raise self._error("delete", key, error) from error

    def _file(self, key: str) -> Path:
        return self.path / check_key(key)

    def _error(self, verb: str, key: str, error: OSError) -> NotFound | Unavailable | BadData:
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return NotFound(f"bucket {self.path}: no object {key!r}")
        return Unavailable(f"bucket {self.path}: {verb} {key!r}: {error}")


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _write(target: Path, data: bytes) -> None:
    temporary = target.with_name(f"{target.name}~{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _read(file: int, start: int, size: int) -> bytes:
    """Exactly `size` bytes; one read stops at 2 GiB on Linux."""
    data = os.pread(file, size, start)
    while len(data) < size:
        more = os.pread(file, size - len(data), start + len(data))
        if not more:
            raise OSError(f"the file ended at byte {start + len(data)}, {size} bytes from byte {start} were promised")
        data += more
    return data


def _walk(folder: Path, at: str, prefix: str) -> Iterator[ObjectInfo]:
    """Objects below a folder whose keys begin with `at`; a subfolder sorts as its name with the slash, as its keys do."""
    try:
        entries = [(entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Unavailable(f"bucket {folder}: list: {error}") from error
    for name, entry in sorted(entries, key=lambda pair: pair[0].encode("utf-8", "surrogateescape")):
        key = at + name
        if name.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk(folder / entry.name, key, prefix)
        elif "~" not in name:
            try:
                about = entry.stat()
            except FileNotFoundError:
                continue
            yield ObjectInfo(key, about.st_size, about.st_mtime_ns // 1_000_000)

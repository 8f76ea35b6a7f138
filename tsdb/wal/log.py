"""The write-ahead log: numbered segments that are written in order, synced in groups, and deleted when their samples are in blocks.

Threads that want their records safe wait for one fdatasync that covers them all: the first to come leads, the others
follow. A segment that failed a write or a sync is given up for good (what the kernel did with its pages is unknown) and
the next record opens a new one, so writing resumes by itself when there is room again.

    segment := "TRWAL" 0 0 version(u8)  number(u64)  record*
    record  := marker(u32)  head_crc(u16)  kind(u8)  0  size(u32)  payload_crc(u32)  payload[size]
"""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition

from tsdb.model.errors import Unavailable
from tsdb.model.source import MIN_MS
from tsdb.wal.record import Record, encode_record

MAGIC = b"TRWAL\0\0"
VERSION = 1
HEADER = struct.Struct("<7sBQ")
MARKER = b"\xd7\x1eR\x9b"
"""Starts every record, so that a reader finds the next one behind damage; no valid UTF-8 and no label bytes hold it."""
FRAME = struct.Struct("<4sHBBII")

SEGMENT_BYTES = 128 << 20
COMMIT, OS = "commit", "os"


@dataclass(slots=True, eq=False)
class Segment:
    """One file of the log; bytes up to `synced` are on disk."""

    number: int
    path: Path
    fd: int
    written: int
    synced: int = 0
    syncing: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: everything of the segment before `offset`."""

    segment: Segment
    offset: int


@dataclass(slots=True)
class Wal:
    """The writing side. Thread-safe; `newest_ms` is the newest sample time of each segment there is."""

    directory: Path
    sync: str = COMMIT
    segment_size_bytes: int = SEGMENT_BYTES
    next_number: int = 0
    newest_ms: dict[int, int] = field(default_factory=dict)
    syncs: int = 0
    failures: int = 0
    _segment: Segment | None = None
    _changed: Condition = field(default_factory=Condition)

    def prepare(self) -> int:
        """The number of the segment that the next record goes to; opens it if needed. Unavailable where that cannot be."""
        with self._changed:
            if self._segment is not None and self._segment.written >= self.segment_size_bytes:
                self._retire(self._segment)
            if self._segment is None:
                self._segment = self._open()
            return self._segment.number

    def write(self, records: Sequence[Record], *, newest_ms: int = MIN_MS) -> Position:
        """Appends records to the prepared segment and returns the place behind them; not yet synced.

        Unavailable where they could not be written whole; the segment is then given up.
        """
        data = b"".join([part for record in records for part in frame(record)])
        with self._changed:
            segment = self._segment
            if segment is None:
                raise Unavailable(f"write-ahead log {self.directory}: no segment is open")
            try:
                write_all(segment.fd, data)
            except OSError as error:
                self.failures += 1
                self._retire(segment)
                raise Unavailable(f"write-ahead log {segment.path}: writing {len(data)} bytes: {error}") from error
            segment.written += len(data)
            self.newest_ms[segment.number] = max(newest_ms, self.newest_ms.get(segment.number, MIN_MS))
            return Position(segment, segment.written)

    def commit(self, position: Position) -> None:
        """Returns once all before `position` is on disk (in mode "os": at once). Unavailable where its sync failed."""
        if self.sync == OS:
            return
        segment = position.segment
        with self._changed:
            while segment.synced < position.offset:
                if segment.failure:
                    raise Unavailable(f"write-ahead log {segment.path}: {segment.failure}")
                if segment.syncing:
                    self._changed.wait()
                else:
                    self._lead(segment)

    def rotate(self) -> int:
        """Closes the open segment; returns the number below which all records written so far lie."""
        with self._changed:
            if self._segment is not None:
                self._retire(self._segment)
            return self.next_number

    def delete(self, numbers: Sequence[int]) -> None:
        """Deletes segments that are not open. Unavailable where the disk refuses."""
        try:
            for number in numbers:
                segment_path(self.directory, number).unlink(missing_ok=True)
                self.newest_ms.pop(number, None)
            sync_directory(self.directory)
        except OSError as error:
            raise Unavailable(f"write-ahead log {self.directory}: cannot delete segments: {error}") from error

    def size_bytes(self) -> int:
        """Of all segments there are."""
        with os.scandir(self.directory) as entries:
            return sum(_size_of(entry) for entry in entries if entry.name.endswith(".wal"))

    def close(self) -> None:
        self.rotate()

    def _lead(self, segment: Segment) -> None:
        """One sync for all who wait; the lock is free meanwhile."""
        until = segment.written
        segment.syncing = True
        self._changed.release()
        failure = ""
        try:
            os.fdatasync(segment.fd)
        except OSError as error:
            failure = f"sync: {error}"
        finally:
            self._changed.acquire()
            segment.syncing = False
            self._changed.notify_all()
        self.syncs += 1
        if failure:
            self._fail(segment, failure)
        else:
            segment.synced = max(segment.synced, until)

    def _fail(self, segment: Segment, failure: str) -> None:
        segment.failure = failure
        self.failures += 1
        if self._segment is segment:
            self._segment = None
            os.close(segment.fd)
        self._changed.notify_all()

    def _retire(self, segment: Segment) -> None:
        """Syncs a segment for the last time and closes it; who waits for it learns how that went."""
        while segment.syncing:
            self._changed.wait()
        if self._segment is not segment:
            return
        if self.sync == COMMIT and not segment.failure and segment.synced < segment.written:
            self._sync_here(segment)
        if self._segment is segment:
            self._segment = None
            os.close(segment.fd)
        self._changed.notify_all()

    def _sync_here(self, segment: Segment) -> None:
        try:
            os.fdatasync(segment.fd)
        except OSError as error:
            self._fail(segment, f"sync: {error}")
        else:
            segment.synced = segment.written

    def _open(self) -> Segment:
        number = self.next_number
        path = segment_path(self.directory, number)
        self.next_number += 1  # a number that failed is not tried again: its file may be half there
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, HEADER.pack(MAGIC, VERSION, number))
                sync_directory(self.directory)
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            self.failures += 1
            raise Unavailable(f"write-ahead log {path}: cannot begin a segment: {error}") from error
        self.newest_ms[number] = MIN_MS
        return Segment(number, path, fd, HEADER.size)


def frame(record: Record) -> tuple[bytes, bytes]:
    """The two parts of a record's bytes: its frame and its payload."""
    kind, payload = encode_record(record)
    payload_crc = zlib.crc32(payload)
    return FRAME.pack(MARKER, head_crc(kind, len(payload), payload_crc), kind, 0, len(payload), payload_crc), payload


def head_crc(kind: int, size_bytes: int, payload_crc: int) -> int:
    """u16 over the rest of a frame: tells a record from bytes that look like one without reading its payload."""
    return zlib.crc32(struct.pack("<BBII", kind, 0, size_bytes, payload_crc)) & 0xFFFF


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}.wal"


def segment_paths(directory: Path) -> list[Path]:
    """All segments there are, oldest first."""
    return sorted(path for path in directory.glob("*.wal") if path.stem.isdigit())


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return 0


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Makes names in the directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

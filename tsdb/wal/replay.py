"""Reading the write-ahead log back: records in order, whatever is damaged told and stepped over, and what was dropped left out.

A record that is not whole at the end of a segment is a torn write: it was never acknowledged, and the file is cut there.
Damage before whole records is reported, the file copied to `<segment>.bad` for the operator, and reading goes on at the next
record that proves itself by its checksums. Starting never needs a human.

`dropped` is a small file beside the segments. Each mark (below, before_ms) in it says: of the segments numbered under
`below`, the samples before before_ms are in blocks.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tsdb.model.errors import Corrupt, Unavailable
from tsdb.model.source import MIN_MS
from tsdb.wal.log import FRAME, HEADER, MAGIC, MARKER, VERSION, head_crc, segment_path, sync_directory, write_all
from tsdb.wal.record import MAX_PAYLOAD_BYTES, Record, decode_record

BLOCK_BYTES = 1 << 20
MAX_DAMAGE_TOLD = 1000
"""A report names so many damaged places; the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no record. `torn`: the unfinished end of the segment, which has been cut off."""

    path: Path
    offset: int
    skipped_bytes: int
    torn: bool

    def __str__(self) -> str:
        what = "torn record cut off" if self.torn else "damaged bytes skipped"
        return f"{self.path}: {what} at byte {self.offset}, {self.skipped_bytes} bytes"


@dataclass(slots=True)
class ReplayReport:
    """What a start found in the log. `orphans`: samples whose series record was lost to damage."""

    segments: int = 0
    records: int = 0
    series: int = 0
    samples: int = 0
    histograms: int = 0
    dropped: int = 0
    orphans: int = 0
    damages: int = 0
    damage: list[Damage] = field(default_factory=list)

    def note(self, damage: Damage) -> None:
        self.damages += 1
        if len(self.damage) < MAX_DAMAGE_TOLD:
            self.damage.append(damage)


@dataclass(frozen=True, slots=True)
class Mark:
    """Samples before before_ms in segments numbered under `below` are in blocks."""

    below: int
    before_ms: int


def read_segment(path: Path, report: ReplayReport) -> Iterator[Record]:
    """The records of a segment; damage goes to the report and, torn ends apart, a copy of the file to `.bad`."""
    with path.open("rb", buffering=BLOCK_BYTES) as file:
        at, size_bytes = HEADER.size, os.fstat(file.fileno()).st_size
        if not _is_header(file.read(HEADER.size)):
            _note_damage(report, Damage(path, 0, min(HEADER.size, size_bytes), torn=size_bytes < HEADER.size))
        while at < size_bytes:
            found = _read_record(file, at, size_bytes)
            if found is None:
                after = _next_record(file, at + 1, size_bytes)
                torn = after is None and _looks_torn(file, at, size_bytes)
                damage = Damage(path, at, (after or size_bytes) - at, torn)
                _note_damage(report, damage)
                if torn:
                    break
                at = after or size_bytes
                continue
            record, at = found
            if record is not None:
                report.records += 1
                yield record
    report.segments += 1
    if at < size_bytes:
        os.truncate(path, at)


def read_marks(directory: Path) -> list[Mark]:
    """The marks of a log's directory. A damaged file counts as none: blocks and log then overlap, which merging hides."""
    try:
        crc, _, text = (directory / "dropped").read_bytes().partition(b"\n")
        if int(crc, 16) != zlib.crc32(text):
            return []
        return [Mark(int(below), int(before_ms)) for below, before_ms in json.loads(text)]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def write_marks(directory: Path, marks: list[Mark]) -> None:
    """Replaces the marks, durably. Unavailable where the disk refuses."""
    text = json.dumps([(mark.below, mark.before_ms) for mark in marks]).encode()
    fresh = directory / "dropped.tmp"
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, b"%08x\n" % zlib.crc32(text) + text)
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(directory / "dropped")
        sync_directory(directory)
    except OSError as error:
        raise Unavailable(f"write-ahead log {directory}: cannot write its marks: {error}") from error


def dropped_before_ms(marks: list[Mark], number: int) -> int:
    """Samples of segment `number` before this time are in blocks."""
    return max((mark.before_ms for mark in marks if number < mark.below), default=MIN_MS)


def needless(marks: list[Mark], newest_ms: dict[int, int]) -> list[int]:
    """The segments whose samples are all in blocks."""
    return [number for number, newest in newest_ms.items() if newest < dropped_before_ms(marks, number)]


def _is_header(data: bytes) -> bool:
    if len(data) < HEADER.size:
        return False
    magic, version, _ = HEADER.unpack(data)
    return bool(magic == MAGIC and version == VERSION)


def _read_record(file: BinaryIO, at: int, size_bytes: int) -> tuple[Record | None, int] | None:
    """(the record at `at`, where the next begins), or None where that is none. An unknown kind is stepped over as None."""
    file.seek(at)
    head = file.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    marker, crc, kind, zero, size, payload_crc = FRAME.unpack(head)
    end = at + FRAME.size + size
    if marker != MARKER or zero or size > MAX_PAYLOAD_BYTES or end > size_bytes or crc != head_crc(kind, size, payload_crc):
        return None
    payload = file.read(size)
    if zlib.crc32(payload) != payload_crc:
        return None
    try:
        return decode_record(kind, payload), end
    except Corrupt:
        return None


def _next_record(file: BinaryIO, at: int, size_bytes: int) -> int | None:
    """Where the first whole record from `at` on begins."""
    while at < size_bytes:
        file.seek(at)
        block = file.read(BLOCK_BYTES)
        found = block.find(MARKER)
        while found >= 0:
            if _read_record(file, at + found, size_bytes) is not None:
                return at + found
            found = block.find(MARKER, found + 1)
        at += max(1, len(block) - len(MARKER) + 1)
    return None


def _looks_torn(file: BinaryIO, at: int, size_bytes: int) -> bool:
    """Whether the end of a segment is an unfinished write: shorter than its frame says, or zeros that were never written."""
    file.seek(at)
    head = file.read(FRAME.size)
    if len(head) < FRAME.size:
        return True
    marker, crc, kind, _, size, payload_crc = FRAME.unpack(head)
    if marker == MARKER and crc == head_crc(kind, size, payload_crc):
        return at + FRAME.size + size > size_bytes or _ends_in_zeros(file, at + FRAME.size, size_bytes)
    return _ends_in_zeros(file, at, size_bytes)


def _ends_in_zeros(file: BinaryIO, at: int, size_bytes: int) -> bool:
    """Whether the last 512 bytes, or all from `at` on if fewer, are zero."""
    file.seek(max(at, size_bytes - 512))
    return not any(file.read())


def _note_damage(report: ReplayReport, damage: Damage) -> None:
    report.note(damage)
    bad = damage.path.with_suffix(".bad")
    if not damage.torn and not bad.exists():
        try:
            shutil.copyfile(damage.path, bad)
        except OSError:
            bad.unlink(missing_ok=True)  # a full disk: the segment itself stays as it is anyway


def remove_leftovers(directory: Path) -> None:
    """Deletes what a crash between two steps leaves behind."""
    (directory / "dropped.tmp").unlink(missing_ok=True)


def numbers_and_paths(directory: Path) -> list[tuple[int, Path]]:
    """All segments there are, oldest first."""
    paths = [path for path in directory.glob("*.wal") if path.stem.isdigit()]
    return sorted((int(path.stem), path) for path in paths if path == segment_path(directory, int(path.stem)))

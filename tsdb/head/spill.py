"""Where sealed samples lie: in unnamed files of the head's folder, mapped into memory, so that the system can take their room back.

They are derived data: the log has them too, and a restart makes them again. Nothing of them is left when the process ends.
"""

import mmap
import tempfile
from pathlib import Path

SPILL_FROM_BYTES = 64 << 10
"""Less is not worth a mapping of its own, of which a process may have 65,530."""

Spilled = bytes | mmap.mmap
"""Bytes in memory or in a mapped file; a slice of either is bytes."""


def spill(data: bytes, directory: Path) -> Spilled:
    """The same bytes out of an unnamed file; as they are where they are few, or where the disk has no room for them."""
    if len(data) < SPILL_FROM_BYTES:
        return data
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            if file.write(data) != len(data):
                return data
            return mmap.mmap(file.fileno(), len(data), access=mmap.ACCESS_READ)
    except OSError:
        return data

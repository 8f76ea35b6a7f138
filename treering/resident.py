"""What this process holds in memory without need: file pages that it can read again, and heap that malloc keeps. Linux only.

Most of it is the compiler's library, which is used while kernels are loaded and then no more.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SMAPS = Path("/proc/self/smaps")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_REUSED_BYTES = 32 << 20
"""As much as glibc allows. A request's arrays and a query's batches are smaller."""
KEPT_BYTES = 256 << 20
"""Free memory at the heap's end beyond this is given back at once: some batches of a query. A server, which gives back by
itself, keeps more: else a query over much data faults the same pages in each time it is asked."""
KEPT_SHARE, MAX_KEPT_BYTES = 8, (1 << 31) - 1
"""A server keeps an 8th of the memory, at most what glibc's number holds."""
PR_SET_THP_DISABLE = 41
MADV_DONTNEED = 4
"""Of a mapped file that was not written to: forget the pages; what is touched again comes from the page cache, in microseconds."""

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)", re.MULTILINE)
_ANONYMOUS = re.compile(r"^Anonymous: +(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of addresses that shows a file's bytes as they are: it cannot be written, and never was."""

    start: int
    size_bytes: int


def memory_bytes() -> int:
    """What this process may use at most: the machine's memory, or its container's if that is less."""
    of_machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 << 30
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else ""
    return min(of_machine, int(limit)) if limit.isdecimal() else of_machine


def release_unused() -> None:
    """Gives unused memory back to the system; what is needed after all is read again. About 8 ms; nothing on other systems."""
    if sys.platform != "linux" or not SMAPS.exists():
        return
    libc = ctypes.CDLL(None)
    for mapping in clean_mappings(SMAPS.read_text()):
        libc.madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size_bytes), MADV_DONTNEED)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))


def keep_freed_memory(*, server: bool) -> None:
    """Makes the C allocator reuse arrays instead of giving them back to the system after each request; glibc only.

    Else half of the time of decoding a write, and up to two thirds of that of reading blocks, goes into faulting the same pages in
    again and again. A server gives back what stays unused by `release_unused`; its threads, which take turns anyway, allocate from
    one heap, so that what one has freed another can use. A program's heap stays its own, but for what is kept of it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED_BYTES)
            kept_bytes = max(KEPT_BYTES, min(memory_bytes() // KEPT_SHARE, MAX_KEPT_BYTES)) if server else KEPT_BYTES
            libc.mallopt(M_TRIM_THRESHOLD, kept_bytes)
            if server:
                libc.mallopt(M_ARENA_MAX, 1)


def refuse_huge_pages() -> None:
    """Keeps the system from making this process's memory of pages of 2 MiB, as NumPy asks it to for large arrays; Linux only.

    To make one the system may first move others out of the way, while the query waits. Where memory is found anew, as by a first
    query and after each time that what was unused went back, sums over a month take half the time without; a twelfth more where
    it is there already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def clean_mappings(smaps: str) -> Iterator[Mapping]:
    """The mappings of files of which no page is this process's own: not writable now, nor written before (relocations are)."""
    heads = list(_MAPPING.finditer(smaps))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(smaps)], strict=True):
        own = _ANONYMOUS.search(smaps, head.end(), end)
        if int(head[4]) and "w" not in head[3] and own is not None and int(own[1]) == 0:
            start = int(head[1], 16)
            yield Mapping(start, int(head[2], 16) - start)

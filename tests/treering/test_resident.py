"""Giving back memory: which mappings are taken, and that everything in them can be read afterwards."""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from treering import resident
from treering.resident import SMAPS, Mapping, clean_mappings, memory_bytes, release_unused

linux = pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")

CODE = """\
7f0000000000-7f0000003000 r-xp 00001000 fe:00 42 /lib/x.so
Size:                 12 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
"""
RELOCATED = """\
7f0000003000-7f0000004000 r--p 00003000 fe:00 42 /lib/x.so
Size:                  4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me ac
"""
DATA = """\
7f0000004000-7f0000005000 rw-p 00004000 fe:00 42 /lib/x.so
Size:                  4 kB
Anonymous:             0 kB
"""
HEAP = """\
7f0000005000-7f0000006000 r--p 00000000 00:00 0
Size:                  4 kB
Anonymous:             0 kB
"""


def test_only_files_as_they_are_on_disk_are_taken() -> None:
    assert list(clean_mappings(RELOCATED + CODE + DATA + HEAP)) == [Mapping(0x7F0000000000, 0x3000)]


@linux
def test_what_was_given_back_is_read_again(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert _resident_kb(str(tmp_path)) == len(content) >> 10
        release_unused()
        assert _resident_kb(str(tmp_path)) == 0
        assert mapped[:] == content


@linux
def test_large_arrays_are_made_of_small_pages() -> None:
    script = """
import numpy as np
from treering.resident import refuse_huge_pages
refuse_huge_pages()
array = np.ones(4 << 20)
print(open("/proc/self/smaps_rollup").read().partition("AnonHugePages:")[2].split()[0], open("/proc/self/status").read())
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    huge_kb, _, status = printed.partition(" ")
    assert huge_kb == "0" and "THP_enabled:\t0" in status


def _resident_kb(name: str) -> int:
    """Of the mapping of that file."""
    return int(SMAPS.read_text().partition(name)[2].partition("Rss:")[2].split()[0])


@pytest.mark.parametrize(("limit", "bounded"), [("max", False), ("1048576", True), ("99999999999999999", False)])
def test_a_containers_limit_counts_where_it_is_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, bounded: bool
) -> None:
    monkeypatch.setattr(resident, "CGROUP_LIMIT", tmp_path / "none")
    of_machine = memory_bytes()
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(resident, "CGROUP_LIMIT", tmp_path / "memory.max")
    assert of_machine > 1 << 28 and memory_bytes() == (1 << 20 if bounded else of_machine)

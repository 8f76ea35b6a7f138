import mmap
from pathlib import Path

from tsdb.head.spill import SPILL_FROM_BYTES, spill


def test_spilled_bytes_are_the_same_and_leave_no_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * (SPILL_FROM_BYTES // 128)
    spilled = spill(data, tmp_path)
    assert isinstance(spilled, mmap.mmap)
    assert len(spilled) == len(data) and spilled[100:300] == data[100:300]
    assert list(tmp_path.iterdir()) == []


def test_few_bytes_stay_in_memory(tmp_path: Path) -> None:
    assert spill(b"few", tmp_path) == b"few"


def test_a_disk_that_refuses_leaves_them_in_memory(tmp_path: Path) -> None:
    data = bytes(2 * SPILL_FROM_BYTES)
    assert spill(data, tmp_path / "missing") is data

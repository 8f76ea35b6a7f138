"""The helper process of the first start."""

import subprocess
import sys

from treering import warm


def test_the_helper_tells_when_the_server_may_serve_and_leaves_a_mark_once_all_is_compiled() -> None:
    done = subprocess.run([sys.executable, "-m", "treering.warm"], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"ready\n"
    assert warm._compiled() and warm.warm_kernels() is None


def test_kernels_that_were_changed_are_not_taken_to_be_compiled() -> None:
    mark = warm._mark()
    before = mark.read_bytes() if mark.exists() else None
    try:
        mark.write_text("of another version")
        assert not warm._compiled()
    finally:
        mark.unlink() if before is None else mark.write_bytes(before)

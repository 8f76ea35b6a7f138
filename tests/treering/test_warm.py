"""The helper processes of the first start."""

import subprocess
import sys

import pytest

from treering import warm


@pytest.mark.parametrize("name", warm.HELPERS)
def test_a_helper_tells_when_the_server_may_serve_and_leaves_a_mark_once_all_is_compiled(name: str) -> None:
    warm._mark(name).unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", "treering.warm", name], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"ready\n"
    assert warm._mark(name).read_text() == warm._state()


def test_kernels_that_were_changed_are_not_taken_to_be_compiled() -> None:
    marks = {name: warm._mark(name) for name in warm.HELPERS}
    before = {name: mark.read_bytes() if mark.exists() else None for name, mark in marks.items()}
    try:
        for mark in marks.values():
            mark.write_text(warm._state())
        assert warm._compiled() and warm.warm_kernels() == []
        for mark in marks.values():
            mark.write_text("of another version")
            assert not warm._compiled()
            mark.write_text(warm._state())
    finally:
        for name, mark in marks.items():
            content = before[name]
            mark.unlink() if content is None else mark.write_bytes(content)

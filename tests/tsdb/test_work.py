"""Work that who waits for it may do himself."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tsdb.model.work import submit


def test_who_waits_does_what_no_thread_has_begun() -> None:
    free, begun = threading.Event(), threading.Event()

    def busy() -> int:
        begun.set()
        free.wait()
        return threading.get_ident()

    with ThreadPoolExecutor(1) as executor:
        first, second, third = (submit(executor, work) for work in (busy, threading.get_ident, begun.clear))
        begun.wait()
        assert second.result() == threading.get_ident()
        third.future.cancel()
        free.set()
        assert first.result() != threading.get_ident()
    assert begun.is_set()  # what was cancelled never ran


def test_errors_reach_who_waits() -> None:
    with ThreadPoolExecutor(1) as executor:
        for _ in range(20):  # whoever comes first
            with pytest.raises(ZeroDivisionError):
                submit(executor, lambda: 1 // 0).result()

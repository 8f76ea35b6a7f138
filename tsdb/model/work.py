"""Work that a thread of an executor begins ahead, and that who needs its result does himself if none has begun it."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Pending(Generic[Made]):
    """One piece of work under way."""

    work: Callable[[], Made]
    future: "Future[Made]"

    def result(self) -> Made:
        """What the work gives, or its error. A thread that only waits wakes up later than it could have done the work."""
        return self.work() if self.future.cancel() else self.future.result()


def submit(executor: Executor, work: Callable[[], Made]) -> Pending[Made]:
    """Hands work to the executor."""
    return Pending(work, executor.submit(work))

"""Telling how an import goes: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from treering.times import format_duration
from treering.transfer.import_part import Part

LINE_EVERY_S = 5.0


class Progress:
    """The state of an import: work done of `total` weight, samples, rate and time left. Use it as a context manager."""

    def __init__(self, total: int, *, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._done, self._inside, self._samples = max(total, 1), 0, 0.0, 0
        self._console, self._clock = console, clock
        self._began = self._told = clock()
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=self._total) if self._bar is not None else None

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def skip(self, part: Part) -> None:
        """A part that was imported before; it does not count for the rate."""
        self._total = max(self._total - part.weight, 1)
        self._console.print(f"{part.name}: is imported already", markup=False, highlight=False, soft_wrap=True)

    def begin(self, part: Part) -> None:
        self._inside = 0.0

    def advance(self, part: Part, samples: int, share: float) -> None:
        """So many more samples of a part; `share` of the part's work is the reading that they come from."""
        self._samples += samples
        self._inside = min(self._inside + min(samples / max(part.weight, 1), share), 0.99)
        self._show(part.name)

    def end(self, part: Part) -> None:
        self._done += part.weight
        self._inside = 0.0
        self._show(part.name)

    def fail(self, part: Part, problem: str) -> None:
        self._console.print(f"{part.name}: not imported: {problem}", markup=False, highlight=False, soft_wrap=True)

    def text(self) -> str:
        """Samples, rate and time left, in words."""
        spent = max(self._clock() - self._began, 1e-9)
        share = self._done / self._total
        left = f", {format_duration(round(spent / share * (1 - share)) * 1000)} left" if 0 < share < 1 else ""
        return f"{self._samples:,} samples, {self._samples / spent:,.0f} samples/s{left}"

    def _show(self, name: str) -> None:
        if self._bar is not None and self._task is not None:
            words = f"{self._samples:,} samples, {self._samples / max(self._clock() - self._began, 1e-9):,.0f}/s  {name}"
            self._bar.update(self._task, completed=self._done + self._inside, total=self._total, description=words)
        elif self._clock() - self._told >= LINE_EVERY_S:
            self._told = self._clock()
            self._console.print(
                f"{self._done / self._total:4.0%}  {self.text()}  {name}", markup=False, highlight=False, soft_wrap=True
            )

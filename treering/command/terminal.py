"""A result in the terminal: a table for instant queries, sparklines for ranges."""

import math

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from treering.library.result import Result

BARS = "▁▂▃▄▅▆▇█"
MAX_ROWS = 100
MAX_SPARK = 60


def print_result(result: Result) -> None:
    """Print the answer and, on stderr, its warnings."""
    console, notes = Console(), Console(stderr=True)
    if result.kind in ("scalar", "string"):
        console.print(Text(str(result)))
    else:
        table = Table(
            "series", "last" if result.kind == "matrix" else "value", *(["range"] if result.kind == "matrix" else []), box=None
        )
        for series in result.series[:MAX_ROWS]:
            last = f"{series.values[-1]:g}" if len(series.values) and not math.isnan(series.values[-1]) else "NaN"
            row = [Text(str(series.labels)), Text(last)]
            table.add_row(*row, *([Text(sparkline(series.values))] if result.kind == "matrix" else []))
        console.print(table)
        console.print(f"{len(result.series)} series" + (f", the first {MAX_ROWS} shown" if len(result.series) > MAX_ROWS else ""))
    for note in (*result.warnings, *result.infos):
        notes.print(Text(note), style="yellow")


def sparkline(values: npt.NDArray[np.float64]) -> str:
    """Up to MAX_SPARK bars; gaps (NaN, Inf) are blanks."""
    if len(values) > MAX_SPARK:
        values = values[np.linspace(0, len(values) - 1, MAX_SPARK).astype(int)]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    halves, low = values / 2, finite.min() / 2  # the span of two floats need not be one
    span = finite.max() / 2 - low or 1.0
    return "".join(BARS[int((v - low) / span * 7)] if math.isfinite(v) else " " for v in halves)

"""A result in a notebook: a table with a sparkline a series, and a plot. Labels are foreign text: all of it is escaped."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from treering.http.json_text import go_text
from treering.library.result_frames import load
from tsdb.model.series import F64, I64, SeriesBatch

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

MAX_ROWS = 20
MAX_LABEL_CHARACTERS = 200
WIDTH, HEIGHT = 160, 24
"""Pixels of a sparkline."""

MAX_VERTICES = 320
"""Two a pixel: more would not be seen."""


def page(columns: SeriesBatch, kind: str, text: str, notes: Sequence[str]) -> str:
    """The HTML of a result: its first series, or the text of a scalar or string."""
    warnings = "".join(f"<div>⚠ {escape(note)}</div>" for note in notes)
    if kind in ("scalar", "string"):
        return f"<div><code>{escape(text)}</code>{warnings}</div>"
    rows = "".join(_row(columns, i) for i in range(min(len(columns), MAX_ROWS)))
    hidden = len(columns) - MAX_ROWS
    more = f"<div>… {hidden} more series</div>" if hidden > 0 else ""
    head = "<tr><th style='text-align:left'>series</th><th>last</th><th></th></tr>"
    summary = f"<div>{kind}: {len(columns)} series, {columns.samples} samples</div>"
    return f"<div>{summary}<table>{head}{rows}</table>{more}{warnings}</div>"


def _row(columns: SeriesBatch, i: int) -> str:
    cut = slice(int(columns.offsets[i]), int(columns.offsets[i + 1]))
    values, t_ms = columns.values[cut], columns.t_ms[cut]
    last = go_text(float(values[-1])) if len(values) else ""
    if columns.histogram_at is not None and len(values) and columns.histogram_at[cut][-1] >= 0:
        last = "histogram"
    labels = str(columns.series.labels(i))
    short = labels if len(labels) <= MAX_LABEL_CHARACTERS else labels[:MAX_LABEL_CHARACTERS] + "…"
    name = f"<td style='text-align:left'><code>{escape(short)}</code></td>"
    return f"<tr>{name}<td>{escape(last)}</td><td>{sparkline(t_ms, values)}</td></tr>"


def sparkline(t_ms: I64, values: F64) -> str:
    """An SVG line of the finite values, "" if there are fewer than two."""
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 2:
        return ""
    if len(finite) > MAX_VERTICES:
        finite = finite[np.linspace(0, len(finite) - 1, MAX_VERTICES).astype(int)]
    x, y = _scaled(t_ms[finite].astype(float), WIDTH), _scaled(values[finite], HEIGHT)
    points = " ".join(f"{a:.1f},{HEIGHT + 1 - b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    line = f'<polyline points="{points}" fill="none" stroke="currentColor"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 2}" height="{HEIGHT + 2}">{line}</svg>'


def plot(frame: "pandas.DataFrame", title: str, ax: "Axes | None") -> "Axes":
    """A line a column of a wide frame."""
    if ax is None:
        ax = load("matplotlib.pyplot", "plot").subplots()[1]
    for name in frame.columns:
        line = frame[name].dropna()
        ax.plot(line.index, line.to_numpy(), label=name.replace("$", r"\$"), marker="." if len(line) == 1 else "")
    if title:
        ax.set_title(title.replace("$", r"\$"))  # else matplotlib would read it as mathematics
    if 0 < len(frame.columns) <= MAX_ROWS:
        ax.legend(fontsize="small")
    return ax


def _scaled(values: F64, size: int) -> F64:
    """Values from the lowest at 1 to the highest at `size`; in the middle where all are equal."""
    low, high = values.min(), values.max()
    if low == high:
        return np.full(len(values), size / 2)
    return np.asarray((values / 2 - low / 2) / (high / 2 - low / 2) * (size - 1) + 1)  # halves: the range may overflow

"""What range functions tell beside their result, in Prometheus's words."""

from collections.abc import Iterable

import numpy as np

from promql.annotations import Annotations
from promql.matrix import Bool
from promql.syntax.ast import Span
from tsdb.model.labels import METRIC_NAME, quote
from tsdb.model.series import I32, SeriesTable

COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
COUNTER_TYPES = ("counter", "histogram")
NOT_TYPED = 'metric might not be a counter, __type__ label is not set to "counter" or "histogram"'


def metric_names(series: SeriesTable, rows: Bool) -> list[str]:
    """The distinct metric names of the rows that bool[n] says, "" among them where a series has none."""
    return sorted({str(name) for name in series.texts(np.unique(series.column(METRIC_NAME)[rows]))})


def note_non_counters(series: SeriesTable, rows: Bool, span: Span, notes: Annotations, *, by_type: bool) -> None:
    """An info for each metric among the rows that does not look like a counter, by its `__type__` label or by its name."""
    if by_type:
        columns = np.stack([series.column(METRIC_NAME), series.column("__type__")])[:, rows]
        for name, kind in _pairs(series, columns):
            if name and kind not in COUNTER_TYPES:
                notes.info(f"{NOT_TYPED}, got {quote(kind)}: {quote(name)}", span)
        return
    for name in metric_names(series, rows):
        if name and not name.endswith(COUNTER_SUFFIXES):
            notes.info(f"metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {quote(name)}", span)


def warn_mixed(series: SeriesTable, rows: Bool, span: Span, notes: Annotations) -> None:
    """The warning that windows with both floats and histograms gave nothing."""
    for name in metric_names(series, rows):
        notes.warn(f"encountered a mix of histograms and floats{_for_metric(name)}", span)


def note_ignored(series: SeriesTable, rows: Bool, span: Span, notes: Annotations) -> None:
    """The info that the histograms of mixed windows were left out."""
    for name in metric_names(series, rows):
        notes.info(f"ignored histograms in a range containing both floats and histograms{_for_metric(name)}", span)


def warn_overlap(series: SeriesTable, rows: Bool, span: Span, notes: Annotations) -> None:
    """The warning that start timestamps lie before the sample ahead of theirs."""
    for name in metric_names(series, rows):
        about = f" for metric {quote(name)}" if name else ""
        notes.warn(f"sample has start time that overlaps with previous sample timestamp{about}", span)


def _pairs(series: SeriesTable, columns: I32) -> Iterable[tuple[str, str]]:
    distinct = np.unique(columns, axis=1)
    return [(str(name), str(kind)) for name, kind in series.texts(distinct).T]


def _for_metric(name: str) -> str:
    return f" for metric name {quote(name)}" if name else ""

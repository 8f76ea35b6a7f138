"""Samples as OpenMetrics text: families without a type, every sample with its time, `# EOF` at the end."""

from collections.abc import Iterator
from typing import IO

import numpy as np

from treering.export_table import float_texts, plain_floats, second_texts
from treering.export_tally import Tally
from treering.result_frames import load
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import I64, SeriesBatch

LINES = 1 << 20
"""Samples that become text at once: about 100 MB."""
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:")
_NAME = _NAME_START | frozenset("0123456789")


def write_openmetrics(batches: Iterator[SeriesBatch], file: IO[bytes], tally: Tally) -> None:
    """Write all batches, whose series are in order: so families stay together. What text cannot hold is left out and counted."""
    for whole in batches:
        batch = plain_floats(whole, tally)
        for at in range(0, batch.samples, LINES):
            file.write(_lines(batch, at, min(at + LINES, batch.samples)))
    file.write(b"# EOF\n")


def series_text(labels: Labels) -> str:
    """`name{a="b"}`; a name that needs it is quoted and stands in the braces, as Prometheus 3 writes it."""
    metric = labels.get(METRIC_NAME)
    plain = _is_plain(metric, colon=True)
    pairs = [f"{_label_name(name)}={_quoted(value)}" for name, value in labels if name != METRIC_NAME]
    inside = pairs if plain or not metric else [_quoted(metric), *pairs]
    return (metric if plain else "") + ("{" + ",".join(inside) + "}" if inside else "")


def _lines(batch: SeriesBatch, start: int, end: int) -> bytes:
    """The lines of samples [start, end)."""
    pa, compute = load("pyarrow", "arrow"), load("pyarrow.compute", "arrow")
    first = int(np.searchsorted(batch.offsets, start, side="right")) - 1
    last = int(np.searchsorted(batch.offsets, end, side="left"))
    texts = pa.array([series_text(batch.series.labels(row)) for row in range(first, last)], pa.string())
    edges: I64 = np.clip(batch.offsets[first : last + 1], start, end)
    series = texts.take(pa.array(np.repeat(np.arange(last - first), edges[1:] - edges[:-1])))
    stamps = compute.binary_join_element_wise(second_texts(batch.t_ms[start:end]), "", "\n")
    joined = compute.binary_join_element_wise(series, float_texts(batch.values[start:end]), stamps, " ")
    offsets, data = joined.buffers()[1:]
    size = int(np.frombuffer(offsets, np.int32)[len(joined)])
    return bytes(data[:size]) if size else b""


def _is_plain(name: str, *, colon: bool) -> bool:
    allowed = set(name) <= _NAME and (colon or ":" not in name)
    return bool(name) and allowed and name[0] in _NAME_START


def _label_name(name: str) -> str:
    return name if _is_plain(name, colon=False) else _quoted(name)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

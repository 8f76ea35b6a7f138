"""Samples as OpenMetrics text: families without a type, every sample with its time, `# EOF` at the end."""

from collections.abc import Iterator
from typing import IO

import numpy as np

from treering.library.result_frames import load
from treering.transfer.export_table import float_texts, pieces, plain_floats, second_texts
from treering.transfer.export_tally import Tally
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import SeriesBatch

_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:")
_NAME = _NAME_START | frozenset("0123456789")


def write_openmetrics(batches: Iterator[SeriesBatch], file: IO[bytes], tally: Tally) -> None:
    """Write all batches, whose series are in order: so families stay together. What text cannot hold is left out and counted."""
    for whole in batches:
        for batch in pieces(plain_floats(whole, tally)):
            file.write(_lines(batch))
    file.write(b"# EOF\n")


def series_text(labels: Labels) -> str:
    """`name{a="b"}`; a name that needs it is quoted and stands in the braces, as Prometheus 3 writes it."""
    metric = labels.get(METRIC_NAME)
    plain = _is_plain(metric, colon=True)
    pairs = [f"{_label_name(name)}={_quoted(value)}" for name, value in labels if name != METRIC_NAME]
    inside = pairs if plain or not metric else [_quoted(metric), *pairs]
    return (metric if plain else "") + ("{" + ",".join(inside) + "}" if inside else "")


def _lines(batch: SeriesBatch) -> bytes:
    """A line a sample."""
    pa, compute = load("pyarrow", "arrow"), load("pyarrow.compute", "arrow")
    texts = pa.array([series_text(labels) for labels in batch.series.rows()], pa.string())
    series = texts.take(pa.array(np.repeat(np.arange(len(batch)), np.diff(batch.offsets))))
    stamps = compute.binary_join_element_wise(second_texts(batch.t_ms), "", "\n")
    joined = compute.binary_join_element_wise(series, float_texts(batch.values), stamps, " ")
    offsets, data = joined.buffers()[1:]
    return bytes(data[: int(np.frombuffer(offsets, np.int32)[len(joined)])])


def _is_plain(name: str, *, colon: bool) -> bool:
    allowed = set(name) <= _NAME and (colon or ":" not in name)
    return bool(name) and allowed and name[0] in _NAME_START


def _label_name(name: str) -> str:
    return name if _is_plain(name, colon=False) else _quoted(name)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

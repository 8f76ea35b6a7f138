"""A server's JSON body as columns.

The pairs of a series are never Python objects: its `[[t,"v"],…]` stays raw and becomes numbers in one call.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from treering.http.histogram_json import HistogramBody, parse_histograms
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.labels import Labels
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What a body holds; `text` and `at_ms` are a string's."""

    kind: str
    columns: SeriesBatch
    text: str
    at_ms: int
    warnings: tuple[str, ...]
    infos: tuple[str, ...]


class _Row(msgspec.Struct):
    metric: dict[str, str] = {}
    value: msgspec.Raw = msgspec.Raw()
    values: msgspec.Raw = msgspec.Raw()
    histogram: tuple[float, HistogramBody] | None = None
    histograms: list[tuple[float, HistogramBody]] = []


class _Data(msgspec.Struct, rename="camel"):
    result_type: Literal["matrix", "vector", "scalar", "string"]
    result: msgspec.Raw


class _Body(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


_body = msgspec.json.Decoder(_Body)
_rows = msgspec.json.Decoder(list[_Row])
_text = msgspec.json.Decoder(tuple[float, str])


def parse_answer(body: bytes) -> ParsedAnswer:
    """The answer in a body of Prometheus's HTTP API. BadData if it is none, QueryFailed if it tells an error."""
    try:
        told = _body.decode(body)
        if told.status == "error":
            raise QueryFailed(f"{told.error_type}: {told.error}")
        if told.data is None:
            raise BadData(f"status {told.status!r} without data")
        kind, result = told.data.result_type, told.data.result
        text, at_ms = "", 0
        if kind == "string":
            seconds, text = _text.decode(result)
            at_ms, columns = round(seconds * 1000), SeriesBatch.empty()
        else:
            columns = _columns([_Row(value=result)] if kind == "scalar" else _rows.decode(result))
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadData(f"not an answer of the Prometheus API: {error} in {body[:200]!r}") from None
    return ParsedAnswer(kind, columns, text, at_ms, told.warnings, told.infos)


def _columns(rows: Sequence[_Row]) -> SeriesBatch:
    table = SeriesTable.of([Labels.of(row.metric) for row in rows])
    pairs = [_pairs(bytes(row.values) or bytes(row.value)) for row in rows]
    native = [[row.histogram] if row.histogram else row.histograms for row in rows]
    counts = np.array([[len(p), len(h)] for p, h in zip(pairs, native, strict=True)], np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=1))]).astype(np.int64)
    floats = np.concatenate(pairs) if pairs else np.empty((0, 2))
    histograms = [pair for one in native for pair in one]
    if not histograms:
        return SeriesBatch(table, offsets, _ms(floats[:, 0]), np.ascontiguousarray(floats[:, 1]))
    is_native = np.repeat(np.tile([False, True], len(rows)), counts.ravel())
    t_ms, values, at = np.empty(len(is_native), np.int64), np.full(len(is_native), math.nan), np.full(len(is_native), -1, np.int64)
    t_ms[~is_native], values[~is_native] = _ms(floats[:, 0]), floats[:, 1]
    t_ms[is_native], at[is_native] = _ms(np.array([t for t, _ in histograms])), np.arange(len(histograms))
    order = np.lexsort((t_ms, np.repeat(np.arange(len(rows)), np.diff(offsets))))
    return SeriesBatch(table, offsets, t_ms[order], values[order], parse_histograms([h for _, h in histograms]), at[order])


def _pairs(raw: bytes) -> F64:
    """f64[m, 2] seconds and values of `[[t,"v"],…]` or `[t,"v"]`. ValueError if they are no numbers or odd in number."""
    text = raw.translate(None, b'[]" \n')
    if not text:
        return np.empty((0, 2))
    numbers = np.fromstring(text, np.float64, sep=",")
    if len(numbers) != text.count(b",") + 1:
        raise ValueError(f"{text[:100]!r} are not pairs of numbers")
    return numbers.reshape(-1, 2)


def _ms(seconds: F64) -> I64:
    return np.asarray(np.rint(seconds * 1000), np.int64)

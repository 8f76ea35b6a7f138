"""A server's JSON body as columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from treering.histogram_json import parse_histograms
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.labels import Labels
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable

KINDS = ("matrix", "vector", "scalar", "string")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What a body holds; `text` and `at_ms` are a string's."""

    kind: str
    columns: SeriesBatch
    text: str
    at_ms: int
    warnings: tuple[str, ...]
    infos: tuple[str, ...]


def parse_answer(body: bytes) -> ParsedAnswer:
    """The answer in a body of Prometheus's HTTP API. BadData if it is none, QueryFailed if it tells an error."""
    try:
        told = orjson.loads(body)
        if told.get("status") == "error":
            raise QueryFailed(f"{told.get('errorType')}: {told.get('error')}")
        kind, result = told["data"]["resultType"], told["data"]["result"]
        if kind not in KINDS:
            raise BadData(f"result type {kind!r} is not known")
        text, at_ms = "", 0
        if kind == "string":
            at_ms, text, columns = round(result[0] * 1000), str(result[1]), SeriesBatch.empty()
        elif kind == "scalar":
            columns = _columns([{"metric": {}, "values": [result]}])
        else:
            columns = _columns(result)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadData(f"not an answer of the Prometheus API: {error!r} in {body[:200]!r}") from None
    return ParsedAnswer(kind, columns, text, at_ms, tuple(told.get("warnings") or ()), tuple(told.get("infos") or ()))


def _columns(rows: Sequence[Mapping[str, object]]) -> SeriesBatch:
    times: list[float] = []
    texts: list[str] = []
    natives: list[Mapping[str, object]] = []
    counts: list[int] = []
    for row in rows:
        for points, kept in ((_points(row, "value"), texts), (_points(row, "histogram"), natives)):
            if points:
                stamps, values = zip(*points, strict=True)
                times.extend(stamps)
                kept.extend(values)
            counts.append(len(points))
    pairs = np.array(counts, np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(pairs.sum(axis=1))]).astype(np.int64)
    t_ms = np.rint(np.array(times, np.float64) * 1000).astype(np.int64)
    table = SeriesTable.of([Labels.of(row["metric"]) for row in rows])  # type: ignore[arg-type]
    floats = np.array(texts, np.str_).astype(np.float64) if texts else np.empty(0)
    if not natives:
        return SeriesBatch(table, offsets, t_ms, floats)
    return _with_natives(SeriesBatch(table, offsets, t_ms, np.full(len(t_ms), math.nan)), pairs, floats, natives)


def _with_natives(batch: SeriesBatch, pairs: I64, floats: F64, natives: Sequence[Mapping[str, object]]) -> SeriesBatch:
    """The batch, whose series have pairs i64[n, 2] floats and then histograms, with both, in the order of time."""
    is_native = np.repeat(np.tile([False, True], len(pairs)), pairs.ravel())
    values, at = batch.values.copy(), np.full(len(is_native), -1, np.int64)
    values[~is_native] = floats
    at[is_native] = np.arange(len(natives))
    order = np.lexsort((batch.t_ms, np.repeat(np.arange(len(batch)), np.diff(batch.offsets))))
    histograms = parse_histograms(natives)
    return SeriesBatch(batch.series, batch.offsets, batch.t_ms[order], values[order], histograms, at[order])


def _points(row: Mapping[str, object], name: str) -> Sequence[tuple[float, object]]:
    """The (seconds, sample) pairs under `name` or its plural."""
    if name in row:
        return [row[name]]  # type: ignore[list-item]
    return row.get(f"{name}s") or []  # type: ignore[return-value]

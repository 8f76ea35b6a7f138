"""A server's JSON body as columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from treering.histogram_json import parse_histograms
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

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

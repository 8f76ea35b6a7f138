"""The JSON body of a query's answer, byte for byte as Prometheus's HTTP API lays it out.

Labels and native histograms become text here, the samples in one kernel (`tsdb.kernel.text`).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import orjson

from promql.answer import Answer, QueryStats
from promql.histogram_buckets import bucket_rows
from promql.matrix import Matrix, Scalar
from tsdb.kernel.text import POINT_BYTES, STAMP_BYTES, WHOLE_LIMIT, write_series
from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesBatch, SeriesTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

MAX_NOTES = 10
"""Warnings and infos beyond so many are counted only, as Prometheus does."""


def query_response(answer: Answer) -> bytes:
    """The whole body: status, data, then warnings and infos."""
    stats = b"" if answer.stats is None else b',"stats":' + stats_json(answer.stats)
    head = b'{"status":"success","data":{"resultType":"%b","result":' % answer.kind.encode()
    return b"".join([head, result_json(answer), stats, b"}", notes_json(answer.warnings, answer.infos), b"}"])


def result_json(answer: Answer) -> bytes | memoryview:
    """The `result` of an answer."""
    value = answer.value
    if isinstance(value, SeriesBatch):
        return _samples_json(value)
    if isinstance(value, Matrix):
        return _vector_json(value) if answer.kind == "vector" else _matrix_json(value)
    if isinstance(value, Scalar):
        return f'[{seconds(int(value.steps.ms[-1]))},"{go_text(float(value.values[-1]))}"]'.encode()
    raise TypeError(f"an answer of kind {answer.kind!r} holds a {type(value).__name__}")

"""The JSON body of a query's answer, byte for byte as Prometheus's HTTP API lays it out.

Labels and native histograms become text here, the samples in one kernel (`tsdb.kernel.text`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import orjson

from promql.answer import Answer, QueryStats
from promql.histogram.buckets import bucket_rows
from promql.matrix import Matrix, Scalar
from tsdb.kernel.text import POINT_BYTES, STAMP_BYTES, WHOLE_LIMIT, write_series
from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesBatch, SeriesTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

MAX_NOTES = 10
"""Warnings and infos beyond so many are counted only, as Prometheus does."""

CHUNK_POINTS = 1 << 16
"""Pairs made into text at a time: their buffer takes 4 MB, which stays in cache."""


def query_response(answer: Answer, *, at_ms: int = 0, stats: str = "", deadline: Callable[[], None] = lambda: None) -> bytes:
    """The whole body: status, data, then warnings and infos.

    `at_ms` is the time of an instant query, which only a string answer does not know by itself. `stats` is the request's
    parameter: anything but "" asks for the numbers, "all" also for those of single steps.
    `deadline` is called between two pieces of the text and ends it by raising.
    """
    head = b'{"status":"success","data":{"resultType":"%b","result":' % answer.kind.encode()
    told = b',"stats":' + stats_json(answer.stats, each_step=stats == "all") if stats and answer.stats is not None else b""
    parts = [head]
    for part in result_parts(answer, at_ms):
        deadline()
        parts.append(part)
    return b"".join([*parts, told, b"}", notes_json(answer.warnings, answer.infos), b"}"])


def result_parts(answer: Answer, at_ms: int) -> Iterable[bytes]:
    """The `result` of an answer, in pieces."""
    value = answer.value
    if isinstance(value, str):
        return [b"[%b,%b]" % (seconds(at_ms).encode(), orjson.dumps(value))]
    if isinstance(value, Scalar):
        return [f'[{seconds(int(value.steps.ms[-1]))},"{go_text(float(value.values[-1]))}"]'.encode()]
    return _series_parts(_matrix_points(value) if isinstance(value, Matrix) else _batch_points(value), many=answer.kind == "matrix")


def stats_json(stats: QueryStats, *, each_step: bool = False) -> bytes:
    """The numbers about a query as Prometheus names them; those of single steps only if the engine was told to give them."""
    evaluation_s = stats.evaluation_s + stats.sort_s + stats.preparation_s
    timings = {"evalTotalTime": evaluation_s, "resultSortTime": stats.sort_s, "queryPreparationTime": stats.preparation_s}
    timings |= {"innerEvalTime": stats.evaluation_s, "execQueueTime": stats.queue_s, "execTotalTime": stats.queue_s + evaluation_s}
    samples: dict[str, object] = {}
    if each_step and stats.tell_steps and stats.steps is not None and stats.per_step is not None:
        times_s = (stats.steps.ms / 1000).tolist()
        samples["totalQueryableSamplesPerStep"] = [[t, count] for t, count in zip(times_s, stats.per_step.tolist(), strict=True)]
    samples["totalQueryableSamples"] = stats.samples if stats.per_step is None else int(stats.per_step.sum())
    samples |= {"samplesRead": stats.samples, "peakSamples": stats.peak_samples}
    return orjson.dumps({"timings": timings, "samples": samples})


def notes_json(warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    """`,"warnings":[…],"infos":[…]`, each only where there is one."""
    out = b""
    for kind, notes in (("warning", warnings), ("info", infos)):
        shown = list(notes[:MAX_NOTES])
        if len(notes) > MAX_NOTES:
            shown.append(f"{len(notes) - MAX_NOTES} more {kind} annotations omitted")
        out += b',"%bs":%b' % (kind.encode(), orjson.dumps(shown)) if shown else b""
    return out


def seconds(t_ms: int) -> str:
    """A time as the API writes it: seconds, with three decimals where they are not 0."""
    sign, (whole, rest) = "-" if t_ms < 0 else "", divmod(abs(t_ms), 1000)
    return f"{sign}{whole}.{rest:03d}" if rest else f"{sign}{whole}"


def go_text(value: float) -> str:
    """A value as the API writes it: Go's shortest digits, with an exponent only below 1e-6 and from 1e+21 on."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    return _go_text(value)


@dataclass(frozen=True, slots=True)
class _Points:
    """n series with m samples between them: those of series i are offsets[i]:offsets[i+1]; sample j is at t_ms[at[j]].

    natives i64[m] is the histogram of a sample or -1; empty where all are floats.
    """

    series: SeriesTable
    offsets: I64
    at: I32
    t_ms: I64
    values: F64
    natives: I64
    histograms: Histograms | None


def _batch_points(batch: SeriesBatch) -> _Points:
    natives = np.empty(0, np.int64) if batch.histogram_at is None else batch.histogram_at
    at = np.arange(batch.samples, dtype=np.int32)
    return _Points(batch.series, batch.offsets, at, batch.t_ms, batch.values, natives, batch.histograms)


def _matrix_points(matrix: Matrix) -> _Points:
    n, k = matrix.present.shape
    counts = np.concatenate([[0], np.cumsum(matrix.present.sum(axis=1))]).astype(np.int64)
    at = np.broadcast_to(np.arange(k, dtype=np.int32), (n, k))
    keep = slice(None) if counts[-1] == n * k else matrix.present.ravel()
    natives = np.empty(0, np.int64) if matrix.cells is None else matrix.cells.ravel()[keep]
    values = np.ascontiguousarray(matrix.values, np.float64).ravel()[keep]
    return _Points(matrix.series, counts, at.ravel()[keep], matrix.steps.ms, values, natives, matrix.histograms)


def _series_parts(points: _Points, *, many: bool) -> Iterable[bytes]:
    """`[{"metric":{…},"values":[…]},…]`, or with one `value` a series; series without a sample are left out."""
    natives: list[bytes] | None = None
    counts = np.diff(points.offsets)
    if len(points.natives) and np.any(points.natives >= 0):
        natives = _native_texts(points, many)
        floats = points.natives < 0
        before = np.concatenate([[0], np.cumsum(floats)])
        points = replace(points, offsets=before[points.offsets], at=points.at[floats], values=points.values[floats])
    rows = np.flatnonzero(counts)
    metrics = _metric_texts(points.series.take(rows))
    texts: list[bytes] = []
    floats_of = np.diff(points.offsets)[rows].tolist()
    for i, (metric, row) in enumerate(zip(metrics, rows.tolist(), strict=True)):
        native = b"" if natives is None else natives[row]
        comma = b"," if i + 1 < len(metrics) else b""
        opening, closing = ((b',"values":[', b"]") if many else (b',"value":', b"")) if floats_of[i] else (b"", b"")
        texts += [metric + opening, closing + native + b"}" + comma]
    starts = np.concatenate([points.offsets[rows], points.offsets[-1:]])  # rows left out have no float either
    return chain([b"["], _chunks(texts, starts, points), [b"]"])


def _chunks(texts: list[bytes], offsets: I64, points: _Points) -> Iterator[bytes]:
    """The text of runs of series, each of about CHUNK_POINTS pairs."""
    last, i = len(offsets) - 1, 0
    while i < last:
        stop = max(int(np.searchsorted(offsets, offsets[i] + CHUNK_POINTS, side="right")) - 1, i + 1)
        yield _run(texts[2 * i : 2 * stop], offsets[i : stop + 1], points)
        i = stop


def _run(texts: list[bytes], offsets: I64, points: _Points) -> bytes:
    rows = slice(int(offsets[0]), int(offsets[-1]))
    values = np.ascontiguousarray(points.values[rows])
    at = np.require(points.at[rows], requirements=["C", "W"])  # else the kernel is compiled once more
    t_ms = np.ascontiguousarray(points.t_ms)
    if len(t_ms) > len(at):  # of many times only those of this run
        t_ms, at = t_ms[at], np.arange(len(at), dtype=np.int32)
    size = np.abs(values)
    digits = values[(size < np.inf) & ~((size < WHOLE_LIMIT) & (values == np.floor(values)))]
    text = np.frombuffer(b"".join(texts), np.uint8)
    text_offsets = np.concatenate([[0], np.cumsum([len(one) for one in texts])]).astype(np.int64)
    out = np.empty(len(text) + POINT_BYTES * len(values), np.uint8)
    used = write_series(
        text, text_offsets, offsets - offsets[0], at, t_ms, values,
        np.frombuffer(orjson.dumps(digits, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8),
        np.empty((len(t_ms), STAMP_BYTES + 1), np.uint8), out,
    )  # fmt: skip
    return out[:used].tobytes()


def _metric_texts(series: SeriesTable) -> list[bytes]:
    """`{"metric":{…}` of each series."""
    fragments = []
    for name, ids in zip(series.names, series.ids, strict=True):
        used, inverse = np.unique(ids, return_inverse=True)
        head = orjson.dumps(name) + b":"
        pieces = np.empty(len(used), object)
        pieces[:] = [head + orjson.dumps(series.symbols[i]) if i >= 0 else b"" for i in used.tolist()]
        fragments.append(pieces[inverse].tolist())
    if not fragments:
        return [b'{"metric":{}'] * len(series)
    return [b'{"metric":{%b}' % b",".join(filter(None, row)) for row in zip(*fragments, strict=True)]


def _native_texts(points: _Points, many: bool) -> list[bytes]:
    """`,"histograms":[…]` (or `,"histogram":…`) of each series, b"" where it has none."""
    assert points.histograms is not None
    which = np.flatnonzero(points.natives >= 0)
    bodies = histogram_texts(points.histograms.take(points.natives[which]))
    stamps = [seconds(t) for t in points.t_ms[points.at[which]].tolist()]
    pairs = [f"[{stamp},{body}]" for stamp, body in zip(stamps, bodies, strict=True)]
    out = []
    ends = np.searchsorted(which, points.offsets).tolist()
    for a, b in pairwise(ends):
        text = ",".join(pairs[a:b])
        out.append((f',"histograms":[{text}]' if many else f',"histogram":{text}').encode() if a < b else b"")
    return out


def histogram_texts(histograms: Histograms) -> list[str]:
    """`{"count":…,"sum":…,"buckets":[[bounds,lower,upper,count],…]}` of each, empty buckets left out."""
    rows = bucket_rows(histograms)
    numbers = zip(rows.bounds.tolist(), _go_texts(rows.lower), _go_texts(rows.upper), _go_texts(rows.counts), strict=True)
    buckets = [f'[{code},"{low}","{high}","{count}"]' for code, low, high, count in numbers]
    out = []
    totals = zip(_go_texts(histograms.count), _go_texts(histograms.sum), pairwise(rows.offsets.tolist()), strict=True)
    for count, total, (a, b) in totals:
        text = f',"buckets":[{",".join(buckets[a:b])}]' if a < b else ""
        out.append(f'{{"count":"{count}","sum":"{total}"{text}}}')
    return out


def _go_texts(values: F64) -> list[str]:
    """`go_text` of each, most of them by orjson in one call: it differs in exponents, a trailing .0, NaN and Inf (null)."""
    texts = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")
    if not len(values):
        return []
    return [
        text[:-2] if text.endswith(".0") else go_text(value) if "e" in text or text == "null" else text
        for text, value in zip(texts, values.tolist(), strict=True)
    ]


@lru_cache(maxsize=1 << 16)
def _go_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    return format(Decimal(text), "f") if 1e-6 <= abs(value) < 1e21 else text  # Python's exponents have two digits as well

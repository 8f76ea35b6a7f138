"""The JSON body of a query's answer, byte for byte as Prometheus's HTTP API lays it out.

Labels and native histograms become text here, the samples in one kernel (`tsdb.kernel.text`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from promql.answer import Answer, QueryStats
from promql.histogram.buckets import bucket_rows
from promql.matrix import Matrix, Scalar
from tsdb.kernel.text import NAMES, POINT_BYTES, STAMP_BYTES, WHOLE_LIMIT, write_series
from tsdb.model.histogram import Histograms
from tsdb.model.series import SeriesBatch, SeriesTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

Number = TypeVar("Number", bound=np.generic)

MAX_NOTES = 10
"""Warnings and infos beyond so many are counted only, as Prometheus does."""

CHUNK_POINTS = 1 << 16
"""Cells made into text at a time: their buffer takes 4 MB, which stays in cache."""


def query_response(answer: Answer, *, at_ms: int = 0, stats: str = "") -> bytes:
    """The whole body, as `query_parts` gives it."""
    return b"".join(query_parts(answer, at_ms=at_ms, stats=stats))


def query_parts(answer: Answer, *, at_ms: int, stats: str, deadline: Callable[[], None] = lambda: None) -> list[bytes | memoryview]:
    """The body in pieces: status, data, then warnings and infos.

    `at_ms` is the time of an instant query, which only a string answer does not know by itself. `stats` is the request's
    parameter: anything but "" asks for the numbers, "all" also for those of single steps.
    `deadline` is called between two pieces of the text and ends it by raising.
    """
    head = b'{"status":"success","data":{"resultType":"%b","result":' % answer.kind.encode()
    told = b',"stats":' + stats_json(answer.stats, each_step=stats == "all") if stats and answer.stats is not None else b""
    parts: list[bytes | memoryview] = [head]
    for part in result_parts(answer, at_ms):
        deadline()
        parts.append(part)
    return [*parts, told + b"}" + notes_json(answer.warnings, answer.infos) + b"}"]


def result_parts(answer: Answer, at_ms: int) -> Iterable[bytes | memoryview]:
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
    """n series with m cells between them: those of series i are offsets[i]:offsets[i+1]; cell j is a sample where present[j].

    Times: t_ms[j] if `own_times`, else t_ms[0] for the first cell of every series and so on.
    natives i64[m] is the histogram of a sample or -1; empty where all are floats.
    """

    series: SeriesTable
    offsets: I64
    present: Bool
    values: F64
    t_ms: I64
    own_times: bool
    natives: I64
    histograms: Histograms | None


def _batch_points(batch: SeriesBatch) -> _Points:
    natives = np.empty(0, np.int64) if batch.histogram_at is None else batch.histogram_at
    offsets, t_ms, values = _plain(batch.offsets), _plain(batch.t_ms), _plain(batch.values)
    return _Points(batch.series, offsets, np.ones(batch.samples, bool), values, t_ms, True, natives, batch.histograms)


def _matrix_points(matrix: Matrix) -> _Points:
    n, k = matrix.present.shape
    offsets = np.arange(n + 1, dtype=np.int64) * k
    natives = np.empty(0, np.int64) if matrix.cells is None else np.where(matrix.present, matrix.cells, -1).ravel()
    present, values = _plain(matrix.present.ravel()), _plain(np.asarray(matrix.values, np.float64).ravel())
    return _Points(matrix.series, offsets, present, values, matrix.steps.ms, False, natives, matrix.histograms)


def _plain(column: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The column as the kernel wants it, which is compiled anew for strided or read-only ones."""
    return column if column.flags.c_contiguous and column.flags.writeable else column.copy()


def _series_parts(points: _Points, *, many: bool) -> Iterable[bytes | memoryview]:
    """`[{"metric":{…},"values":[…]},…]`, or with one `value` a series; series without a sample are left out."""
    tails: list[bytes] | None = None
    if len(points.natives) and np.any(points.natives >= 0):
        tails = _native_texts(points, many)
        points = replace(points, present=points.present & (points.natives < 0))
    return chain([b"["], _chunks(points, _texts_of(points.series, tails, many=many)), [b"]"])


@dataclass(frozen=True, slots=True)
class _Texts:
    """What n series have beside their pairs, as `write_series` takes it; size_bytes i64[n] of each with its commas and brackets."""

    pieces: U8
    piece_at: I64
    ids: I32
    tails: U8
    tail_at: I64
    size_bytes: I64


def _texts_of(series: SeriesTable, tails: list[bytes] | None, *, many: bool) -> _Texts:
    opening, closing = (b',"values":[', b"]") if many else (b',"value":', b"")
    names = [orjson.dumps(name) + b":" for name in series.names]
    known = series.ids >= 0
    used, which = np.unique(series.ids[known], return_inverse=True)
    ids = np.full(series.ids.shape, -1, np.int32)
    ids[known] = which + (NAMES + len(names))
    head = [b'{"metric":{', opening, closing, *names]
    values, value_bytes = _quoted(series.symbols[used].tolist())
    pieces, piece_at = _with_places(b"".join(head) + values, [*map(len, head), *value_bytes])
    tails = [b""] * len(series) if tails is None else tails
    ending, tail_at = _with_places(b"".join(tails), [*map(len, tails)])
    lengths = np.diff(piece_at)
    label_bytes = np.where(known, lengths[ids] + lengths[NAMES : NAMES + len(names), None] + 1, 0).sum(axis=0)
    return _Texts(pieces, piece_at, ids, ending, tail_at, label_bytes + lengths[:NAMES].sum() + np.diff(tail_at) + 3)


def _quoted(texts: list[str]) -> tuple[bytes, list[int]]:
    """(JSON strings one after another, the bytes of each)."""
    whole = "".join(texts)
    if whole.isascii() and whole.isprintable() and '"' not in whole and "\\" not in whole:  # as nearly all: nothing to escape
        between = '""'
        return f'"{between.join(texts)}"'.encode() if texts else b"", [len(text) + 2 for text in texts]
    quoted = [orjson.dumps(text) for text in texts]
    return b"".join(quoted), [*map(len, quoted)]


def _with_places(data: bytes, size_bytes: list[int]) -> tuple[U8, I64]:
    """(the bytes of texts, where each begins and the last ends)."""
    at = np.zeros(len(size_bytes) + 1, np.int64)
    np.cumsum(size_bytes, out=at[1:])
    return np.frombuffer(data, np.uint8), at


def _chunks(points: _Points, texts: _Texts) -> Iterator[bytes | memoryview]:
    """The text of runs of series, each of about CHUNK_POINTS cells; series without a sample are left out."""
    offsets, last, i, comma = points.offsets, len(points.series), 0, b""
    while i < last:
        stop = max(int(np.searchsorted(offsets, offsets[i] + CHUNK_POINTS, side="right")) - 1, i + 1)
        before = np.concatenate([[0], np.cumsum(points.present[offsets[i] : offsets[stop]])])
        pairs = np.diff(before[offsets[i : stop + 1] - offsets[i]])
        rows = i + np.flatnonzero((pairs > 0) | (np.diff(texts.tail_at[i : stop + 1]) > 0))
        if len(rows):
            yield comma
            yield _run(points, texts, rows, slice(int(offsets[i]), int(offsets[stop])), int(before[-1]))
            comma = b","
        i = stop


def _run(points: _Points, texts: _Texts, rows: I64, cells: slice, pairs: int) -> memoryview:
    """The text of the series `rows`, which have so many pairs among the cells."""
    values = points.values[cells]
    size = np.abs(values)
    digits = values[points.present[cells] & (size < np.inf) & ~((size < WHOLE_LIMIT) & (values == np.floor(values)))]
    t_ms, base = (points.t_ms[cells], cells.start) if points.own_times else (points.t_ms, -1)
    out = np.empty(int(texts.size_bytes[rows].sum()) + POINT_BYTES * (pairs + 1), np.uint8)
    used = write_series(
        rows, texts.pieces, texts.piece_at, texts.ids, texts.tails, texts.tail_at, points.offsets, points.present, points.values,
        t_ms, base, np.frombuffer(orjson.dumps(digits, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8),
        np.empty((len(t_ms), STAMP_BYTES + 1), np.uint8), out,
    )  # fmt: skip
    return out[:used].data


def _native_texts(points: _Points, many: bool) -> list[bytes]:
    """`,"histograms":[…]` (or `,"histogram":…`) of each series, b"" where it has none."""
    assert points.histograms is not None
    which = np.flatnonzero(points.natives >= 0)
    bodies = histogram_texts(points.histograms.take(points.natives[which]))
    at = which if points.own_times else which % len(points.t_ms)  # all series have a cell for each time
    stamps = [seconds(t) for t in points.t_ms[at].tolist()]
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

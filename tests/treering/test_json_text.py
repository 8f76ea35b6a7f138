"""Bodies of query answers: the exact bytes of small ones, the meaning of large ones."""

import json
import math

import numpy as np
import pytest

from promql.answer import Answer, QueryStats
from promql.matrix import Matrix, Scalar, Steps
from treering.http import json_text
from treering.http.json_text import go_text, histogram_texts, query_response, seconds
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

STEPS = Steps(1500, 3500, 1000)
HEAD = b'{"status":"success","data":{"resultType":"%b","result":'


def table(*rows: dict[str, str]) -> SeriesTable:
    return SeriesTable.of([Labels.of(row) for row in rows])


def one_histogram() -> Histograms:
    zero = np.zeros(1)
    positive = Buckets(np.array([0, 2]), np.array([1, 3], np.int32), np.array([2.0, 1.0]))
    negative = Buckets(np.array([0, 1]), np.array([0], np.int32), np.array([4.0]))
    kinds = np.zeros(1, np.int8), np.zeros(1, np.uint8), np.ones(1, bool)
    return Histograms(*kinds, zero + 8, zero + 5.5, zero + 0.25, zero + 1, positive, negative, np.zeros(2, np.int64), np.empty(0))


def test_a_matrix() -> None:
    present = np.array([[True, True, True], [False, True, False], [False, False, False]])
    values = np.array([[1, 0.5, math.nan], [9, -math.inf, 9], [9, 9, 9]])
    matrix = Matrix(table({"__name__": "m", "a": 'x"<'}, {}, {"b": "1"}), STEPS, values, present)
    assert query_response(Answer("matrix", matrix)) == HEAD % b"matrix" + (
        b'[{"metric":{"__name__":"m","a":"x\\"<"},"values":[[1.500,"1"],[2.500,"0.5"],[3.500,"NaN"]]},'
        b'{"metric":{},"values":[[2.500,"-Inf"]]}]}}'
    )


def test_as_many_samples_as_steps_keep_their_times() -> None:
    present = np.array([[True, False, True], [False, True, False]])
    matrix = Matrix(table({"a": "1"}, {"a": "2"}), STEPS, np.array([[1.0, 9, 3], [9, 2, 9]]), present)
    assert query_response(Answer("matrix", matrix)) == HEAD % b"matrix" + (
        b'[{"metric":{"a":"1"},"values":[[1.500,"1"],[3.500,"3"]]},{"metric":{"a":"2"},"values":[[2.500,"2"]]}]}}'
    )


@pytest.mark.parametrize("steps", range(1, 6))
def test_times_of_sparse_series(steps: int) -> None:
    for bits in range(1 << (2 * steps)):
        present = np.array([bits >> i & 1 for i in range(2 * steps)], bool).reshape(2, steps)
        matrix = Matrix(table({"a": "0"}, {"a": "1"}), Steps(0, (steps - 1) * 1000, 1000), np.ones((2, steps)), present)
        found = json.loads(query_response(Answer("matrix", matrix)))["data"]["result"]
        got = {int(one["metric"]["a"]): [t for t, _ in one["values"]] for one in found}
        assert got == {i: np.flatnonzero(row).tolist() for i, row in enumerate(present) if row.any()}


def test_a_vector_keeps_its_order() -> None:
    matrix = Matrix(table({"a": "2"}, {"a": "1"}), Steps.instant(4000), np.array([[2.0], [1.0]]), np.ones((2, 1), bool))
    assert query_response(Answer("vector", matrix)) == HEAD % b"vector" + (
        b'[{"metric":{"a":"2"},"value":[4,"2"]},{"metric":{"a":"1"},"value":[4,"1"]}]}}'
    )


def test_scalar_string_and_nothing() -> None:
    scalar = Scalar(Steps.instant(4250), np.array([1e-7]))
    assert query_response(Answer("scalar", scalar)) == HEAD % b"scalar" + b'[4.250,"1e-07"]}}'
    assert query_response(Answer("string", 'a"ü'), at_ms=1000) == HEAD % b"string" + '[1,"a\\"ü"]}}'.encode()
    assert query_response(Answer("vector", Matrix.empty(Steps.instant(0)))) == HEAD % b"vector" + b"[]}}"


def test_histograms_beside_floats() -> None:
    cells = np.array([[-1, 0, -1], [-1, 0, -1]])
    values = np.array([[7, math.nan, 9], [0, math.nan, 0]])
    present = np.array([[True, True, True], [False, True, False]])
    matrix = Matrix(table({"a": "1"}, {"a": "2"}), STEPS, values, present, one_histogram(), cells)
    buckets = '[1,"-1","-0.5","4"],[3,"-0.25","0.25","1"],[0,"1","2","2"],[0,"4","8","1"]'
    native = f'"histograms":[[2.500,{{"count":"8","sum":"5.5","buckets":[{buckets}]}}]]'
    assert query_response(Answer("matrix", matrix)) == HEAD % b"matrix" + (
        f'[{{"metric":{{"a":"1"}},"values":[[1.500,"7"],[3.500,"9"]],{native}}},{{"metric":{{"a":"2"}},{native}}}]}}}}'.encode()
    )
    vector = Matrix(table({"a": "1"}), Steps.instant(0), values[:1, 1:2], present[:1, 1:2], one_histogram(), cells[:1, 1:2])
    body = json.loads(query_response(Answer("vector", vector)))
    assert body["data"]["result"][0]["histogram"] == [0, json.loads(histogram_texts(one_histogram())[0])]


def test_raw_samples() -> None:
    batch = SeriesBatch(table({"a": "1"}, {"a": "2"}), np.array([0, 2, 3]), np.array([1, 2000, 1]), np.array([1.0, 2.5, 3.0]))
    assert query_response(Answer("matrix", batch)) == HEAD % b"matrix" + (
        b'[{"metric":{"a":"1"},"values":[[0.001,"1"],[2,"2.5"]]},{"metric":{"a":"2"},"values":[[0.001,"3"]]}]}}'
    )


def test_notes_come_after_the_data_and_are_bounded() -> None:
    answer = Answer("string", "", tuple(f"w{i}" for i in range(12)), ("i<",))
    body = query_response(answer)
    assert body.index(b'"data"') < body.index(b'"warnings"') < body.index(b'"infos"')
    assert json.loads(body)["warnings"] == [*(f"w{i}" for i in range(10)), "2 more warning annotations omitted"]
    assert json.loads(body)["infos"] == ["i<"]


def test_stats_only_where_asked() -> None:
    steps = Steps(0, 1500, 500)
    counts = np.array([1, 2, 3, 4])
    stats = QueryStats(samples=10, series=2, peak_samples=5, steps=steps, per_step=counts, tell_steps=True)
    stats.queue_s, stats.preparation_s, stats.evaluation_s, stats.sort_s = 1.0, 0.25, 0.5, 0.125
    answer = Answer("matrix", Matrix.empty(steps), stats=stats)
    assert b"stats" not in query_response(answer)
    told = json.loads(query_response(answer, stats="all"))["data"]["stats"]
    assert list(told["samples"]) == ["totalQueryableSamplesPerStep", "totalQueryableSamples", "samplesRead", "peakSamples"]
    assert told["samples"]["totalQueryableSamplesPerStep"] == [[0, 1], [0.5, 2], [1, 3], [1.5, 4]]
    assert (told["samples"]["totalQueryableSamples"], told["samples"]["samplesRead"], told["samples"]["peakSamples"]) == (10, 10, 5)
    assert told["timings"] == {
        "evalTotalTime": 0.875,
        "resultSortTime": 0.125,
        "queryPreparationTime": 0.25,
        "innerEvalTime": 0.5,
        "execQueueTime": 1.0,
        "execTotalTime": 1.875,
    }
    assert "totalQueryableSamplesPerStep" not in json.loads(query_response(answer, stats="true"))["data"]["stats"]["samples"]


@pytest.mark.parametrize("raw", [False, True])
def test_large_answers_in_chunks_mean_the_same(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    monkeypatch.setattr(json_text, "CHUNK_POINTS", 100)
    rng = np.random.default_rng(3)
    n, steps = 70, Steps(1_700_000_000_000, 1_700_000_000_000 + 40 * 15_000, 15_000)
    values, present = rng.normal(size=(n, 41)) * 10.0 ** rng.integers(-9, 25, (n, 41)), rng.random((n, 41)) < 0.6
    present[[0, 5, 69]] = False
    series = table(*({"i": f"{i:03d}"} for i in range(n)))
    matrix: Matrix | SeriesBatch = Matrix(series, steps, values, present)
    if raw:
        offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
        matrix = SeriesBatch(series, offsets, np.broadcast_to(steps.ms, (n, 41))[present], values[present])
    found = json.loads(query_response(Answer("matrix", matrix)))["data"]["result"]
    assert [one["metric"]["i"] for one in found] == [f"{i:03d}" for i in range(n) if i not in (0, 5, 69)]
    for one in found:
        i = int(one["metric"]["i"])
        assert [float(v) for _, v in one["values"]] == values[i][present[i]].tolist()
        assert [t * 1000 for t, _ in one["values"]] == steps.ms[present[i]].tolist()


def test_text_of_single_numbers() -> None:
    assert [go_text(v) for v in (0.0, -0.0, 1e-7, 1e-6, 1e20, 1e21, 1.5, math.nan, -math.inf)] == [
        "0", "-0", "1e-07", "0.000001", "100000000000000000000", "1e+21", "1.5", "NaN", "-Inf",
    ]  # fmt: skip
    assert [seconds(t) for t in (0, 1, -1, 1500, -1500)] == ["0", "0.001", "-0.001", "1.500", "-1.500"]

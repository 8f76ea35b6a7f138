"""`Result` as series, frames, Arrow, HTML and JSON, from answers of the engine and from the JSON of a server."""

import importlib
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import matplotlib
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from promql.answer import Answer
from promql.histogram.buckets import bucket_rows
from promql.matrix import Matrix, Scalar, Steps
from treering.http.histogram_json import HistogramBody, parse_histograms
from treering.http.json_text import histogram_texts, query_response
from treering.library.result import Result
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.histogram import Buckets, Histograms
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable

STEPS = Steps(1_700_000_000_000, 1_700_000_002_000, 1000)
ROWS = ({"__name__": "m", "job": "a", "value": "x"}, {"__name__": "m", "job": "b"})
PRESENT = np.array([[True, True, True], [False, True, False]])


def matrix() -> Answer:
    values = np.array([[1.0, 2.0, math.nan], [9, -math.inf, 9]])
    series = SeriesTable.of([Labels.of(row) for row in ROWS])
    return Answer("matrix", Matrix(series, STEPS, values, PRESENT), ("careful <b>",), ("noted",))


def histograms(schema: int = 1) -> Histograms:
    zero = np.zeros(1)
    positive = Buckets(np.array([0, 3]), np.array([-3, 0, 5], np.int32), np.array([2.0, 1.0, 1.5]))
    negative = Buckets(np.array([0, 1]), np.array([2], np.int32), np.array([4.0]))
    kinds = np.full(1, schema, np.int8), np.full(1, 3, np.uint8), np.zeros(1, bool)
    return Histograms(
        *kinds, zero + 9.5, zero + 5.5, zero + 1e-60, zero + 1, positive, negative, np.zeros(2, np.int64), np.empty(0)
    )


def with_native() -> Result:
    cells = np.array([[-1, 0, -1], [-1, 0, -1]])
    values = np.array([[1.0, math.nan, 3.0], [0, math.nan, 0]])
    series = SeriesTable.of([Labels.of(row) for row in ROWS])
    return Result.of(Answer("matrix", Matrix(series, STEPS, values, PRESENT, histograms(), cells)))


def test_a_sequence_of_series() -> None:
    r = Result.of(matrix(), expr="m")
    assert (len(r), r.kind, r.warnings, r.infos, r.expr) == (2, "matrix", ("careful <b>",), ("noted",), "m")
    assert [str(series) for series in r] == ['m{job="a", value="x"}', 'm{job="b"}']
    assert r[1].t_ms.tolist() == [1_700_000_001_000]
    assert r[1].times.tolist()[0].isoformat() == "2023-11-14T22:13:21"
    assert r[{"job": "a"}].values[:2].tolist() == [1.0, 2.0]
    assert (r[0]["job"], r[1]["value"], len(r[0])) == ("a", "", 3)
    with pytest.raises(KeyError, match="2 of 2 series have"):
        r[{"__name__": "m"}]
    with pytest.raises(IndexError):
        r[2]
    assert r.names() == ['{job="a", value="x"}', '{job="b"}']
    assert str(r).splitlines()[1] == 'm{job="b"} => -Inf @ 2023-11-14T22:13:21.000Z'


def test_scalars_strings_and_nothing() -> None:
    scalar = Result.of(Answer("scalar", Scalar(Steps.instant(5), np.array([2.5]))))
    assert (scalar.value, str(scalar), len(scalar)) == (2.5, "2.5", 1)
    assert json.loads(scalar.json())["data"]["result"] == [0.005, "2.5"]
    text = Result.of(Answer("string", "hi"))
    assert (text.value, str(text), len(text)) == ("hi", "hi", 0)
    empty = Result.of(Answer("vector", Matrix.empty(Steps.instant(0))))
    assert len(empty) == 0 and list(empty) == []
    assert empty.to_pandas().columns.tolist() == ["time", "value"]
    assert empty.wide().shape == (0, 0)
    assert pl.DataFrame(empty).shape == (0, 2)
    with pytest.raises(ValueError, match="no single value"):
        _ = empty.value


def test_numpy() -> None:
    times, values, labels = Result.of(matrix()).to_numpy()
    assert times.dtype == np.dtype("datetime64[ms]") and len(times) == 3
    np.testing.assert_array_equal(values, [[1, 2, math.nan], [math.nan, -math.inf, math.nan]])
    assert labels == list(ROWS)


def test_pandas_long_and_wide() -> None:
    r = Result.of(matrix())
    long = r.to_pandas()
    assert long.columns.tolist() == ["time", "value", "__name__", "job", "label_value"]
    assert str(long.dtypes["time"]) == "datetime64[ms, UTC]"
    assert isinstance(long.dtypes["job"], pd.CategoricalDtype)
    assert long.groupby("job", observed=True)["value"].count().to_dict() == {"a": 2, "b": 1}
    assert long["label_value"].isna().tolist() == [False, False, False, True]
    wide = r.wide()
    assert str(wide.index.tz) == "UTC" and wide.index.name == "time"
    assert wide['{job="b"}'].tolist()[1] == -math.inf
    pd.testing.assert_frame_equal(wide, r.to_pandas(shape="wide"))
    with pytest.raises(ValueError, match="'sideways'"):
        r.to_pandas(shape="sideways")


def test_the_arrow_stream_is_read_by_polars_pyarrow_duckdb_and_pandas(tmp_path: Path) -> None:
    r = Result.of(matrix())
    frame = pl.DataFrame(r)
    assert frame.columns == ["time", "__name__", "job", "label_value", "value"]
    assert frame.schema["time"] == pl.Datetime("ms", "UTC")
    assert frame["job"].to_list() == ["a", "a", "a", "b"]
    assert r.to_polars().equals(frame)
    table = pa.table(r)
    assert table.schema.equals(r.to_arrow().schema)
    assert str(table) == str(r.to_arrow())
    assert table.to_pandas()["job"].tolist() == ["a", "a", "a", "b"]
    assert pd.DataFrame.from_arrow(r)["job"].tolist() == ["a", "a", "a", "b"]
    assert duckdb.sql("select job, count(*) from r group by job order by job").fetchall() == [("a", 3), ("b", 1)]
    r.to_parquet(str(tmp_path / "r.parquet"))
    assert pa.parquet.read_table(tmp_path / "r.parquet").to_pylist()[3]["job"] == "b"
    read = pa.ipc.open_stream(r.to_ipc()).read_all()
    assert str(read) == str(table)
    assert json.loads(read.schema.metadata[b"treering"])["warnings"] == ["careful <b>"]


def test_names_are_short() -> None:
    series = [Labels.of({"__name__": "m", "job": "x", "i": str(i)}) for i in range(2)]
    batch = SeriesBatch(SeriesTable.of(series), np.array([0, 1, 2]), np.array([1, 1]), np.array([1.0, 2.0]))
    assert Result.of_samples(batch).names() == ["0", "1"]
    assert Result.of_samples(batch.take(np.array([0]))).names() == ['m{i="0", job="x"}']
    assert Result("matrix", batch.take(np.array([0])), expr="sum(m)").names() == ["sum(m)"]


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_json_there_and_back(kind: str) -> None:
    answer = matrix()
    if kind == "vector":
        series = SeriesTable.of([Labels.of(row) for row in ROWS[::-1]])
        answer = Answer("vector", Matrix(series, Steps.instant(1500), np.array([[1.0], [1e-9]]), np.ones((2, 1), bool)))
    body = query_response(answer)
    assert Result.of(answer).json() == body
    read = Result.from_json(body)
    assert read.json() == body
    assert read.warnings == answer.warnings
    assert read.kind == kind
    if kind == "vector":
        assert [series["job"] for series in read] == ["b", "a"]
        assert [str(labels) for labels in read.to_batch().series.rows()] == ['m{job="a", value="x"}', 'm{job="b"}']


def test_scalars_and_strings_from_json() -> None:
    for answer in (Answer("scalar", Scalar(Steps.instant(1500), np.array([math.inf]))), Answer("string", "hi")):
        body = query_response(answer, at_ms=1500)
        assert Result.from_json(body).json() == body


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"status":"success","data":{"resultType":"odd","result":[]}}', b"<html>"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(BadData):
        Result.from_json(body)
    with pytest.raises(BadData, match="not an answer"):
        Result.from_json(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}')
    with pytest.raises(QueryFailed, match="bad_data: no"):
        Result.from_json(b'{"status":"error","errorType":"bad_data","error":"no"}')


def test_native_histograms() -> None:
    r = with_native()
    assert r[0].histogram_at is not None and r[0].histogram_at.tolist() == [-1, 0, -1]
    assert json.loads(r.to_pandas()["histogram"].dropna().tolist()[0])["count"] == "9.5"
    assert pl.DataFrame(r)["histogram"].is_null().to_list() == [True, False, True, False]
    read = Result.from_json(r.json())
    assert read.json() == r.json()
    assert read[0].values[[0, 2]].tolist() == [1.0, 3.0]
    assert "histogram" in r._repr_html_()


@pytest.mark.parametrize("schema", [-4, 0, 3, 8])
def test_histograms_back_from_json_keep_their_schema(schema: int) -> None:
    one = histograms(schema)
    read = parse_histograms([msgspec.json.decode(text, type=HistogramBody) for text in histogram_texts(one)])
    assert read.schema.tolist() == [schema]
    for side in ("positive", "negative"):
        assert getattr(read, side).index.tolist() == getattr(one, side).index.tolist()
    assert (read.zero_threshold.tolist(), read.zero_count.tolist()) == ([1e-60], [1.0])


def test_custom_buckets_back_from_json() -> None:
    zero = np.zeros(1)
    positive, nothing = Buckets(np.array([0, 3]), np.array([0, 1, 3], np.int32), np.array([2.0, 1.0, 1.5])), Buckets.empty(1)
    kinds, bounds = (
        (np.full(1, -53, np.int8), np.zeros(1, np.uint8), np.zeros(1, bool)),
        (np.array([0, 3]), np.array([0.5, 1.0, 7.0])),
    )
    one = Histograms(*kinds, zero + 4.5, zero + 5.5, zero, zero, positive, nothing, *bounds)
    read = parse_histograms([msgspec.json.decode(text, type=HistogramBody) for text in histogram_texts(one)])
    assert read.schema.tolist() == [-53]
    for column in ("lower", "upper", "counts"):
        assert getattr(bucket_rows(read), column).tolist() == getattr(bucket_rows(one), column).tolist()


def test_html_escapes_foreign_text() -> None:
    evil = '<script>alert("x")</script>'
    series = SeriesTable.of([Labels.of({"__name__": evil, "a": "'><img>"}), Labels.of({"a": "b" * 500})])
    values = np.array([[1.0, 1e308, -1e308], [1.0, math.nan, 2.0]])
    page = Result.of(Answer("matrix", Matrix(series, STEPS, values, np.ones((2, 3), bool)), (evil,)))._repr_html_()
    assert "<script" not in page and "<img" not in page
    assert page.count("<polyline") == 2 and "nan" not in page
    ElementTree.fromstring(page.replace("&lt;", "").replace("&#x27;", ""))
    assert evil not in Result.of(Answer("string", evil))._repr_html_()


def test_html_shows_the_first_series_only() -> None:
    series = SeriesTable.of([Labels.of({"i": f"{i:03d}"}) for i in range(50)])
    page = Result.of(Answer("matrix", Matrix(series, STEPS, np.ones((50, 3)), np.ones((50, 3), bool))))._repr_html_()
    assert page.count("<tr>") == 21 and "30 more series" in page


def test_plot() -> None:
    matplotlib.use("Agg")
    ax = Result.of(matrix(), expr="rate(m[$x])").plot()
    assert [line.get_label() for line in ax.get_lines()] == ['{job="a", value="x"}', '{job="b"}']
    assert ax.get_title() == r"rate(m[\$x])"
    assert len(ax.get_lines()[0].get_ydata()) == 2
    assert Result.of(matrix()).plot(ax) is ax


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [("to_pandas", "pandas", "pandas"), ("to_arrow", "pyarrow", "arrow"), ("to_polars", "polars", "polars")],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, method: str, package: str, extra: str) -> None:
    def refuse(name: str, package: str | None = None) -> object:
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named {name!r}")
        return known(name, package)

    missing = package
    known = importlib.import_module
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'treering\[{extra}\]'"):
        getattr(Result.of(matrix()), method)()

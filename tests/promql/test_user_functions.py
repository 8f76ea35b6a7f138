from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from promql import user_functions
from promql.answer import Answer
from promql.engine import QueryOptions, query_instant, query_range
from promql.explain import explain
from promql.matrix import Matrix, Steps
from promql.syntax.ast import Definition
from promql.syntax.errors import ParseError
from promql.syntax.parser import parse
from promql.syntax.printer import format_expr, to_json
from promql.syntax.typecheck import ALL_FEATURES
from promql.user_functions import define, kind_of
from tests.promql.memory import source_of, texts
from tsdb.model.errors import BadData, QueryFailed

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

STEPS = Steps(20_000, 60_000, 20_000)
SCRIPT = """load 10s
  x{job="a", i="1"} 1 2 3 4 5 6 7
  x{job="a", i="2"} 10 20 _ _ _ 60 stale
  x{job="b", i="1"} 0+1x6
"""


def scaled(values: F64, factor: F64, offset: F64 | float = 0.0) -> F64:
    """The values times a factor, plus an offset."""
    return values * factor + offset


def spread(values: F64, group: I64, groups: int) -> F64:
    """The largest minus the smallest value of each group."""
    out = np.full((groups, values.shape[1]), np.nan)
    for g in range(groups):
        mine = values[group == g]
        some = ~np.isnan(mine).all(axis=0)
        out[g, some] = np.nanmax(mine[:, some], axis=0) - np.nanmin(mine[:, some], axis=0)
    return out


def power_sum(t_ms: I64, values: F64, offsets: I64, power: F64) -> F64:
    """The sum of a power of the samples."""
    return np.add.reduceat(values ** np.repeat(power, np.diff(offsets)), offsets[:-1])


def largest_share(values: F64, group: I64, groups: int, share: F64) -> F64:
    """A share of the sum of each group."""
    out = np.zeros((groups, values.shape[1]))
    np.add.at(out, group, np.nan_to_num(values))
    return out * share


def tagged(values: F64, text: str) -> F64:
    """The length of a text everywhere."""
    return np.full(values.shape, float(len(text)))


OWN = (
    define("scaled", scaled, "instant"),
    define("spread", spread, "aggregate"),
    define("power_sum", power_sum, "over_time"),
    define("largest_share", largest_share, "aggregate"),
    define("tagged", tagged, "instant"),
)


def ask(query: str, *more: Definition, size: int = 1) -> dict[str, list[float | None]]:
    options = QueryOptions(features=ALL_FEATURES, functions=(*OWN, *more))
    return cells(query_range(source_of(SCRIPT, size), query, STEPS, options))


def cells(answer: Answer) -> dict[str, list[float | None]]:
    assert isinstance(answer.value, Matrix)
    rows = np.where(answer.value.present, answer.value.values, np.nan).tolist()
    return {text: [None if v != v else v for v in row] for text, row in zip(texts(answer.value.series), rows, strict=True)}


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("scaled(x, 2)", "x * 2"),
        ("scaled(x, 2, time())", "x * 2 + time()"),
        ("scaled(x{i='1'} @ 30, 1 + 1)", "x{i='1'} @ 30 * 2"),
        ("spread by (job) (x)", "max by (job) (x) - min by (job) (x)"),
        ("spread(x)", "max(x) - min(x)"),
        ("spread without (i) (x) > 3", "max without (i) (x) - min without (i) (x) > 3"),
        ("largest_share by (job) (0.5, x)", "sum by (job) (x) * 0.5"),
        ("power_sum(x[20s], 1)", "sum_over_time(x[20s])"),
        ("power_sum(x{i='1'}[20s], 2)", "sum_over_time((x{i='1'} * x{i='1'})[20s:10s])"),
        ("sum by (job) (power_sum(x[20s] offset 10s, 1))", "sum by (job) (sum_over_time(x[20s] offset 10s))"),
        ("power_sum((x * 2)[40s:10s], 1)", "sum_over_time((x * 2)[40s:10s])"),
        ("power_sum(x[20s], scalar(x{job='b'} / x{job='b'}))", "sum_over_time(x[20s])"),
        ("scaled(scaled(x, 2), 3) + scaled(x, 2)", "x * 6 + x * 2"),
        ("tagged(x, 'four')", "x * 0 + 4"),
        ("scaled(nothing, 2)", "nothing"),
        ("spread(nothing)", "nothing"),
        ("power_sum(nothing[1m], 2)", "nothing"),
    ],
)
def test_in_queries(query: str, same: str, size: int) -> None:
    found, wanted = ask(query, size=size), ask(same, size=size)
    assert found.keys() == wanted.keys()
    for series, row in wanted.items():
        assert found[series] == pytest.approx(row)


def test_many_windows_in_bounded_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def count(t_ms: I64, values: F64, offsets: I64) -> F64:
        """Samples in each window."""
        assert len(t_ms) == len(values) == offsets[-1] and offsets[0] == 0 and np.all(np.diff(offsets) > 0)
        sizes.append(len(t_ms))
        return np.diff(offsets).astype(float)

    monkeypatch.setattr(user_functions, "MAX_WINDOW_SAMPLES", 5)
    assert ask("window_size(x[40s])", define("window_size", count, "over_time")) == ask("count_over_time(x[40s])")
    assert len(sizes) > 3 and max(sizes) <= 5


def test_a_name_that_is_not_called_is_a_metric_or_a_label() -> None:
    script = 'load 10s\n  spread{scaled="1"} 1 2 3 4 5 6 7'
    options = QueryOptions(features=ALL_FEATURES, functions=OWN)
    calls = "spread(spread{scaled='1'}) + spread(spread)"
    for query in ("spread", "sum by (scaled) (spread)", 'spread{scaled="1"}', calls, "scaled or spread"):
        assert isinstance(query_instant(source_of(script), query, 20_000, options).value, Matrix)


def test_only_who_has_registered_it_may_call_it() -> None:
    with pytest.raises(ParseError, match='unknown function with name "scaled"'):
        parse("scaled(x, 2)")
    assert parse("scaled(x, 2)", functions=OWN) != parse("abs(x)")
    with pytest.raises(ParseError, match='unknown function with name "scaled"'):
        parse("scaled(x, 2)")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("scaled(x)", r"expected 2 to 3 argument\(s\) in call to \"scaled\", got 1"),
        ("scaled(x, 1, 2, 3)", r"expected 2 to 3 argument\(s\)"),
        ("scaled(x[5m], 1)", 'expected type instant vector in call to function "scaled", got range vector'),
        ("scaled(x, x)", "expected type scalar"),
        ("tagged(x, 1)", "expected type string"),
        ("power_sum(x, 1)", "expected type range vector"),
        ("spread(1, x)", "wrong number of arguments for aggregate expression provided, expected 1, got 2"),
        ("largest_share(x)", "wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("spread(x[5m])", "expected type instant vector in aggregation expression"),
        ("scaled by (job) (x, 2)", "unexpected <by>"),
    ],
)
def test_arguments_are_checked(query: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(query, functions=OWN)


def broken(values: F64) -> F64:
    """Never works."""
    raise KeyError("no such key")


def flat(values: F64) -> F64:
    """The wrong shape."""
    return values[0]


def wordy(values: F64) -> object:
    """No numbers."""
    return np.full(values.shape, "text")


def greedy(t_ms: I64, values: F64, offsets: I64) -> F64:
    """One value too many."""
    return np.zeros(len(offsets))


def lost(values: F64, group: I64, groups: int) -> F64:
    """A group too few."""
    return np.zeros((groups - 1, values.shape[1]))


@pytest.mark.parametrize(
    ("function", "kind", "query", "message"),
    [
        (broken, "instant", "it(x)", "function it: KeyError: 'no such key'"),
        (flat, "instant", "it(x)", r"function it returned an array of shape \(3,\), want \(3, 3\)"),
        (wordy, "instant", "it(x)", "function it: ValueError: could not convert string to float"),
        (greedy, "over_time", "it(x[20s])", r"function it returned an array of shape \(\d+,\), want \(\d+,\)"),
        (lost, "aggregate", "it by (job) (x)", r"function it returned an array of shape \(1, 3\), want \(2, 3\)"),
    ],
)
def test_what_goes_wrong_inside_names_the_function(function: Callable[..., object], kind: str, query: str, message: str) -> None:
    with pytest.raises(QueryFailed, match=message):
        ask(query, define("it", function, kind))


def test_a_function_cannot_spoil_what_others_read() -> None:
    def zeroed(values: F64) -> F64:
        """Overwrites its argument."""
        values[:] = 0
        return values

    assert ask("zeroed(x) + x", define("zeroed", zeroed, "instant")) == ask("0 * x + x")


def test_native_histograms_are_left_out() -> None:
    script = 'load 10s\n  x{i="1"} {{schema:0 count:1 buckets:[1]}}x6\n  x{i="2"} 1 2 3 4 5 6 7'
    for query in ("scaled(x, 2)", "spread by (i) (x)", "power_sum(x[20s], 1)"):
        answer = query_range(source_of(script), query, STEPS, QueryOptions(functions=OWN))
        assert list(cells(answer)) == ['{i="2"}']
        assert answer.infos == (f"PromQL info: ignored histograms in call to function {query.split()[0].split('(')[0]} (1:1)",)


@pytest.mark.parametrize("name", ["Scaled", "a-b", "", "ü", "a:b", "1a", "x" * 65])
def test_names_that_no_function_can_have(name: str) -> None:
    with pytest.raises(BadData, match="want lower-case letters"):
        define(name, scaled, "instant")


@pytest.mark.parametrize("name", ["rate", "sum", "topk", "by", "offset", "and", "info", "nan", "step"])
def test_words_of_the_language_stay(name: str) -> None:
    with pytest.raises(BadData, match="PromQL has this word already"):
        define(name, scaled, "instant")


def no_doc(values: F64) -> F64:
    return values


def open_arity(values: F64, *more: F64) -> F64:
    """Any number."""
    return values


def two_shares(values: F64, group: I64, groups: int, a: F64, b: F64) -> F64:
    """Two parameters."""
    return values


def by_name(values: F64, *, how: str) -> F64:
    """Only by name."""
    return values


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (scaled, "range", "kind 'range' is not known, want 'instant', 'over_time', 'aggregate'"),
        (no_doc, "instant", "no docstring"),
        (open_arity, "instant", "number of its arguments is open"),
        (by_name, "instant", "can only be given by name"),
        (two_shares, "aggregate", "an aggregate takes at most one more parameter"),
        (tagged, "over_time", "it is given \\(t_ms, values, offsets\\), but takes 2 arguments"),
        (7, "instant", "cannot be called"),
    ],
)
def test_functions_that_cannot_be_taken(function: Callable[..., object], kind: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        define("it", function, kind)


def test_the_kind_follows_from_the_names_of_the_parameters() -> None:
    assert [kind_of(function) for function in (scaled, power_sum, spread)] == ["instant", "over_time", "aggregate"]
    with pytest.raises(BadData, match=r"has the parameters \(a, b\); want \(values, …\) for instant"):
        kind_of(lambda a, b: a)


def test_trees_with_them_can_be_printed_and_explained() -> None:
    expr = parse("spread by (job) (scaled(x, 2))", functions=OWN)
    assert format_expr(expr) == "spread by (job) (scaled(x, 2))"
    tree = to_json(parse("scaled(x, 2)", functions=OWN))
    assert isinstance(tree, dict)
    assert tree["func"] == {"name": "scaled", "argTypes": ["vector", "scalar", "scalar"], "variadic": 1, "returnType": "vector"}
    source = source_of(SCRIPT)
    source.series = lambda selection: source.batches[0].series  # type: ignore[method-assign]
    told = str(explain(source, "power_sum(x[20s], 2)", STEPS, QueryOptions(functions=OWN)))
    assert told.splitlines()[0].startswith("power_sum(x[20s], 2)") and "read x" in told

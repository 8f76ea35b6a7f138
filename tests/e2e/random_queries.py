"""Random well-typed queries over `random_data`, in the language that Prometheus 2.42 and 3 have in common.

Half of them are drawn from the shared grammar of `tests.promql.expressions`, any operand beside any other; the other half
from a grammar that knows the data, so that joins find partners, histograms their buckets, and answers are seldom empty.

All ranges, offsets, evaluation times and subqueries keep clear of one another: subqueries look at multiples of 30 s, and
no window has such an edge. STEP_PHASE_S + a range is never a multiple of 30 s.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.e2e.random_data import LENGTH_MS, START_MS
from tests.promql.expressions import Vocabulary, instant_vectors, scalars

Text = SearchStrategy[str]

STEP_PHASE_S = 4
"""Seconds past a multiple of 30 s at which everything is evaluated."""
ROUND = 50
"""Queries drawn with one seed."""
INSTANT_S = (START_MS + LENGTH_MS * 2 // 3) // 30_000 * 30 + STEP_PHASE_S
RANGE_S, STEPS_S = (INSTANT_S - 1500, INSTANT_S + 900), (60, 90, 150)

RANGES = ("41s", "1m1s", "2m7s", "5m3s", "10m1s", "17m3s")
OFFSETS = ("", "", "", "", " offset 1m", " offset 7m30s", " offset -2m")
TIMES = ("", "", "", f" @ {INSTANT_S - 600}", " @ start()", " @ end()")

METRICS = {
    "req_total": ("job", "instance", "code"),
    "err_total": ("job", "instance"),
    "temp": ("job", "instance", "zone"),
    "mem_bytes": ("job", "instance"),
    "build_info": ("job", "instance", "version"),
    "quota": ("job",),
    "queue": ("job", "dc"),
    "flat": ("job", "shard"),
    "lat_bucket": ("job", "le"),
    "lat_count": ("job",),
    "lat_sum": ("job",),
    "size_bucket": ("job", "le"),
    "odd": ("job", "text"),
    "sparse": ("job",),
    "late": ("job",),
    "nothing": ("job",),
}
MATCHERS = {
    "job": ('="api"', '!="api"', '=~"api|db"', '!~"w.*"', '=~".+"', '=""', '!=""'),
    "instance": ('="a:1"', '=~"b.*"', '!="b:2"'),
    "code": ('="200"', '=~"5.."'),
    "zone": ('=~"[xy]"',),
    "version": ('!~"v0.*"',),
    "dc": ('="eu"',),
    "shard": ('!="1"', '=~"0|2"'),
    "le": ('="0.5"', '!="+Inf"', '=~"0.*"'),
    "text": ('="quo\\"te"', '=~"[a-z]+.*"', '="ünïcode"', '!="1"'),
}
MATH = (
    "abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "round", "timestamp",
)  # fmt: skip
CALENDAR = ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
WINDOWED = (
    "rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "avg_over_time", "sum_over_time", "min_over_time",
    "max_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time",
    "absent_over_time",
)  # fmt: skip
SMOOTHING = "double_exponential_smoothing"
"""`holt_winters` in Prometheus 2."""
AGGREGATORS = ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")
ARITHMETIC, COMPARISONS = ("+", "-", "*", "/", "%", "^", "atan2"), ("==", "!=", "<", "<=", ">", ">=")
NUMBERS = ("0", "1", "2", "-3", "0.5", "1e3", "NaN", "Inf", "-Inf", "0x1F", ".25", "pi()")

VOCABULARY = Vocabulary(
    metrics=tuple(METRICS)[:-1], labels=("job", "instance", "code", "le"), values=("api", "db", "a:1", "200", "0.5")
)


@dataclass(frozen=True, slots=True)
class Question:
    """A query, to be asked at INSTANT_S and, unless `instant_only`, over RANGE_S."""

    text: str
    step_s: int
    instant_only: bool = False


def questions(count: int, *, first_seed: int = 0) -> list[Question]:
    """`count` different questions, the same for the same seed."""
    found: dict[str, Question] = {}
    number = first_seed
    while len(found) < count:
        for text in _draw(number):
            question = Question(
                text, STEPS_S[len(found) % len(STEPS_S)], text.endswith("]") or text.startswith(("sort(", "sort_desc("))
            )
            found.setdefault(text, question)
        number += 1
    return list(found.values())[:count]


def _draw(number: int) -> Iterator[str]:
    """The queries of one seed."""
    texts: list[str] = []

    @seed(number)
    @settings(max_examples=ROUND, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(queries())
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return iter(texts)


def queries() -> Text:
    """Whole queries: mostly vectors, some scalars, sorted vectors and range vectors."""
    shared = _clear_of_edges(instant_vectors(VOCABULARY, depth=2))
    known, own = vectors(3), st.builds("{}({})".format, st.sampled_from(("sort", "sort_desc")), vectors(1)) | ranges(1)
    return st.one_of(
        *[_clear_of_edges(texts) for texts in (known, known, known, known, vectors(2), own)], shared,
        _clear_of_edges(scalars(VOCABULARY, depth=2)),
    )  # fmt: skip


@st.composite
def vectors(draw: DrawFn, depth: int) -> str:
    """An instant vector."""
    makers: tuple[Callable[[DrawFn, int], str], ...] = (_leaf,) if depth == 0 else _MAKERS
    return draw(st.sampled_from(makers))(draw, depth)


@st.composite
def ranges(draw: DrawFn, depth: int) -> str:
    """A range vector: a range selector or a subquery."""
    if depth == 0 or draw(st.integers(0, 2)):
        return _selector(draw, f"[{draw(st.sampled_from(RANGES))}]")
    step = draw(st.sampled_from(("30s", "1m", "")))
    inner = draw(vectors(depth - 1))
    shift = draw(st.sampled_from(OFFSETS)) + draw(st.sampled_from(TIMES))
    return f"({inner})[{draw(st.sampled_from(RANGES[2:]))}:{step}]{shift}"


def _selector(draw: DrawFn, window: str = "", metric: str = "") -> str:
    metric = metric or draw(st.sampled_from(tuple(METRICS)))
    labels = METRICS[metric]
    chosen = draw(st.lists(st.sampled_from(labels), max_size=1, unique=True)) if draw(st.booleans()) else []
    matchers = [f"{label}{draw(st.sampled_from(MATCHERS[label]))}" for label in chosen]
    text = f"{metric}{{{','.join(matchers)}}}" if matchers else metric
    return text + window + draw(st.sampled_from(TIMES)) + draw(st.sampled_from(OFFSETS))


def _leaf(draw: DrawFn, depth: int) -> str:
    if draw(st.booleans()):
        return _selector(draw)
    return f"{draw(st.sampled_from(WINDOWED))}({draw(ranges(0))})"


def _math(draw: DrawFn, depth: int) -> str:
    return f"{draw(st.sampled_from(MATH))}({draw(vectors(depth - 1))})"


def _windowed(draw: DrawFn, depth: int) -> str:
    """A function of a range vector, those with parameters included."""
    inner = draw(ranges(depth))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return f"quantile_over_time({draw(st.sampled_from(('0', '0.3', '0.99', '1', '-1', '2')))}, {inner})"
    if kind == 1:
        return f"predict_linear({inner}, {draw(st.sampled_from(('60', '-300', '3600')))})"
    if kind == 2:
        return f"{SMOOTHING}({inner}, {draw(st.sampled_from(('0.1', '0.5')))}, {draw(st.sampled_from(('0.3', '0.9')))})"
    return f"{draw(st.sampled_from(WINDOWED))}({inner})"


def _calendar(draw: DrawFn, depth: int) -> str:
    argument = draw(st.sampled_from(("timestamp(quota)", "mem_bytes", "vector(time())", "flat * 1e8", "")))
    return f"{draw(st.sampled_from(CALENDAR))}({argument})"


def _aggregate(draw: DrawFn, depth: int) -> str:
    return f"{draw(st.sampled_from(AGGREGATORS))}{_grouping(draw)} ({draw(vectors(depth - 1))})"


def _aggregate_with(draw: DrawFn, depth: int) -> str:
    """Aggregations with a parameter; topk over values that differ."""
    grouping, inner = _grouping(draw), draw(vectors(depth - 1))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return f'count_values{grouping}("{draw(st.sampled_from(("v", "job")))}", {inner})'
    if kind == 1:
        return f"quantile{grouping} ({draw(st.sampled_from(('0', '0.4', '0.9', '1', '-0.5', '1.5', 'NaN')))}, {inner})"
    name, k = draw(st.sampled_from(("topk", "bottomk"))), draw(st.sampled_from(("1", "2", "5", "0", "-1")))
    return f"{name}{grouping} ({k}, {_selector(draw, metric=draw(st.sampled_from(('mem_bytes', 'lat_count', 'err_total'))))})"


def _grouping(draw: DrawFn) -> str:
    if not draw(st.integers(0, 3)):
        return ""
    labels = draw(st.lists(st.sampled_from(tuple(MATCHERS)), max_size=3, unique=True))
    return f" {draw(st.sampled_from(('by', 'by', 'without')))} ({', '.join(labels)})"


def _with_scalar(draw: DrawFn, depth: int) -> str:
    operator = draw(
        st.sampled_from(ARITHMETIC) | st.builds("{}{}".format, st.sampled_from(COMPARISONS), st.sampled_from(("", " bool")))
    )
    one, other = draw(vectors(depth - 1)), draw(st.sampled_from((*NUMBERS, "time()", "scalar(quota)", 'scalar(queue{dc="us"})')))
    return f"({one} {operator} {other})" if draw(st.booleans()) else f"({other} {operator} {one})"


def _join(draw: DrawFn, depth: int) -> str:
    """Two vectors, grouped so that each side has one partner."""
    labels = draw(st.sampled_from(("job", "job, instance")))
    sides = [f"{draw(st.sampled_from(AGGREGATORS))} by ({labels}) ({draw(vectors(depth - 1))})" for _ in range(2)]
    matching = draw(st.sampled_from(("", f" on ({labels})", " ignoring (code)", " on ()")))
    if draw(st.booleans()):
        operator = draw(st.sampled_from(("and", "or", "unless")))
    else:
        operator = draw(
            st.sampled_from(ARITHMETIC) | st.builds("{}{}".format, st.sampled_from(COMPARISONS), st.sampled_from(("", " bool")))
        )
    return f"({sides[0]} {operator}{matching} {sides[1]})"


def _group_left(draw: DrawFn, depth: int) -> str:
    """Many series beside one."""
    many = draw(vectors(depth - 1) | st.sampled_from(("req_total", "temp", "lat_bucket", "rate(req_total[5m3s])")))
    one = draw(
        st.sampled_from(("quota", "queue", "sum by (job) (mem_bytes)", "build_info", f"max by (job) ({draw(vectors(depth - 1))})"))
    )
    on = "job, instance" if one == "build_info" else "job"
    extra = draw(st.sampled_from(("", "()", "(dc)", "(version)", "(job)")))
    operator = draw(st.sampled_from((*ARITHMETIC, "==", "> bool", "<=", "!= bool")))
    if draw(st.booleans()):
        return f"({many} {operator} on ({on}) group_left{extra} {one})"
    return f"({one} {operator} on ({on}) group_right{extra} {many})"


def _sets(draw: DrawFn, depth: int) -> str:
    one, other = draw(vectors(depth - 1)), draw(vectors(depth - 1))
    matching = draw(st.sampled_from(("", " on (job)", " ignoring (code, zone)", " on ()", " on (instance, le)")))
    return f"({one} {draw(st.sampled_from(('and', 'or', 'unless')))}{matching} {other})"


def _any_pair(draw: DrawFn, depth: int) -> str:
    """Any two vectors; whether they match is for evaluation to find out."""
    operator = draw(st.sampled_from((*ARITHMETIC, *COMPARISONS)))
    return f"({draw(vectors(depth - 1))} {operator} {draw(vectors(depth - 1))})"


def _quantile(draw: DrawFn, depth: int) -> str:
    """Quantiles of classic histograms."""
    q = draw(st.sampled_from(("0", "0.1", "0.5", "0.99", "1", "-1", "2", "NaN", "scalar(quota)")))
    buckets = draw(
        st.sampled_from(("lat_bucket", "size_bucket", "rate(lat_bucket[5m3s])", "sum by (le) (increase(lat_bucket[2m7s]))"))
        | st.just(_selector(draw, metric="lat_bucket"))
    )
    return f"histogram_quantile({q}, {buckets})"


def _labels(draw: DrawFn, depth: int) -> str:
    inner = draw(vectors(depth - 1))
    source, target = draw(st.sampled_from((*MATCHERS, "none"))), draw(st.sampled_from(("dst", "job", "instance", "code")))
    if draw(st.booleans()):
        pattern, to = draw(
            st.sampled_from((("(.*)", "x-$1"), ("a(.*)", "$1"), (".*", ""), ("(?P<n>[a-z])(.*)", "${n}_$2"), ("no", "yes")))
        )
        return f'label_replace({inner}, "{target}", "{to}", "{source}", "{pattern}")'
    return f'label_join({inner}, "{target}", "{draw(st.sampled_from(("-", "", "é")))}", "job", "{source}")'


def _odds(draw: DrawFn, depth: int) -> str:
    inner = draw(vectors(depth - 1))
    low, high = (draw(st.sampled_from(NUMBERS)) for _ in range(2))
    to = draw(st.sampled_from(("0.5", "10", "-3", "0", "NaN")))
    return draw(
        st.sampled_from(
            (
                f"clamp({inner}, {low}, {high})", f"clamp_min({inner}, {low})", f"clamp_max({inner}, {high})", f"absent({inner})",
                f"round({inner}, {to})", f"-({inner})", f"+({inner})", f"vector(scalar({inner}))", f"(({inner}))",
            )
        )
    )  # fmt: skip


_MAKERS: tuple[Callable[[DrawFn, int], str], ...] = (
    _leaf, _math, _windowed, _windowed, _windowed, _calendar, _aggregate, _aggregate, _aggregate_with, _with_scalar, _join, _join,
    _group_left, _group_left, _sets, _any_pair, _quantile, _labels, _odds,
)  # fmt: skip

_CLEAR = {"30s": "31s", "1m": "61s", "90s": "91s", "5m": "5m1s", "10m": "10m1s", "1h": "30m7s"}
_RANGE = re.compile(rf"\[({'|'.join(_CLEAR)})(?=[]:])")
_AT_60 = re.compile(r"@ 60\b")

_COUNTERS = ("req_total", "err_total", "late", "lat_bucket", "lat_count", "lat_sum", "size_bucket")
_RATE_OF_ANYTHING = re.compile(rf"\b(?:rate|increase)\((?!(?:{'|'.join(_COUNTERS)})\b)")
"""`rate` and `increase` of what is no counter: Prometheus 2 and 3 extrapolate them to zero differently."""


def _clear_of_edges(texts: Text) -> Text:
    """The same queries with windows that end nowhere near a sample or a step."""

    def moved(text: str) -> str:
        text = _AT_60.sub(f"@ {INSTANT_S - 900}", _RANGE.sub(lambda found: "[" + _CLEAR[found[1]], text))
        return _RATE_OF_ANYTHING.sub("delta(", text)

    return texts.map(moved)

"""Random well-typed queries as Hypothesis strategies, over metrics and labels that the caller names.

The grammar is that of Prometheus 2.42 unless `modern`; what depends on wall-clock time or on the order of equal values
(`time()`, `topk` and the like) is left out unless `unstable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Text = SearchStrategy[str]

_DURATIONS = ("30s", "1m", "90s", "5m", "10m", "1h")
_STEPS = st.sampled_from(("30s", "1m"))
_VECTOR_FUNCTIONS = (
    "abs",
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "sin",
    "cos",
    "atan",
    "deg",
    "round",
    "timestamp",
)
_RANGE_FUNCTIONS = (
    "rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "avg_over_time", "sum_over_time", "min_over_time",
    "max_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time",
)  # fmt: skip
_AGGREGATORS = ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What queries may speak of: metric names, label names, label values."""

    metrics: Sequence[str] = ("foo", "bar_total", "baz_bucket")
    labels: Sequence[str] = ("job", "instance", "le")
    values: Sequence[str] = ("a", "b", "api-server", "0.5")
    modern: bool = False
    unstable: bool = False


def instant_vectors(vocabulary: Vocabulary, *, depth: int = 3) -> Text:
    """Queries that evaluate to an instant vector."""
    leaf = _selectors(vocabulary) | _range_calls(vocabulary)
    if depth == 0:
        return leaf
    inner, scalar = instant_vectors(vocabulary, depth=depth - 1), scalars(vocabulary, depth=depth - 1)
    return st.one_of(
        leaf,
        st.builds("{}({})".format, st.sampled_from(_VECTOR_FUNCTIONS), inner),
        _aggregations(vocabulary, inner),
        _binaries(vocabulary, inner, scalar),
        st.builds("(-{})".format, st.builds("({})".format, inner)),
        st.builds("clamp({}, {}, {})".format, inner, scalar, scalar),
        st.builds("vector({})".format, scalar),
        st.builds("absent({})".format, inner),
        st.builds("{}(({})[{}:{}])".format, st.sampled_from(_RANGE_FUNCTIONS), inner, st.sampled_from(_DURATIONS), _STEPS),
        st.builds("label_replace({}, \"dst\", \"x-$1\", \"{}\", \"(.*)\")".format, inner, st.sampled_from(vocabulary.labels)),
        st.builds("histogram_quantile({}, {})".format, st.sampled_from(("0.5", "0.9", "1")), inner),
    )  # fmt: skip


def scalars(vocabulary: Vocabulary, *, depth: int = 2) -> Text:
    """Queries that evaluate to a scalar."""
    leaf = st.sampled_from(("0", "1", "-2", "0.25", "1e3", "NaN", "+Inf", "-Inf", "pi()"))
    if vocabulary.unstable:
        leaf |= st.just("time()")
    if depth == 0:
        return leaf
    inner = scalars(vocabulary, depth=depth - 1)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/%^"), inner),
        st.builds("({} {} bool {})".format, inner, st.sampled_from(("==", "<", ">=")), inner),
        st.builds("scalar({})".format, instant_vectors(vocabulary, depth=0)),
    )


def _selectors(vocabulary: Vocabulary) -> Text:
    return st.builds("{}{}{}".format, _names(vocabulary), _matchers(vocabulary), _modifiers())


def _range_calls(vocabulary: Vocabulary) -> Text:
    ranged = st.builds("{}{}[{}]{}".format, _names(vocabulary), _matchers(vocabulary), st.sampled_from(_DURATIONS), _modifiers())
    calls = st.builds("{}({})".format, st.sampled_from(_RANGE_FUNCTIONS), ranged)
    return calls | st.builds("quantile_over_time({}, {})".format, st.sampled_from(("0", "0.5", "0.99")), ranged)


def _names(vocabulary: Vocabulary) -> Text:
    return st.sampled_from(vocabulary.metrics)


def _matchers(vocabulary: Vocabulary) -> Text:
    value = st.sampled_from(vocabulary.values)
    one = st.one_of(
        st.builds('{}{}"{}"'.format, st.sampled_from(vocabulary.labels), st.sampled_from(("=", "!=")), value),
        st.builds('{}{}"{}|{}.*"'.format, st.sampled_from(vocabulary.labels), st.sampled_from(("=~", "!~")), value, value),
    )
    return st.lists(one, max_size=2).map(lambda found: "{" + ",".join(found) + "}" if found else "")


def _modifiers() -> Text:
    return st.sampled_from(("", "", "", " offset 1m", " offset -30s", " @ 60", " @ start()", " @ end() offset 30s"))


def _label_lists(vocabulary: Vocabulary) -> Text:
    return st.lists(st.sampled_from(vocabulary.labels), max_size=2, unique=True).map(", ".join)


def _aggregations(vocabulary: Vocabulary, inner: Text) -> Text:
    grouping = st.builds(" {} ({})".format, st.sampled_from(("by", "without")), _label_lists(vocabulary)) | st.just("")
    kinds = [
        st.builds("{}{} ({})".format, st.sampled_from(_AGGREGATORS), grouping, inner),
        st.builds("quantile{}({}, {})".format, grouping, st.sampled_from(("0.1", "0.5")), inner),
        st.builds('count_values{}("v", {})'.format, grouping, inner),
    ]
    if vocabulary.unstable:
        kinds.append(st.builds("{}{} (2, {})".format, st.sampled_from(("topk", "bottomk")), grouping, inner))
    if vocabulary.modern and vocabulary.unstable:
        kinds.append(st.builds("limitk{} (2, {})".format, grouping, inner))
    return st.one_of(*kinds)


def _binaries(vocabulary: Vocabulary, inner: Text, scalar: Text) -> Text:
    arithmetic, comparison = st.sampled_from(("+", "-", "*", "/", "%", "^", "atan2")), st.sampled_from(("==", "!=", "<", ">="))
    operator = arithmetic | st.builds("{}{}".format, comparison, st.sampled_from(("", " bool")))
    matching = st.builds(" {}({})".format, st.sampled_from(("on", "ignoring")), _label_lists(vocabulary)) | st.just("")
    if vocabulary.modern:
        matching = st.builds("{}{}".format, matching, st.sampled_from(("", "", " fill(0)", " fill_left(1)", " fill_right(-1)")))
    return st.one_of(
        st.builds("({} {} {})".format, inner, operator, scalar),
        st.builds("({} {} {})".format, scalar, operator, inner),
        st.builds("({} {}{} {})".format, inner, operator, matching, inner),
        st.builds(
            "({} {}{} {})".format,
            inner,
            st.sampled_from(("and", "or", "unless")),
            matching.map(lambda m: m.split(" fill")[0]),
            inner,
        ),
    )

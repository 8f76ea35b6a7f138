"""The functions of PromQL: argument types, arity, return type, and which of them are experimental, as of Prometheus 3.14."""

from dataclasses import dataclass

from promql.syntax.ast import ValueType

_SCALAR, _VECTOR, _MATRIX, _STRING = ValueType.SCALAR, ValueType.VECTOR, ValueType.MATRIX, ValueType.STRING


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives.

    `variadic` 0: exactly `args`; n > 0: the last of `args` may be left out or stand up to n times; -1: any number of times.
    """

    args: tuple[ValueType, ...]
    variadic: int = 0
    returns: ValueType = _VECTOR
    experimental: bool = False


def signature(name: str) -> Signature | None:
    """The signature of function `name`, None if there is no such function."""
    return _SIGNATURES.get(name)


def _each(names: str, signature: Signature) -> dict[str, Signature]:
    return dict.fromkeys(names.split(), signature)


AGGREGATORS = frozenset({
    "sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "topk", "bottomk", "count_values", "quantile", "limitk",
    "limit_ratio",
})  # fmt: skip
PARAMETERS = {
    "topk": _SCALAR, "bottomk": _SCALAR, "quantile": _SCALAR, "limitk": _SCALAR, "limit_ratio": _SCALAR, "count_values": _STRING,
}  # fmt: skip
"""The aggregators with a parameter, and its type."""
EXPERIMENTAL_AGGREGATORS = frozenset({"limitk", "limit_ratio"})

_SIGNATURES: dict[str, Signature] = {
    **_each(
        "abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg histogram_count histogram_stddev "
        "histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan tanh timestamp",
        Signature((_VECTOR,)),
    ),
    **_each("day_of_month day_of_week day_of_year days_in_month hour minute month year", Signature((_VECTOR,), variadic=1)),
    **_each(
        "absent_over_time avg_over_time changes count_over_time delta deriv idelta increase irate last_over_time max_over_time "
        "min_over_time present_over_time rate resets stddev_over_time stdvar_over_time sum_over_time",
        Signature((_MATRIX,)),
    ),
    **_each(
        "first_over_time mad_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time",
        Signature((_MATRIX,), experimental=True),
    ),
    **_each("clamp_max clamp_min", Signature((_VECTOR, _SCALAR))),
    **_each("sort_by_label sort_by_label_desc", Signature((_VECTOR, _STRING), variadic=-1, experimental=True)),
    "start_timestamp": Signature((_VECTOR,), experimental=True),
    **_each("pi time", Signature((), returns=_SCALAR)),
    **_each("end range start step", Signature((), returns=_SCALAR, experimental=True)),
    **_each("max_of min_of", Signature((_SCALAR, _SCALAR), returns=_SCALAR, experimental=True)),
    "clamp": Signature((_VECTOR, _SCALAR, _SCALAR)),
    "double_exponential_smoothing": Signature((_MATRIX, _SCALAR, _SCALAR), experimental=True),
    "histogram_fraction": Signature((_SCALAR, _SCALAR, _VECTOR)),
    "histogram_quantile": Signature((_SCALAR, _VECTOR)),
    "histogram_quantiles": Signature((_VECTOR, _STRING, _SCALAR, _SCALAR), variadic=9, experimental=True),
    "info": Signature((_VECTOR, _VECTOR), variadic=1, experimental=True),
    "label_join": Signature((_VECTOR, _STRING, _STRING, _STRING), variadic=-1),
    "label_replace": Signature((_VECTOR, _STRING, _STRING, _STRING, _STRING)),
    "predict_linear": Signature((_MATRIX, _SCALAR)),
    "quantile_over_time": Signature((_SCALAR, _MATRIX)),
    "round": Signature((_VECTOR, _SCALAR), variadic=1),
    "scalar": Signature((_VECTOR,), returns=_SCALAR),
    "vector": Signature((_SCALAR,)),
}

FUNCTIONS = frozenset(_SIGNATURES)
"""The names of all functions."""

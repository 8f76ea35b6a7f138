"""Functions that a user brought, written with NumPy and called from PromQL by their name.

    kind         in a query                       the function is given                                        and returns
    instant      name(vector, scalar…)            values f64[n, k], NaN where absent; each scalar f64[k]        f64[n, k]
    over_time    name(vector[5m], scalar…)        t_ms i64[m], values f64[m], offsets i64[w+1]; each f64[w]     f64[w]
    aggregate    name by (l) (scalar, vector)     values f64[n, k], group i64[n], groups; maybe one f64[k]      f64[groups, k]

n series at k steps. Of `over_time` window i is rows offsets[i]:offsets[i+1] of the samples, at least one; many windows come in
one call, so that `np.add.reduceat(values, offsets[:-1])` sums all of them. Which cells are present is not the function's to say,
but for an aggregate, where NaN means absent. Parameters of the function beyond these are PromQL scalars, or strings where they
are annotated `str`; those with a default may be left out. Native histograms are left out, and an info says so.

A function must depend on its arguments only, for equal calls are made once.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.matrix import F64, I64, Matrix, Scalar, Value
from promql.matrix_rows import non_empty
from promql.names import mark
from promql.operators.grouping import grouped_labels
from promql.operators.set_operators import group_presence
from promql.syntax.ast import Aggregate, Call, Definition, Span, ValueType
from promql.syntax.lexer import KEYWORDS
from promql.syntax.signatures import FUNCTIONS
from promql.window.windows import Windows, bounds, only_floats, without_stale
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.series import SeriesBatch

LEADING = {
    "instant": ("values",),
    "over_time": ("t_ms", "values", "offsets"),
    "aggregate": ("values", "group", "groups"),
}
"""What each kind is given first; a function whose parameters begin with these names is of that kind."""

MAX_WINDOW_SAMPLES = 1 << 20
"""Samples, with those of overlapping windows told repeatedly, in one call of an over_time function: 16 MB."""
MAX_NAME_CHARS = 64
_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)


def define(name: str, function: Callable[..., object], kind: str) -> Definition:
    """The definition of a function under a name. BadData says what is wrong with the name, the kind or the function."""
    _check_name(name)
    if kind not in LEADING:
        raise BadData(f"function {name}: kind {kind!r} is not known, want {', '.join(map(repr, LEADING))}")
    if not callable(function):
        raise BadData(f"function {name}: {function!r} cannot be called")
    doc = inspect.getdoc(function) if inspect.isroutine(function) else inspect.getdoc(type(function))
    if not doc or not doc.strip():
        raise BadData(f"function {name}: it has no docstring; say in one what it returns")
    types, optional = _parameters(name, function, kind)
    if kind == "aggregate" and (len(types) > 1 or optional or ValueType.STRING in types):
        raise BadData(f"function {name}: an aggregate takes at most one more parameter, a scalar without a default")
    vector = ValueType.MATRIX if kind == "over_time" else ValueType.VECTOR
    return Definition(name, kind, function, (vector, *types), optional, doc)


def kind_of(function: Callable[..., object]) -> str:
    """The kind that the names of a function's first parameters tell. BadData if they tell none."""
    names = tuple(_signature(repr(function), function).parameters)
    for kind, leading in sorted(LEADING.items(), key=lambda item: -len(item[1])):
        if names[: len(leading)] == leading:
            return kind
    wanted = "; ".join(f"({', '.join(leading)}, …) for {kind}" for kind, leading in LEADING.items())
    raise BadData(f"{function!r} has the parameters ({', '.join(names)}); want {wanted}")


def instant(call: Call, args: Sequence[Value], notes: Annotations) -> Matrix:
    """A function of the kind "instant" over a whole vector; names are marked to go."""
    definition, vector = _definition(call), _vector(args[0])
    vector = _without_natives(vector, definition, call.span, notes)
    values = np.where(vector.present, vector.values, np.nan)
    out = _called(definition, (values, *_plain(args[1:])), values.shape)
    return mark(replace(vector, values=out, histograms=None, cells=None))


def over_time(
    call: Call, batches: Iterator[SeriesBatch], windows: Windows, args: Sequence[Value], notes: Annotations
) -> Iterator[Matrix]:
    """A function of the kind "over_time" over batches of whole series, its scalars and strings in `args`."""
    definition = _definition(call)
    for batch in batches:
        batch = without_stale(batch)
        if batch.histogram_at is not None and np.any(batch.histogram_at >= 0):
            notes.info(f"ignored histograms in call to function {definition.name}", call.span)
        batch = only_floats(batch)
        inside = bounds(batch, windows)
        present = inside.counts > 0
        values = np.full(present.shape, np.nan)
        values[present] = _over_windows(definition, batch, inside.lo[present], inside.hi[present], np.nonzero(present)[1], args)
        yield mark(non_empty(Matrix(batch.series, windows.steps, values, present)))


def aggregate(node: Aggregate, value: Matrix, param: Value | None, notes: Annotations) -> Matrix:
    """A function of the kind "aggregate"; groups stand in the order of their first series."""
    definition = _definition(node)
    value = _without_natives(value, definition, node.span, notes)
    labels = grouped_labels(node, value.series)
    group, first = labels.group()
    values = np.where(value.present, value.values, np.nan)
    shape = (len(first), len(value.steps))
    out = _called(definition, (values, group, len(first), *_plain([] if param is None else [param])), shape)
    present = group_presence(group, value.present, len(first)) & ~np.isnan(out)
    return non_empty(Matrix(labels.take(first), value.steps, out, present))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise BadData(f"function name {name!r}: want lower-case letters, digits and _, at most {MAX_NAME_CHARS} of them")
    if name in FUNCTIONS or name in KEYWORDS:
        raise BadData(f"function name {name!r}: PromQL has this word already")


def _signature(name: str, function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except (TypeError, ValueError, NameError) as error:
        raise BadData(f"function {name}: its parameters cannot be told: {error}") from None


def _parameters(name: str, function: Callable[..., object], kind: str) -> tuple[tuple[ValueType, ...], int]:
    """(types of the parameters after the leading ones, how many of them may be left out)."""
    positional = []
    for parameter in _signature(name, function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadData(f"function {name}: the number of its arguments is open (*{parameter.name}); name them")
        if parameter.kind != parameter.KEYWORD_ONLY:
            positional.append(parameter)
        elif parameter.default is parameter.empty:
            raise BadData(f"function {name}: {parameter.name} can only be given by name, which PromQL cannot")
    leading = LEADING[kind]
    if len(positional) < len(leading):
        raise BadData(f"function {name}: of kind {kind} it is given ({', '.join(leading)}), but takes {len(positional)} arguments")
    rest = positional[len(leading) :]
    types = tuple(ValueType.STRING if parameter.annotation is str else ValueType.SCALAR for parameter in rest)
    return types, sum(parameter.default is not parameter.empty for parameter in rest)


def _over_windows(definition: Definition, batch: SeriesBatch, lo: I64, hi: I64, step: I64, args: Sequence[Value]) -> F64:
    """f64[w]: the function over the windows of rows lo:hi i64[w], which are of the steps i64[w]."""
    out, before = np.empty(len(lo)), np.concatenate([[0], np.cumsum(hi - lo)])
    a = 0
    while a < len(lo):
        b = max(int(np.searchsorted(before, before[a] + MAX_WINDOW_SAMPLES, side="right")) - 1, a + 1)
        offsets = before[a : b + 1] - before[a]
        at = np.repeat(lo[a:b] - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
        scalars = [arg[step[a:b]] if isinstance(arg, np.ndarray) else arg for arg in _plain(args)]
        out[a:b] = _called(definition, (batch.t_ms[at], batch.values[at], offsets, *scalars), (b - a,))
        a = b
    return out


def _called(definition: Definition, args: Sequence[object], shape: tuple[int, ...]) -> F64:
    """What the function returns, checked. QueryFailed with the function's name for whatever goes wrong in it."""
    try:
        with np.errstate(all="ignore"):
            out = np.asarray(definition.function(*args), np.float64)
    except Exception as error:  # it is not our code: anything may come out of it
        raise QueryFailed(f"function {definition.name}: {type(error).__name__}: {error}") from error
    if out.shape != shape:
        raise QueryFailed(f"function {definition.name} returned an array of shape {out.shape}, want {shape}")
    return np.ascontiguousarray(out)


def _without_natives(vector: Matrix, definition: Definition, span: Span, notes: Annotations) -> Matrix:
    if not vector.natives.any():
        return vector
    notes.info(f"ignored histograms in call to function {definition.name}", span)
    return non_empty(replace(vector, present=vector.floats, histograms=None, cells=None))


def _plain(args: Sequence[Value]) -> list[F64 | str]:
    return [arg if isinstance(arg, str) else _scalar(arg).values.copy() for arg in args]


def _scalar(value: Value) -> Scalar:
    assert isinstance(value, Scalar), "the parser checks types"
    return value


def _vector(value: Value) -> Matrix:
    assert isinstance(value, Matrix), "the parser checks types"
    return value


def _definition(node: Call | Aggregate) -> Definition:
    assert node.definition is not None, "only calls of a user's functions come here"
    return node.definition

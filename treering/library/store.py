"""`Store`: the Python face of Treering, the same over a data folder, a bucket and a server."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from promql.explain import Explanation
from promql.syntax.ast import Definition
from promql.syntax.parser import parse_selector
from promql.user_functions import define
from treering.caret import carets
from treering.library.frame import batch_of_frame
from treering.library.listing import Sets
from treering.library.result import Result
from treering.node import Query
from treering.times import TimeLike, parse_resolution_ms, step_to_ms, to_ms
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.write import PushResult, WriteBatch

DEFAULT_STEPS = 500
"""A range query without a step gets about this many: enough for a wide plot."""

_NICE_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)

Matchers = str | Sequence[str] | None
"""One selector such as `up{job="node"}`, several (any may match), or None for every series."""


class Backend(Protocol):
    """What a store stands on: a node in this process, a bucket, or a server."""

    def query(self, query: Query, *, limit: int) -> Result: ...

    def explain(self, query: Query, *, analyze: bool) -> Explanation: ...

    def register(self, definition: Definition, *, replace: bool) -> None: ...

    def functions(self) -> Sequence[Definition]: ...

    def select(self, matchers: tuple[Matcher, ...], *, start_ms: int, end_ms: int) -> SeriesBatch: ...

    def series(self, sets: Sets, *, start_ms: int, end_ms: int, limit: int) -> list[Labels]: ...

    def label_values(self, name: str, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]: ...

    def labels(self, sets: Sets, *, start_ms: int, end_ms: int) -> list[str]: ...

    def push(self, batch: WriteBatch) -> PushResult: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of a `write`: samples stored, samples refused by reason, and the first refusal in words."""

    samples: int
    rejected: Mapping[str, int]
    message: str


class Store:
    """Metrics to ask and to write; made by `treering.open`. A context manager: closing flushes an embedded store."""

    def __init__(self, backend: Backend, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._backend = backend
        self._now_ms = now_ms

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def query(
        self,
        expr: str,
        at: TimeLike = "now",
        *,
        lookback: str | float | timedelta | None = None,
        downsample: str = "auto",
        limit: int = 0,
        timeout: float | None = None,
    ) -> Result:
        """The value of a PromQL expression at one time.

        `lookback` is how old a sample may be (5 minutes by default), `limit` the most series to return (0 = all), `timeout` in
        seconds. `downsample` is the coarsest downsampled data that may answer: "raw", "5m", "1h", or "auto": wherever it changes
        nothing (docs/downsampling.md). Raises BadData (with a caret under the mistake), QueryFailed, LimitExceeded or QueryTimeout.
        """
        at_ms = self._ms(at)
        lookback_ms = step_to_ms(lookback) if lookback else None
        query = Query(expr, at_ms, at_ms, 0, lookback_ms, timeout, resolution_ms=parse_resolution_ms(downsample, name="downsample"))
        with carets(expr):
            return self._backend.query(query, limit=limit)

    def query_range(
        self,
        expr: str,
        start: TimeLike = "-1h",
        end: TimeLike = "now",
        step: str | float | timedelta | None = None,
        *,
        lookback: str | float | timedelta | None = None,
        downsample: str = "auto",
        limit: int = 0,
        timeout: float | None = None,
        stats: bool = False,
    ) -> Result:
        """The values of a PromQL expression from `start` to `end`, both included, every `step`.

        Times are datetimes, epoch seconds, RFC 3339 text, "now", "-6h" or "now-1d/d". Without a step about 500 nice ones are taken.
        """
        query = self._range(expr, start, end, step, lookback=lookback, timeout=timeout, stats=stats)
        query = dataclasses.replace(query, resolution_ms=parse_resolution_ms(downsample, name="downsample"))
        with carets(expr):
            return self._backend.query(query, limit=limit)

    def explain(
        self,
        expr: str,
        at: TimeLike = "now",
        *,
        start: TimeLike | None = None,
        end: TimeLike = "now",
        step: str | float | timedelta | None = None,
        lookback: str | float | timedelta | None = None,
        downsample: str = "auto",
        timeout: float | None = None,
        analyze: bool = False,
    ) -> Explanation:
        """How a query is evaluated: its tree, and what each selector will read. `print` it, or walk `root`.

        An instant query at `at`, or with `start` a range query. `analyze` runs it and adds time and samples to each node.
        """
        if start is None:
            at_ms = self._ms(at)
            query = Query(expr, at_ms, at_ms, 0, step_to_ms(lookback) if lookback else None, timeout)
        else:
            query = self._range(expr, start, end, step, lookback=lookback, timeout=timeout, stats=False)
        query = dataclasses.replace(query, resolution_ms=parse_resolution_ms(downsample, name="downsample"))
        with carets(expr):
            return self._backend.explain(query, analyze=analyze)

    def register(self, name: str, function: Callable[..., object], kind: str = "instant", *, replace: bool = False) -> None:
        """Let queries of this store call a NumPy function by a name, at once.

        `kind` says what it is given: "instant" (values f64[n, k], NaN where absent) -> f64[n, k]; "over_time" (t_ms, values,
        offsets), the samples of w windows one after another -> f64[w]; "aggregate" (values f64[n, k], group i64[n], groups) ->
        f64[groups, k]. Further parameters are scalars of the query, f64[k] (f64[w] of windows), or strings if annotated `str`.
        BadData where there is no docstring, where the name is PromQL's or taken (unless `replace`), and for a server, whose
        configuration alone allows functions. See `promql.user_functions`.
        """
        self._backend.register(define(name, function, kind), replace=replace)

    def functions(self) -> dict[str, str]:
        """What has been registered: for each name how it is called, and the function's own words."""
        return {one.name: f"{one.name}({', '.join(one.args)})\n{one.doc}" for one in self._backend.functions()}

    def select(self, selector: str, start: TimeLike = "-1h", end: TimeLike = "now") -> Result:
        """The raw samples of the series that a selector names, in (start, end], stale markers left out; no PromQL evaluation."""
        start_ms, end_ms = self._ms(start), self._ms(end)
        return Result.of_samples(self._backend.select(_matchers(selector), start_ms=start_ms + 1, end_ms=end_ms + 1))

    def series(
        self, match: Matchers = None, start: TimeLike = "-1d", end: TimeLike = "now", *, limit: int = 0
    ) -> list[dict[str, str]]:
        """The label sets that match and may have samples in the range."""
        sets = _sets(match)
        return [row.as_dict() for row in self._backend.series(sets, start_ms=self._ms(start), end_ms=self._ms(end), limit=limit)]

    def labels(self, match: Matchers = None, start: TimeLike = "-1d", end: TimeLike = "now") -> list[str]:
        """The label names in use, ascending."""
        return self._backend.labels(_sets(match), start_ms=self._ms(start), end_ms=self._ms(end))

    def label_values(self, name: str, match: Matchers = None, start: TimeLike = "-1d", end: TimeLike = "now") -> list[str]:
        """The values of one label, ascending."""
        return self._backend.label_values(name, _sets(match), start_ms=self._ms(start), end_ms=self._ms(end))

    def metrics(self, prefix: str = "") -> list[str]:
        """The metric names that start with `prefix`."""
        return [name for name in self.label_values(METRIC_NAME) if name.startswith(prefix)]

    def write(self, frame: object, *, metric: str | None = None, time: str = "time", value: str = "value") -> WriteReport:
        """Store the rows of a DataFrame, an Arrow table or a dict of columns: a time column, a value column, labels in the rest.

        The metric name is `metric` or a column `__name__`. Times are datetime64 (UTC) or epoch seconds.
        """
        result = self._backend.push(batch_of_frame(frame, metric=metric, time=time, value=value))
        return WriteReport(result.samples, dict(result.rejected), result.message)

    def flush(self) -> None:
        """Write what is in memory into blocks."""
        self._backend.flush()

    def close(self) -> None:
        self._backend.close()

    def _range(
        self,
        expr: str,
        start: TimeLike,
        end: TimeLike,
        step: str | float | timedelta | None,
        *,
        lookback: str | float | timedelta | None,
        timeout: float | None,
        stats: bool,
    ) -> Query:
        start_ms, end_ms = self._ms(start), self._ms(end)
        if end_ms < start_ms:
            raise BadData(f"end {end!r} is before start {start!r}")
        step_ms = step_to_ms(step) if step is not None else nice_step_ms(end_ms - start_ms)
        if step_ms <= 0:
            raise BadData(f"step {step!r} is not positive")
        lookback_ms = step_to_ms(lookback) if lookback else None
        return Query(expr, start_ms, end_ms, step_ms, lookback_ms, timeout, stats="all" if stats else "")

    def _ms(self, moment: TimeLike) -> int:
        return to_ms(moment, now_ms=self._now_ms())


def nice_step_ms(range_ms: int) -> int:
    """The round step that gives at most DEFAULT_STEPS steps over a range."""
    least_s = range_ms / 1000 / DEFAULT_STEPS
    return next((step * 1000 for step in _NICE_STEPS_S if step >= least_s), int(least_s // 86400 + 1) * 86_400_000)


def _sets(match: Matchers) -> Sets:
    if match is None:
        return [()]
    return [_matchers(text) for text in ([match] if isinstance(match, str) else match)]


def _matchers(selector: str) -> tuple[Matcher, ...]:
    with carets(selector):
        return parse_selector(selector)

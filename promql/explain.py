"""How a query will be run, and how it was: the tree of its evaluation as data, and as text.

The plan is not described by a second set of rules. `explain` lets the engine itself evaluate the query over a source that has
nothing and notes what it is asked; `analyze` takes the statistics of a real run. What depends on the data shows only there.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime

from promql.answer import Answer, NodeStats, QueryOptions, ReadStats
from promql.engine import query_instant, query_range
from promql.matrix import Steps
from promql.syntax.ast import Aggregate, Binary, Call, NumberLiteral, StringLiteral
from promql.syntax.gotext import format_duration_ms
from promql.syntax.printer import format_expr
from tsdb.model.estimate import estimate
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source

MAX_TEXT = 120
"""Characters of a node's expression that are shown."""


@dataclass(frozen=True, slots=True)
class ExplainedRead:
    """One selection that a node asks of storage: samples in [start_ms, end_ms) of the series that match.

    Before a run `series`, `samples`, `pages`, `bytes` and `blocks` are estimates at most; samples in memory are not among them.
    `read_series`, `read_samples` and `batches` are what came, None before a run.
    """

    selector: str
    start_ms: int
    end_ms: int
    resolution_ms: int
    series: int
    samples: int
    blocks: int
    pages: int
    bytes: int
    block_resolutions_ms: tuple[int, ...]
    read_series: int | None = None
    read_samples: int | None = None
    batches: int | None = None


@dataclass(frozen=True, slots=True)
class ExplainedNode:
    """One node of the evaluation. `name` is its function, operator or kind; `text` its expression.

    `steps`: at how many times it is evaluated. `notes` say what the plan does with it. After a run: `seconds` with all below,
    `series` that it gave, `batches` that it gave them in, `samples` that its own selectors looked at.
    """

    name: str
    text: str
    steps: int
    notes: tuple[str, ...] = ()
    reads: tuple[ExplainedRead, ...] = ()
    seconds: float | None = None
    series: int | None = None
    batches: int | None = None
    samples: int | None = None
    children: tuple["ExplainedNode", ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A query with the tree of its evaluation; `analyzed` tells whether it was run. Its text is the tree."""

    query: str
    start_ms: int
    end_ms: int
    step_ms: int
    analyzed: bool
    root: ExplainedNode | None
    seconds: float | None = None
    samples: int | None = None
    peak_samples: int | None = None
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain(source: Source, query: str, steps: Steps | int, options: QueryOptions) -> Explanation:
    """What a query at steps, or an instant query at a time, will do. Errors are those of the query's text and steps.

    Costs the parsing, an evaluation of nothing, and for each selector an estimate of the source.
    """
    answer = _run(_Nothing(), query, steps, options, None, None, lambda: 0.0)
    return _explanation(source, query, steps, answer, analyzed=False)


def analyze(
    source: Source,
    query: str,
    steps: Steps | int,
    options: QueryOptions,
    *,
    clock: Callable[[], float],
    deadline: Callable[[], None] | None = None,
    executor: Executor | None = None,
) -> Explanation:
    """What a query did, having run it; arguments and errors are those of `engine.query_range`."""
    return _explanation(source, query, steps, _run(source, query, steps, options, deadline, executor, clock), analyzed=True)


class _Nothing:
    """A source without series."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return iter(())

    def series(self, selection: Selection) -> SeriesTable:
        return SeriesTable.empty()


def _run(
    source: Source,
    query: str,
    steps: Steps | int,
    options: QueryOptions,
    deadline: Callable[[], None] | None,
    executor: Executor | None,
    clock: Callable[[], float],
) -> Answer:
    if isinstance(steps, int):
        return query_instant(source, query, steps, options, deadline=deadline, executor=executor, clock=clock)
    return query_range(source, query, steps, options, deadline=deadline, executor=executor, clock=clock)


def _explanation(source: Source, query: str, steps: Steps | int, answer: Answer, *, analyzed: bool) -> Explanation:
    stats = answer.stats
    assert stats is not None, "the engine gives statistics with a clock"
    at = Steps.instant(steps) if isinstance(steps, int) else steps
    root = None if stats.root is None else _node(source, stats.root, len(at), analyzed=analyzed)
    step_ms = 0 if isinstance(steps, int) else steps.step_ms
    if not analyzed:
        return Explanation(query, at.start_ms, at.end_ms, step_ms, False, root)
    seconds = stats.preparation_s + stats.evaluation_s + stats.sort_s
    return Explanation(
        query,
        at.start_ms,
        at.end_ms,
        step_ms,
        True,
        root,
        seconds,
        stats.samples,
        stats.peak_samples,
        answer.warnings,
        answer.infos,
    )


def _node(source: Source, node: NodeStats, steps_above: int, *, analyzed: bool) -> ExplainedNode:
    assert node.expr is not None and node.steps is not None, "the engine names them"
    steps = len(node.steps)
    notes = tuple(_notes(node, steps, steps_above))
    plain = isinstance(node.expr, NumberLiteral | StringLiteral) or node.again is not None
    measured = analyzed and not plain
    return ExplainedNode(
        name=_title(node),
        text=_short(format_expr(node.expr)),
        steps=steps,
        notes=notes,
        reads=tuple(_read(source, read, analyzed=analyzed) for read in node.reads),
        seconds=node.seconds if measured else None,
        series=node.series if measured else None,
        batches=node.batches if measured and node.batches else None,
        samples=int(node.counts.sum()) if measured and node.counts is not None else None,
        children=tuple(_node(source, part, steps, analyzed=analyzed) for part in node.parts),
    )


def _notes(node: NodeStats, steps: int, steps_above: int) -> Iterator[str]:
    if node.again is not None:
        yield "same as above: not evaluated again"
        return
    if steps == 1 and steps_above > 1 and not isinstance(node.expr, NumberLiteral | StringLiteral):
        yield f"the same at all {steps_above} steps: evaluated once"
    if node.streamed:
        yield "a batch of series at a time"
    if isinstance(node.expr, Aggregate) and any(part.streamed for part in node.parts):
        yield "folds batches into groups as they come"


def _read(source: Source, read: ReadStats, *, analyzed: bool) -> ExplainedRead:
    selection = read.selection
    found = estimate(source, selection)
    return ExplainedRead(
        selector_text(selection.matchers),
        selection.start_ms,
        selection.end_ms,
        selection.resolution_ms,
        found.series,
        found.samples,
        found.blocks,
        found.pages,
        found.size_bytes,
        found.resolutions_ms,
        *((read.series, read.samples, read.batches) if analyzed else ()),
    )


def selector_text(matchers: tuple[Matcher, ...]) -> str:
    """The matchers as a selector; a metric's name stands in front."""
    names = [matcher for matcher in matchers if matcher.name == METRIC_NAME and matcher.op == "="]
    rest = ", ".join(str(matcher) for matcher in matchers if matcher not in names[:1])
    name = names[0].value if names else ""
    return f"{name}{{{rest}}}" if rest or not name else name


def _title(node: NodeStats) -> str:
    match node.expr:
        case Aggregate() as expr if expr.without:
            return f"{expr.op} without ({', '.join(expr.grouping)})"
        case Aggregate() as expr if expr.grouping:
            return f"{expr.op} by ({', '.join(expr.grouping)})"
        case Binary() | Call() | Aggregate():
            return node.name
        case _:
            return _KINDS.get(node.name, node.name)


_KINDS = {
    "VectorSelector": "selector",
    "MatrixSelector": "range selector",
    "Subquery": "subquery",
    "NumberLiteral": "number",
    "StringLiteral": "string",
}


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _lines(told: Explanation) -> Iterator[str]:
    if told.root is not None:
        yield from _tree(told.root, "", "")
    if told.analyzed and told.seconds is not None:
        yield f"{_duration(told.seconds)}, {told.samples:,} samples read, at most {told.peak_samples:,} held at one time"
    yield from told.warnings
    yield from told.infos


def _tree(node: ExplainedNode, first: str, rest: str) -> Iterator[str]:
    """The lines of a node: `first` stands before its own line, `rest` before those below."""
    yield first + "  ".join([node.text if node.name in ("number", "string") else _head(node), *_numbers(node)])
    below: list[ExplainedRead | ExplainedNode] = [*node.reads, *node.children]
    for i, part in enumerate(below):
        last = i + 1 == len(below)
        before, after = rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
        if isinstance(part, ExplainedRead):
            yield before + _read_line(part)
        else:
            yield from _tree(part, before, after)


def _head(node: ExplainedNode) -> str:
    return node.text if node.text.startswith(node.name) else f"{node.name}: {node.text}"


def _numbers(node: ExplainedNode) -> Iterator[str]:
    parts = [] if node.name in ("number", "string") else [f"{node.steps} step{'s' * (node.steps != 1)}", *node.notes]
    if parts:
        yield f"[{'; '.join(parts)}]"
    if node.seconds is not None:
        numbers = [_duration(node.seconds), f"{node.series:,} series"]
        numbers += [] if node.batches is None else [f"{node.batches} batches"]
        numbers += [] if node.samples is None else [f"{node.samples:,} samples looked at"]
        yield ", ".join(numbers)


def _read_line(read: ExplainedRead) -> str:
    finest = f"at most {format_duration_ms(read.resolution_ms)} coarse" if read.resolution_ms else "raw"
    line = f"read {read.selector}  ({_time(read.start_ms)}, {_time(read.end_ms)}) {finest}: {read.series:,} series"
    if read.blocks:
        stored = ", ".join(format_duration_ms(ms) if ms else "raw" for ms in read.block_resolutions_ms)
        line += f"; {read.blocks} blocks ({stored}): {read.pages:,} pages, {_size(read.bytes)}, about {read.samples:,} samples"
    if read.read_samples is not None:
        line += f"; came {read.read_series:,} series, {read.read_samples:,} samples in {read.batches} batches"
    return line


def _time(t_ms: int) -> str:
    try:
        return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{t_ms} ms"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.2f} s"


def _size(size_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} bytes"

"""What a query may use and what it gives back: `QueryOptions`, `Answer` and the numbers about how it was made."""

from dataclasses import dataclass, field
from typing import Literal

from promql.matrix import I64, Matrix, Scalar, Steps
from promql.syntax.ast import Definition, Expr, Span
from tsdb.model.series import SeriesBatch
from tsdb.model.source import Selection

DELAYED_NAME_REMOVAL = "promql-delayed-name-removal"
PER_STEP_STATS = "promql-per-step-stats"
START_TIMESTAMPS = "use-start-timestamps"
TYPE_AND_UNIT = "type-and-unit-labels"
"""Features that the evaluation knows, by Prometheus's names; those of the language are in `promql.syntax.typecheck`."""


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """Limits and switches of one query; the defaults are Prometheus's."""

    lookback_ms: int = 300_000
    features: frozenset[str] = frozenset()
    max_samples: int = 50_000_000
    """Samples and result cells held at one time; 50 million are about 1 GB."""
    max_memory_bytes: int = 2 << 30
    """What is held at one time, as an estimate in bytes."""
    max_series: int = 10_000_000
    """Series read by all selectors together."""
    max_points: int = 11_000
    """Steps of a range query: enough for 60 s over a week or 1 h over a year."""
    default_step_ms: int = 60_000
    """The step of a subquery that names none."""
    parallel_batches: int = 2
    """Batches under way at a time where an executor is given: as many as it has threads, for each holds up to 32 MB."""
    functions: tuple[Definition, ...] = ()
    """A user's functions that queries may call."""
    resolution_ms: int = 0
    """The coarsest downsampled data that may answer, 0 = raw only; see `promql.resolution`."""


@dataclass(slots=True)
class ReadStats:
    """One selection that a node asked of storage, and what came."""

    selection: Selection
    batches: int = 0
    series: int = 0
    samples: int = 0


@dataclass(slots=True)
class NodeStats:
    """What one node of the tree took: `name` is its function or kind, seconds include its parts.

    `streamed`: its value was made in `batches`. `again`: the node of an equal expression, whose value was taken. `counts` i64[k]
    are the samples that its own selectors look at on each of its steps.
    """

    name: str
    span: Span
    seconds: float = 0.0
    series: int = 0
    parts: list["NodeStats"] = field(default_factory=list)
    expr: Expr | None = None
    steps: Steps | None = None
    streamed: bool = False
    batches: int = 0
    reads: list[ReadStats] = field(default_factory=list)
    counts: I64 | None = None
    again: "NodeStats | None" = None


@dataclass(slots=True)
class QueryStats:
    """Samples and series read from storage, and the most samples held at one time.

    Where a clock was given also the tree of nodes, the time of the stages, and `per_step` i64[k], Prometheus's "queryable samples":
    a sample counts at each step whose window it is in, and at each place of the query that looks at it.
    """

    samples: int = 0
    series: int = 0
    peak_samples: int = 0
    root: NodeStats | None = None
    steps: Steps | None = None
    per_step: I64 | None = None
    tell_steps: bool = False
    """Whether the counts of single steps are told, not only their sum (feature `promql-per-step-stats`)."""
    queue_s: float = 0.0
    preparation_s: float = 0.0
    evaluation_s: float = 0.0
    sort_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query. A "vector" is a `Matrix` of one step, in the order that sort and topk give.

    A "matrix" is a `Matrix`, sorted by labels; but of an instant query of a range selector it is the raw samples, a `SeriesBatch`.
    """

    kind: Literal["matrix", "vector", "scalar", "string"]
    value: Matrix | Scalar | str | SeriesBatch
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    stats: QueryStats | None = None

"""The syntax tree: what the parser returns and the planner reads. Nodes are values; spans are character offsets.

`span` is [start, end) of the node in the query text, for carets and annotations, and takes no part in equality.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from tsdb.model.matcher import Matcher

Span = tuple[int, int]


class ValueType(StrEnum):
    """The four types of PromQL, by the words of error messages."""

    SCALAR = "scalar"
    VECTOR = "instant vector"
    MATRIX = "range vector"
    STRING = "string"


def _span() -> Span:
    return field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Definition:
    """A function that a user brought (see `promql.user_functions`): what its name in a query stands for.

    `args` are the types of its arguments, the vector first; the last `optional` of them may be left out.
    """

    name: str
    kind: str
    """"instant", "over_time" or "aggregate"."""
    function: Callable[..., object]
    args: tuple[ValueType, ...]
    optional: int
    doc: str


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    value: float
    duration: bool = False
    """Written as a duration (`5m`); printed back as one."""
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class StringLiteral:
    value: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Paren:
    expr: "Expr"
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Unary:
    op: str
    """"+" or "-"."""
    expr: "Expr"
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Matching:
    """How the two sides of a vector operator are joined."""

    card: str = "one-to-one"
    """"one-to-one", "many-to-one", "one-to-many" or (set operators) "many-to-many"."""
    on: bool = False
    labels: tuple[str, ...] = ()
    """Labels after `on` (if `on`) or `ignoring`."""
    include: tuple[str, ...] = ()
    """Labels in the parentheses of group_left / group_right."""
    fill_left: float | None = None
    fill_right: float | None = None
    """Values that stand in for a missing left or right side (`fill`, `fill_left`, `fill_right`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """An operator and its sides. `a + b + c` is (a + b) + c: a chain of thousands is as deep a tree, so nothing may recurse
    along it (see `chain`), equality and the hash, which is made once, included."""

    op: str
    """+ - * / % ^ atan2, == != < > <= >=, and or unless, and the histogram trims </ >/."""
    lhs: "Expr"
    rhs: "Expr"
    matching: Matching | None = None
    """None unless both sides are vectors."""
    return_bool: bool = False
    span: Span = _span()
    _hash: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.lhs, self.rhs, self.matching, self.return_bool)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine: object = self
        while isinstance(mine, Binary) and isinstance(other, Binary):
            if mine is other:
                return True
            if mine._hash != other._hash or _sides(mine) != _sides(other):
                return False
            mine, other = mine.lhs, other.lhs
        return mine == other


@dataclass(frozen=True, slots=True)
class Aggregate:
    op: str
    expr: "Expr"
    param: "Expr | None" = None
    grouping: tuple[str, ...] = ()
    without: bool = False
    span: Span = _span()
    definition: Definition | None = None


@dataclass(frozen=True, slots=True)
class Call:
    func: str
    args: tuple["Expr", ...]
    span: Span = _span()
    definition: Definition | None = None
    """None for the language's own functions."""


@dataclass(frozen=True, slots=True)
class DurationExpr:
    """An arithmetic duration such as `5m * 2`, `step()`, `max(step(), 5s)`; evaluated when the step and range are known."""

    op: str
    """+ - * / % ^, "step", "range", "min_of" or "max_of"; unary minus has lhs None."""
    lhs: "DurationExpr | NumberLiteral | None" = None
    rhs: "DurationExpr | NumberLiteral | None" = None
    wrapped: bool = False
    """Stood in parentheses."""
    span: Span = _span()


Duration = NumberLiteral | DurationExpr
"""Durations in the tree are seconds (float) as written; a NumberLiteral where no arithmetic is left."""


@dataclass(frozen=True, slots=True)
class At:
    """The `@` modifier: a fixed time, or `start()` / `end()` of the query."""

    at_ms: int | None = None
    edge: str = ""
    """"start", "end" or "" (then at_ms holds)."""


@dataclass(frozen=True, slots=True)
class VectorSelector:
    """`name{matchers}`; the name, where written, is also among the matchers as an equality on __name__."""

    name: str
    matchers: tuple[Matcher, ...]
    offset: Duration | None = None
    at: At | None = None
    anchored: bool = False
    smoothed: bool = False
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    """`selector[range]`; offset, @, anchored and smoothed are the selector's."""

    selector: VectorSelector
    range: Duration
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Subquery:
    """`expr[range:step]`; step None = the default evaluation interval."""

    expr: "Expr"
    range: Duration
    step: Duration | None = None
    offset: Duration | None = None
    at: At | None = None
    span: Span = _span()


def _sides(node: Binary) -> tuple[object, ...]:
    return node.op, node.rhs, node.matching, node.return_bool


def chain(node: Binary) -> list[Binary]:
    """The operators of `((a + b) + c) + d`, the outermost first: node, then what is the left side of the one before."""
    found = [node]
    while isinstance(found[-1].lhs, Binary):
        found.append(found[-1].lhs)
    return found


Expr = NumberLiteral | StringLiteral | Paren | Unary | Binary | Aggregate | Call | VectorSelector | MatrixSelector | Subquery

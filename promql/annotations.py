"""Warnings and infos that go out beside an answer: each text once, with a place in the query that it is about."""

from dataclasses import dataclass, field
from typing import Protocol, Self

from promql.syntax.ast import Span


class Detail(Protocol):
    """What a note says beside its text of all that it was told for; as text it goes behind it."""

    def merge(self, other: Self, /) -> Self: ...


@dataclass(frozen=True, slots=True)
class _Said:
    """What follows a text: how it was, and where."""

    detail: Detail | None
    place: str

    def __str__(self) -> str:
        return f"{'' if self.detail is None else self.detail}{self.place}"


@dataclass(slots=True)
class Annotations:
    """Collects the notes of one evaluation of `query`, in Prometheus's wording and in first-seen order.

    A text with a span ends in ` (line:column)` of the span's start. What is told of two places names the later one, as in
    Prometheus; what has details keeps the first, and puts them together.
    """

    query: str
    count: int = 0
    """How often anything was told."""
    _warnings: dict[str, _Said] = field(default_factory=dict)
    _infos: dict[str, _Said] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(f"{text}{said}" for text, said in self._warnings.items())

    @property
    def infos(self) -> tuple[str, ...]:
        return tuple(f"{text}{said}" for text, said in self._infos.items())

    def warn(self, text: str, span: Span | None = None) -> None:
        self._tell(self._warnings, f"PromQL warning: {text}", _Said(None, self._place(span)))

    def info(self, text: str, span: Span | None = None, detail: Detail | None = None) -> None:
        self._tell(self._infos, f"PromQL info: {text}", _Said(detail, self._place(span)))

    def pass_on(self, warnings: tuple[str, ...]) -> None:
        """Take over warnings of storage as they are."""
        for text in warnings:
            self._tell(self._warnings, text, _Said(None, ""))

    def take(self, later: "Annotations") -> None:
        """Add what was told to others after this."""
        for mine, theirs in ((self._warnings, later._warnings), (self._infos, later._infos)):
            for text, said in theirs.items():
                self._tell(mine, text, said)

    def _tell(self, notes: dict[str, _Said], text: str, said: _Said) -> None:
        before = notes.get(text)
        if before is not None and before.detail is not None and said.detail is not None:
            said = _Said(before.detail.merge(said.detail), before.place)
        notes[text] = said
        self.count += 1

    def _place(self, span: Span | None) -> str:
        if span is None:
            return ""
        line, column = line_and_column(self.query, span[0])
        return f" ({line}:{column})"


def line_and_column(query: str, at: int) -> tuple[int, int]:
    """1-based line and column of character offset `at`; columns count bytes, as Prometheus's do."""
    before = query[:at]
    return before.count("\n") + 1, len(before[before.rfind("\n") + 1 :].encode()) + 1

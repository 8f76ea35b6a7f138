"""Warnings and infos that go out beside an answer, each told once, with the place in the query it is about."""

from dataclasses import dataclass, field

from promql.syntax.ast import Span


@dataclass(slots=True)
class Annotations:
    """Collects the notes of one evaluation of `query`, in Prometheus's wording.

    `warnings` and `infos` keep first-seen order; a text with a span ends in ` (line:column)` of the span's start.
    """

    query: str
    warnings: dict[str, None] = field(default_factory=dict)
    infos: dict[str, None] = field(default_factory=dict)

    def warn(self, text: str, span: Span | None = None) -> None:
        self.warnings[f"PromQL warning: {text}{self._place(span)}"] = None

    def info(self, text: str, span: Span | None = None) -> None:
        self.infos[f"PromQL info: {text}{self._place(span)}"] = None

    def pass_on(self, warnings: tuple[str, ...]) -> None:
        """Take over warnings of storage as they are."""
        self.warnings.update(dict.fromkeys(warnings))

    def _place(self, span: Span | None) -> str:
        if span is None:
            return ""
        line, column = line_and_column(self.query, span[0])
        return f" ({line}:{column})"


def line_and_column(query: str, at: int) -> tuple[int, int]:
    """1-based line and column of character offset `at`; columns count bytes, as Prometheus's do."""
    before = query[:at]
    return before.count("\n") + 1, len(before[before.rfind("\n") + 1 :].encode()) + 1

"""`ParseError`: what is wrong with a query text, and where, in Prometheus's words."""

from promql.annotations import line_and_column
from promql.syntax.ast import Span
from tsdb.model.errors import BadData

MAX_SHOWN_LINE = 200
"""Characters of the query line that the caret text shows: enough to recognise the place, short enough for a terminal."""


class SyntaxProblem(Exception):
    """A message with its place, raised where the text is not at hand; `parser.parse` makes a `ParseError` of it."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.message = message
        self.span = span


class ParseError(BadData):
    """A query that is not PromQL. Its text is `line:column: parse error: message`, as Prometheus's.

    `span` is the [start, end) of the culprit in characters; `line` and `column` are 1-based, columns in bytes.
    """

    def __init__(self, message: str, *, query: str, span: Span) -> None:
        self.message = message
        self.query = query
        self.span = span
        self.line, self.column = line_and_column(query, span[0])
        super().__init__(f"{self.line}:{self.column}: parse error: {message}")

    def render(self) -> str:
        """The message, the query's line and carets under the culprit."""
        first = self.query.rfind("\n", 0, self.span[0]) + 1
        line = self.query[first:].split("\n", 1)[0]
        at = self.span[0] - first
        width = max(1, min(self.span[1] - self.span[0], len(line) - at))
        skip = max(0, at - MAX_SHOWN_LINE // 2)
        shown = line[skip : skip + MAX_SHOWN_LINE].replace("\t", " ")
        carets = "^" * min(width, max(1, len(shown) - (at - skip)))
        return f"{self}\n{'…' if skip else ''}{shown}\n{' ' * (at - skip + (skip > 0))}{carets}"

"""Errors in a query, with the query's line and a caret under the mistake: for people at a prompt."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from promql.syntax.errors import ParseError
from tsdb.model.errors import BadData

_PLACE = re.compile(r"(\d{1,6}):(\d{1,6}): parse error: ")


@contextmanager
def carets(expr: str) -> Iterator[None]:
    """What is raised of `expr` as BadData shows its place, whether it was parsed here or by a server."""
    try:
        yield
    except ParseError as error:
        error.args = (error.render(),)
        raise
    except BadData as error:
        found = _PLACE.search(str(error))
        if found is None:
            raise
        at = _offset(expr, line=int(found[1]), column=int(found[2]))
        shown = ParseError("", query=expr, span=(at, at + 1)).render().split("\n", 1)[1]
        raise BadData(f"{error}\n{shown}") from None


def _offset(text: str, *, line: int, column: int) -> int:
    """Where a line and a column in bytes, both from 1, are in a text, in characters."""
    lines = text.split("\n")
    before = lines[: line - 1]
    row = lines[line - 1] if line <= len(lines) else ""
    inside = len(row.encode()[: column - 1].decode(errors="ignore"))
    return min(len(text), sum(len(one) + 1 for one in before) + inside)

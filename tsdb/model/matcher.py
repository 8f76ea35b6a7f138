"""Label matchers: `=`, `!=`, `=~`, `!~`, evaluated once per distinct value and then looked up over a column.

Regular expressions are RE2's, anchored at both ends, `.` matching newlines, as Prometheus 3 does; never Python's `re`,
whose backtracking one request could use to stop the process.
"""

import re as _stdlib_re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import re2

from tsdb.model.errors import BadData
from tsdb.model.series import Bool, SeriesTable

MAX_PATTERN_BYTES = 4096
"""Long enough for a Grafana variable with a hundred host names, short enough to compile in a millisecond."""

_GO_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected end of regular expression": "missing closing ]",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid escape sequence": "invalid escape sequence",
    "Backreferences not supported": "invalid escape sequence",
    "invalid character class range": "invalid character class range",
    "invalid named capture group": "invalid named capture",
    "invalid perl operator": "invalid or unsupported Perl syntax",
}
"""What Go, and so Prometheus, says of what RE2 and its binding refuse."""

_PARENTHESIS = _stdlib_re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()]", _stdlib_re.DOTALL)
_PLAIN_NAME = _stdlib_re.compile("[A-Za-z_][A-Za-z0-9_]*")

re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)


class Pattern(Protocol):
    """What we use of a compiled RE2 pattern."""

    def fullmatch(self, text: str) -> object | None: ...
    def match(self, text: str) -> object | None: ...


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher; `op` is one of `=`, `!=`, `=~`, `!~`. An absent label is the empty string."""

    name: str
    op: str
    value: str

    def __post_init__(self) -> None:
        if self.op in ("=~", "!~"):
            compile_regex(self.value)

    def __str__(self) -> str:
        """PromQL text; a name that is no plain word is quoted."""
        name = self.name if _PLAIN_NAME.fullmatch(self.name) else _quoted(self.name)
        return f"{name}{self.op}{_quoted(self.value)}"

    def matches(self, text: str) -> bool:
        """Whether one label value matches."""
        if self.op in ("=", "!="):
            return (text == self.value) == (self.op == "=")
        literals = literal_alternatives(self.value)
        found = text in literals if literals is not None else compile_regex(self.value).match(text) is not None
        return found == (self.op == "=~")

    def select(self, series: SeriesTable) -> Bool:
        """bool[n] which rows match. Costs one test per distinct value of the label, then one lookup per row."""
        column = series.column(self.name)
        used = np.unique(column)
        verdict = np.array([self.matches(series.symbols[i] if i >= 0 else "") for i in used.tolist()], bool)
        if len(used) < 2:
            return np.full(len(column), bool(verdict.all()))
        by_number = np.zeros(int(used[-1]) + 2, bool)
        by_number[used] = verdict  # -1 lands on the spare last place
        return np.asarray(by_number[column])


def select_rows(series: SeriesTable, matchers: Sequence[Matcher]) -> Bool:
    """bool[n] which rows match all matchers."""
    keep = np.ones(len(series), bool)
    for matcher in matchers:
        keep &= matcher.select(series)
    return keep


@lru_cache(maxsize=1024)
def compile_regex(pattern: str) -> Pattern:
    """The compiled `^(?s:pattern)$`. BadData where RE2 refuses it or it is longer than MAX_PATTERN_BYTES."""
    size_bytes = len(pattern.encode())
    if size_bytes > MAX_PATTERN_BYTES:
        raise BadData(f"regular expression of {size_bytes} bytes is over the limit of {MAX_PATTERN_BYTES} bytes: {pattern[:60]!r}…")
    try:
        spelt = to_re2(pattern)
        if ")" in spelt:
            re2.compile(spelt, re2.ASCII)  # `a)(b` is no regular expression, and would be one between our parentheses
        return re2.compile(f"^(?s:{spelt})$", re2.ASCII)  # type: ignore[no-any-return]
    except (re2.error, re2.RegexError, ValueError) as error:
        raise BadData(_go_message(pattern, str(error))) from None


def _go_message(pattern: str, told: str) -> str:
    """Go's message for what RE2 told; of the pattern alone where it is wrong alone, not of the one that we put around it."""
    if _stdlib_re.search(r"(?<!\\)(?:\\\\)*\\\Z", pattern):
        return "error parsing regexp: trailing backslash at end of expression: ``"
    try:
        re2.compile(to_re2(pattern), re2.ASCII)
    except (re2.error, re2.RegexError, ValueError) as error:
        told = str(error)
    words, _, part = told.partition(": ")
    if words == "missing )":
        words, part = "unexpected )" if _closes_unopened(pattern) else words, pattern
    if words not in _GO_WORDS:
        return f"error parsing regexp: {told}: `{pattern}`"
    return f"error parsing regexp: {_GO_WORDS[words]}: `{part or pattern}`"


def _closes_unopened(pattern: str) -> bool:
    """Whether a parenthesis is closed before it is opened; those in classes and after a backslash are none."""
    depth = 0
    for part in _PARENTHESIS.findall(pattern):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if depth < 0:
            return True
    return False


def to_re2(pattern: str) -> str:
    """Go's spelling in the binding's: `(?<name>` as `(?P<name>`, `\\x{61}` as a plain or escaped character."""
    pattern = _stdlib_re.sub(r"((?:^|[^\\])(?:\\\\)*)\(\?<([A-Za-z_])", r"\1(?P<\2", pattern)
    return _stdlib_re.sub(r"\\x\{([0-9A-Fa-f]{1,6})\}", _code_point, pattern)


@lru_cache(maxsize=1024)
def literal_alternatives(pattern: str) -> frozenset[str] | None:
    """The set that `a|b|c` of plain text stands for, or None; most regexes that dashboards send are of this kind."""
    if _stdlib_re.search(r"[\\.+*?()\[\]{}^$]", pattern):
        return None
    return frozenset(pattern.split("|"))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _code_point(found: "_stdlib_re.Match[str]") -> str:
    code = int(found[1], 16)
    if code > 0x10FFFF:
        raise ValueError(f"code point {found[1]} is over 10FFFF")
    return chr(code) if chr(code).isalnum() or code > 0x7F else f"\\x{code:02x}"

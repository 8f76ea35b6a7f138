"""Prometheus's relabelling rules over a whole table of series: each rule is tested once per distinct value of its source labels."""

import hashlib
import re as _stdlib_re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import re2

from tsdb.model.errors import BadData
from tsdb.model.matcher import compile_regex
from tsdb.model.series import Bool, SeriesTable, Strings

ACTIONS = ("replace", "keep", "drop", "lowercase", "uppercase", "hashmod", "labelmap", "labeldrop", "labelkeep")
_REFERENCE = _stdlib_re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class RelabelRule:
    """One rule, with Prometheus's names and defaults."""

    action: str = "replace"
    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = "(.*)"
    target_label: str = ""
    replacement: str = "$1"
    modulus: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise BadData(f"relabel: unknown action {self.action!r}; want one of {', '.join(ACTIONS)}")
        if self.action in ("replace", "lowercase", "uppercase", "hashmod") and not self.target_label:
            raise BadData(f"relabel: action {self.action} needs a target_label")
        if self.action == "hashmod" and self.modulus <= 0:
            raise BadData(f"relabel: hashmod by {self.modulus}; want a positive modulus")
        try:
            compile_regex(self.regex)
        except BadData as error:
            raise BadData(f"relabel: invalid regex {self.regex!r}: {error}") from None


class _Match:
    """What we use of an RE2 match."""

    def group(self, which: int | str) -> str | None: ...


def relabel(series: SeriesTable, rules: Sequence[RelabelRule]) -> tuple[SeriesTable, Bool]:
    """(the series with their labels by the rules, bool[n] which are kept). Rows stay in their places; equal ones may arise."""
    kept = np.ones(len(series), bool)
    for rule in rules:
        match rule.action:
            case "keep" | "drop":
                kept &= _matches(series, rule) == (rule.action == "keep")
            case "labelmap":
                series = _map_names(series, rule)
            case "labeldrop" | "labelkeep":
                drops = rule.action == "labeldrop"
                series = series.drop(name for name in series.names if (_find(rule.regex, name) is not None) == drops)
            case _:
                series = _replace(series, rule)
    return series, kept


def _replace(series: SeriesTable, rule: RelabelRule) -> SeriesTable:
    """The target label set where the regex matches (always, by actions without one)."""
    old = series.values(rule.target_label)
    new = _by_value(series, rule, lambda text: _value(rule, text))
    unchanged = np.array([text is None for text in new], bool)
    return series.with_column(rule.target_label, np.where(unchanged, old, new))


def _value(rule: RelabelRule, text: str) -> str | None:
    """What the target becomes for a joined source value; None = it stays."""
    match rule.action:
        case "lowercase":
            return text.lower()
        case "uppercase":
            return text.upper()
        case "hashmod":
            return str(int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:]) % rule.modulus)
    found = _find(rule.regex, text)
    return None if found is None else _expand(rule.replacement, found)


def _matches(series: SeriesTable, rule: RelabelRule) -> Bool:
    return np.array(_by_value(series, rule, lambda text: _find(rule.regex, text) is not None).tolist(), bool)


def _by_value(series: SeriesTable, rule: RelabelRule, decide: Callable[[str], object]) -> Strings:
    """object[n] what `decide` says of each row's source values, joined; asked once per distinct value."""
    columns = [series.values(name) for name in rule.source_labels]
    joined = [rule.separator.join(row) for row in zip(*columns, strict=True)] if columns else [""] * len(series)
    decided = {text: decide(text) for text in set(joined)}
    out = np.empty(len(joined), object)
    out[:] = [decided[text] for text in joined]
    return out


def _map_names(series: SeriesTable, rule: RelabelRule) -> SeriesTable:
    for name in series.names:
        found = _find(rule.regex, name)
        if found is not None:
            target = _expand(rule.replacement, found)
            old, new = series.values(target), series.values(name)
            series = series.with_column(target, np.where(new == "", old, new))
    return series


def _find(pattern: str, text: str) -> _Match | None:
    return cast("_Match | None", compile_regex(pattern).match(text))


def _expand(template: str, found: _Match) -> str:
    """The template with `$1`, `${name}` and `$$` put in; a group that does not exist is empty, as in Go."""

    def put(reference: "_stdlib_re.Match[str]") -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        try:
            return found.group(int(name) if name.isdigit() else name) or ""
        except (IndexError, KeyError, re2.error):
            return ""

    return _REFERENCE.sub(put, template)

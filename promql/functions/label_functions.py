"""`label_replace` and `label_join`: labels made from labels; no sample is looked at."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from promql.functions.label_columns import set_label
from promql.matrix import Bool, Matrix
from promql.message_text import is_label_name
from promql.names import merge_equal
from tsdb.model.errors import BadData, QueryFailed
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import compile_regex
from tsdb.model.series import SeriesTable

REFERENCE = re.compile(r"\$(?:(\$)|([0-9A-Za-z_]+)|\{([0-9A-Za-z_]+)\})", re.ASCII)
"""What Go's Regexp.Expand replaces: $$, $name and ${name}, the longest name it finds; any other $ stands for itself."""

NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)


class Match(Protocol):
    """What a replacement may ask of a match."""

    def group(self, name: int | str, /) -> str | None: ...


def label_replace(vector: Matrix, dst: str, replacement: str, src: str, pattern: str) -> Matrix:
    """Label `dst` set to `replacement`, its $ references filled in, on the series whose `src` the pattern matches as a whole.

    QueryFailed for a bad label name or pattern, or where two series become one.
    """
    try:
        regex = compile_regex(pattern)
    except BadData:
        raise QueryFailed(f"invalid regular expression in label_replace(): {pattern}") from None
    if not is_label_name(dst):
        raise QueryFailed(f"invalid destination label name in label_replace(): {dst}")
    series = vector.series
    used, which = np.unique(series.column(src), return_inverse=True)
    matches = [regex.match(text) for text in series.texts(used)]
    texts = [_expand(replacement, m) if m is not None else "" for m in matches]  # type: ignore[arg-type]
    matched = np.array([m is not None for m in matches], bool)[which]
    return _renamed(vector, set_label(series, dst, texts, which, matched), dst, matched)


def label_join(vector: Matrix, dst: str, separator: str, sources: Sequence[str]) -> Matrix:
    """Label `dst` set to the values of `sources`, joined. QueryFailed for a bad label name, or where two series become one."""
    for name in sources:
        if not is_label_name(name):
            raise QueryFailed(f"invalid source label name in label_join(): {name}")
    if not is_label_name(dst):
        raise QueryFailed(f"invalid destination label name in label_join(): {dst}")
    group, first = vector.series.group(sources)
    columns = [vector.series.take(first).values(name) for name in sources]
    texts = [separator.join(row) for row in zip(*columns, strict=True)] if columns else [""] * len(first)
    return _renamed(vector, set_label(vector.series, dst, texts, group), dst, np.ones(len(vector), bool))


def _renamed(vector: Matrix, series: SeriesTable, name: str, changed: Bool) -> Matrix:
    """The vector with new labels, of which `name` has changed: a new metric name is not taken away later."""
    drop = vector.drop_name
    if drop is not None and name == METRIC_NAME:
        drop = drop & ~changed
    return merge_equal(replace(vector, series=series, drop_name=drop))


def _expand(template: str, match: Match) -> str:
    return REFERENCE.sub(lambda found: "$" if found[1] else _group(match, found[2] or found[3]), template)


def _group(match: Match, name: str) -> str:
    """The text of a group by number or name; "" where there is no such group or it took no part. Go takes 01 for a name."""
    try:
        return match.group(int(name) if name == "0" or NUMBER.fullmatch(name) else name) or ""
    except IndexError:
        return ""

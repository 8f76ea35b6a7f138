"""`info`: series with the data labels of the info metrics (say, target_info) that describe the same job and instance.

An info series counts at the steps where it has a sample; of several for one target the newest sample wins. As info series
come and go, one series of the input may become several in the result, each with some of its steps.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from promql.annotations import Annotations
from promql.functions.label_columns import set_column
from promql.matrix import I64, Matrix
from promql.matrix_rows import concat_matrices, non_empty
from promql.message_text import labels_text
from promql.names import merge_equal
from promql.syntax.ast import Call, Paren, VectorSelector
from tsdb.model.errors import QueryFailed
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import MAX_PATTERN_BYTES, Matcher, select_rows
from tsdb.model.series import I32, SeriesTable, concat_tables

IDENTIFYING = ("instance", "job")
"""The labels that say which target a series is of; fixed, as in Prometheus."""

SelectInfo = Callable[[tuple[Matcher, ...]], Matrix]
"""The series of a selector at the steps of the base series (with its @ and offset), each value the time of the sample in ms."""


def info(node: Call, base: Matrix, select_info: SelectInfo, notes: Annotations) -> Matrix:
    """The base series with data labels added. QueryFailed where two info series contradict each other.

    Info series among the base are left alone. A step without an info series stays as it is, unless the selector demands one.
    """
    selector = _selector(node)
    names = _name_matchers(selector)
    wanted = tuple(m for m in selector if m.name != METRIC_NAME)
    alone = select_rows(base.series, names)
    plain = base.take(~alone)
    identity = _identity_matchers(plain.series)
    infos = select_info((*names, *identity, *wanted)) if identity else Matrix.empty(base.steps)
    infos = replace(infos, present=infos.present & base.present.any(axis=0))  # nobody looks at them where there is no base
    if infos.natives.any():
        row = int(np.flatnonzero(infos.natives.any(axis=1))[0])
        raise QueryFailed(f"this should be an info metric, with float samples: {labels_text(infos.series.labels(row))}")
    optional = all(m.matches("") for m in wanted)
    enriched = _enrich(plain, infos, {m.name for m in wanted}, optional=optional)
    return merge_equal(non_empty(concat_matrices([enriched, base.take(alone)])))


def _selector(node: Call) -> tuple[Matcher, ...]:
    if len(node.args) < 2:
        return ()
    arg = node.args[1]
    while isinstance(arg, Paren):
        arg = arg.expr
    assert isinstance(arg, VectorSelector), "the parser lets only a selector be the second argument"
    return arg.matchers


def _name_matchers(selector: Sequence[Matcher]) -> tuple[Matcher, ...]:
    """What the name of an info metric must match; where nothing says what it is, target_info or any name in _info."""
    names = tuple(m for m in selector if m.name == METRIC_NAME)
    if any(m.op in ("=", "=~") for m in names):
        return names
    return (*names, Matcher(METRIC_NAME, "=~", ".+_info")) if names else (Matcher(METRIC_NAME, "=", "target_info"),)


def _identity_matchers(series: SeriesTable) -> tuple[Matcher, ...]:
    """One matcher for each identifying label that any series has: its values, or any value where they are too many."""
    out = []
    for name in IDENTIFYING:
        column = series.column(name)
        texts = series.texts(np.unique(column[column >= 0])).tolist()
        pattern = "|".join(re.escape(text) for text in texts)
        if texts:
            out.append(Matcher(name, "=~", pattern if len(pattern.encode()) <= MAX_PATTERN_BYTES else ".+"))
    return tuple(out)


def _enrich(base: Matrix, infos: Matrix, wanted: set[str], *, optional: bool) -> Matrix:
    """Each base series split by the info series that describe it, with their labels (only those `wanted`, if any)."""
    base_group, info_group = _targets(base.series, infos.series)
    _, names = np.unique(infos.series.column(METRIC_NAME), return_inverse=True)
    size = int(max(base_group.max(initial=-1), info_group.max(initial=-1))) + 1
    rows, steps = np.nonzero(base.present)
    chosen = [
        _newest(infos, np.flatnonzero(names == name), info_group, size)[base_group[rows], steps]
        for name in range(int(names.max(initial=-1)) + 1)
    ]
    code = rows.copy()
    for column in chosen:
        _, code = np.unique(code * (len(infos) + 1) + column + 1, return_inverse=True)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    picks = [column[first] for column in chosen]
    present = np.zeros((len(first), len(base.steps)), bool)
    present[which, steps] = True
    if not optional:
        present &= np.any([pick >= 0 for pick in picks], axis=0)[:, None] if picks else False
    out = replace(base.take(rows[first]), present=present)
    return replace(out, series=_with_data_labels(base.series.take(rows[first]), infos.series, picks, wanted))


def _targets(base: SeriesTable, infos: SeriesTable) -> tuple[I64, I64]:
    """The target, by number, of each base series and of each info series."""
    group, _ = concat_tables([base.keep(IDENTIFYING), infos.keep(IDENTIFYING)]).group()
    return group[: len(base)], group[len(base) :]


def _newest(infos: Matrix, rows: I64, group: I64, size: int) -> I64:
    """i64[size, k] the row among `rows` with the newest sample for each target and step, -1 where none has one."""
    out = np.full((size, len(infos.steps)), -1, np.int64)
    newest = np.full(out.shape, -np.inf)
    for row in rows.tolist():
        target, times = group[row], infos.values[row]
        clash = infos.present[row] & (times == newest[target])
        if clash.any():
            step = int(np.flatnonzero(clash)[0])
            before, now = (labels_text(infos.series.labels(i)) for i in (int(out[target, step]), row))
            at_ms = int(times[step])
            raise QueryFailed(f"found duplicate series for info metric: existing {before} @ {at_ms}, new {now} @ {at_ms}")
        newer = infos.present[row] & (times > newest[target])
        out[target, newer], newest[target, newer] = row, times[newer]
    return out


def _with_data_labels(base: SeriesTable, infos: SeriesTable, picks: list[I64], wanted: set[str]) -> SeriesTable:
    """The base labels and, where they lack them, those of the picked info series (row -1: none)."""
    if not picks:
        return base
    both = concat_tables([base, infos])
    out = both.take(slice(0, len(base)))
    for name in infos.names:
        if name == METRIC_NAME or (wanted and name not in wanted):
            continue
        own = out.column(name)
        added = _agreed(name, both.column(name)[len(base) :], [np.where(own >= 0, -1, pick) for pick in picks])
        out = set_column(out, name, np.where(own >= 0, own, added).astype(np.int32))
    return out


def _agreed(name: str, column: I32, picks: list[I64]) -> I32:
    """The symbol numbers of one label over the picked info series; QueryFailed where two of them differ."""
    out = np.full(len(picks[0]), -1, np.int32)
    for pick in picks:
        ids = np.where(pick >= 0, column[pick], -1)
        if np.any((ids >= 0) & (out >= 0) & (ids != out)):
            raise QueryFailed(f"conflicting label: {name}")
        out = np.where(ids >= 0, ids, out).astype(np.int32)
    return out

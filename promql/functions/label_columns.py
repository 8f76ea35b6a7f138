"""Columns of a `SeriesTable` replaced as a whole: by symbol numbers, or by texts of which there are few."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.matrix import I64, Bool
from tsdb.model.series import I32, SeriesTable, strings


def set_column(series: SeriesTable, name: str, ids: I32) -> SeriesTable:
    """The table with label `name` as the symbol numbers int32[n], -1 = absent."""
    rest = series.drop([name])
    names = tuple(sorted((*rest.names, name)))
    return replace(rest, names=names, ids=np.insert(rest.ids, names.index(name), ids, axis=0))


def set_label(series: SeriesTable, name: str, texts: Sequence[str], which: I64, rows: Bool | None = None) -> SeriesTable:
    """The table with label `name` of row i as texts[which[i]], "" removing it; where bool[n] `rows` is False it stays.

    Costs a dictionary access for each symbol of the table and each text, and array work for the rows.
    """
    known = {symbol: i for i, symbol in enumerate(series.symbols.tolist())}
    before = len(known)
    ids = np.array([known.setdefault(text, len(known)) if text else -1 for text in texts], np.int32)
    column = ids[which] if len(texts) else np.full(len(series), -1, np.int32)
    if rows is not None:
        column = np.where(rows, column, series.column(name)).astype(np.int32)
    out = set_column(series, name, column)
    if len(known) == before:
        return out
    return replace(out, symbols=strings(list(known)), ascending=False)

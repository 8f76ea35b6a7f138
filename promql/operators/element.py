"""One binary operation cell by cell: floats with floats, histograms with floats, histograms with histograms."""

from dataclasses import dataclass

import numpy as np

from promql.annotations import Annotations
from promql.histogram.arithmetic import equal
from promql.histogram.cells import add_or_subtract, scale_or_trim
from promql.matrix import F64, I64, Bool
from promql.operators.arithmetic import ARITHMETIC, COMPARISONS, TRIMS
from promql.syntax.ast import Binary
from tsdb.model.histogram import Histograms, concat_histograms

WITH_FLOAT = ("*", "/", *TRIMS)
"""What a histogram on the left can do with a float; a float on the left can only be multiplied."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Samples without labels: values f64[n, k], and where cells i64[n, k] is not -1 that row of `histograms` instead."""

    values: F64
    cells: I64 | None = None
    histograms: Histograms | None = None

    def natives(self) -> Bool:
        """bool[n, k] where a histogram is."""
        return np.zeros(self.values.shape, bool) if self.cells is None else self.cells >= 0

    def pick(self, where: Bool) -> Histograms:
        """The histograms at bool[n, k], in the order of the cells."""
        assert self.cells is not None and self.histograms is not None, "only asked for where natives() says so"
        return self.histograms.take(self.cells[where])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation gives: the samples; `defined` bool[n, k] where the types fit; `keep` where a comparison holds too."""

    samples: Cells
    defined: Bool
    keep: Bool

    def as_bool(self) -> Cells:
        """1 where the comparison holds and 0 elsewhere."""
        return Cells(self.keep.astype(np.float64))


def operate(node: Binary, lhs: Cells, rhs: Cells, present: Bool, notes: Annotations) -> Outcome:
    """`lhs op rhs` where bool[n, k] `present`; a comparison gives the left side. Types that do not fit are told in `notes`."""
    if lhs.cells is None and rhs.cells is None and node.op not in TRIMS:
        return _floats(node.op, lhs, rhs, present)
    left, right = lhs.natives(), rhs.natives()
    cases = {
        ("float", "float"): present & ~left & ~right,
        ("histogram", "float"): present & left & ~right,
        ("float", "histogram"): present & ~left & right,
        ("histogram", "histogram"): present & left & right,
    }
    for types, where in cases.items():
        if not _fits(node.op, types) and where.any():
            what = f"{types[0]} {node.op} {types[1]}"
            notes.info(f'incompatible sample types encountered for binary operator "{node.op}": {what}', node.span)
            present = present & ~where
    if node.op in COMPARISONS:
        return _compare(node.op, lhs, rhs, present)
    return _calculate(node, lhs, rhs, present, notes)


def _floats(op: str, lhs: Cells, rhs: Cells, present: Bool) -> Outcome:
    with np.errstate(all="ignore"):
        if op in COMPARISONS:
            return Outcome(lhs, present, present & COMPARISONS[op](lhs.values, rhs.values))
        return Outcome(Cells(np.asarray(ARITHMETIC[op](lhs.values, rhs.values))), present, present)


def _fits(op: str, types: tuple[str, str]) -> bool:
    match types:
        case ("float", "float"):
            return op not in TRIMS
        case ("histogram", "float"):
            return op in WITH_FLOAT
        case ("float", "histogram"):
            return op == "*"
        case _:
            return op in ("+", "-", "==", "!=")


def _compare(op: str, lhs: Cells, rhs: Cells, present: Bool) -> Outcome:
    both = present & lhs.natives() & rhs.natives()
    keep = _floats(op, lhs, rhs, present & ~both).keep
    if both.any():
        keep[both] = equal(lhs.pick(both), rhs.pick(both)) == (op == "==")
    return Outcome(lhs, present, keep)


def _calculate(node: Binary, lhs: Cells, rhs: Cells, present: Bool, notes: Annotations) -> Outcome:
    left, right = lhs.natives(), rhs.natives()
    values = np.full(present.shape, np.nan)
    if node.op not in TRIMS:
        floats = present & ~left & ~right
        values[floats] = _floats(node.op, lhs, rhs, present).samples.values[floats]
    cells, parts, at = np.full(present.shape, -1, np.int64), [], 0
    for where in (present & left & ~right, present & ~left & right, present & left & right):
        if not where.any():
            continue
        part, defined = _histograms(node, lhs, rhs, where, notes)
        cells[where] = np.where(defined, at + np.cumsum(defined) - 1, -1)
        present = present.copy()
        present[where] = defined
        parts.append(part)
        at += len(part)
    if not parts:
        return Outcome(Cells(values), present, present)
    return Outcome(Cells(values, cells, concat_histograms(parts)), present, present)


def _histograms(node: Binary, lhs: Cells, rhs: Cells, where: Bool, notes: Annotations) -> tuple[Histograms, Bool]:
    """(results, which of the cells at `where` have one); the cells are of one pair of types."""
    if lhs.natives()[where].all() and rhs.natives()[where].all():
        return add_or_subtract(node, lhs.pick(where), rhs.pick(where), notes)
    native, other = (lhs, rhs) if lhs.natives()[where].all() else (rhs, lhs)
    part = scale_or_trim(node.op, native.pick(where), other.values[where])
    return part, np.ones(len(part), bool)

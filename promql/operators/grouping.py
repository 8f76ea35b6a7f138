"""Which series go together: by `by`, `without`, `on` or `ignoring`."""

from dataclasses import dataclass, field

import numpy as np

from promql.matrix import I64
from promql.syntax.ast import Aggregate, Matching
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable, concat_tables

PAIR_BITS = 31
"""A step in the trie is one integer: the node in the high bits, the label pair in the low ones."""


def grouped_labels(node: Aggregate, series: SeriesTable) -> SeriesTable:
    """The labels that the groups of an aggregation carry: those of `by`, or all but those of `without` and the name."""
    return series.drop((METRIC_NAME, *node.grouping)) if node.without else series.keep(node.grouping)


def matched_labels(matching: Matching, series: SeriesTable) -> SeriesTable:
    """The labels by which the sides of an operator are joined: those of `on`, or all but those of `ignoring` and the name."""
    return series.keep(matching.labels) if matching.on else series.drop((METRIC_NAME, *matching.labels))


def match_groups(matching: Matching, lhs: SeriesTable, rhs: SeriesTable) -> tuple[I64, I64, int]:
    """(group of each left series, of each right series, number of groups): series match where their groups are the same."""
    both = concat_tables([matched_labels(matching, lhs), matched_labels(matching, rhs)])
    group, first = both.group()
    return group[: len(lhs)], group[len(lhs) :], len(first)


@dataclass(slots=True)
class GroupNumbers:
    """Numbers for groups of series that arrive in batches, each batch with symbols of its own.

    The groups of the first batch are numbered by array work alone. From the second batch on a label set is a path of label pairs in
    order of their names, and a group is where its path ends in a trie: array work for each series, and a few dictionary accesses
    for each group of a batch. Memory grows with the groups.
    """

    node: Aggregate
    tables: list[SeriesTable] = field(default_factory=list)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    size: int = 0

    def assign(self, series: SeriesTable) -> I64:
        """The group of each series, i64[n]; new groups get the next numbers in order of their first series."""
        labels = grouped_labels(self.node, series)
        group, first = labels.group()
        distinct = labels.take(first)
        if not self.tables:
            self.tables.append(distinct)
            self.size = len(first)
            return group
        if not self.numbers:
            self._number(self.tables[0])
        number = self._number(distinct)
        if len(self.numbers) > self.size:
            self.tables.append(distinct.take(number >= self.size))
            self.size = len(self.numbers)
        return number[group]

    def __len__(self) -> int:
        return self.size

    def series(self) -> SeriesTable:
        """The labels of all groups, by number."""
        return concat_tables(self.tables) if self.tables else SeriesTable.empty()

    def _number(self, labels: SeriesTable) -> I64:
        """The number of each row's group, i64[n]; rows are distinct."""
        ends = self._walk(labels).tolist()
        return np.array([self.numbers.setdefault(end, len(self.numbers)) for end in ends], np.int64)

    def _walk(self, labels: SeriesTable) -> I64:
        """The trie node at the end of each row's path, i64[n]; node 0 is the root."""
        at = np.zeros(len(labels), np.int64)
        for name, column in zip(labels.names, labels.ids, strict=True):
            rows = np.flatnonzero(column >= 0)
            used, which = np.unique(column[rows], return_inverse=True)
            pair = np.array([self._pair(name, text) for text in labels.symbols[used]], np.int64)
            step = (at[rows] << PAIR_BITS) | pair[which]
            distinct, which = np.unique(step, return_inverse=True)
            end = np.array([self.steps.setdefault(s, len(self.steps) + 1) for s in distinct.tolist()], np.int64)
            at[rows] = end[which]
        return at

    def _pair(self, name: str, value: str) -> int:
        return self.pairs.setdefault((name, value), len(self.pairs))

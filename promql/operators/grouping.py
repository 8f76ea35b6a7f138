"""Which series go together: by `by`, `without`, `on` or `ignoring`."""

from dataclasses import dataclass, field

import numpy as np

from promql.matrix import I64
from promql.syntax.ast import Aggregate, Matching
from tsdb.model.labels import METRIC_NAME
from tsdb.model.series import SeriesTable, concat_tables


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

    The groups of the first batch are numbered by array work alone. From the second batch on a group is found by the values of all
    label names seen so far, with array work for each series and a dictionary access for each group of a batch. Memory grows with
    the groups.
    """

    node: Aggregate
    tables: list[SeriesTable] = field(default_factory=list)
    names: tuple[str, ...] = ()
    numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
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
        fresh = tuple(name for name in labels.names if name not in self.names)
        if fresh:
            self.names += fresh
            self.numbers = {values + ("",) * len(fresh): number for values, number in self.numbers.items()}
        columns = [labels.values(name).tolist() for name in self.names]
        rows = zip(*columns, strict=True) if columns else [()] * len(labels)
        numbers = self.numbers
        return np.array([numbers.setdefault(values, len(numbers)) for values in rows], np.int64)

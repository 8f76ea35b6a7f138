"""Ranges of rows in flat columns: copying many of them, and finding where times cut them."""

from numba import njit
from numba.extending import register_jitable


@njit(nogil=True, cache=True)
def copy_ranges(source, source_at, size, out, out_at):
    """out[out_at[i]:][:size[i]] = source[source_at[i]:][:size[i]] for every i; the caller guarantees the ranges.

    Loops over slices from their start become a copy of memory; with an index that Numba must take for negative they are five times
    slower.
    """
    for i in range(len(size)):
        a = source[source_at[i] : source_at[i] + size[i]]
        b = out[out_at[i] : out_at[i] + size[i]]
        for j in range(size[i]):
            b[j] = a[j]


@register_jitable
def row_from(t_ms, row, end, edge):
    """The first of the rows row:end of rising times that is at or after the edge, or `end`."""
    while row < end:
        middle = (row + end) // 2
        if t_ms[middle] < edge:
            row = middle + 1
        else:
            end = middle
    return row


@njit(nogil=True, cache=True)
def edge_rows(offsets, t_ms, edges, rows):
    """For every series, rows offsets[i]:offsets[i+1] of rising times, its first row at or after each edge: rows i64[e, n]."""
    for i in range(len(offsets) - 1):
        row = offsets[i]
        for e in range(len(edges)):
            row = rows[e, i] = row_from(t_ms, row, offsets[i + 1], edges[e])

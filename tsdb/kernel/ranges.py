"""Ranges of rows in flat columns: copying many of them, and finding where times cut them."""

from numba import njit


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


@njit(nogil=True, cache=True)
def edge_rows(offsets, t_ms, edges, rows):
    """For every series, rows offsets[i]:offsets[i+1] of rising times, its first row at or after each edge: rows i64[e, n]."""
    for i in range(len(offsets) - 1):
        row = offsets[i]
        for e in range(len(edges)):
            high = offsets[i + 1]
            while row < high:
                middle = (row + high) // 2
                if t_ms[middle] < edges[e]:
                    row = middle + 1
                else:
                    high = middle
            rows[e, i] = row

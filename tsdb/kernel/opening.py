"""The description of a page to the arrays that kernels use. No number of it is used before it is checked."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.codec import BASE, BITS, EXCEPTIONS, FORM, MAX_EXPONENT, REFER, SCALE, SECOND, SHIFT, SIZE, TABLE, ZIGZAG
from tsdb.kernel.entropy import MAX_CLASS, SYMBOLS

SOUND, WRONG_TIMES, WRONG_CLASS = range(3)
SERIES_BYTES, TIME_BYTES, COLUMN_BYTES, EXCEPTION_BYTES = 4, 4, 38, 12
"""What each takes of a description; a table takes SYMBOLS."""


@njit(nogil=True, cache=True)
def read_description(about, times, columns, classes, position, exact, time_ref, counts, time_at, stream_at):
    """Fill the arrays by about u8[...], which the caller has made as long as they need; SOUND, or what is wrong.

    Descriptors times i64[11, k] of the time columns and columns i64[11, c] of all others, classes u8[t, 256], position and exact
    i64[x]; of n series time_ref and counts i64[n]; time_at i64[k+1]; stream_at i64[k+c+1] of all columns.
    """
    k, every = times.shape[1], times.shape[1] + columns.shape[1]
    at = _read(about, 0, 4, len(time_ref), 0, time_ref)
    at = _read(about, at, 4, k, 0, time_at[1:])
    signed = about.view(np.int8)
    for row in range(BASE + 1):
        if row <= SECOND:
            _read(signed, at, 1, every, 0, times[row])
            at = _read(signed, at, 1, every, k, columns[row])
        else:
            width = 4 if row <= SIZE else 8
            _read(about, at, width, every, 0, times[row])
            at = _read(about, at, width, every, k, columns[row])
        if row == SIZE:
            for t in range(len(classes)):
                classes[t] = about[at : at + SYMBOLS]
                at += SYMBOLS
    at = _read(about, at, 4, len(position), 0, position)
    _read(about, at, 8, len(exact), 0, exact)
    stream_at[0] = time_at[0] = 0
    for c in range(every):
        stream_at[c + 1] = stream_at[c] + (times[SIZE, c] if c < k else columns[SIZE, c - k])
    for i in range(len(time_ref)):
        if time_ref[i] >= k:
            return WRONG_TIMES
        counts[i] = time_at[time_ref[i] + 1]
    for c in range(k):
        time_at[c + 1] += time_at[c]
    for t in range(len(classes)):
        for s in range(SYMBOLS):
            if classes[t, s] > MAX_CLASS:
                return WRONG_CLASS
    return SOUND


@register_jitable
def _read(about, at, width, total, first, out):
    """Numbers first:first + len(out) of the `total` ones that lie shuffled from `at` on; the position after all of them."""
    lowest = about[at + first : at + first + len(out)]
    for i in range(len(out)):
        out[i] = lowest[i]
    for byte in range(1, width):
        plane = about[at + byte * total + first : at + byte * total + first + len(out)]
        for i in range(len(out)):
            out[i] |= np.int64(plane[i]) << np.int64(8 * byte)
    return at + width * total


@njit(nogil=True, cache=True)
def check_columns(descriptors, lengths, parts, tables, position, used):
    """(the first column that a kernel could not decode without leaving its arrays, or -1; the exceptions behind its last one).

    descriptors i64[11, n] of columns with so many samples, lengths i64[n]; those of a part, parts i64[p] has the sizes, are
    decoded together, and refer to no others. `tables` are there; their exceptions are position i64[x] from `used` on.
    """
    c = 0
    for size in parts:
        first = c
        for c in range(first, first + size):
            form, shift, scale, table = descriptors[FORM, c], descriptors[SHIFT, c], descriptors[SCALE, c], descriptors[TABLE, c]
            sound = 0 <= form < 2 * ZIGZAG and form & 3 <= 2 and 0 <= shift < 64
            sound &= BITS <= scale <= MAX_EXPONENT and 0 <= table <= tables
            for row in range(REFER, SECOND + 1):
                other = c - abs(descriptors[row, c])
                sound = sound and other >= first and lengths[other] == lengths[c]
            if not sound or used + descriptors[EXCEPTIONS, c] > len(position):
                return c, used
            for e in range(used, used + descriptors[EXCEPTIONS, c]):
                if position[e] >= lengths[c]:
                    return c, used
            used += descriptors[EXCEPTIONS, c]
        c = first + size
    return -1, used

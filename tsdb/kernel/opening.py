"""The description of a page to the arrays that kernels use. No number of it is used before it is checked."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.codec import BITS, FORM, MAX_EXPONENT, REFER, SCALE, SECOND, SHIFT, TABLE, ZIGZAG
from tsdb.kernel.decode import ADDED, EXCEPTION, SMALL, START, STREAM, small
from tsdb.kernel.entropy import MAX_CLASS, SYMBOLS

SOUND, WRONG_TIMES, WRONG_CLASS = range(3)
SERIES_BYTES, TIME_BYTES, COLUMN_BYTES, EXCEPTION_BYTES = 4, 4, 38, 12
"""What each takes of a description; a table takes SYMBOLS."""


@njit(nogil=True, cache=True)
def read_description(about, records, classes, position, exact, time_ref, counts, time_at):
    """Fill the arrays by about u8[...], which the caller has made as long as they need; SOUND, or what is wrong.

    records i64[k+c+1, FIELDS] of the time columns and behind them all others, classes u8[t, 256], position and exact i64[x]; of n
    series time_ref and counts i64[n]; time_at i64[k+1].
    """
    k, every = len(time_at) - 1, len(records) - 1
    at = _read(about, 0, 4, time_ref)
    at = _read(about, at, 4, time_at[1:])
    at = _read(about, at, SECOND + 1, records[:every, SMALL])
    at = _read(about, at, 4, records[1:, EXCEPTION])
    at = _read(about, at, 4, records[1:, STREAM])
    for t in range(len(classes)):
        classes[t] = about[at : at + SYMBOLS]
        at += SYMBOLS
    for field in range(START, ADDED + 1):
        at = _read(about, at, 8, records[:every, field])
    at = _read(about, at, 4, position)
    _read(about, at, 8, exact)
    records[0, EXCEPTION] = records[0, STREAM] = time_at[0] = 0
    for c in range(every):
        records[c + 1, EXCEPTION] += records[c, EXCEPTION]
        records[c + 1, STREAM] += records[c, STREAM]
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
def _read(about, at, width, out):
    """The numbers of `width` bytes that lie shuffled from `at` on; the position behind them."""
    n = len(out)
    row = np.zeros(n, np.int64)
    for byte in range(width):
        plane = about[at + byte * n : at + byte * n + n]
        for i in range(n):
            row[i] |= np.int64(plane[i]) << np.int64(8 * byte)
    for i in range(n):
        out[i] = row[i]
    return at + width * n


@njit(nogil=True, cache=True)
def check_columns(records, lengths, parts, tables, position):
    """The first column that a kernel could not decode without leaving its arrays, or -1.

    records i64[n+1, FIELDS] of columns with so many samples, lengths i64[n]; those of a part, parts i64[p] has the sizes, are
    decoded together, and refer to no others. `tables` are there; position i64[x] of the exceptions.
    """
    c = 0
    for size in parts:
        first = c
        for c in range(first, first + size):
            record = records[c]
            form, table = small(record, FORM), small(record, TABLE)
            sound = 0 <= form < 2 * ZIGZAG and form & 3 <= 2 and 0 <= small(record, SHIFT) < 64
            sound &= BITS <= small(record, SCALE) <= MAX_EXPONENT and 0 <= table <= tables
            for number in range(REFER, SECOND + 1):
                refer = small(record, number)
                other = c - abs(refer)
                sound = sound and (refer == 0 or (other >= first and lengths[other] == lengths[c]))
            if not sound or records[c + 1, EXCEPTION] > len(position):
                return c
            for e in range(record[EXCEPTION], records[c + 1, EXCEPTION]):
                if position[e] >= lengths[c]:
                    return c
        c = first + size
    return -1

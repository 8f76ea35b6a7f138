"""The series section of a Prometheus index to columns.

Each entry stands on a multiple of 16 bytes: uvarint size | size bytes | crc32c; of its bytes
labels uvarint, (name, value) uvarint each | chunks uvarint, per chunk: min, max - min, reference; later chunks tell min as the
distance to the max of before, and the reference as the signed distance to the one before.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.crc32c import crc32c, stored_crc
from tsdb.kernel.protowire import read_varint

MAX_COUNT = np.uint64(1 << 31)
"""More labels, chunks or bytes than this in one entry is damage."""


@register_jitable
def _zigzag(value):
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@register_jitable
def _next_entry(b, at, end):
    """(start, end) of the next entry's bytes from `at` on; (-1, where) if it is damaged, (-2, end) if there is none."""
    at = (at + 15) >> 4 << 4
    while at < end:
        size, i = read_varint(b, at, end)
        if i < 0 or size > MAX_COUNT or (size > np.uint64(0) and i + np.int64(size) + 4 > end):
            return -1, at
        if size > np.uint64(0):
            stop = i + np.int64(size)
            return (i, stop) if crc32c(b, i, stop) == stored_crc(b, stop) else (-1, at)
        at += 16
    return -2, end


@njit(nogil=True, cache=True, boundscheck=True)
def count_series(b, start, end):
    """i64[4]: series, labels and chunks in b[start:end] (u8), and where the first damaged entry is, -1 if all checksums hold."""
    out = np.array([0, 0, 0, -1])
    i, stop = _next_entry(b, start, end)
    while i >= 0:
        labels, at = read_varint(b, i, stop)
        sound = at >= 0 and labels < MAX_COUNT
        for _ in range(2 * np.int64(labels) if sound else 0):
            _, at = read_varint(b, at, stop)
            if at < 0:
                sound = False
                break
        chunks, at = read_varint(b, at, stop) if sound else (np.uint64(0), -1)
        if at < 0 or chunks > MAX_COUNT:
            out[3] = i
            return out
        out[0] += 1
        out[1] += np.int64(labels)
        out[2] += np.int64(chunks)
        i, stop = _next_entry(b, stop + 4, end)
    if i == -1:
        out[3] = stop
    return out


@njit(nogil=True, cache=True, boundscheck=True)
def fill_series(b, start, end, place, label_at, name, value, chunk_at, t_min, t_max, ref):
    """-1, or where the first damaged entry is: fills the columns that `count_series` has sized.

    place i64[n] of each entry; label_at i64[n+1] into name and value i64; chunk_at i64[n+1] into t_min, t_max and ref i64.
    """
    n, labels, chunks = 0, 0, 0
    label_at[0], chunk_at[0] = 0, 0
    i, stop = _next_entry(b, start, end)
    while i >= 0:
        place[n] = i
        count, at = read_varint(b, i, stop)
        for _ in range(np.int64(count)):
            number, at = read_varint(b, at, stop)
            name[labels] = np.int64(number)
            number, at = read_varint(b, at, stop)
            value[labels] = np.int64(number)
            labels += 1
        count, at = read_varint(b, at, stop)
        last, last_ref = np.int64(0), np.int64(0)
        for k in range(np.int64(count)):
            low, at = read_varint(b, at, stop)
            span, at = read_varint(b, at, stop) if at >= 0 else (low, -1)
            where, at = read_varint(b, at, stop) if at >= 0 else (low, -1)
            if at < 0:
                return i
            t_min[chunks] = _zigzag(low) if k == 0 else last + np.int64(low)
            last = t_max[chunks] = t_min[chunks] + np.int64(span)
            last_ref = ref[chunks] = np.int64(where) if k == 0 else last_ref + _zigzag(where)
            chunks += 1
        n += 1
        label_at[n], chunk_at[n] = labels, chunks
        i, stop = _next_entry(b, stop + 4, end)
    return -1

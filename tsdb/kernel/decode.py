"""Streams of bits back to columns of integers and floats: the other half of `tsdb.kernel.codec`, which says what they are."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.codec import (
    BASE,
    EXCEPTIONS,
    FIRST,
    FORM,
    HIGH,
    LENGTH,
    LOW,
    POWERS,
    REFER,
    SCALE,
    SECOND,
    SHIFT,
    SLOPE,
    TABLE,
    TO,
    ZIGZAG,
    add_column,
)
from tsdb.kernel.entropy import STATES, decode_pair, decode_stream, decoding_table


@njit(nogil=True, cache=True)
def decode_columns(data, stream_at, classes, descriptors, places, position, exact, used, out, out_f):
    """Decode columns into out i64[...] (out_f f64 is the same memory).

    data u8[...] with the stream of column c from stream_at[c] on, and MARGIN bytes behind the last; classes u8[t, 256]. places
    i64[4, n] has the rows LENGTH, LOW, HIGH, TO: samples [low, high) of a column go to out from `to` on, and to < 0 skips the
    column. position and exact i64[x] are the exceptions of all columns, those of the first from `used` on. The caller guarantees
    that out is long enough, and that columns refer to equally long ones of those that are given.
    """
    columns = places.shape[1]
    at, own, room = _scratch(descriptors, places)
    z = np.empty(room, np.int64)
    tables, built = np.empty((len(classes), STATES), np.uint32), np.zeros(len(classes), np.bool_)
    coded = np.flatnonzero((at >= 0) & (descriptors[TABLE] > 0))
    done = 0  # streams of `coded` are decoded two at a time, the second ahead of its turn
    for c in range(columns):
        if at[c] >= 0:
            if done < len(coded) and coded[done] == c:
                pair = coded[done : done + 2]
                _residuals(data, stream_at, classes, descriptors, places, pair, tables, built, z, at)
                done += len(pair)
            if at[c] < own and _is_constant(descriptors[:, c]):
                _put_constant(descriptors[:, c], places[:, c], position, exact, used, out, out_f)
                used += descriptors[EXCEPTIONS, c]
                continue
            _integers(descriptors[:, c], places[LENGTH, c], z[at[c] :])
            for row in range(REFER, SECOND + 1):
                refer = descriptors[row, c]
                if refer:
                    add_column(z, at[c - abs(refer)], places[LENGTH, c], np.sign(refer), z[at[c] :])
            _put(descriptors[:, c], places[:, c], position, exact, used, z[at[c] :], out, out_f)
        used += descriptors[EXCEPTIONS, c]


@register_jitable
def _scratch(descriptors, places):
    """(where the integers of each column stand while they are needed i64[n], -1 of one not wanted; from where on they stand that
    others refer to; how many that takes).

    Those keep their place; of the rest at most two are under way at a time, of turns an even and an odd one.
    """
    columns = places.shape[1]
    at = np.full(columns, -1, np.int64)
    longest = 2  # a column shorter than its order still has its first value and slope
    for c in range(columns):
        longest = max(longest, places[LENGTH, c] + 2)
    own = room = 3 * longest
    for c in range(columns - 1, -1, -1):
        if at[c] < 0 and places[TO, c] >= 0 and places[HIGH, c] > places[LOW, c]:
            at[c] = 0
        for row in range(REFER, SECOND + 1):
            other = c - abs(descriptors[row, c])
            if at[c] >= 0 and other != c and at[other] < 0:
                at[other] = room
                room += places[LENGTH, other] + 2
    turn = 0
    for c in range(columns):
        if at[c] == 0:
            at[c] = 2 * longest
        if at[c] >= 0 and descriptors[TABLE, c]:
            if at[c] == 2 * longest:
                at[c] = (turn & 1) * longest
            turn += 1
    return at, own, room


@register_jitable
def _residuals(data, stream_at, classes, descriptors, places, pair, tables, built, z, at):
    """Decode the streams of one or two columns to where their integers stand."""
    for c in pair:
        t = descriptors[TABLE, c] - 1
        if not built[t]:
            decoding_table(classes[t], tables[t])
            built[t] = True
    a, b = pair[0], pair[-1]
    a_size = max(places[LENGTH, a] - (descriptors[FORM, a] & 3), 0)
    b_size = max(places[LENGTH, b] - (descriptors[FORM, b] & 3), 0)
    a_out, b_out = z[at[a] : at[a] + a_size], z[at[b] : at[b] + b_size]
    a_table, b_table = tables[descriptors[TABLE, a] - 1], tables[descriptors[TABLE, b] - 1]
    if a == b:
        decode_stream(data, stream_at[a], a_size, a_table, a_out)
    else:
        decode_pair(data, stream_at[a], a_size, a_table, a_out, stream_at[b], b_size, b_table, b_out)


@register_jitable
def _put(descriptor, place, position, exact, used, z, out, out_f):
    """The wanted samples of a column's integers z into out; its exceptions are those from `used` on."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    if to < 0 or high <= low:
        return
    source = z[low:high]
    if descriptor[SCALE] >= 0:
        power, floats = POWERS[descriptor[SCALE]], out_f[to : to + high - low]
        for i in range(high - low):
            floats[i] = np.float64(source[i]) / power
    else:
        numbers = out[to : to + high - low]
        for i in range(high - low):
            numbers[i] = source[i]
    _put_exact(descriptor, place, position, exact, used, out)


@register_jitable
def _put_exact(descriptor, place, position, exact, used, out):
    """The exceptions of a column, those from `used` on, over what was put."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    for e in range(used, used + descriptor[EXCEPTIONS]):
        if low <= position[e] < high:
            out[to + position[e] - low] = exact[e]


@register_jitable
def _is_constant(descriptor):
    """Whether a column has no stream, refers to nothing, and does not rise: many window columns are one number."""
    if descriptor[TABLE] or descriptor[REFER] or descriptor[SECOND]:
        return False
    order = descriptor[FORM] & 3
    return order == 0 or (descriptor[BASE] == 0 and (order == 1 or descriptor[SLOPE] == 0))


@register_jitable
def _put_constant(descriptor, place, position, exact, used, out, out_f):
    """As `_put`, of a column of one number."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    if to < 0 or high <= low:
        return
    number = descriptor[FIRST if descriptor[FORM] & 3 else BASE]
    if descriptor[SCALE] >= 0:
        value, floats = np.float64(number) / POWERS[descriptor[SCALE]], out_f[to : to + high - low]
        for i in range(high - low):
            floats[i] = value
    else:
        numbers = out[to : to + high - low]
        for i in range(high - low):
            numbers[i] = number
    _put_exact(descriptor, place, position, exact, used, out)


@register_jitable
def _integers(descriptor, length, z):
    """From its residuals in z the integers z[:length] of a column, before what it refers to is added."""
    order, base, shift = descriptor[FORM] & 3, descriptor[BASE], descriptor[SHIFT]
    n = max(length - order, 0)
    if descriptor[TABLE] == 0:
        for i in range(n):
            z[i] = base
    elif descriptor[FORM] & ZIGZAG:
        for i in range(n):
            z[i] = (_shift_right(z[i], 1) ^ -(z[i] & 1)) << shift
    elif shift or base:
        for i in range(n):
            z[i] = (z[i] << shift) + base
    for k in range(order):
        n = _integrate(z, n, descriptor[SLOPE if k + 1 < order else FIRST])


@register_jitable
def _shift_right(bits, drop):
    """`bits` taken as unsigned, shifted right by 0 to 63."""
    return bits if drop == 0 else (bits >> drop) & ((np.int64(1) << (64 - drop)) - 1)


@register_jitable
def _integrate(z, n, value):
    """Replace the differences z[:n] by the n + 1 values that begin with `value`; how many those are."""
    for i in range(n):
        value, z[i] = value + z[i], value
    z[n] = value
    return n + 1

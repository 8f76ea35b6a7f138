"""Streams of bits back to columns of integers and floats: the other half of `tsdb.kernel.codec`, which says what they are.

A reader wants a few columns of many. What describes a column lies together, in a record; only those are looked at that are wanted
or that these refer to.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.codec import FORM, POWERS, REFER, SCALE, SECOND, SHIFT, TABLE, ZIGZAG, add_column
from tsdb.kernel.entropy import STATES, decode_pair, decode_stream, decoding_table

FIELDS = 6
SMALL, STREAM, EXCEPTION, START, STEP, ADDED = range(FIELDS)
"""Fields of a column's record, i64 each: the first six numbers of its descriptor in a byte each, in their order; where its stream
begins, and its exceptions; FIRST, SLOPE and BASE. The record behind the last column's tells where that one's end."""
COLUMN, LOW, HIGH, TO = range(4)
"""Rows of the places i64[4, w] that wanted columns are decoded to."""

_WANTED, _REFERRED = 1, 2


@register_jitable
def small(record, number):
    """FORM, SHIFT, SCALE, TABLE, REFER or SECOND of a column."""
    return record[SMALL] << np.int64(56 - 8 * number) >> np.int64(56)


@njit(nogil=True, cache=True)
def decode_columns(data, classes, records, lengths, places, position, exact, out, out_f):
    """Decode columns into out i64[...] (out_f f64 is the same memory).

    records i64[n+1, FIELDS] and lengths i64[n] of all columns that may refer to each other; data u8[...] with their streams, and
    MARGIN bytes behind the last; classes u8[t, 256]. places i64[4, w] has the rows COLUMN, LOW, HIGH, TO: samples [low, high) of
    that column go to out from `to` on. position and exact i64[x] are the exceptions. The caller guarantees that out is long
    enough, that no column is wanted twice, and that columns refer to equally long ones before them.
    """
    order, rank, wanted, at, own, room = _plan(records, lengths, places)
    z = np.empty(room, np.int64)
    tables, built = np.empty((len(classes), STATES), np.uint32), np.zeros(len(classes), np.bool_)
    ready = -1  # streams are decoded two at a time, the second ahead of its turn
    for k in range(len(order)):
        c, record = order[k], records[order[k]]
        excepted = position[record[EXCEPTION] : records[c + 1, EXCEPTION]], exact[record[EXCEPTION] : records[c + 1, EXCEPTION]]
        if small(record, TABLE) and k > ready:
            ready = _coded_after(records, order, k)
            _residuals(data, classes, records, lengths, order, k, ready, tables, built, z, at)
        place = places[:, max(wanted[k], 0)]
        if at[k] < own and _is_constant(record):
            _put_constant(record, place, excepted, out, out_f)
            continue
        numbers = z[at[k] : at[k] + lengths[c] + 2]
        _integers(record, lengths[c], numbers)
        for number in range(REFER, SECOND + 1):
            refer = small(record, number)
            if refer:
                add_column(z, at[rank[c - abs(refer)]], lengths[c], np.sign(refer), numbers)
        if wanted[k] >= 0:
            _put(record, place, excepted, numbers, out, out_f)


@register_jitable
def _plan(records, lengths, places):
    """(the columns to decode i64[k], ascending; the rank of each of them by its number; which of the places each has i64[k], or -1;
    where its integers stand while they are needed i64[k]; from where on those stand that others refer to; how many all take).

    Those keep their place; of the rest at most two are under way at a time, of turns an even and an odd one.
    """
    need, last = np.zeros(len(lengths), np.uint8), -1
    for w in range(places.shape[1]):
        if places[HIGH, w] > places[LOW, w]:
            need[places[COLUMN, w]] |= _WANTED
            last = max(last, places[COLUMN, w])
    order, first = np.empty(last + 1, np.int64), last + 1
    longest = 2  # a column shorter than its order still has its first value and slope
    for c in range(last, -1, -1):
        if need[c]:
            first -= 1
            order[first] = c
            longest = max(longest, lengths[c] + 2)
            for number in range(REFER, SECOND + 1):
                refer = small(records[c], number)
                if refer:
                    need[c - abs(refer)] |= _REFERRED
    order = order[first:]
    count, rank = len(order), np.empty(last + 1, np.int64)
    for k in range(count):
        rank[order[k]] = k
    wanted, at = np.full(count, -1, np.int64), np.empty(count, np.int64)
    for w in range(places.shape[1]):
        if places[HIGH, w] > places[LOW, w]:
            wanted[rank[places[COLUMN, w]]] = w
    own = room = 3 * longest
    turn = 0
    for k in range(count):
        coded = small(records[order[k]], TABLE) > 0
        if need[order[k]] & _REFERRED:
            at[k] = room
            room += lengths[order[k]] + 2
        else:
            at[k] = (turn & 1) * longest if coded else 2 * longest
        turn += coded
    return order, rank, wanted, at, own, room


@register_jitable
def _coded_after(records, order, k):
    """The next column that has a stream; k itself where none has."""
    for later in range(k + 1, len(order)):
        if small(records[order[later]], TABLE):
            return later
    return k


@register_jitable
def _residuals(data, classes, records, lengths, order, one, two, tables, built, z, at):
    """Decode the streams of two columns, or of one that is both, to where their integers stand."""
    for k in (one, two):
        t = small(records[order[k]], TABLE) - 1
        if not built[t]:
            decoding_table(classes[t], tables[t])
            built[t] = True
    a, b = records[order[one]], records[order[two]]
    a_size = max(lengths[order[one]] - (small(a, FORM) & 3), 0)
    b_size = max(lengths[order[two]] - (small(b, FORM) & 3), 0)
    a_out, b_out = z[at[one] : at[one] + a_size], z[at[two] : at[two] + b_size]
    a_table, b_table = tables[small(a, TABLE) - 1], tables[small(b, TABLE) - 1]
    if one == two:
        decode_stream(data, a[STREAM], a_size, a_table, a_out)
    else:
        decode_pair(data, a[STREAM], a_size, a_table, a_out, b[STREAM], b_size, b_table, b_out)


@register_jitable
def _put(record, place, excepted, z, out, out_f):
    """The wanted samples of a column's integers z into out."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    source, scale = z[low:high], small(record, SCALE)
    if scale >= 0:
        power, floats = POWERS[scale], out_f[to : to + high - low]
        for i in range(high - low):
            floats[i] = np.float64(source[i]) / power
    else:
        numbers = out[to : to + high - low]
        for i in range(high - low):
            numbers[i] = source[i]
    _put_exact(place, excepted, out)


@register_jitable
def _put_exact(place, excepted, out):
    """The exceptions of a column over what was put."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    position, exact = excepted
    for e in range(len(position)):
        if low <= position[e] < high:
            out[to + position[e] - low] = exact[e]


@register_jitable
def _is_constant(record):
    """Whether a column has no stream, refers to nothing, and does not rise: many window columns are one number."""
    if small(record, TABLE) or small(record, REFER) or small(record, SECOND):
        return False
    order = small(record, FORM) & 3
    return order == 0 or (record[ADDED] == 0 and (order == 1 or record[STEP] == 0))


@register_jitable
def _put_constant(record, place, excepted, out, out_f):
    """As `_put`, of a column of one number."""
    low, high, to = place[LOW], place[HIGH], place[TO]
    number, scale = record[START if small(record, FORM) & 3 else ADDED], small(record, SCALE)
    if scale >= 0:
        value, floats = np.float64(number) / POWERS[scale], out_f[to : to + high - low]
        for i in range(high - low):
            floats[i] = value
    else:
        numbers = out[to : to + high - low]
        for i in range(high - low):
            numbers[i] = number
    _put_exact(place, excepted, out)


@register_jitable
def _integers(record, length, z):
    """From its residuals in z the integers z[:length] of a column, before what it refers to is added."""
    form, base, shift = small(record, FORM), record[ADDED], small(record, SHIFT)
    order = form & 3
    n = max(length - order, 0)
    if small(record, TABLE) == 0:
        for i in range(n):
            z[i] = base
    elif form & ZIGZAG:
        for i in range(n):
            z[i] = (_shift_right(z[i], 1) ^ -(z[i] & 1)) << shift
    elif shift or base:
        for i in range(n):
            z[i] = (z[i] << shift) + base
    for k in range(order):
        n = _integrate(z, n, record[STEP if k + 1 < order else START])


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

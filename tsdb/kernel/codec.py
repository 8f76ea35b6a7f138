"""Columns of integers and floats to streams of bits and back.

A column of n 64-bit integers may first be taken less, or plus, one or two equally long columns before it: what counts one thing
in two ways (all of a histogram's buckets, memory used and free) leaves little. It is then coded as residuals of order 0, 1 or 2
(value, difference, difference of differences), each either above a base (their smallest) or zigzag, without their
common trailing zero bits, by one of the page's tables of `tsdb.kernel.entropy`. Floats become integers first: v = i / 10^e where
that comes back bit for bit, else the bits of the float.

Integers are int64 throughout and wrap, so every bit pattern survives.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from tsdb.kernel.entropy import (
    STATE_BITS,
    STATES,
    SYMBOLS,
    bit_length,
    classes_of,
    count_log,
    encode_stream,
    encoding_table,
    plain_bits,
    symbol_of,
)

MAX_EXPONENT = 22
"""10^22 is the last that is exact. Squares of nanoseconds have 18 decimals."""
EXACT = float(1 << 53)
BITS = -1
"""The scale of a column that holds the bits of floats, or plain integers."""
ZIGZAG = 4
"""Added to the order of a column whose residuals are zigzag."""
EXCEPTIONS_PER = 16
"""A column of scaled integers may hold one other value (say, a stale marker) in so many samples."""
KNOWN_TIMES = 64
"""How many of the latest distinct time columns a series is compared with: the targets of one page, not of a block."""
STRETCHES, PROBE, REFER_PROBE = 4, 64, 16
"""The order is chosen by 4 stretches of 64 samples, what to refer to by 4 of 16: pages are 0.5 % smaller by all of them."""
LEAST_REFER = 8
NEIGHBOURS, MAX_REFER = 64, 127
"""How many of the columns before it that are not constant a column is compared with, and how far away they may be."""
REFER_BITS = 8
"""What it takes at least to tell another column."""
MAX_TABLES, QUICK_TABLES = 64, 8
"""Tables of a page; few where it is coded quickly, for each is tried with each column."""
TABLE_BITS, NEW_TABLE_BITS = 4, 24
"""About what a table takes: for each of its symbols, and beside those."""

FORM, SHIFT, SCALE, TABLE, REFER, SECOND, EXCEPTIONS, SIZE, FIRST, SLOPE, BASE = range(11)
"""Rows of the descriptors i64[11, n] of n columns.

FORM is the order, plus ZIGZAG; SHIFT the dropped zero bits; SCALE the decimal exponent or BITS; TABLE 0 where all residuals are 0,
else 1 + the number of the table; REFER and SECOND how far before it lie the columns that are added to it, negative where they are
subtracted, 0 = none; EXCEPTIONS their number; SIZE the bytes of the stream; FIRST the first value; SLOPE the first difference;
BASE what is added to each residual.
"""

POWERS = 10.0 ** np.arange(MAX_EXPONENT + 1)


@njit(nogil=True, cache=True)
def share_times(t_ms, offsets):
    """(ref i32[n], first_user i64[k]): which of k distinct time columns each series uses, and who brought it.

    t_ms i64[m], offsets i64[n+1]. Nearly all series of a page are scraped together, so the last columns are tried first.
    """
    n = len(offsets) - 1
    ref = np.empty(n, np.int32)
    first_user = np.empty(n, np.int64)
    known = 0
    for i in range(n):
        found = -1
        for j in range(known - 1, max(-1, known - 1 - KNOWN_TIMES), -1):
            if _same(t_ms, offsets[i], offsets[i + 1], offsets[first_user[j]], offsets[first_user[j] + 1]):
                found = j
                break
        if found < 0:
            first_user[known] = i
            found = known
            known += 1
        ref[i] = found
    return ref, first_user[:known].copy()


@register_jitable
def _same(t_ms, a, a_end, b, b_end):
    size = a_end - a
    if size != b_end - b:
        return False
    if size and (t_ms[a] != t_ms[b] or t_ms[a_end - 1] != t_ms[b_end - 1]):
        return False
    different = 0
    for at in range(0, size, 256):  # in stretches: the inner loop vectorises, the outer one leaves early
        for i in range(at, min(at + 256, size)):
            different |= t_ms[a + i] ^ t_ms[b + i]
        if different:
            return False
    return True


@njit(nogil=True, cache=True)
def to_integers(values, bits, offsets, out):
    """(scale i8[n], exceptions i64[n], position i64[x]) of float columns; integers into out i64[m].

    values f64[m] and bits i64[m] are the same memory. scale is the decimal exponent, or BITS. A value that no integer gives back
    is an exception: its position in the column is told, and its integer repeats the one before.
    """
    n = len(offsets) - 1
    scale = np.empty(n, np.int8)
    counts = np.zeros(n, np.int64)
    position = np.empty(len(values) // EXCEPTIONS_PER + 1, np.int64)
    used = 0
    for c in range(n):
        start, end = offsets[c], offsets[c + 1]
        allowed = (end - start) // EXCEPTIONS_PER
        e = _exponent(values, bits, start, end, allowed)
        if e >= 0 and _scale(values, bits, start, end, e, out) > allowed:
            e = -1
        scale[c] = e
        if e < 0:
            for i in range(start, end):
                out[i] = bits[i]
            continue
        before = used
        for i in range(start, end):
            if not _exact(values[i], bits[i], POWERS[e]):
                position[used] = i - start
                used += 1
        if used > before:
            _repeat(out, start, end, position, before, used)
        counts[c] = used - before
    return scale, counts, position[:used].copy()


@register_jitable(_nrt=False)
def _exact(value, bits, power):
    """Whether rint(value * power) / power has the same bits; -0.0, NaN and the infinities have not."""
    scaled = np.rint(value * power)
    return abs(scaled) < EXACT and scaled / power == value and (value != 0.0 or bits == 0)


@register_jitable(_nrt=False)
def _exponent(values, bits, start, end, allowed):
    """The least decimal exponent that nearly all values need, -1 where more than `allowed` have none."""
    misses = 0
    for i in range(start, end):
        misses += 0 if _exact(values[i], bits[i], 1.0) else 1
    if misses <= allowed:
        return 0
    e, misses = 0, 0
    for i in range(start, end):
        if _exact(values[i], bits[i], POWERS[e]):
            continue
        higher = e + 1
        while higher <= MAX_EXPONENT and not _exact(values[i], bits[i], POWERS[higher]):
            higher += 1
        if higher <= MAX_EXPONENT:
            e = higher
        else:
            misses += 1
            if misses > allowed:
                return -1
    return e


@register_jitable(_nrt=False)
def _scale(values, bits, start, end, e, out):
    """Write the integers; how many are exceptions."""
    misses = 0
    power = POWERS[e]
    for i in range(start, end):
        exact = _exact(values[i], bits[i], power)
        out[i] = np.int64(np.rint(values[i] * power)) if exact else 0
        misses += 0 if exact else 1
    return misses


@register_jitable(_nrt=False)
def _repeat(out, start, end, position, before, used):
    """Give each exception the integer before it; those at the front take the first sound one."""
    first, x = start, before
    while x < used and position[x] == first - start:
        first, x = first + 1, x + 1
    for i in range(start, first):
        out[i] = out[first] if first < end else 0
    for j in range(x, used):
        out[start + position[j]] = out[start + position[j] - 1]


@njit(nogil=True, cache=True)
def encode_columns(x, offsets, groups, descriptors, neighbours):
    """(stream u8[...], classes u8[t, 256]) that code the columns of x i64[m]; what they are into descriptors i64[11, n].

    Writes all rows but SCALE and EXCEPTIONS. groups i64[n]: columns of one group that are equally long may refer to each other,
    to one of the `neighbours` last ones; each that is tried costs time.
    """
    columns = len(offsets) - 1
    longest = 0
    for c in range(columns):
        longest = max(longest, offsets[c + 1] - offsets[c])
    u = np.empty(len(x), np.uint64)
    y, z, counts = np.empty(longest, np.int64), np.empty(max(longest, STRETCHES * PROBE), np.int64), np.empty(SYMBOLS, np.int64)
    tables, totals = np.zeros((MAX_TABLES, SYMBOLS), np.int64), np.zeros(MAX_TABLES, np.int64)
    used = 0
    recent = np.empty(max(neighbours, 1), np.int64)
    known = 0
    bits = 0
    for c in range(columns):
        n = offsets[c + 1] - offsets[c]
        if _constant(x, offsets[c], n):
            if n:
                descriptors[FORM, c], descriptors[FIRST, c] = 1, x[offsets[c]]
            continue
        order, zigzag = _choose(x, offsets, groups, c, recent, known, descriptors, y, z, counts, neighbours)
        most, low, high = _leave(y, n, offsets[c], c, order, zigzag, descriptors, u, counts)
        if neighbours:
            recent[known % neighbours] = c
            known += 1
        if most:
            table = _join_table(counts, low, high, tables, totals, used, MAX_TABLES if neighbours else QUICK_TABLES)
            used = max(used, table + 1)
            descriptors[TABLE, c] = table + 1
            bits += most
    classes = np.empty((used, SYMBOLS), np.uint8)
    codes, next_states = np.empty((used, 3, SYMBOLS), np.int64), np.empty((used, STATES), np.int64)
    for t in range(used):
        classes_of(tables[t], classes[t])
        encoding_table(classes[t], codes[t], next_states[t])
    words = np.zeros((bits + columns * (STATE_BITS + 8)) // 64 + 2, np.uint64)
    at = 0
    for c in range(columns):
        t = descriptors[TABLE, c] - 1
        if t >= 0:
            n = offsets[c + 1] - offsets[c] - (descriptors[FORM, c] & 3)
            end = encode_stream(u[offsets[c] :], n, codes[t], next_states[t], z, words, at)
            descriptors[SIZE, c] = (end + 7) // 8 - at // 8
            at = 8 * ((end + 7) // 8)
    return words.view(np.uint8)[: at // 8], classes


@register_jitable(_nrt=False)
def _constant(x, start, n):
    different = 0
    for i in range(start, start + n):
        different |= x[i] ^ x[start]
    return different == 0


@register_jitable
def _choose(x, offsets, groups, c, recent, known, descriptors, y, z, counts, neighbours):
    """(order, zigzag) that cost least for the column, which goes into y, less the columns that it refers to."""
    start, n = offsets[c], offsets[c + 1] - offsets[c]
    best = np.inf
    best_order, best_zigzag = 0, 0
    descriptors[REFER, c], descriptors[SECOND, c] = 0, 0
    for i in range(n):
        y[i] = x[start + i]
    if neighbours == 0:
        return _quick_form(y, n)
    for depth in range(3):
        refer = _neighbour(y, x, offsets, groups, c, recent, known) if depth else 0
        if depth and refer == 0:
            break
        add_column(x, offsets[c - abs(refer)], n, -np.sign(refer), y)
        cost, order, zigzag = _form(y, n, z, counts)
        if cost + REFER_BITS * depth >= best:
            add_column(x, offsets[c - abs(refer)], n, np.sign(refer), y)
            break
        best, best_order, best_zigzag = cost + REFER_BITS * depth, order, zigzag
        if depth:
            descriptors[REFER if depth == 1 else SECOND, c] = refer
    return best_order, best_zigzag


@register_jitable(_nrt=False)
def _leave(y, n, start, c, order, zigzag, descriptors, u, counts):
    """(most bits, low, high): residuals of y[:n] into u, their symbols low:high into counts; 0 bits where all residuals are 0."""
    descriptors[FIRST, c] = y[0] if order else 0
    descriptors[SLOPE, c] = y[1] - y[0] if order == 2 else 0
    for _ in range(order):
        n = _difference(y, n)
    base, shift = _base(y, n, zigzag) if n else (np.int64(0), np.int64(0))
    descriptors[FORM, c], descriptors[BASE, c], descriptors[SHIFT, c] = order + ZIGZAG * zigzag, base, shift
    counts[:] = 0
    most, low, high = 0, SYMBOLS, 0
    some = False
    for i in range(n):
        residual = _residual(y[i], base, shift, zigzag)
        u[start + i] = residual
        symbol = symbol_of(residual)
        counts[symbol] += 1
        most += plain_bits(symbol) + STATE_BITS
        low, high = min(low, symbol), max(high, symbol + 1)
        some |= residual != 0
    return (most if some else 0), low, high


@register_jitable(_nrt=False)
def _quick_form(y, n):
    """(order, zigzag) whose residuals have the fewest bits before they are coded; a tenth of the time of `_form`."""
    low = y[0]
    for i in range(n):
        low = min(low, y[i])
    flat, once, twice, before, falls = 0, 0, 0, np.int64(0), False
    for i in range(1, n):
        step = y[i] - y[i - 1]
        flat += bit_length(np.uint64(y[i] - low))
        once += bit_length(np.uint64(abs(step)))
        twice += bit_length(np.uint64(abs(step - before))) if i > 1 else 0
        falls |= step < 0
        before = step
    once += n if falls else 0  # a sign takes a bit
    twice += n
    if flat <= once and (flat <= twice or n == 2):
        return 0, 0
    if once <= twice or n == 2:
        return 1, 1 if falls else 0
    return 2, 1


@register_jitable
def _form(y, n, z, counts):
    """(bits, order, zigzag) that cost least for a column y[:n], n > 1: the order by a few stretches, zigzag by the whole of it."""
    best, best_order = np.inf, 0
    for order in range(min(3, n)):
        size = min(PROBE, n - order)
        stretches = STRETCHES if n - order > size else 1
        left = 0
        for stretch in range(stretches):
            at = stretch * (n - order - size) // (STRETCHES - 1)
            if order == 0:
                for i in range(size):
                    z[left + i] = y[at + i]
            elif order == 1:
                for i in range(size):
                    z[left + i] = y[at + i + 1] - y[at + i]
            else:
                for i in range(size):
                    z[left + i] = y[at + i + 2] - 2 * y[at + i + 1] + y[at + i]
            left += size
        for zigzag in range(2):
            cost = _cost(z, left, zigzag, counts, TABLE_BITS * left / n)
            if cost < best:
                best, best_order = cost, order
    for i in range(n):
        z[i] = y[i]
    for _ in range(best_order):
        n = _difference(z, n)
    best, best_zigzag = np.inf, 0
    for zigzag in range(2):
        cost = _cost(z, n, zigzag, counts, 1.0 * TABLE_BITS)
        if cost < best:
            best, best_zigzag = cost, zigzag
    return best, best_order, best_zigzag


@register_jitable
def add_column(x, start, n, times, y):
    """Add a column, -1, 0 or 1 times, to y[:n]."""
    if times:
        other = x[start : start + n]
        for i in range(n):
            y[i] += times * other[i]


@register_jitable(_nrt=False)
def _base(z, n, zigzag):
    """(base, shift) of residuals."""
    low, bits = z[0], np.int64(0)
    for i in range(n):
        low = min(low, z[i])
        bits |= z[i]
    if zigzag:
        return 0, _trailing_zeros(bits)
    above = 0
    for i in range(n):
        above |= z[i] - low
    return low, _trailing_zeros(above)


@register_jitable(_nrt=False)
def _residual(z, base, shift, zigzag):
    if zigzag:
        z >>= shift
        return np.uint64((z << 1) ^ (z >> 63))
    return np.uint64(z - base) >> np.uint64(shift)


@register_jitable
def _cost(z, n, zigzag, counts, kind_bits):
    """About how many bits the residuals take."""
    base, shift = _base(z, n, zigzag)
    counts[:] = 0
    highest = 0
    for i in range(n):
        s = symbol_of(_residual(z[i], base, shift, zigzag))
        counts[s] += 1
        highest = max(highest, s)
    bits, kinds = count_log(n), 0
    for s in range(highest + 1):
        if counts[s]:
            bits += counts[s] * plain_bits(s) - count_log(counts[s])
            kinds += 1
    return 0.0 if highest == 0 else bits + kind_bits * kinds


@register_jitable
def _neighbour(y, x, offsets, groups, c, recent, known):
    """The column before this one that it follows best, as a distance, negative where it runs against it; 0 where none does."""
    n = offsets[c + 1] - offsets[c]
    if n < LEAST_REFER:
        return 0
    size = min(REFER_PROBE, n - 1)
    stretches = STRETCHES if n - 1 > size else 1
    own = np.zeros(STRETCHES, np.int64)
    best, refer = 0, 0
    for stretch in range(stretches):
        at = stretch * (n - 1 - size) // (STRETCHES - 1)
        for i in range(at, at + size):
            best += bit_length(np.uint64(abs(y[i + 1] - y[i])))
        own[stretch] = best
    for j in range(known - 1, max(-1, known - 1 - len(recent)), -1):
        other = recent[j % len(recent)]
        if groups[other] != groups[c] or offsets[other + 1] - offsets[other] != n or c - other > MAX_REFER:
            continue
        by = offsets[other]
        same, against = 0, 0
        for stretch in range(stretches):
            at = stretch * (n - 1 - size) // (STRETCHES - 1)
            for i in range(at, at + size):
                a, b = y[i + 1] - y[i], x[i + by + 1] - x[i + by]
                same += bit_length(np.uint64(abs(a - b)))
                against += bit_length(np.uint64(abs(a + b)))
            if min(same, against) >= best:
                break
        if same < best:
            best, refer = same, c - other
        if against < best:
            best, refer = against, other - c
    return refer


@register_jitable(_nrt=False)
def _join_table(counts, low, high, tables, totals, used, most):
    """The table that the symbols low:high are coded by at the least cost, with their counts added; a new one if that costs less."""
    own, total = 1.0 * NEW_TABLE_BITS, 0
    for s in range(low, high):
        if counts[s]:
            own += TABLE_BITS
            total += counts[s]
    best, table = np.inf, 0
    for t in range(used):
        more = count_log(totals[t] + total) - count_log(totals[t]) - count_log(total)
        for s in range(low, high):
            if counts[s]:
                more += count_log(tables[t, s]) + count_log(counts[s]) - count_log(tables[t, s] + counts[s])
                more += 0.0 if tables[t, s] else TABLE_BITS
        if more < best:
            best, table = more, t
    if used < most and own < best:
        table = used
    for s in range(low, high):
        tables[table, s] += counts[s]
    totals[table] += total
    return table


@register_jitable
def _trailing_zeros(bits):
    count = 0
    while bits != 0 and bits & 1 == 0 and count < 63:
        bits >>= 1
        count += 1
    return count


@register_jitable(_nrt=False)
def _difference(z, n):
    """Replace z[:n] by the differences of neighbours; how many those are."""
    for i in range(n - 1):
        z[i] = z[i + 1] - z[i]
    return max(n - 1, 0)

"""Columns of integers and floats to byte planes and back.

A column of n 64-bit integers is coded as residuals of order 0, 1 or 2 (value, difference, difference of differences), each either
above a base (their smallest) or zigzag, without their common trailing zero bits, in the fewest bytes that hold the
largest; byte k of all residuals of all columns lies in plane k. Floats become integers first: v = i / 10^e where that
comes back bit for bit, else the bits of the float. What follows (zstd over each plane) is the caller's.

Integers are int64 throughout and wrap, so every bit pattern survives.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

PLANES = 8
MAX_EXPONENT = 15
"""10^15 is exact, and a value with more decimals than that has no 53-bit integer worth having."""
EXACT = float(1 << 53)
BITS = -1
"""The scale of a column that holds the bits of floats, or plain integers."""
ZIGZAG = 4
"""Added to the order of a column whose residuals are zigzag."""
EXCEPTIONS_PER = 16
"""A column of scaled integers may hold one other value (say, a stale marker) in so many samples."""
KNOWN_TIMES = 64
"""How many of the latest distinct time columns a series is compared with: the targets of one page, not of a block."""
PROBE, STRETCHES = 64, 4
"""The order is chosen by 4 stretches of 64 samples: 0.7 µs a column, within 1 % of trying all samples."""

FORM, WIDTH, SHIFT, SCALE, EXCEPTIONS, FIRST, SLOPE, BASE = range(8)
"""Rows of the descriptors i64[8, n] of n columns.

FORM is the order, plus ZIGZAG; WIDTH the bytes of a residual; SHIFT the dropped zero bits; SCALE the decimal exponent or BITS;
EXCEPTIONS their number; FIRST the first value; SLOPE the first difference; BASE what is added to each residual.
"""
LENGTH, LOW, HIGH, TO = range(4)
"""Rows of the places i64[4, n] that columns are decoded to."""

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


@register_jitable
def _exact(value, bits, power):
    """Whether rint(value * power) / power has the same bits; -0.0, NaN and the infinities have not."""
    scaled = np.rint(value * power)
    return abs(scaled) < EXACT and scaled / power == value and (value != 0.0 or bits == 0)


@register_jitable
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


@register_jitable
def _scale(values, bits, start, end, e, out):
    """Write the integers; how many are exceptions."""
    misses = 0
    power = POWERS[e]
    for i in range(start, end):
        exact = _exact(values[i], bits[i], power)
        out[i] = np.int64(np.rint(values[i] * power)) if exact else 0
        misses += 0 if exact else 1
    return misses


@register_jitable
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
def encode_columns(x, offsets, planes, at, descriptors):
    """Code the columns of x i64[m]: what they are into descriptors i64[8, n], their bytes into planes u8[8, ≥m].

    Writes the rows FORM to BASE except SCALE and EXCEPTIONS. `at` i64[8] is how full each plane is, before and after.
    """
    longest = 0
    for c in range(len(offsets) - 1):
        longest = max(longest, offsets[c + 1] - offsets[c])
    z, probe = np.empty(longest, np.int64), np.empty(PROBE + 2, np.int64)
    mantissas = np.empty(PROBE + 2, np.float64)
    for c in range(len(offsets) - 1):
        start, n = offsets[c], offsets[c + 1] - offsets[c]
        order = _order(x, start, n, probe, mantissas, mantissas.view(np.int64))
        descriptors[FIRST, c] = x[start] if n and order else 0
        descriptors[SLOPE, c] = x[start + 1] - x[start] if n > 1 and order == 2 else 0
        for i in range(n):
            z[i] = x[start + i]
        for _ in range(order):
            n = _difference(z, n)
        zigzag, base, drop, size = _residuals(z, n, order)
        descriptors[FORM, c], descriptors[BASE, c] = order + ZIGZAG * zigzag, base
        descriptors[SHIFT, c], descriptors[WIDTH, c] = drop, size
        for k in range(size):
            to, bits = at[k], 8 * k
            for i in range(n):
                planes[k, to + i] = np.uint8((z[i] >> bits) & 0xFF)
            at[k] = to + n


@register_jitable
def _residuals(z, n, order):
    """(zigzag 0 or 1, base, shift, width in bytes) of z[:n], which becomes what is stored."""
    if n == 0:
        return 0, 0, 0, 0
    low, high, any_zigzag, any_bits = z[0], z[0], np.int64(0), np.int64(0)
    for i in range(n):
        low, high = min(low, z[i]), max(high, z[i])
        any_zigzag |= (z[i] << 1) ^ (z[i] >> 63)
        any_bits |= z[i]
    zero_bits = _trailing_zeros(any_bits)
    above = 0
    for i in range(n):
        above |= z[i] - low
    drop = _trailing_zeros(above)
    size, size_zigzag = _bytes(above, drop), _bytes(any_zigzag, zero_bits)
    if order == 0 or low >= 0 or size < size_zigzag:
        for i in range(n):
            z[i] = _shift_right(z[i] - low, drop)
        return 0, low, drop, size
    for i in range(n):
        d = z[i] >> zero_bits
        z[i] = (d << 1) ^ (d >> 63)
    return 1, 0, zero_bits, size_zigzag


@register_jitable
def _trailing_zeros(bits):
    count = 0
    while bits != 0 and bits & 1 == 0 and count < 63:
        bits >>= 1
        count += 1
    return count


@register_jitable
def _bytes(bits, drop):
    """How many bytes hold the unsigned `bits` without their lowest `drop`."""
    rest, size = _shift_right(bits, drop), 0
    while rest != 0:
        rest, size = _shift_right(rest, 8), size + 1
    return size


@register_jitable
def _shift_right(bits, drop):
    """`bits` taken as unsigned, shifted right by 0 to 63."""
    return bits if drop == 0 else (bits >> drop) & ((np.int64(1) << (64 - drop)) - 1)


@register_jitable
def _difference(z, n):
    """Replace z[:n] by the differences of neighbours; how many those are."""
    for i in range(n - 1):
        z[i] = z[i + 1] - z[i]
    return max(n - 1, 0)


@register_jitable
def _order(x, start, n, probe, mantissas, exponents):
    """The order whose residuals have the fewest bits, by a few stretches of the column."""
    if n < 3:
        return 1
    size = min(PROBE, n - 2)
    step = max(1, (n - 2 - size) // (STRETCHES - 1)) if n - 2 > size else n
    low = x[start]
    for at in range(0, n - 1 - size, step):
        for i in range(at, at + size):
            low = min(low, x[start + i])
    costs = np.zeros(3, np.int64)
    for at in range(0, n - 1 - size, step):
        for i in range(size + 2):
            probe[i] = x[start + at + i] - low
        left = size + 2
        for order in range(3):
            costs[order] += _bit_lengths(probe, left - size, left, mantissas, exponents)
            left = _difference(probe, left)
    if costs[0] < costs[1] and costs[0] < costs[2]:
        return 0
    return 1 if costs[1] <= costs[2] else 2


@register_jitable
def _bit_lengths(z, start, end, mantissas, exponents):
    """The bits of the magnitudes z[start:end], by the exponents of their floats: with a half added 0 has 0 bits, 1 has 1, 2 has 2.

    A residual that is not 0 counts one bit more: it costs its sign, or that it is not 0.
    """
    for i in range(start, end):
        mantissas[i] = np.float64(abs(z[i])) + 0.5
    total = 0
    for i in range(start, end):
        length = ((exponents[i] >> 52) & 0x7FF) - 1022
        total += length + (1 if length > 0 else 0)
    return total


@njit(nogil=True, cache=True)
def decode_columns(planes, starts, at, descriptors, places, position, exact, used, out, out_f):
    """Decode columns into out i64[...] (out_f f64 is the same memory); how many exceptions are used up now.

    planes u8[...] with plane k from starts[k]; `at` i64[8] is how far each plane is read, before and after. places i64[4, n] has
    the rows LENGTH, LOW, HIGH, TO: samples [low, high) of a column go to out from `to` on, and to < 0 skips the column. position
    and exact i64[x] are the exceptions of all columns, those of the first from `used` on. The caller guarantees that planes and
    out are long enough.
    """
    longest = 0
    for c in range(places.shape[1]):
        longest = max(longest, places[LENGTH, c])
    z = np.empty(longest + 2, np.int64)  # a column shorter than its order still has its first value and slope
    for c in range(places.shape[1]):
        order, width = descriptors[FORM, c] & 3, descriptors[WIDTH, c]
        n = max(places[LENGTH, c] - order, 0)
        low, high, to = places[LOW, c], places[HIGH, c], places[TO, c]
        if to >= 0 and high > low:
            _gather(planes, starts, at, n, width, z)
            shift, base = descriptors[SHIFT, c], descriptors[BASE, c]
            if descriptors[FORM, c] & ZIGZAG:
                for i in range(n):
                    z[i] = (_shift_right(z[i], 1) ^ -(z[i] & 1)) << shift
            elif shift or base:
                for i in range(n):
                    z[i] = (z[i] << shift) + base
            for k in range(order):
                n = _integrate(z, n, descriptors[SLOPE if k + 1 < order else FIRST, c])
            if descriptors[SCALE, c] >= 0:
                power = POWERS[descriptors[SCALE, c]]
                for i in range(high - low):
                    out_f[to + i] = np.float64(z[low + i]) / power
            else:
                for i in range(high - low):
                    out[to + i] = z[low + i]
            for e in range(used, used + descriptors[EXCEPTIONS, c]):
                if low <= position[e] < high:
                    out[to + position[e] - low] = exact[e]
        used += descriptors[EXCEPTIONS, c]
        for k in range(width):
            at[k] += max(places[LENGTH, c] - order, 0)
    return used


@register_jitable
def _gather(planes, starts, at, n, width, z):
    """The residuals z[:n] from the planes."""
    if width == 0:
        for i in range(n):
            z[i] = 0
        return
    a = starts[0] + at[0]
    if width == 1:
        for i in range(n):
            z[i] = planes[a + i]
        return
    b = starts[1] + at[1]
    for i in range(n):
        z[i] = np.int64(planes[a + i]) | np.int64(planes[b + i]) << 8
    for k in range(2, width):
        a, bits = starts[k] + at[k], 8 * k
        for i in range(n):
            z[i] |= np.int64(planes[a + i]) << bits


@register_jitable
def _integrate(z, n, value):
    """Replace the differences z[:n] by the n + 1 values that begin with `value`; how many those are."""
    for i in range(n):
        value, z[i] = value + z[i], value
    z[n] = value
    return n + 1


@njit(nogil=True, cache=True)
def copy_ranges(source, source_at, size, out, out_at):
    """out[out_at[i]:][:size[i]] = source[source_at[i]:][:size[i]] for every i; the caller guarantees the ranges."""
    for i in range(len(size)):
        a, b = source_at[i], out_at[i]
        for j in range(size[i]):
            out[b + j] = source[a + j]


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

"""Residuals to bits and back: what is likely takes less than a bit, what is noise takes its bits as they are.

A residual u is a symbol, which tells how many bits u has and the two after the first, and the bits below those, which are stored
plain. Symbols are coded by a table of 1,024 states (tANS: J. Duda, arXiv:1311.2540), with the state's bits and the plain ones in
one stream, so that one load gives both. A table tells how frequent each symbol is in half octaves, a byte each.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from tsdb.kernel.hash import load_u64

SYMBOLS = 256
MANTISSA = 2
"""Bits of a residual that belong to its symbol beside its length: with 1 pages are 0.8 % larger, with 3 they are 0.2 % smaller."""
STATE_BITS = 10
STATES = 1 << STATE_BITS
SPREAD = (STATES >> 1) + (STATES >> 3) + 3
"""Symbols are dealt to the states in steps of this: odd, so that it comes to all."""
MARGIN = 16
"""Bytes behind a stream that can be read."""
MAX_CLASS = 2 * STATE_BITS + 2
"""The most frequent class of a symbol; 0 is that of symbols that do not occur, 1 of those that have one state only."""

_WEIGHT = np.concatenate([[0, 0], np.rint(64 * 2.0 ** (np.arange(MAX_CLASS - 1) / 2))]).astype(np.int64)
_LOGS = 1 << 12
_COUNT_LOG = np.arange(_LOGS) * np.log2(np.maximum(np.arange(_LOGS), 1))
_PLAIN = np.maximum((np.arange(SYMBOLS) >> MANTISSA) - 1, 0)
_FROM = (np.arange(SYMBOLS) - (_PLAIN << MANTISSA)).astype(np.uint64) << _PLAIN.astype(np.uint64)
CHANGE, START, OPENING = range(3)
"""Rows of an encoding table's codes."""

_1, _10, _14, _20, _40, _64 = (np.uint64(n) for n in (1, 10, 14, 20, 40, 64))


def bit_length(u):
    """How many bits the u64 has, 0 to 64."""
    return int(u).bit_length()


@intrinsic
def _leading_zeros(_typing: Any, number: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@overload(bit_length)
def _bit_length_compiled(u):
    return lambda u: 64 - np.int64(_leading_zeros(np.uint64(u)))


@register_jitable
def symbol_of(u):
    """The symbol of a residual u64."""
    low = max(bit_length(u) - MANTISSA - 1, 0)
    return (low << MANTISSA) + np.int64(u >> np.uint64(low))


@register_jitable
def plain_bits(symbol):
    """How many bits of a residual its symbol does not tell."""
    return max((symbol >> MANTISSA) - 1, 0)


@register_jitable
def count_log(count):
    """count · log2(count)"""
    return _COUNT_LOG[count] if count < _LOGS else count * np.log2(np.float64(count))


@register_jitable
def classes_of(counts, classes):
    """How frequent each symbol is, of counts i64[256], as classes u8[256]."""
    total = 0
    for s in range(SYMBOLS):
        total += counts[s]
    for s in range(SYMBOLS):
        more = counts[s] * STATES / total - 1.0
        classes[s] = 0 if counts[s] == 0 else 1
        if more > 0.6:
            classes[s] = max(1, min(MAX_CLASS, int(np.rint(2.0 * np.log2(more))) + 2))


@register_jitable
def states_of(classes, states, present):
    """How many of the 1,024 states each symbol that occurs has, by its class: states[s], one at least, the rest by weight.

    Those symbols into present u8[256], by rising number; returns how many they are.
    """
    total, used, largest = 0, 0, 0
    for eight in range(0, SYMBOLS, 8):
        if load_u64(classes, eight):  # most do not occur
            for s in range(eight, eight + 8):
                if classes[s]:
                    total += _WEIGHT[classes[s]]
                    present[used] = s
                    used += 1
                    if classes[s] > classes[largest]:
                        largest = s
    left = STATES - used
    for i in range(used):
        s = present[i]
        more = np.int64(np.uint64((STATES - used) * _WEIGHT[classes[s]]) // np.uint64(max(total, 1)))
        states[s] = 1 + more
        left -= more
    states[largest] += left
    return used


@register_jitable
def decoding_table(classes, table):
    """What decodes streams of these classes into table u32[1024]: of each state the next one, its bits, plain bits, symbol.

    They take 10, 4, 6 and 8 bits: a dozen such tables stay in the nearest cache. Unsigned numbers, for indexes that may be negative
    cost a third more.
    """
    states, present = np.zeros(SYMBOLS, np.uint64), np.empty(SYMBOLS, np.uint8)
    at = np.uint64(0)
    for i in range(states_of(classes, states, present)):
        s = np.uint64(present[i])
        word = np.uint32(np.uint64(plain_bits(np.int64(s))) << _14 | s << _20)
        for _ in range(states[s]):
            table[at * np.uint64(SPREAD) & np.uint64(STATES - 1)] = word
            at += _1
    for i in range(STATES):
        word = np.uint64(table[np.uint64(i)])
        x = states[word >> _20]
        states[word >> _20] = x + _1
        size = np.uint64(STATE_BITS + 1 - bit_length(x))
        table[np.uint64(i)] = np.uint32(word | (x << size) - np.uint64(STATES) | size << _10)


@register_jitable
def encoding_table(classes, codes, table):
    """What encodes by these classes: table i64[1024] and codes i64[3, 256], the rows CHANGE, START and OPENING of each symbol.

    From state x symbol s takes (x + CHANGE) >> 16 bits; the next state is table[START + (x >> bits)], the last of a stream OPENING.
    """
    states = np.zeros(SYMBOLS, np.int64)
    states_of(classes, states, np.empty(SYMBOLS, np.uint8))
    first = np.empty(SYMBOLS, np.int64)
    total = 0
    for s in range(SYMBOLS):
        first[s] = total
        codes[START, s] = total - states[s]
        total += states[s]
        size = STATE_BITS if states[s] < 2 else STATE_BITS + 1 - bit_length(np.uint64(states[s] - 1))
        codes[CHANGE, s] = (size << 16) - (states[s] << size)
    at = 0
    symbols = np.empty(STATES, np.int64)
    for s in range(SYMBOLS):
        for _ in range(states[s]):
            symbols[at] = s
            at = (at + SPREAD) & (STATES - 1)
    for i in range(STATES - 1, -1, -1):
        codes[OPENING, symbols[i]] = STATES + i
    for i in range(STATES):
        s = symbols[i]
        table[first[s]] = STATES + i
        first[s] += 1


@register_jitable
def put_bits(words, at, value, size):
    """Write the `size` (0 to 63) bits of value u64 from bit `at` of words u64[...], which are 0 there; the bit after them."""
    if size > 0:
        shift = np.uint64(at & 63)
        words[at >> 6] |= value << shift
        if shift + np.uint64(size) > _64:
            words[(at >> 6) + 1] |= value >> (_64 - shift)
    return at + size


@register_jitable
def encode_stream(u, n, codes, table, steps, words, at):
    """Write residuals u u64[:n], n > 0, by an encoding table from bit `at` of words on; the bit after them.

    steps i64[≥n] is scratch.
    """
    state = codes[OPENING, symbol_of(u[n - 1])]
    steps[n - 1] = 0
    for i in range(n - 2, -1, -1):
        s = symbol_of(u[i])
        size = (state + codes[CHANGE, s]) >> 16
        steps[i] = (state & ((1 << size) - 1)) | size << 32
        state = table[codes[START, s] + (state >> size)]
    at = put_bits(words, at, np.uint64(state - STATES), STATE_BITS)
    for i in range(n):
        plain = plain_bits(symbol_of(u[i]))
        at = put_bits(words, at, u[i] & ((_1 << np.uint64(plain)) - _1), plain)
        at = put_bits(words, at, np.uint64(steps[i] & 0xFFFF), steps[i] >> 32)
    return at


@register_jitable
def decode_stream(data, start, n, table, out):
    """Residuals out i64[:n] of the stream at data[start:], by its decoding table. Where it is cut they are of no meaning."""
    limit = np.uint64(len(data) - MARGIN)
    word, left, at, state = _begin(data, start)
    for i in range(n):
        out[i], word, left, at, state = _next(data, limit, table, word, left, at, state)


@register_jitable
def decode_pair(data, start, n, table, out, other_start, other_n, other_table, other_out):
    """Two streams as by `decode_stream`: each residual waits for the state before it, two at once take 0.65 of the time."""
    limit = np.uint64(len(data) - MARGIN)
    word, left, at, state = _begin(data, start)
    other_word, other_left, other_at, other_state = _begin(data, other_start)
    both = min(n, other_n)
    for i in range(both):
        out[i], word, left, at, state = _next(data, limit, table, word, left, at, state)
        other_out[i], other_word, other_left, other_at, other_state = _next(
            data, limit, other_table, other_word, other_left, other_at, other_state
        )
    for i in range(both, n):
        out[i], word, left, at, state = _next(data, limit, table, word, left, at, state)
    for i in range(both, other_n):
        other_out[i], other_word, other_left, other_at, other_state = _next(
            data, limit, other_table, other_word, other_left, other_at, other_state
        )


@register_jitable
def _begin(data, start):
    """(the next bits, how many of them are sure to be in the word, where to read on, state), all u64: signed ones cost more."""
    word = load_u64(data, start)
    rest = (word & ((_1 << np.uint64(56)) - _1)) >> np.uint64(STATE_BITS)
    return rest, np.uint64(56 - STATE_BITS), np.uint64(start + 7), word & np.uint64(STATES - 1)


@register_jitable
def _next(data, limit, table, word, left, at, state):
    """(residual i64, word, left, at, state) after those of `_begin`."""
    word, at, left = _filled(data, limit, word, at, left)
    entry = np.uint64(table[state])
    plain = entry >> np.uint64(14) & np.uint64(63)
    if plain > _40:
        value = word & ((_1 << _40) - _1)
        word, at, left = _filled(data, limit, word >> _40, at, left - _40)
        rest = plain - _40
        value |= (word & ((_1 << rest) - _1)) << _40
        word, left = word >> rest, left - rest
    else:
        value = word & ((_1 << plain) - _1)
        word, left = word >> plain, left - plain
    residual = np.int64(_FROM[entry >> np.uint64(20)] + value)
    size = entry >> np.uint64(10) & np.uint64(15)
    state = (entry & np.uint64(STATES - 1)) + (word & ((_1 << size) - _1))
    return residual, word >> size, left - size, at, state


@register_jitable
def _filled(data, limit, word, at, left):
    """(word, at, left) with at least 56 bits in the word; what lies behind the limit is of no meaning."""
    at = min(at, limit)
    word |= load_u64(data, at) << left
    return word, at + ((np.uint64(63) - left) >> np.uint64(3)), left | np.uint64(56)

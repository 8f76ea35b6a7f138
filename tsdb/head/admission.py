"""Why samples were not stored, in words, for a `PushResult`."""

import numpy as np

from tsdb.head.memory import FINGERPRINT, Appended, HeadMemory
from tsdb.kernel.append import CHAIN_STEPS, CONFLICT, DUPLICATE, TOO_NEW, TOO_OLD
from tsdb.model.write import PushResult

MAX_SHOWN_CHARS = 500
"""Of a series in a message: enough to know it by."""


def tell_rejected(memory: HeadMemory, done: Appended, result: PushResult, *, floor_ms: int, ceiling_ms: int) -> None:
    """Counts the samples that were not stored by reason; the first of each reason is described with its series and values."""
    counts = np.bincount(done.code)
    for code in range(DUPLICATE + 1, len(counts)):
        if counts[code]:
            j = int(np.argmax(done.code == code))
            reason, message = _describe(memory, done, j, floor_ms=floor_ms, ceiling_ms=ceiling_ms)
            result.reject(reason, int(counts[code]), message)


def _describe(memory: HeadMemory, done: Appended, j: int, *, floor_ms: int, ceiling_ms: int) -> tuple[str, str]:
    """(reason, sentence) of sample j."""
    code, t = int(done.code[j]), int(done.samples.t_ms[j])
    if code == TOO_NEW:
        return "too-far-in-future", f"sample at {t} is later than {ceiling_ms}, the latest time accepted now"
    ref = int(done.ref[j])
    if ref < 0:
        return "series-limit", f"sample at {t} is of a series over the limit"
    series = str(memory.index.labels(ref))[:MAX_SHOWN_CHARS]
    if code == TOO_OLD:
        newest = int(memory.newest[ref, 0])
        reason = "out-of-order" if floor_ms >= memory.max_ms else "too-old"
        return (
            reason,
            f"series {series}: sample at {t} is before {newest}, its newest, and before {floor_ms}, the oldest time accepted",
        )
    assert code == CONFLICT
    sent, stored = _text(done.samples.bits[j]), _value_at(memory, ref, t)
    return "duplicate-timestamp", f"series {series}: sample at {t} has value {sent}, {stored} is stored"


def _value_at(memory: HeadMemory, ref: int, t_ms: int) -> str:
    """The value stored at a time, in words, if it is still in the open log; an earlier sample of the request counts."""
    log = memory.open
    place = int(log.last[ref])
    for _ in range(CHAIN_STEPS):
        if place < 0:
            break
        if log.columns.t_ms[place] == t_ms:
            return _text(log.columns.bits[place])
        place = int(log.columns.prev[place])
    return _text(memory.newest[ref, 1]) if int(memory.newest[ref, 0]) == t_ms else "another value"


def _text(bits: np.int64) -> str:
    """A value in words."""
    return "a native histogram" if int(bits) >> 48 == FINGERPRINT else repr(float(bits.view(np.float64)))

"""Why series of a write were left out: reasons for counters, and the first one in words."""

from collections.abc import Callable

import numpy as np

from remote.wire.limits import WireLimits
from tsdb.kernel import scan
from tsdb.model.labels import quote
from tsdb.model.write import I64, PushResult, WriteBatch

REASONS = {
    scan.NO_METRIC: "missing-metric-name",
    scan.NO_NAME: "label-invalid",
    scan.DUPLICATE: "duplicate-label-name",
    scan.MANY_LABELS: "max-label-names-per-series",
    scan.LONG_NAME: "label-name-too-long",
    scan.LONG_VALUE: "label-value-too-long",
    scan.NOT_UTF8: "invalid-utf8",
    scan.BAD_TIME: "out-of-bounds",
    scan.BAD_REF: "invalid-label-refs",
}
"""Names of reasons; Cortex's `discarded_samples_total` reasons where it has one."""

Pairs = list[tuple[str, str]]


def reject_series(
    batch: WriteBatch, fault: I64, pairs_of: Callable[[int], Pairs], limits: WireLimits, rejected: PushResult
) -> WriteBatch:
    """The batch without the series that have a fault, told to `rejected`. `pairs_of(row)` reads a faulty series' labels."""
    samples = np.bincount(batch.row, minlength=len(batch))
    if batch.histograms is not None:
        samples += np.bincount(batch.histograms.row, minlength=len(batch))
    for code, reason in REASONS.items():
        rows = np.flatnonzero(fault == code)
        if len(rows):
            text = describe(code, pairs_of(int(rows[0])), limits) if not rejected.message else ""
            rejected.reject(reason, int(np.maximum(samples[rows], 1).sum()), text)
    return batch.take(np.flatnonzero(fault == scan.GOOD))


def describe(code: int, pairs: Pairs, limits: WireLimits) -> str:
    """One series' fault in words, Cortex's where it has some."""
    metric = quote(next((value for name, value in pairs if name == "__name__"), "")[:200])
    shown = [(name[:200], quote(value[:200])) for name, value in pairs[:20]]  # before quoting: a value may have megabytes
    series = "{" + ", ".join(f"{name}={value}" for name, value in shown)[:400] + "}"
    if code == scan.NO_METRIC:
        return f"sample missing metric name, series: '{series}'"
    if code == scan.NO_NAME:
        return f"sample invalid label: a name is empty, series: '{series}'"
    if code == scan.DUPLICATE:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), "")
        return f"duplicate label name: {quote(twice[:200])} metric {metric}"
    if code == scan.MANY_LABELS:
        return f"series has too many labels (actual: {len(pairs)}, limit: {limits.label_names}) series: '{series}'"
    if code == scan.LONG_NAME:
        name = max((name for name, _ in pairs), key=_size, default="")
        sizes = f"(actual: {_size(name)}, limit: {limits.name_bytes})"
        return f"label name too long for metric {sizes} metric: {metric} label name: {quote(name[:200])}"
    if code == scan.LONG_VALUE:
        value = max((value for _, value in pairs), key=_size, default="")
        sizes = f"(actual: {_size(value)}, limit: {limits.value_bytes})"
        return f"label value too long for metric {sizes} metric: {metric} label value: {quote(value[:200])}"
    if code == scan.NOT_UTF8:
        return f"label is not UTF-8, series: '{series}'"
    if code == scan.BAD_TIME:
        return f"timestamp out of bounds (limit: ±{scan.TIME_LIMIT_MS} ms), series: '{series}'"
    return "invalid labelRefs: an odd number of them, or one past the end of the symbols"


def _size(text: str) -> int:
    return len(text.encode())


def label_pairs(message: bytes) -> Pairs:
    """The labels of a 1.0 TimeSeries as they came, bytes that are not UTF-8 as U+FFFD."""
    pairs = []
    for label in _fields(message, 1):
        name, value = (b"".join(_fields(label, number)[-1:]).decode(errors="replace") for number in (1, 2))
        pairs.append((name, value))
    return pairs


def label_refs(message: bytes) -> list[int]:
    """The label refs of a 2.0 TimeSeries, where they are packed."""
    refs = []
    for packed in _fields(message, 1):
        i = 0
        while i < len(packed):
            ref, i = _varint(packed, i)
            refs.append(ref)
    return refs


def _fields(message: bytes, number: int) -> list[bytes]:
    """The length-delimited fields of one number in a message whose grammar is known to be good; for errors only."""
    found, i = [], 0
    while i < len(message):
        tag, i = _varint(message, i)
        if tag & 7 == 2:
            size, i = _varint(message, i)
            if tag >> 3 == number:
                found.append(message[i : i + size])
            i += size
        elif tag & 7 == 0:
            _, i = _varint(message, i)
        else:
            i += 8 if tag & 7 == 1 else 4
    return found


def _varint(message: bytes, i: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        value |= (message[i] & 0x7F) << shift
        shift += 7
        i += 1
        if message[i - 1] < 0x80:
            return value, i

"""Exemplars and metadata of a write: few, so they are read by the generated protobuf code and become Python objects."""

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import DecodeError

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.limits import WireLimits
from tsdb.kernel.scan_v2 import Symbols
from tsdb.model.errors import BadData
from tsdb.model.labels import Labels
from tsdb.model.write import I64, U8, Exemplar, Metadata, PushResult

KINDS = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
"""Prometheus's words for the types of metrics, by their number in both messages."""

EXEMPLAR_CHARACTERS = 128
"""OpenMetrics' bound on an exemplar's label names and values together."""

_FAMILY_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}

Pairs = list[tuple[str, str]]


def exemplars_v1(buffer: U8, ranges: I64, limits: WireLimits, rejected: PushResult) -> tuple[Exemplar, ...]:
    """The exemplars whose prometheus.Exemplar messages are in ranges i64[x, 4] (kind, row, start, end)."""

    def read(data: bytes) -> tuple[Pairs, float, int]:
        message = write_v1_pb2.Exemplar.FromString(data)
        return [(label.name, label.value) for label in message.labels], message.value, message.timestamp

    return _exemplars(buffer, ranges, limits, rejected, read)


def exemplars_v2(buffer: U8, ranges: I64, symbols: Symbols, limits: WireLimits, rejected: PushResult) -> tuple[Exemplar, ...]:
    """The same of io.prometheus.write.v2.Exemplar messages."""

    def read(data: bytes) -> tuple[Pairs, float, int]:
        message = write_v2_pb2.Exemplar.FromString(data)
        return pairs_of_refs(buffer, symbols, message.labels_refs), message.value, message.timestamp

    return _exemplars(buffer, ranges, limits, rejected, read)


def metadata_v1(buffer: U8, ranges: I64, limits: WireLimits, rejected: PushResult) -> tuple[Metadata, ...]:
    """What the MetricMetadata messages in ranges i64[f, 4] tell, each once."""

    def read() -> Iterable[Metadata]:
        for _, _, start, end in ranges.tolist():
            try:
                told = write_v1_pb2.MetricMetadata.FromString(buffer[start:end].tobytes())
            except DecodeError as error:
                raise BadData(f"remote write 1.0: broken metadata at byte {start}: {error}") from None
            yield Metadata(told.metric_family_name, _kind(told.type), told.help, told.unit)

    return _metadata(read(), limits, rejected)


def metadata_v2(buffer: U8, symbols: Symbols, families: I64, limits: WireLimits, rejected: PushResult) -> tuple[Metadata, ...]:
    """What families i64[f, 4] (metric, help, unit, kind) tell, each once; a histogram's series tell of their family."""

    def read() -> Iterable[Metadata]:
        for metric, about, unit, kind in families.tolist():
            name = _family(symbol(buffer, symbols, metric), _kind(kind))
            yield Metadata(name, _kind(kind), symbol(buffer, symbols, about), symbol(buffer, symbols, unit))

    return _metadata(read(), limits, rejected)


def pairs_of_refs(buffer: U8, symbols: Symbols, refs: Sequence[int]) -> Pairs:
    """(name, value) of label refs, whose last may be odd. IndexError for one past the end of the symbols."""
    texts = [symbol(buffer, symbols, ref) for ref in refs]
    return list(zip(texts[::2], texts[1::2], strict=False))


def symbol(buffer: U8, symbols: Symbols, ref: int) -> str:
    """One symbol's text, bytes that are not UTF-8 as U+FFFD."""
    start, size = symbols.table[:2, ref].tolist()
    return buffer[start : start + size].tobytes().decode(errors="replace")


def _exemplars(
    buffer: U8, ranges: I64, limits: WireLimits, rejected: PushResult, read: Callable[[bytes], tuple[Pairs, float, int]]
) -> tuple[Exemplar, ...]:
    found = []
    for _, row, start, end in ranges[: limits.exemplars].tolist():
        try:
            pairs, value, t_ms = read(buffer[start:end].tobytes())
            labels = Labels.of(pairs)
        except DecodeError as error:
            raise BadData(f"remote write: broken exemplar at byte {start}: {error}") from None
        except (BadData, IndexError) as error:
            rejected.reject("exemplar-labels-invalid", 1, f"exemplar labels: {error}")
            continue
        size = sum(len(name) + len(text) for name, text in labels)
        if size > EXEMPLAR_CHARACTERS:
            words = f"exemplar labels of {size} characters are over the limit of {EXEMPLAR_CHARACTERS}: {labels}"
            rejected.reject("exemplar-labels-too-long", 1, words[:400])
            continue
        found.append(Exemplar(row, labels, value, t_ms))
    _tell_rest(len(ranges), limits.exemplars, "exemplars", rejected)
    return tuple(found)


def _metadata(told: Iterable[Metadata], limits: WireLimits, rejected: PushResult) -> tuple[Metadata, ...]:
    unique = tuple(dict.fromkeys(told))
    _tell_rest(len(unique), limits.metadata, "metadata", rejected)
    return unique[: limits.metadata]


def _tell_rest(size: int, limit: int, word: str, rejected: PushResult) -> None:
    if size > limit:
        rejected.reject(f"{word}-per-request", size - limit, f"request has too many {word} (actual: {size}, limit: {limit})")


def _kind(number: int) -> str:
    return KINDS[number] if 0 <= number < len(KINDS) else KINDS[0]


def _family(metric: str, kind: str) -> str:
    return next((metric.removesuffix(end) for end in _FAMILY_SUFFIXES.get(kind, ()) if metric.endswith(end)), metric)

"""Broken requests by the thousand: good bodies and queries as seeds, and random changes of them."""

import random
import re
from collections.abc import Iterator, MutableSequence, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from remote.protos import write_v1_pb2, write_v2_pb2
from remote.wire.client import compress
from tests.e2e.queries import QUERIES
from tests.e2e.random_queries import questions

EXTREMES = (b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\xff" * 10)
"""Bytes and varints at the ends of what there is."""
SNIPPETS = (
    *"(){},:;^%#\\\"'`\x00\né", "[5m]", "[1h:1m]", " offset 1h", " @ end()", " @ 1e9", "NaN", "-Inf", "0x", "1e999", " by (a)",
    " without ()", " on (job)", " group_left(b)", " bool", "rate(", "sum(", "topk(3,", "label_replace(", "absent(", "-5m", "1ms",
    "histogram_quantile(0.9,", " and ", " unless ", "==", "!~", '=~"(a|b)*"', "[1s:0s]", "9999999999999999999", " fill(0)", "info(",
    "limitk(2,", "sort_by_label(", "start()", "step()", "smoothed", "anchored", "[5m+1m]", '{"a.b"}', "count_values('x',",
)  # fmt: skip

WORDS = (
    "0",
    "1",
    "-1",
    "1e18",
    "NaN",
    "Inf",
    "5m",
    "1h",
    "7d",
    "1ms",
    "100y",
    "rate",
    "sum",
    "max",
    "without",
    "ignoring",
    "deriv",
    "resets",
)
CALLS = (
    "sum(",
    "rate(",
    "abs(",
    "-(",
    "topk(2, ",
    "max by (job) (",
    "count without () (",
    "absent(",
    "sort(",
    "vector(",
    "scalar(",
)
OPERATORS = ("+", "-", "*", "/", "^", "%", "==", "> bool", "and", "or", "unless", "atan2", "* on (job)", "/ on (job) group_left")
_WORD = re.compile(r"[A-Za-z_][\w.]*|[0-9][\w.]*|[-+*/%^=!<>~]+")


def write_seeds(at_ms: int) -> list[tuple[int, bytes]]:
    """(version, message that is not compressed yet): small ones with everything that a request can carry."""
    v1 = write_v1_pb2.WriteRequest()
    for i in range(3):
        series = v1.timeseries.add()
        for name, value in (("__name__", "fuzz_total"), ("instance", f"host-{i}"), ("job", "é" * i + "api")):
            series.labels.add(name=name, value=value)
        for k in range(i + 1):
            series.samples.add(value=i + k / 8, timestamp=at_ms + k * 15_000)
    v1.timeseries[0].exemplars.add(value=1.5, timestamp=at_ms).labels.add(name="trace_id", value="abc")
    v1.metadata.add(type=1, metric_family_name="fuzz_total", help="Things.", unit="")
    native = write_v1_pb2.WriteRequest()
    series = native.timeseries.add()
    series.labels.add(name="__name__", value="fuzz_seconds")
    histogram = series.histograms.add(count_int=9, sum=4.5, schema=2, zero_threshold=0.001, zero_count_int=2, timestamp=at_ms)
    histogram.positive_spans.add(offset=-2, length=2)
    histogram.positive_spans.add(offset=3, length=1)
    histogram.positive_deltas.extend([1, 2, 0])
    custom = series.histograms.add(count_float=3, sum=1, schema=-53, zero_count_float=0, timestamp=at_ms + 1000)
    custom.positive_spans.add(offset=0, length=2)
    custom.positive_counts.extend([1.0, 2.0])
    custom.custom_values.extend([0.5, 1.0])
    plain = write_v1_pb2.WriteRequest()
    plain.timeseries.add().labels.add(name="__name__", value="up")
    plain.timeseries[0].samples.add(value=1, timestamp=at_ms)
    v2 = write_v2_pb2.Request(symbols=["", "__name__", "fuzz_total", "job", "api", "Things.", "trace_id", "abc", "seconds"])
    two = v2.timeseries.add(labels_refs=[1, 2, 3, 4])
    two.samples.add(value=2.5, timestamp=at_ms, start_timestamp=at_ms - 60_000)
    two.exemplars.add(labels_refs=[6, 7], value=1, timestamp=at_ms)
    two.metadata.type, two.metadata.help_ref, two.metadata.unit_ref = 1, 5, 8
    other = v2.timeseries.add(labels_refs=[1, 8])
    other.histograms.add().CopyFrom(write_v2_pb2.Histogram.FromString(histogram.SerializeToString()))
    return [*((1, one.SerializeToString()) for one in (v1, native, plain)), (2, v2.SerializeToString())]


def mutated_writes(count: int, *, at_ms: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """`count` times (version, compressed body): a seventh is broken as snappy, half as protobuf, the rest only in what it says."""
    chance, seeds = random.Random(seed), write_seeds(at_ms)
    for i in range(count):
        version, message = chance.choice(seeds)
        if i % 7 == 0:
            yield version, mutate_bytes(compress(message), b"\x00\xff\xfe", chance)
        elif i % 2:
            yield version, compress(mutate_bytes(message, chance.choice(seeds)[1], chance))
        else:
            kind = write_v1_pb2.WriteRequest if version == 1 else write_v2_pb2.Request
            whole = kind.FromString(message)
            for _ in range(chance.randint(1, 3)):
                mutate_message(whole, chance)
            yield version, compress(whole.SerializeToString())


def mutate_bytes(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three changes: a bit, a byte, a cut, a piece doubled, a piece of the other one, an extreme."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(out) + 1)
        size = min(chance.choice((1, 1, 2, 4, 8, 16)), len(out) - at)
        match chance.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(out):
                out[at] = chance.randrange(256)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size]
            case 4:
                start = chance.randrange(len(other))
                out[at:at] = other[start : start + chance.randint(1, 40)]
            case 5:
                out[at : at + size] = chance.choice(EXTREMES)
            case _:
                del out[chance.randrange(len(out) + 1) :]
    return bytes(out)


def mutate_message(message: Message, chance: random.Random) -> None:
    """One field somewhere in a message set to something else; one of a list doubled, moved or taken away."""
    fields = [field for field, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
    field = chance.choice(fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        _mutate_list(value, field, chance)
    elif field.message_type is not None:
        mutate_message(value, chance)
    else:
        setattr(message, field.name, _other(field, chance))


def _mutate_list(values: MutableSequence[Any], field: FieldDescriptor, chance: random.Random) -> None:
    at = chance.randrange(len(values)) if values else 0
    match chance.randrange(8):
        case 0 if values:
            del values[at]
        case 1 if values:
            values.extend([values[at]])
        case 2 if len(values) > 1:
            values.extend([values[0]])
            del values[0]
        case _ if field.message_type is not None and values:
            mutate_message(values[at], chance)
        case _ if field.message_type is None and values:
            values[at] = _other(field, chance)
        case _ if field.message_type is None:
            values.append(_other(field, chance))


def _other(field: FieldDescriptor, chance: random.Random) -> object:
    """Any value that a field can have, the ends of its range more often."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(
                ("", "__name__", "x" * chance.choice((1, 200, 3000)), "é", "\x00", "a/../b", "le", "+Inf", '"', "\U0001f600")
            )
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice(
                (0.0, -0.0, -1.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 0.5, chance.gauss(0, 1e6))
            )
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice((0, 1, -1, (1 << 63) - 1, -(1 << 63), 1 << 53, chance.randrange(1 << 40)))
        case FieldDescriptor.CPPTYPE_UINT64:
            return chance.choice((0, 1, (1 << 64) - 1, 1 << 53, chance.randrange(100)))
        case FieldDescriptor.CPPTYPE_INT32:
            return chance.choice((0, 1, -1, (1 << 31) - 1, -(1 << 31), -53, -4, 8, 9, chance.randrange(-200, 200)))
        case FieldDescriptor.CPPTYPE_UINT32:
            return chance.choice((0, 1, (1 << 32) - 1, 1 << 31, chance.randrange(20)))
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice((0, 1, 2, 3, 8))
        case _:
            return b""


def mutated_queries(count: int, *, seed: int) -> Iterator[str]:
    """`count` queries, each a real one with one to three changes: of a word most often, else of characters."""
    chance = random.Random(seed)
    seeds = [*QUERIES, *(question.text for question in questions(300))]
    for _ in range(count):
        yield mutate_text(chance.choice(seeds), seeds, chance)


def mutate_text(text: str, seeds: Sequence[str], chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(20):
            case 0:
                text = text[:at] + text[at + chance.randint(1, 8) :]
            case 1:
                text = text[:at] + chance.choice(SNIPPETS) + text[at:]
            case 2:
                text = text[:at] + text[at : at + chance.randint(1, 30)] + text[at:]
            case 3:
                other = chance.choice(seeds)
                text = text[:at] + other[chance.randrange(len(other)) :]
            case 4:
                text = text[:at] + chr(chance.choice((chance.randrange(128), chance.randrange(0x110000)))) + text[at + 1 :]
            case 5:
                text = f"{chance.choice(SNIPPETS)}{text}{chance.choice(SNIPPETS)}"
            case 6 | 7 | 8:
                text = f"{chance.choice(CALLS)}{text})"
            case 9:
                text = f"({text}) {chance.choice(OPERATORS)} ({chance.choice(seeds)})"
            case _:
                text = _other_word(text, chance.choice(seeds), chance)
    return text.encode(errors="replace").decode()


def _other_word(text: str, other: str, chance: random.Random) -> str:
    """One word, number or operator of the text in place of which another stands, of the other text or of any."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = chance.choice(words)
    alike = [found[0] for found in _WORD.finditer(other) if found[0][0].isalpha() == word[0][0].isalpha()]
    return text[: word.start()] + chance.choice([*alike, *WORDS]) + text[word.end() :]

"""Label sets, for the edges only (API, tests, new series); in the middle they are columns of a `SeriesTable`.

The canonical bytes of a label set are its labels in byte order of their names, each encoded as the `labels` field of a
remote-write 1.0 TimeSeries. A sorted request therefore carries canonical bytes already, and nobody re-encodes it:

    label  := 0x0a varint(len) ( 0x0a varint(len) name  0x12 varint(len) value )
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tsdb.kernel.hash import hash_bytes
from tsdb.model.errors import BadData

METRIC_NAME = "__name__"


@dataclass(frozen=True, slots=True, order=True)
class Labels:
    """A label set: (name, value) pairs in byte order of their names, names unique, no empty value."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> "Labels":
        """The label set of a mapping or of pairs in any order; empty values are dropped. BadData on a duplicate name."""
        pairs = sorted(labels.items() if isinstance(labels, Mapping) else labels)
        for (left, _), (right, _) in pairwise(pairs):
            if left == right:
                raise BadData(f"duplicate label name {left!r}")
        return cls(tuple((name, value) for name, value in pairs if value))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def get(self, name: str, default: str = "") -> str:
        """The value of label `name`; an absent label is the empty string, as everywhere in PromQL."""
        return next((value for known, value in self.pairs if known == name), default)

    def as_dict(self) -> dict[str, str]:
        return dict(self.pairs)

    def encode(self) -> bytes:
        """The canonical bytes (see the top of this file)."""
        return b"".join(_encode_label(name.encode(), value.encode()) for name, value in self.pairs)

    def stable_hash(self) -> int:
        """u64 hash of the canonical bytes, equal in every process."""
        data = np.frombuffer(self.encode(), np.uint8)
        return int(hash_bytes(data, 0, len(data)))

    def __str__(self) -> str:
        """PromQL text: `name{a="b"}`."""
        rest = ", ".join(f"{name}={quote(value)}" for name, value in self.pairs if name != METRIC_NAME)
        metric = self.get(METRIC_NAME)
        return f"{metric}{{{rest}}}" if rest or not metric else metric


def quote(text: str) -> str:
    """A double-quoted string literal with Go's escapes for what cannot stand for itself."""
    return '"' + "".join(_ESCAPES.get(c, c) if c >= " " else _ESCAPES.get(c, f"\\x{ord(c):02x}") for c in text) + '"'


def decode_labels(data: bytes) -> Labels:
    """The label set of canonical bytes. BadData where they are cut or not UTF-8."""
    pairs = []
    at = 0
    while at < len(data):
        if data[at] != 0x0A:
            raise BadData(f"label bytes: tag {data[at]:#x} at byte {at}, want 0x0a")
        end, at = _length(data, at + 1)
        pairs.append(_decode_label(data, at, end))
        at = end
    return Labels(tuple(pairs))


def varint(n: int) -> bytes:
    """A protobuf varint, in as few bytes as it takes."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\x7f": "\\x7f"}


def _decode_label(data: bytes, at: int, end: int) -> tuple[str, str]:
    texts = {0x0A: "", 0x12: ""}
    while at < end:
        tag = data[at]
        stop, at = _length(data, at + 1)
        if tag not in texts or stop > end:
            raise BadData(f"label bytes: tag {tag:#x} before byte {at} is no name and no value, or is cut")
        try:
            texts[tag] = data[at:stop].decode()
        except UnicodeDecodeError:
            raise BadData(f"label bytes: {data[at:stop]!r} is not UTF-8") from None
        at = stop
    return texts[0x0A], texts[0x12]


def _length(data: bytes, at: int) -> tuple[int, int]:
    """(end of the field, its first byte) of a varint length at `at`."""
    size, shift = 0, 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if at + size > len(data):
                break
            return at + size, at
    raise BadData(f"label bytes: a length at byte {at} reaches past the end ({len(data)} bytes)")


def _encode_label(name: bytes, value: bytes) -> bytes:
    body = b"\x0a" + varint(len(name)) + name + b"\x12" + varint(len(value)) + value
    return b"\x0a" + varint(len(body)) + body

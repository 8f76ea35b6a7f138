"""Text as Go writes it: quoted strings, and the value of a quoted string, a number or a duration."""

import math
import re

_ESCAPED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"'}
_PLAIN = re.compile(r"[ !#-\[\]-~]*", re.ASCII)
_ESCAPE = re.compile(rb"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_MEANING = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_INTEGER = re.compile(r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)", re.ASCII)
_DIGITS = r"[0-9](?:_?[0-9])*"
_FLOAT = re.compile(rf"[+-]?(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?", re.ASCII)
_SPECIAL = re.compile(r"[+-]?(?:inf|infinity)|nan", re.IGNORECASE)
_PART = re.compile(r"([0-9]+)([^0-9]+)")
_UNITS = (("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_ORDER = {unit: i for i, (unit, _) in enumerate(_UNITS)}
_LONG = 400
"""Characters: no integer of 64 bits is longer, and no message needs to show more."""
MAX_DURATION_MS = (1 << 63) // 1_000_000
"""A Go duration is 63 bits of nanoseconds."""


def quote(text: str) -> str:
    """`text` as strconv.Quote writes it. Lone surrogates stand for bytes that are not UTF-8."""
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return '"' + "".join(_ESCAPED.get(c) or (c if c.isprintable() else _numeric_escape(c)) for c in text) + '"'


def quote_char(char: str) -> str:
    """One character as Go's %q writes a rune."""
    return "'\\''" if char == "'" else f"""'{'"' if char == '"' else quote(char)[1:-1]}'"""


def unquote(literal: str) -> str:
    """The value of a Go string literal with its quotes; bytes that are not UTF-8 become lone surrogates.

    ValueError where an escape stands for no byte and no Unicode code point.
    """
    body = literal[1:-1]
    if literal[0] == "`" or "\\" not in body:
        return body
    return _ESCAPE.sub(_unescape, body.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def parse_number(text: str) -> float:
    """The value of a number literal as Go reads it (0x, 0b, 0o and 0 prefixes, underscores). ValueError with Go's words."""
    if len(text) < _LONG and _INTEGER.fullmatch(text):
        value = _integer(text)
        if -(1 << 63) <= value < 1 << 63:
            return float(value)
    if _SPECIAL.fullmatch(text):
        return float(text)
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"strconv.ParseFloat: parsing {_shown(text)}: invalid syntax")
    parsed = float(text)
    if math.isinf(parsed):
        raise ValueError(f"strconv.ParseFloat: parsing {_shown(text)}: value out of range")
    return parsed


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as `1h30m`. ValueError with Prometheus's words."""
    if text == "0":
        return 0
    if not text:
        raise ValueError("empty duration string")
    total_ms, place, last = 0, 0, -1
    while place < len(text):
        found = _PART.match(text, place)
        if not found:
            raise ValueError(f"not a valid duration string: {_shown(text)}")
        unit = _ORDER.get(found[2])
        if unit is None:
            raise ValueError(f"unknown unit {_shown(found[2])} in duration {_shown(text)}")
        if unit <= last:  # units must go from the biggest to the smallest
            raise ValueError(f"not a valid duration string: {_shown(text)}")
        total_ms += int(found[1][:_LONG]) * _UNITS[unit][1]
        place, last = found.end(), unit
    if total_ms > MAX_DURATION_MS:
        raise ValueError("duration out of range")
    return total_ms


def format_duration_ms(total_ms: int) -> str:
    """The shortest exact text, as Prometheus's model.Duration: years and weeks only where nothing is left over."""
    if total_ms == 0:
        return "0s"
    text, rest = "", total_ms
    for unit, size_ms in _UNITS:
        if unit in ("y", "w") and rest % size_ms:
            continue
        if rest >= size_ms:
            text += f"{rest // size_ms}{unit}"
            rest %= size_ms
    return text


def format_number(value: float) -> str:
    """Go's FormatFloat(value, 'f', -1, 64): shortest digits, never an exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    sign = "-" if text.startswith("-") else ""
    digits, exponent = text.lstrip("-").split("e")
    whole, _, fraction = digits.partition(".")
    point = len(whole) + int(exponent)
    digits = whole + fraction
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return sign + digits[:point].ljust(point, "0") + (f".{digits[point:]}" if len(digits) > point else "")


def _shown(text: str) -> str:
    return quote(text) if len(text) < _LONG else f"{quote(text[:_LONG])}…"


def _integer(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "").lower()
    prefixed = digits[:2] in ("0x", "0b", "0o")
    value = int(digits, 0) if prefixed else int(digits, 8 if digits.startswith("0") else 10)
    return -value if text.startswith("-") else value


def _numeric_escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescape(found: "re.Match[bytes]") -> bytes:
    simple, octal, byte, short, long = found.groups()
    if simple:
        return _MEANING.get(simple, simple)
    if octal or byte:
        code = int(octal, 8) if octal else int(byte, 16)
        if code > 255:
            raise ValueError("escape sequence is an invalid Unicode code point")
        return bytes([code])
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError("escape sequence is an invalid Unicode code point")
    return chr(code).encode()

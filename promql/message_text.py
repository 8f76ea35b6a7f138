"""Floats and labels as Prometheus writes them in its messages."""

import math
import re

import numpy as np

from promql.syntax.gotext import quote
from tsdb.model.labels import Labels

PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]{1,4}", re.ASCII)
SPECIAL = re.compile(r"[+-]?(inf|infinity)|nan", re.ASCII | re.IGNORECASE)


def general(value: float) -> str:
    """Go's verb %g: the shortest digits, with an exponent below 1e-4 and from 1e6 on."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    mantissa, exponent = np.format_float_scientific(value, trim="-", exp_digits=2).split("e")
    if -4 <= int(exponent) < 6:
        return np.format_float_positional(value, trim="-")
    return f"{mantissa}e{exponent}"


def open_metrics(value: float) -> str:
    """The float as a label value of OpenMetrics: `0.5`, and `1.0` where no point or exponent would show that it is one. No -0."""
    text = general(value + 0.0)
    return text if not math.isfinite(value) or any(c in text for c in ".e") else f"{text}.0"


def parse_float(text: str) -> float | None:
    """What strconv.ParseFloat reads: decimal, hexadecimal with p, inf, infinity and nan in any case; None for all else."""
    if DECIMAL.fullmatch(text):
        value = float(text)
        return None if math.isinf(value) else value
    if HEXADECIMAL.fullmatch(text):
        return float.fromhex(text)
    return float(text) if SPECIAL.fullmatch(text) else None


def labels_text(labels: Labels) -> str:
    """`{__name__="up", job="x"}`: the name stands among the labels, as in Prometheus's error messages."""
    return "{" + ", ".join(f"{_name(name)}={quote(value)}" for name, value in labels) + "}"


def is_label_name(name: str) -> bool:
    """Whether `name` can name a label: any UTF-8 text but the empty one. Bytes that are none arrive as lone surrogates."""
    return bool(name) and not any(0xD800 <= ord(c) <= 0xDFFF for c in name)


def _name(name: str) -> str:
    return name if PLAIN_NAME.fullmatch(name) else quote(name)

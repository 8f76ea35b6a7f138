"""The language of PromQL test scripts: text to commands. README.md of Prometheus's promql/promqltest describes it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from promql.syntax.gotext import parse_duration_ms, unquote
from tests.promql.histogram_literal import HistogramLiteral, combine, parse_histogram
from tsdb.model.histogram import UNKNOWN_RESET
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import STALE_NAN

Point = float | HistogramLiteral | None
"""One value of a sequence; None is a gap."""


@dataclass(frozen=True, slots=True)
class SeriesLoad:
    """The points of one series, one each gap from time 0; start_ms are start timestamps, 0 = unknown."""

    labels: Labels
    points: tuple[Point, ...]
    start_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Load:
    gap_ms: int
    series: tuple[SeriesLoad, ...]
    with_nhcb: bool


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Expect:
    """An expected failure or annotation: any, by text, or by regular expression."""

    kind: str
    message: str | None = None
    pattern: str | None = None

    def matches(self, text: str) -> bool:
        if self.pattern is not None:
            return re.search(self.pattern, text) is not None
        return self.message in (None, text)


@dataclass(frozen=True, slots=True)
class Eval:
    """A query with all that is expected of it; an instant query has step_ms 0 and start_ms = end_ms."""

    line: int
    query: str
    start_ms: int
    end_ms: int
    step_ms: int
    expects: tuple[Expect, ...] = ()
    series: tuple[tuple[Labels, tuple[Point, ...]], ...] = ()
    scalar: float | None = None
    text: str | None = None
    range_vector: tuple[int, int, int] | None = None
    """(start, end, step) ms of the samples that an instant query of a range selector must give."""

    def of_kind(self, kind: str) -> tuple[Expect, ...]:
        return tuple(expect for expect in self.expects if expect.kind == kind)


Command = Load | Clear | Eval

_LOAD = re.compile(r"load(_with_nhcb)?\s+(\S+)$")
_INSTANT = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(\S+)\s+)?(.+)$")
_RANGE = re.compile(r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.+)$")
_EXPECT = re.compile(r"expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$")
_EXPECT_RANGE = re.compile(r"expect range vector\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)$")
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
_SERIES = re.compile(rf"([A-Za-z_:][\w:]*)?\s*(\{{(?!\{{)(?:[^\"'`}}]|{_QUOTED})*\}})?", re.ASCII)
_LABEL = re.compile(rf"([A-Za-z_]\w*|{_QUOTED})\s*(?:=\s*({_QUOTED}))?", re.ASCII)
_VALUE = re.compile(r"\{\{.*?\}\}(?:[+-]\{\{.*?\}\})?(?:x\d+)?|\S+")
_NUMBER = r"(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|[iI]nf|[nN]a[nN]|NAN)"
_SEQUENCE = re.compile(rf"([+-]?{_NUMBER})([+-]{_NUMBER})?(?:x([0-9]+))?$")
_HISTOGRAMS = re.compile(r"\{\{(.*?)\}\}(?:([+-])\{\{(.*?)\}\})?(?:x(\d+))?$")
_START_DURATION = r"[+-]?(?:[0-9]+(?:ms|[smhdwy])?)+"
_STARTS = re.compile(rf"({_START_DURATION})([+-]{_START_DURATION})?(?:x([0-9]+))?$")


def parse_script(text: str) -> list[Command]:
    """The commands of a script, in order. ValueError with the line where it is not one."""
    lines = [line.strip() for line in text.split("\n")]
    lines = ["" if line.startswith("#") else line for line in lines]
    commands: list[Command] = []
    at = 0
    while at < len(lines):
        end = next((i for i in range(at, len(lines)) if not lines[i]), len(lines))
        try:
            if lines[at]:
                commands += _block(at + 1, lines[at:end])
        except (ValueError, KeyError) as error:
            raise ValueError(f"line {at + 1}: {error}") from error
        at = end + 1
    return commands


def parse_file(path: Path) -> list[Command]:
    return parse_script(path.read_text())


def parse_series(line: str) -> tuple[Labels, str]:
    """(labels, the rest of the line) of `metric{label="value"} …`."""
    found = _SERIES.match(line)
    assert found is not None
    pairs = [(METRIC_NAME, found[1])] if found[1] else []
    for name, value in _LABEL.findall((found[2] or "{}")[1:-1]):
        plain = unquote(name) if name[0] in "\"'`" else name
        pairs.append((plain, unquote(value)) if value else (METRIC_NAME, plain))
    return Labels.of(pairs), line[found.end() :]


def parse_points(text: str, *, expected: bool = False) -> tuple[Point, ...]:
    """The expanded values of a sequence such as `1 2+3x2 _ stale {{count:1}}x3`.

    Where they are `expected`, the increment of a histogram sequence says whether reset hints count; without one they have none.
    """
    return tuple(point for item in _VALUE.findall(text) for point in _expand(item, expected))


def _block(number: int, lines: list[str]) -> Iterator[Command]:
    word = lines[0].split()[0].lower()
    if word == "clear":
        yield Clear()
        if lines[1:]:
            yield from _block(number + 1, lines[1:])
    elif word.startswith("load"):
        yield _load(lines)
    elif word.startswith("eval"):
        rest = next((i for i in range(1, len(lines)) if lines[i].startswith(("eval ", "eval_", "load ", "clear"))), len(lines))
        yield _eval(number, lines[:rest])
        if lines[rest:]:
            yield from _block(number + rest, lines[rest:])
    else:
        raise ValueError(f"invalid command {lines[0]!r}")


def _load(lines: list[str]) -> Load:
    found = _LOAD.match(lines[0])
    if not found:
        raise ValueError(f"invalid load command {lines[0]!r}")
    gap_ms = parse_duration_ms(found[2])
    series: list[SeriesLoad] = []
    default: tuple[int | None, ...] = ()
    starts: dict[Labels, tuple[int | None, ...]] = {}
    for line in lines[1:]:
        head, _, rest = line.partition(" ")
        if head.endswith("@st"):
            if head == "@st":
                default = _start_sequence(rest)
            else:
                starts[parse_series(head.removesuffix("@st"))[0]] = _start_sequence(rest)
            continue
        labels, rest = parse_series(line)
        points = parse_points(rest)
        own = starts.pop(labels, None)
        if own is not None and len(own) != len(points):
            raise ValueError(f"@st line has {len(own)} values but sample line has {len(points)}")
        series.append(SeriesLoad(labels, points, tuple(_start_times(own, default, len(points), gap_ms))))
    if starts:
        raise ValueError(f"@st line has no following sample line: {list(starts)}")
    return Load(gap_ms, tuple(series), found[1] is not None)


def _start_times(own: tuple[int | None, ...] | None, default: tuple[int | None, ...], size: int, gap_ms: int) -> Iterator[int]:
    offsets = own if own is not None else default
    for i in range(size):
        offset = offsets[i % len(offsets)] if offsets else None
        yield 0 if offset is None else i * gap_ms + offset


def _start_sequence(text: str) -> tuple[int | None, ...]:
    """Offsets (ms) of start timestamps, None for a gap; `*` repeats the last one."""
    out: list[int | None] = []
    for item in text.split():
        repeated = re.fullmatch(r"([_*])(?:x(\d+))?", item)
        if repeated:
            last = next((offset for offset in reversed(out) if offset is not None), 0)
            count = int(repeated[2] or 1) + (repeated[1] == "*" and repeated[2] is not None)
            out += [None if repeated[1] == "_" else last] * count
            continue
        found = _STARTS.match(item)
        if not found:
            raise ValueError(f"invalid @st item {item!r}")
        first, step = _signed_ms(found[1]), _signed_ms(found[2] or "0")
        out += [first + step * i for i in range(int(found[3] or 0) + 1)]
    return tuple(out)


def _signed_ms(text: str) -> int:
    size_ms = parse_duration_ms(text.lstrip("+-"))
    return -size_ms if text.startswith("-") else size_ms


def _expand(item: str, expected: bool) -> list[Point]:
    if re.fullmatch(r"_(x\d+)?", item):
        return [None] * int(item[2:] or 1)
    if item == "stale":
        return [STALE_NAN]
    if item.startswith("{{"):
        return _expand_histograms(item, expected)
    found = _SEQUENCE.match(item)
    if not found:
        raise ValueError(f"invalid series value {item!r}")
    value, step = float(found[1]), float(found[2] or 0)
    out: list[Point] = [value]
    for _ in range(int(found[3] or 0)):
        value += step
        out.append(value)
    return out


def _expand_histograms(item: str, expected: bool) -> list[Point]:
    found = _HISTOGRAMS.match(item)
    if not found:
        raise ValueError(f"invalid histogram value {item!r}")
    current, times = parse_histogram(found[1]), int(found[4] or 0)
    if found[2] is None:
        return [current] * (times + 1)
    step, out = parse_histogram(found[3]), [current]
    for _ in range(times):
        current = combine(current, step, 1.0 if found[2] == "+" else -1.0)
        out.append(current)
    if not expected:
        return list(out)
    return [replace(literal, hint=None if step.hint is None else literal.hint or UNKNOWN_RESET) for literal in out]


def _eval(number: int, lines: list[str]) -> Eval:
    command = _command(number, lines[0])
    for line in lines[1:]:
        ranged, expect = _EXPECT_RANGE.match(line), _EXPECT.match(line)
        if ranged:
            start_ms, end_ms, step_ms = (parse_duration_ms(ranged[i]) for i in (1, 2, 3))
            command = replace(command, range_vector=(start_ms, end_ms, step_ms), start_ms=end_ms, end_ms=end_ms)
        elif line.startswith("expect string"):
            command = replace(command, text=unquote(line.removeprefix("expect string").strip()))
        elif expect:
            command = _expecting(command, expect[1], expect[2], (expect[3] or "").strip())
        elif line.startswith("expected_fail_message"):
            command = _expecting(command, "fail", "msg", line.removeprefix("expected_fail_message").strip())
        elif line.startswith("expected_fail_regexp"):
            command = _expecting(command, "fail", "regex", line.removeprefix("expected_fail_regexp").strip())
        elif _SEQUENCE.match(line):
            command = replace(command, scalar=float(line))
        else:
            labels, rest = parse_series(line)
            command = replace(command, series=(*command.series, (labels, parse_points(rest, expected=True))))
    return command


def _command(number: int, line: str) -> Eval:
    ranged, instant = _RANGE.match(line), _INSTANT.match(line)
    if ranged:
        start_ms, end_ms, step_ms = (parse_duration_ms(ranged[i]) for i in (2, 3, 4))
        command, kind = Eval(number, ranged[5], start_ms, end_ms, step_ms), ranged[1]
    elif instant:
        at_ms = parse_duration_ms(instant[2] or "0")
        command, kind = Eval(number, instant[3], at_ms, at_ms, 0), instant[1]
    else:
        raise ValueError(f"invalid evaluation command {line!r}")
    return _expecting(command, kind, None, "") if kind else command


def _expecting(command: Eval, kind: str, how: str | None, text: str) -> Eval:
    expect = Expect(kind, text if how == "msg" else None, text if how == "regex" else None)
    kept = tuple(e for e in command.expects if not (kind == "fail" and e.kind == "fail"))
    return replace(command, expects=(*kept, expect))

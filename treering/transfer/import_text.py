"""OpenMetrics and Prometheus text as parts of an import: runs of whole lines, each known by its bytes."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from treering.transfer.import_part import Content, Part, Wanted, content_of, fingerprint, pick
from treering.transfer.import_rows import batch_of_rows
from tsdb.kernel import exposition
from tsdb.kernel.bits import MARGIN
from tsdb.model.errors import BadData
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.series import F64, I64, SeriesBatch, SeriesTable

PART_BYTES = 64 << 20
"""About a million lines, which take 200 MB while they become columns."""

_END = b"# EOF"
_FAULTS = {
    exposition.NO_SERIES: "no series begins it",
    exposition.NO_VALUE: "it has no value",
    exposition.NO_TIME: "it has no time; history needs one",
    exposition.BAD_TIME: "its time is no plain number",
}
_LABEL = re.compile(r'\s*(?:([a-zA-Z_][a-zA-Z0-9_.:]*)|"((?:[^"\\]|\\.)*)")\s*(?:=\s*"((?:[^"\\]|\\.)*)")?\s*(,|$)', re.ASCII)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def text_parts(path: Path, wanted: Wanted, *, timestamps: str = "auto") -> Iterator[Part]:
    """The parts of a file; `timestamps` is "s", "ms" or "auto": seconds if the file ends as OpenMetrics does, else milliseconds."""
    scale = 1000.0 if timestamps == "s" or (timestamps == "auto" and _is_openmetrics(path)) else 1.0
    for start, end, digest in line_ranges(path, PART_BYTES):
        yield Part(
            f"{path} bytes {start} to {end}",
            fingerprint("text", digest, scale),
            end - start,
            _opener(path, start, end, scale, wanted),
        )


def line_ranges(path: Path, part_bytes: int, *, quotes: bool = False, skip: int = 0) -> Iterator[tuple[int, int, str]]:
    """(first byte, byte behind the last, digest) of runs of whole lines, from byte `skip` on; all bytes are read.

    With `quotes`, line ends between double quotes do not count. BadData for a line that is longer than a part.
    """
    size, at = path.stat().st_size, skip
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            data = file.read(part_bytes)
            if at + len(data) < size:
                data = data[: _last_line_end(data, quotes=quotes)]
            if not data:
                raise BadData(f"{path}: the line at byte {at} is longer than {part_bytes} bytes")
            yield at, at + len(data), hashlib.blake2b(data, digest_size=16).hexdigest()
            at += len(data)


def parse_series(text: str) -> Labels:
    """The label set of `name{a="b"}` or `{"name", a="b"}`. BadData where it is none."""
    name, brace, rest = text.partition("{")
    pairs = [(METRIC_NAME, name.strip())] if name.strip() else []
    body = rest[:-1] if brace else ""
    at = 0
    while body[at:].strip():
        found = _LABEL.match(body, at)
        if found is None:
            raise BadData(f"series {text!r}: cannot read the label at character {len(name) + 1 + at}")
        plain, quoted, value, _ = found.groups()
        label = plain if plain is not None else _unescape(quoted)
        pairs.append((METRIC_NAME, label) if value is None else (label, _unescape(value)))
        at = found.end()
    return Labels.of(pairs)


def parse_text(data: bytes, *, scale: float, where: str) -> SeriesBatch:
    """The samples of whole lines, which may be in any order. BadData tells the byte (after `where`) of the first bad line."""
    b = np.zeros(len(data) + MARGIN, np.uint8)
    b[: len(data)] = np.frombuffer(data, np.uint8)
    lines = data.count(b"\n") + 1
    start, end, t_ms, slow = (
        np.empty(lines, np.int64),
        np.empty(lines, np.int64),
        np.empty(lines, np.int64),
        np.empty((3, lines), np.int64),
    )
    hashes, values = np.empty(lines, np.uint64), np.empty(lines)
    samples, slow_values, fault, bad = exposition.scan_exposition(
        b, 0, len(data), scale, start, end, hashes, values, t_ms, slow
    ).tolist()
    if bad >= 0:
        line = data[bad : bad + 100].split(b"\n")[0].decode("utf-8", "replace")
        raise BadData(f"{where}, line at byte {bad}: {_FAULTS[fault]}: {line!r}")
    _read_slow(b, slow[:, :slow_values], values, where)
    row, first = _group(b, start[:samples], end[:samples], hashes[:samples], where)
    texts = [data[a:z].decode("utf-8", "replace") for a, z in zip(start[first].tolist(), end[first].tolist(), strict=True)]
    return batch_of_rows(SeriesTable.of([parse_series(text) for text in texts]), row, t_ms[:samples], values[:samples])


def _opener(path: Path, start: int, end: int, scale: float, wanted: Wanted) -> Callable[[], Content]:
    def open_content() -> Content:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        return content_of(pick(parse_text(data, scale=scale, where=f"{path} from byte {start}"), wanted))

    return open_content


def _is_openmetrics(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16))
        return file.read().rstrip().endswith(_END)


def _last_line_end(data: bytes, *, quotes: bool) -> int:
    """The byte behind the last line end, with `quotes` the last that has an even number of double quotes before it; 0 if none."""
    end = data.rfind(b"\n")
    inside = data.count(b'"', 0, end) % 2 if quotes and end >= 0 else 0
    while inside and end >= 0:
        before = data.rfind(b"\n", 0, end)
        inside ^= data.count(b'"', max(before, 0), end) % 2
        end = before
    return end + 1


def _read_slow(b: np.ndarray[tuple[int], np.dtype[np.uint8]], slow: I64, values: F64, where: str) -> None:
    """Parse the values that the scan left, all in one call."""
    if slow.shape[1] == 0:
        return
    texts = np.empty(int((slow[1] - slow[0]).sum()) + slow.shape[1], np.uint8)
    exposition.join_texts(b, slow[0].copy(), slow[1].copy(), texts)
    words = texts.tobytes().decode("latin-1")
    try:
        read = np.array(words.split(), dtype=np.float64)
    except ValueError as error:
        raise BadData(f"{where}: {error}") from None
    values[slow[2]] = read


def _group(
    b: np.ndarray[tuple[int], np.dtype[np.uint8]],
    start: I64,
    end: I64,
    hashes: np.ndarray[tuple[int], np.dtype[np.uint64]],
    where: str,
) -> tuple[I64, I64]:
    """(series i64[m] of each sample, first sample i64[n] of each series), by the bytes of the series."""
    if len(hashes) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    fresh = np.ones(len(hashes), bool)
    fresh[1:] = hashes[1:] != hashes[:-1]
    at = np.flatnonzero(fresh)
    _, first, inverse = np.unique(hashes[at], return_index=True, return_inverse=True)
    row = np.repeat(inverse.astype(np.int64), np.diff(np.append(at, len(hashes))))
    if exposition.first_different(b, start, end, at[first][row]) >= 0:
        raise BadData(f"{where}: two series have the same hash")
    return row, at[first]


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text) if "\\" in text else text

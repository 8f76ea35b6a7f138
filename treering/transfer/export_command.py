"""What `treering export` does: a stream of batches into a file of one of three kinds. Memory: one batch and its rows."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from promql.syntax.parser import parse_selector
from remote.store_gateway import StoreGateway
from remote.tenants import ANONYMOUS, check_tenant
from treering.config import load_config
from treering.library.backends import HttpBackend
from treering.library.listing import names_of
from treering.node import Node
from treering.times import to_ms
from treering.transfer.export_table import write_csv, write_parquet
from treering.transfer.export_tally import Tally
from treering.transfer.export_text import write_openmetrics
from tsdb.bucket.bucket import open_bucket
from tsdb.merge import merge_batches, merge_streams, merge_tables
from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher
from tsdb.model.series import SeriesBatch
from tsdb.model.source import MIN_MS, Selection, Source

TIMEOUT_S = 600.0
Sets = tuple[tuple[Matcher, ...], ...]


def run_export(kind: str, flags: Mapping[str, Any]) -> bool:
    """Export, and tell on stderr what was written; whether nothing that was found is missing because of damage."""
    now_ms = time.time_ns() // 1_000_000
    start_ms = MIN_MS if flags["start"] is None else to_ms(flags["start"], now_ms=now_ms)
    end_ms = now_ms + 1 if flags["end"] is None else to_ms(flags["end"], now_ms=now_ms)
    if start_ms >= end_ms:
        raise BadData(f"--start {flags['start']} is not before --end {flags['end'] or 'now'}")
    sets = tuple(parse_selector(text) for text in flags["matches"])
    tally = Tally()
    with _reading(sets, start_ms, end_ms, flags) as reading, _output(flags["output"]) as file:
        counted = tally.count(reading.batches)
        match kind:
            case "parquet":
                write_parquet(counted, file, names=reading.names() if flags["wide_labels"] else None)
            case "csv":
                write_csv(counted, file, tally, names=reading.names())
            case _:
                write_openmetrics(counted, file, tally)
    click.echo(tally.text(), err=True)
    for warning in tally.warnings:
        click.echo(f"warning: {warning}", err=True)
    return not tally.warnings


@dataclass(frozen=True, slots=True)
class _Reading:
    """Samples in the order of series, and how to ask for all label names that they have."""

    batches: Iterator[SeriesBatch]
    names: Callable[[], list[str]]


@contextmanager
def _reading(sets: Sets, start_ms: int, end_ms: int, flags: Mapping[str, Any]) -> Iterator[_Reading]:
    """The samples in [start_ms, end_ms)."""
    tenant = flags["tenant"] or ANONYMOUS
    check_tenant(tenant)
    if flags["url"]:
        backend = HttpBackend(flags["url"], flags["tenant"], {}, TIMEOUT_S)
        low = max(start_ms, 0)  # a server takes no range of all time
        batch = merge_batches([backend.select(matchers, start_ms=low, end_ms=end_ms) for matchers in sets])
        yield _Reading(iter((batch,)), lambda: names_of(batch.series))
        return
    if flags["bucket"]:
        gateway = StoreGateway(open_bucket(flags["bucket"]))
        gateway.refresh(time.time_ns() // 1_000_000)
        yield _read(gateway.source(tenant), sets, start_ms, end_ms)
        return
    node = Node(load_config(None, {"data": flags["data"] or "./treering-data"}))
    try:
        yield _read(node.source((tenant,)), sets, start_ms, end_ms)
    finally:
        node.close(flush=False)


def _read(source: Source, sets: Sets, start_ms: int, end_ms: int) -> _Reading:
    selections = [Selection(matchers, start_ms, end_ms) for matchers in sets]
    batches = merge_streams([source.select(selection) for selection in selections])
    return _Reading(batches, lambda: names_of(merge_tables([source.series(selection) for selection in selections])))


@contextmanager
def _output(place: str) -> Iterator[IO[bytes]]:
    """The file, which gets its name once it is whole; standard output as it is."""
    if place == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(place)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.rename(path)
    except OSError as error:
        raise BadData(f"{place}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)

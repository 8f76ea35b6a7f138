"""What `treering import` does: the flags become parts, the parts blocks, and the outcome a few lines."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from promql.syntax.parser import parse_selector
from remote.tenants import ANONYMOUS, check_tenant
from treering.times import parse_duration_ms, to_ms
from treering.transfer.import_blocks import block_parts, find_blocks, owners_of
from treering.transfer.import_part import Part, Wanted
from treering.transfer.import_progress import Progress
from treering.transfer.import_remote import RemoteServer, remote_parts
from treering.transfer.import_table import TableColumns, csv_parts, parquet_parts
from treering.transfer.import_text import text_parts
from treering.transfer.importing import ImportOptions, ImportReport, import_parts, utc_text
from tsdb.bucket.bucket import Bucket, PrefixBucket, open_bucket
from tsdb.model.errors import BadData, NotFound
from tsdb.model.source import MAX_MS, MIN_MS

_FILES = ("openmetrics", "csv", "parquet")
SHOWN_FAILURES = 20
"""Parts that are named at the end of an import; all are told as they fail."""


def run_import(kind: str, source: str, flags: Mapping[str, Any]) -> bool:
    """Import, and tell how it went; whether all of the source is in the bucket now."""
    wanted = wanted_of(flags)
    options = ImportOptions(wanted, dry_run=flags["dry_run"], verify=flags["verify"])
    bucket = open_bucket(flags["bucket"] or str(Path(flags["data"] or "./treering-data") / "bucket"))
    sound = True
    with _as_file(source, kind) as place:
        for tenant, total, parts in _sources(kind, place, wanted, flags):
            check_tenant(tenant)
            with Progress(total, console=Console(stderr=True)) as progress:
                report = import_parts(PrefixBucket(bucket, tenant), parts, options, progress=progress, now_ms=_now_ms)
            _tell(report, tenant, progress, dry_run=options.dry_run)
            sound &= not report.failures
    return sound


def wanted_of(flags: Mapping[str, Any]) -> Wanted:
    """Which samples the flags ask for. BadData where one is none."""
    labels = {}
    for text in flags["labels"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadData(f"--label {text!r}: want NAME=VALUE")
        labels[name] = value
    now_ms = _now_ms()
    start_ms = MIN_MS if flags["start"] is None else to_ms(flags["start"], now_ms=now_ms)
    end_ms = MAX_MS if flags["end"] is None else to_ms(flags["end"], now_ms=now_ms)
    if start_ms >= end_ms:
        raise BadData(f"--start {flags['start']} is not before --end {flags['end']}")
    sets = tuple(parse_selector(text) for text in flags["matches"])
    return Wanted(sets, start_ms, end_ms, tuple(sorted(labels.items())))


def _sources(kind: str, place: str, wanted: Wanted, flags: Mapping[str, Any]) -> Iterator[tuple[str, int, Iterable[Part]]]:
    """(tenant, weight of all parts, parts) of each tenant that the source is for."""
    tenant = flags["tenant"] or ANONYMOUS
    size = Path(place).stat().st_size if Path(place).is_file() else 0
    match kind:
        case "blocks":
            bucket = _source_bucket(place)
            parts = list(block_parts(bucket, find_blocks(bucket), wanted, downsampled=flags.get("downsampled", False)))
            yield tenant, sum(part.weight for part in parts), parts
        case "mimir":
            bucket = _source_bucket(place)
            owners = [flags["source_tenant"]] if flags["source_tenant"] else owners_of(bucket)
            if flags["tenant"] and len(owners) > 1:
                raise BadData(f"--tenant {tenant}: the source has {len(owners)} tenants; choose one with --source-tenant")
            for owner in owners:
                parts = list(block_parts(bucket, find_blocks(bucket, owner), wanted))
                yield flags["tenant"] or owner, sum(part.weight for part in parts), parts
        case "remote-read":
            if flags["start"] is None:
                raise BadData("remote-read needs --start: a server does not tell when its history begins")
            bounded = replace(wanted, end_ms=min(wanted.end_ms, _now_ms()))
            server = RemoteServer(place, flags["source_tenant"])
            window_ms = max(parse_duration_ms(flags["window"], name="window"), 1)
            yield tenant, max(bounded.end_ms - bounded.start_ms, 0), remote_parts(server, bounded, window_ms=window_ms)
        case "openmetrics":
            yield tenant, size, text_parts(Path(place), wanted, timestamps=flags["timestamps"])
        case "csv":
            yield tenant, size, csv_parts(Path(place), wanted, _columns(flags), delimiter=flags["delimiter"])
        case _:
            parts = list(parquet_parts(Path(place), wanted, _columns(flags)))
            yield tenant, sum(part.weight for part in parts), parts


def _columns(flags: Mapping[str, Any]) -> TableColumns:
    return TableColumns(flags["time"], flags["value"], flags["metric"], flags["time_unit"])


def _source_bucket(place: str) -> Bucket:
    if "://" not in place and not Path(place).is_dir():
        raise NotFound(f"{place}: there is no such folder")
    return open_bucket(place)


@contextmanager
def _as_file(source: str, kind: str) -> Iterator[str]:
    """The source, standard input as a temporary file, for parts are read by their places."""
    if source != "-" or kind not in _FILES:
        if kind in _FILES and not Path(source).is_file():
            raise NotFound(f"{source}: there is no such file")
        yield source
        return
    with tempfile.NamedTemporaryFile(prefix="treering-import-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        file.flush()
        yield file.name


def _tell(report: ImportReport, tenant: str, progress: Progress, *, dry_run: bool) -> None:
    did = "would become" if dry_run else "became"
    click.echo(
        f"tenant {tenant}: {progress.text()}; {report.parts} parts of up to {report.series:,} series {did} {report.blocks} blocks, "
        f"{utc_text(report.min_ms)} to {utc_text(report.max_ms)}; {report.skipped} parts were imported before"
    )
    for failure in report.failures[:SHOWN_FAILURES]:
        click.echo(f"not imported: {failure.name}: {failure.problem}", err=True)
    if report.failures:
        click.echo(f"{len(report.failures)} parts are NOT imported; run the same command again once they can be read", err=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

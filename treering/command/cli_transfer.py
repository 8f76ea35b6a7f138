"""The options of `treering import` and `treering export`; what they do is in `import_command` and `export_command`."""

import sys
from collections.abc import Callable
from typing import Any

import click

from tsdb.model.errors import TreeringError

Command = Callable[..., None]


def add_transfer_commands(main: click.Group) -> None:
    """Give a command group the groups `import` and `export`."""
    main.add_command(import_group)
    main.add_command(export_group)


@click.group("import")
def import_group() -> None:
    """Bring history in: it becomes blocks in the bucket, beside a running server or without one."""


@click.group("export")
def export_group() -> None:
    """Write samples out, as Parquet, OpenMetrics text or CSV."""


def import_options(command: Command) -> Command:
    for option in reversed(
        [
            click.option("--data", metavar="DIR", help="Data folder to import into (default ./treering-data)."),
            click.option("--bucket", metavar="URL", help="Bucket to import into, instead: s3://bucket/prefix or a folder."),
            click.option("--tenant", metavar="ID", help="Tenant to import for (default anonymous)."),
            click.option("--label", "labels", metavar="K=V", multiple=True, help="Set a label on every series; K= takes one away."),
            click.option("--match", "matches", metavar="SELECTOR", multiple=True, help="Only such series; any may match."),
            click.option("--start", metavar="TIME", help="Only samples from here on."),
            click.option("--end", metavar="TIME", help="Only samples before this."),
            click.option("--dry-run", is_flag=True, help="Read everything, write nothing, and tell what would be imported."),
            click.option("--verify", is_flag=True, help="Read the new blocks back and compare every series with the source."),
        ]
    ):
        command = option(command)
    return command


@import_group.command("prometheus-block")
@click.argument("source")
@import_options
def import_prometheus(source: str, **flags: Any) -> None:
    """A block of Prometheus, or a folder of them (a snapshot, or the data folder of a stopped server)."""
    _import("blocks", source, flags)


@import_group.command("thanos-bucket")
@click.argument("source")
@import_options
@click.option("--downsampled", is_flag=True, help="Import 5 m and 1 h blocks too, as series metric:5m:count|sum|min|max|counter.")
def import_thanos(source: str, **flags: Any) -> None:
    """All raw blocks of a Thanos bucket (s3://… or a folder), with their external labels as labels."""
    _import("blocks", source, flags)


@import_group.command("mimir-bucket")
@click.argument("source")
@import_options
@click.option("--source-tenant", metavar="ID", help="Only this tenant of the source (default all, each under its own name).")
def import_mimir(source: str, **flags: Any) -> None:
    """The blocks of a Mimir or Cortex bucket (s3://… or a folder)."""
    _import("mimir", source, flags)


@import_group.command("remote-read")
@click.argument("source")
@import_options
@click.option("--window", default="2h", show_default=True, metavar="DURATION", help="Time asked for at once; bounds the memory.")
@click.option("--source-tenant", metavar="ID", help="Tenant to ask for (X-Scope-OrgID).")
def import_remote_read(source: str, **flags: Any) -> None:
    """Whatever a server (http://…) gives by Prometheus' remote read, in streamed chunks; needs --start."""
    _import("remote-read", source, flags)


@import_group.command("openmetrics")
@click.argument("source")
@import_options
@click.option(
    "--timestamps",
    type=click.Choice(["auto", "s", "ms"]),
    default="auto",
    show_default=True,
    help="Unit of the times; auto takes seconds where the file ends with # EOF, else milliseconds.",
)
def import_openmetrics(source: str, **flags: Any) -> None:
    """OpenMetrics or Prometheus text with times (a file, or - for standard input)."""
    _import("openmetrics", source, flags)


def table_options(command: Command) -> Command:
    for option in reversed(
        [
            click.option("--time", default="time", show_default=True, metavar="COLUMN", help="The column of times."),
            click.option("--value", default="value", show_default=True, metavar="COLUMN", help="The column of values."),
            click.option("--metric", metavar="NAME", help="The metric name, where no column __name__ tells it."),
            click.option(
                "--time-unit",
                type=click.Choice(["s", "ms", "us", "ns"]),
                default="s",
                show_default=True,
                help="Unit of times that are plain numbers.",
            ),
        ]
    ):
        command = option(command)
    return command


@import_group.command("csv")
@click.argument("source")
@import_options
@table_options
@click.option("--delimiter", default=",", show_default=True, help="What stands between two columns.")
def import_csv(source: str, **flags: Any) -> None:
    """CSV with a header: a time, a value, and every other column a label (a file, or - for standard input)."""
    _import("csv", source, flags)


@import_group.command("parquet")
@click.argument("source")
@import_options
@table_options
def import_parquet(source: str, **flags: Any) -> None:
    """Parquet: a time, a value, labels as a map column or a column each (as `treering export parquet` writes)."""
    _import("parquet", source, flags)


def export_options(command: Command) -> Command:
    for option in reversed(
        [
            click.option(
                "--match", "matches", metavar="SELECTOR", multiple=True, required=True, help="Such series; any may match."
            ),
            click.option("--start", metavar="TIME", help="Samples from here on (default the beginning)."),
            click.option("--end", metavar="TIME", help="Samples before this (default now)."),
            click.option("-o", "--output", metavar="FILE", required=True, help="Where to; - is standard output."),
            click.option("--data", metavar="DIR", help="Data folder to read (default ./treering-data)."),
            click.option("--bucket", metavar="URL", help="Bucket to read, instead: s3://bucket/prefix or a folder."),
            click.option("--url", metavar="URL", help="Server to ask, instead."),
            click.option("--tenant", metavar="ID", help="Tenant to read (default anonymous)."),
        ]
    ):
        command = option(command)
    return command


@export_group.command("parquet")
@export_options
@click.option("--wide-labels", is_flag=True, help="A column for each label, instead of one column with a map.")
def export_parquet(**flags: Any) -> None:
    """A row a sample: time, value, labels, and native histograms as a struct."""
    _export("parquet", flags)


@export_group.command("csv")
@export_options
def export_csv(**flags: Any) -> None:
    """A row a sample: time in seconds, value, a column a label. Native histograms and stale markers are left out."""
    _export("csv", flags)


@export_group.command("openmetrics")
@export_options
def export_openmetrics(**flags: Any) -> None:
    """OpenMetrics text with times, as promtool reads it. Native histograms and stale markers are left out."""
    _export("openmetrics", flags)


def _import(kind: str, source: str, flags: dict[str, Any]) -> None:
    from treering.transfer.import_command import run_import

    _told(lambda: run_import(kind, source, flags))


def _export(kind: str, flags: dict[str, Any]) -> None:
    from treering.transfer.export_command import run_export

    _told(lambda: run_export(kind, flags))


def _told(run: Callable[[], bool]) -> None:
    """Run; status 1, with one line on stderr, where that fails or not all could be done."""
    try:
        sound = run()
    except (TreeringError, ImportError) as error:
        click.echo(f"treering: {error}", err=True)
        sys.exit(1)
    if not sound:
        sys.exit(1)

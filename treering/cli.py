"""The command line. Every import that costs time happens inside the command that needs it, so that `--help` is instant."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import click

from treering.command.cli_transfer import add_transfer_commands
from treering.version import VERSION
from tsdb.model.errors import TreeringError

Options = Callable[[Callable[..., None]], Callable[..., None]]


class DefaultGroup(click.Group):
    """A group whose first command, `serve`, may be left out."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(context, args)


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, message="treering %(version)s")
def main() -> None:
    """Treering: a long-term store for Prometheus metrics.

    Without a command it serves: remote write in, PromQL out, data in ./treering-data, on http://127.0.0.1:9009.
    """


add_transfer_commands(main)


def told(command: Callable[..., None]) -> Callable[..., None]:
    """The command with our own errors told in one line, exit status 1, instead of a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TreeringError as error:
            click.echo(f"treering: {error}", err=True)
            sys.exit(1)

    return run


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that choose a configuration; each is also a key of the file and a TREERING_ variable."""
    for option in reversed(
        [
            click.option("--config", "config_file", metavar="FILE", help="YAML file; flags win over it."),
            click.option("--data", metavar="DIR", help="Data folder (default ./treering-data)."),
            click.option("--listen", metavar="HOST:PORT", help="Address to serve on (default 127.0.0.1:9009)."),
            click.option(
                "--bucket", metavar="URL", help="Where blocks live: s3://bucket/prefix or a folder (default <data>/bucket)."
            ),
            click.option("--target", metavar="ROLE,…", help="Roles of this process (default all)."),
            click.option("--ingesters", type=int, metavar="N", help="Ingesters in this process (default 1)."),
            click.option("--replication-factor", type=int, metavar="R", help="Copies of each series in memory (default 1)."),
            click.option("--multitenancy", is_flag=True, default=None, help="Require X-Scope-OrgID on every request."),
            click.option("--wal-sync", type=click.Choice(["commit", "os"]), help="When a write is answered: after fsync, or not."),
            click.option("--enable-feature", metavar="NAME,…", help="Prometheus feature names, or all."),
            click.option(
                "--log-level", type=click.Choice(["debug", "info", "warn", "error"]), help="Least severe log lines shown."
            ),
        ]
    ):
        command = option(command)
    return command


@main.command()
@config_options
@told
def serve(**flags: Any) -> None:
    """Run the store (the default command)."""
    config = _config(flags)
    from treering.serve import serve as run

    run(config, say=_tell)


@main.command()
@click.argument("expr")
@click.option("--at", metavar="TIME", help="Instant query at this time (default now).")
@click.option("--range", "range_", metavar="DURATION", help="Range query over the last DURATION, such as 1h.")
@click.option("--step", metavar="DURATION", help="Step of the range query.")
@click.option("--url", metavar="URL", help="Ask this server (default http://127.0.0.1:9009).")
@click.option("--data", metavar="DIR", help="Ask a data folder or s3://bucket directly, without a server.")
@click.option("--tenant", metavar="ID", help="Tenant to ask as.")
@click.option(
    "--max-source-resolution", "downsample", metavar="DURATION", default="auto", show_default=True,
    help="Coarsest downsampled data that may answer: raw, 5m, 1h, or auto: wherever it changes nothing.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the JSON of the HTTP API.")
@click.option("--explain", is_flag=True, help="Show how the query would be evaluated and what it would read; do not run it.")
@click.option("--analyze", is_flag=True, help="Run the query; show the time and samples of each part instead of the result.")
@told
def query(
    expr: str,
    at: str | None,
    range_: str | None,
    step: str | None,
    url: str | None,
    data: str | None,
    tenant: str | None,
    downsample: str,
    as_json: bool,
    explain: bool,
    analyze: bool,
) -> None:
    """Evaluate a PromQL expression and print a table (or, for ranges, sparklines)."""
    from treering import open as open_store
    from treering.command.terminal import print_result
    from treering.http.explanation_json import explanation_json

    with open_store(data or url or "http://127.0.0.1:9009", tenant=tenant) as store:
        if explain or analyze:
            start = None if range_ is None else "-" + range_.lstrip("-")
            told_of = store.explain(expr, at or "now", start=start, step=step, downsample=downsample, analyze=analyze)
            click.echo(explanation_json(told_of).decode() if as_json else str(told_of))
            return
        if range_ is not None:
            result = store.query_range(expr, start="-" + range_.lstrip("-"), step=step, downsample=downsample)
        else:
            result = store.query(expr, at or "now", downsample=downsample)
        if as_json:
            click.echo(result.json().decode())
        else:
            print_result(result)


@main.command()
@config_options
@click.option("--hours", type=click.IntRange(1, 24 * 31), default=24, show_default=True, help="Hours of history to make.")
@click.option("--hosts", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Machines to make up.")
@told
def demo(hours: int, hosts: int, **flags: Any) -> None:
    """Fill the data folder with plausible node metrics, so that there is something to look at."""
    config = _config(flags)
    from treering.command.demo import fill_demo

    fill_demo(config, hours=hours, hosts=hosts, say=click.echo)


@main.command()
@config_options
@told
def doctor(**flags: Any) -> None:
    """Check what a start needs: folder, disk, port, bucket, clock, kernels."""
    config = _config(flags)
    from treering.command.doctor import examine, print_findings

    if not print_findings(examine(config)):
        sys.exit(1)


@main.group()
def config() -> None:
    """Show or check the configuration."""


@config.command("show")
@config_options
@told
def config_show(**flags: Any) -> None:
    """Print the effective configuration as YAML."""
    effective = _config(flags)
    from treering.config import show_config

    click.echo(show_config(effective), nl=False)


@config.command("check")
@config_options
@told
def config_check(**flags: Any) -> None:
    """Exit with status 0 if the configuration is valid, else say what is wrong."""
    effective = _config(flags)
    from treering.limits import limits_table
    from treering.python_functions import load_functions

    limits_table(effective.limits, effective.tenant_limits)
    load_functions(effective.python_functions)
    click.echo("The configuration is valid.")


@main.group()
def blocks() -> None:
    """Look at the blocks of a bucket."""


def bucket_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option("--bucket", metavar="URL", help="s3://bucket/prefix or a folder (default ./treering-data/bucket)."),
            click.option("--tenant", metavar="ID", help="Only this tenant."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
        ]
    ):
        command = option(command)
    return command


@blocks.command("ls")
@bucket_options
@told
def blocks_ls(bucket: str | None, tenant: str | None, as_json: bool) -> None:
    """List blocks: time range, level, series, samples, bytes a sample; status 1 if any cannot be read."""
    from treering.command.blocks import list_command

    if not list_command(bucket, tenant, as_json=as_json, say=click.echo):
        sys.exit(1)


@blocks.command("inspect")
@click.argument("ulid")
@bucket_options
@told
def blocks_inspect(ulid: str, bucket: str | None, tenant: str | None, as_json: bool) -> None:
    """Show one block: its objects, its metrics, where its bytes go."""
    from treering.command.blocks import inspect_command

    inspect_command(ulid, bucket, tenant, as_json=as_json, say=click.echo)


@blocks.command("verify")
@bucket_options
@told
def blocks_verify(bucket: str | None, tenant: str | None, as_json: bool) -> None:
    """Read every byte of every block and check its checksums; status 1 if any is damaged."""
    from treering.command.blocks import verify_command

    if not verify_command(bucket, tenant, as_json=as_json, say=click.echo):
        sys.exit(1)


def _tell(text: str) -> None:
    """Print, if that is possible: a full disk or a closed pipe behind stdout must not keep the node from flushing."""
    with suppress(OSError):
        click.echo(text)


@blocks.command("mark")
@click.argument("ulid")
@click.argument("kind", type=click.Choice(["deletion", "no-compact", "none"]))
@click.option("--bucket", metavar="URL", help="s3://bucket/prefix or a folder (default ./treering-data/bucket).")
@click.option("--tenant", metavar="ID", default="anonymous", show_default=True, help="Whose block it is.")
@click.option("--reason", default="by hand", show_default=True, help="What the mark says.")
@told
def blocks_mark(ulid: str, kind: str, bucket: str | None, tenant: str, reason: str) -> None:
    """Mark a block for deletion, leave it out of compaction, or take its marks off."""
    from treering.command.blocks_change import mark_command

    mark_command(ulid, bucket, tenant, kind, reason=reason, say=click.echo)


@blocks.command("rewrite")
@click.argument("ulids", nargs=-1, metavar="[ULID]...")
@click.option("--relabel", "relabel_file", metavar="FILE", required=True, help="YAML list of Prometheus relabelling rules.")
@click.option("--bucket", metavar="URL", help="s3://bucket/prefix or a folder (default ./treering-data/bucket).")
@click.option("--tenant", metavar="ID", default="anonymous", show_default=True, help="Whose blocks they are.")
@told
def blocks_rewrite(ulids: tuple[str, ...], relabel_file: str, bucket: str | None, tenant: str) -> None:
    """Relabel, rename or drop series of history: rewrites the blocks named, or all."""
    from treering.command.blocks_change import rewrite_command

    rewrite_command(ulids, bucket, tenant, relabel_file, say=click.echo)


def _config(flags: dict[str, Any]) -> Any:
    from treering.config import load_config

    path = flags.pop("config_file")
    chosen = {name: value for name, value in flags.items() if value is not None}
    for name in ("target", "enable_feature"):
        if name in chosen:
            chosen[name] = tuple(part.strip() for part in chosen[name].split(",") if part.strip())
    return load_config(path, chosen)

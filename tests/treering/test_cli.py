"""The command line, as subprocesses where start-up matters and in this process where only words do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.peers import Program, free_port, treering
from remote.wire.client import encode_v1, post_write
from tests.remote.writes import write_batch
from treering.cli import main
from treering.config import Config
from treering.node import Node
from treering.version import VERSION
from tsdb.model.labels import Labels

NOW_MS = int(time.time() * 1000)
HEAVY = (
    "numba",
    "numpy",
    "llvmlite",
    "pandas",
    "pyarrow",
    "boto3",
    "uvicorn",
    "rich",
    "google.protobuf",
    "lark",
    "msgspec",
    "yaml",
)


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as wide as they need, no colours, and the default data folder out of the way."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with treering(tmp_path_factory.mktemp("cli") / "store") as server:
            series = {  # nine minutes of the future too, for these tests may run minutes after NOW_MS was read
                Labels.of({"__name__": "temperature", "room": room}): [(NOW_MS - 15_000 * i, base + i % 8) for i in range(-36, 240)]
                for room, base in (("attic", 30.0), ("cellar", 10.0))
            }
            assert post_write(server.url + "/api/v1/write", encode_v1(write_batch(series))).status == 204
            yield server


def run(*args: str) -> Result:
    return CliRunner().invoke(main, [*args])


def process(*args: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.run([sys.executable, "-m", "treering", *args], capture_output=True, text=True, timeout=60, env=environment)


HELPS = [(), ("serve",), ("query",), ("blocks", "verify"), ("import", "csv"), ("export",), ("config", "check"), ("demo",)]


@pytest.mark.parametrize("command", HELPS, ids=lambda command: " ".join(command) or "treering")
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    text = f"""
import sys
from treering.cli import main
main([*{command!r}, "--help"], standalone_mode=False)
print("LOADED", [name for name in {HEAVY!r} if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, check=True)
    shown, _, told = done.stdout.partition("LOADED ")
    assert "Usage:" in shown
    assert told.strip() == "[]"


def test_version() -> None:
    assert run("--version").stdout == f"treering {VERSION}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("serve", "--config", "bad.yaml"), ("bad.yaml: unknown key 'listne'; did you mean 'listen'?",)),
        (("--config", "bad.yaml"), ("bad.yaml: unknown key 'listne'",)),
        (("config", "check", "--config", "bad.yaml"), ("unknown key 'listne'",)),
        (
            ("config", "check", "--config", "limits.yaml"),
            ("limits: unknown limit 'ingestion_rat'; did you mean 'ingestion_rate'?",),
        ),
        (("config", "check", "--enable-feature", "promql"), ("unknown feature 'promql'",)),
        (("query", "up", "--url", "http://127.0.0.1:1"), ("http://127.0.0.1:1/api/v1/query", "refused")),
        (("query", "up", "--url", "ftp://x"), ("unknown scheme 'ftp'",)),
        (("query", "sum(", "--data", "new"), ("1:5: parse error", "\nsum(\n    ^")),
        (("query", "up", "--at", "yesterday", "--data", "new"), ('"time"', "yesterday")),
        (("query", "up", "--range", "soon", "--data", "new"), ("soon",)),
        (("blocks", "inspect", "NOPE", "--bucket", "new"), ("no block NOPE in new",)),
        (("demo", "--listen", "nonsense"), ("no HOST:PORT",)),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_mistakes_are_one_clear_line_and_status_1(tmp_path: Path, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    (tmp_path / "bad.yaml").write_text("listne: 1\n")
    (tmp_path / "limits.yaml").write_text("limits: {ingestion_rat: 1}\n")
    done = run(*args)
    assert done.exit_code == 1
    assert done.stderr.startswith("treering: ") and all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 5, "a parse error has its caret, others one line"
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "args", [("nonsense",), ("--nonsense",), ("query",), ("demo", "--hours", "0"), ("serve", "--wal-sync", "x")]
)
def test_wrong_usage_is_status_2(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.exit_code == 2 and "Usage:" in done.stderr


def test_a_busy_port(program: Program, tmp_path: Path) -> None:
    address = program.url.removeprefix("http://")
    done = process("--data", str(tmp_path / "other"), "--listen", address)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"treering: cannot listen on {address}: Address already in use; choose another address with --listen HOST:PORT\n"
    )


def test_a_locked_folder(tmp_path: Path) -> None:
    with Node(Config(data=str(tmp_path / "store"))):
        done = process("--data", str(tmp_path / "store"), "--listen", f"127.0.0.1:{free_port()}")
        assert done.returncode == 1
        assert str(tmp_path / "store") in done.stderr and len(done.stderr.splitlines()) == 1
        asked = process("query", "1", "--data", str(tmp_path / "store"))
        assert asked.returncode == 1 and str(tmp_path / "store") in asked.stderr


def test_query_prints_a_table(program: Program) -> None:
    done = run("query", "temperature", "--at", str(NOW_MS / 1000), "--url", program.url)
    assert done.exit_code == 0, done.output
    assert 'temperature{room="attic"}' in done.output and 'temperature{room="cellar"}' in done.output
    assert "30" in done.output and "10" in done.output and "2 series" in done.output


def test_query_prints_scalars_strings_and_warnings(program: Program) -> None:
    assert run("query", "1 + 1", "--url", program.url).stdout.strip().endswith("2")
    assert "hello" in run("query", '"hello"', "--url", program.url).stdout
    done = run("query", "rate(temperature[5m])", "--url", program.url)
    assert "temperature" in done.stderr and "counter" in done.stderr, "the annotation goes to stderr"


def test_query_prints_sparklines_for_a_range(program: Program) -> None:
    done = run("query", "temperature", "--range", "30m", "--step", "1m", "--url", program.url)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "room=" in line]
    assert len(lines) == 2 and all(any(bar in line for bar in "▁▂▃▄▅▆▇█") for line in lines)


def test_query_prints_the_json_of_the_api(program: Program) -> None:
    done = run("query", "sum(temperature)", "--at", str(NOW_MS / 1000), "--json", "--url", program.url)
    answer = json.loads(done.stdout)
    assert answer["status"] == "success" and answer["data"]["result"][0]["value"] == [NOW_MS / 1000, "40"]
    done = run("query", "temperature", "--range", "10m", "--step", "5m", "--json", "--url", program.url)
    assert [len(row["values"]) for row in json.loads(done.stdout)["data"]["result"]] == [3, 3]


def test_query_asks_a_folder(tmp_path: Path) -> None:
    with Node(Config(data=str(tmp_path / "store"))) as node:
        node.push("team", write_batch({Labels.of({"__name__": "kept"}): [(NOW_MS, 3.0)]}))
    args = ("query", "kept", "--at", str(NOW_MS / 1000), "--data", str(tmp_path / "store"))
    assert "kept" in run(*args, "--tenant", "team").output
    assert "0 series" in run(*args).output


def test_explain_and_analyze(program: Program) -> None:
    done = run("query", "sum(temperature)", "--explain", "--url", program.url)
    assert done.exit_code == 0 and "temperature" in done.stdout and "sum" in done.stdout
    done = run("query", "sum(temperature)", "--analyze", "--json", "--url", program.url)
    assert done.exit_code == 0 and "temperature" in json.dumps(json.loads(done.stdout))


def test_config_show_and_check() -> None:
    shown = run("config", "show", "--listen", "127.0.0.1:77", "--multitenancy", "--target", "querier, store-gateway")
    assert shown.exit_code == 0
    assert "listen: 127.0.0.1:77" in shown.stdout and "multitenancy: true" in shown.stdout and "- store-gateway" in shown.stdout
    assert run("config", "check").stdout == "The configuration is valid.\n"


def test_demo_fills_a_folder_that_can_be_asked(tmp_path: Path) -> None:
    done = run("demo", "--data", "made", "--hours", "1", "--hosts", "2")
    assert done.exit_code == 0, done.output
    assert "samples of 2 machines over 1 h written to made in" in done.output
    asked = run("query", "count by (instance) (node_cpu_seconds_total)", "--data", "made", "--json")
    assert [row["value"][1] for row in json.loads(asked.stdout)["data"]["result"]] == ["16", "16"]
    listed = run("blocks", "ls", "--bucket", "made/bucket", "--json")
    assert sum(block["samples"] for block in json.loads(listed.stdout)) == int(done.output.split()[0].replace(",", ""))

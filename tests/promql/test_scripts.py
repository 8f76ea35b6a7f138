"""Every `eval` of every PromQL test script is a test: our own scripts, and Prometheus's suite where it is at hand."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from tests.promql.script import Command, Eval, parse_file
from tests.promql.script_run import run
from tests.promql.script_store import Store
from tsdb.head.head import Head

OWN = Path(__file__).with_name("scripts")
SUITE = Path(__file__).parents[3] / "shared" / "promqltest"


def cases(folder: Path) -> list[object]:
    """One parameter set (file, index of the command) an eval."""
    found = []
    for path in sorted(folder.glob("*.test")):
        for i, command in enumerate(commands(path)):
            if isinstance(command, Eval):
                found.append(pytest.param(path, i, id=f"{path.stem}:{command.line}"))
    return found


@lru_cache
def commands(path: Path) -> tuple[Command, ...]:
    return tuple(parse_file(path))


class Sources:
    """The head before each command of a script; neighbouring evals share one."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(directory)
        self._at: tuple[Path, int] | None = None
        self._head: Head | None = None

    def before(self, path: Path, i: int) -> Head:
        end = next((j + 1 for j in range(i - 1, -1, -1) if not isinstance(commands(path)[j], Eval)), 0)
        if self._head is None or self._at != (path, end):
            self._head, self._at = self._store.load(commands(path)[:end]), (path, end)
        return self._head

    def close(self) -> None:
        self._store.close()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    found = Sources(tmp_path_factory.mktemp("heads"))
    yield found
    found.close()


@pytest.mark.parametrize(("path", "i"), cases(OWN))
def test_own_script(sources: Sources, path: Path, i: int) -> None:
    command = commands(path)[i]
    assert isinstance(command, Eval)
    run(sources.before(path, i), command)


@pytest.mark.skipif(not SUITE.is_dir(), reason="Prometheus's own scripts are not at ../shared/promqltest")
@pytest.mark.parametrize(("path", "i"), cases(SUITE) or [pytest.param(SUITE, 0)])
def test_suite_script(sources: Sources, path: Path, i: int) -> None:
    command = commands(path)[i]
    assert isinstance(command, Eval)
    run(sources.before(path, i), command)

"""Prints how many cases of each PromQL test script pass, and each failure: `python -m tests.promql.report [name…]`."""

import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.promql.script import Eval
from tests.promql.script_run import Mismatch, run
from tests.promql.test_scripts import OWN, SUITE, Sources, commands


def main(names: list[str]) -> int:
    """1 if any case fails. With names, only the scripts of these stems."""
    with TemporaryDirectory() as directory:
        return _report(names, Sources(Path(directory)))


def _report(names: list[str], sources: Sources) -> int:
    passed = failed = 0
    for path in [*sorted(OWN.glob("*.test")), *sorted(SUITE.glob("*.test"))]:
        if names and path.stem not in names:
            continue
        evals = [i for i, command in enumerate(commands(path)) if isinstance(command, Eval)]
        failures, total = [text for i in evals if (text := _failure(sources, path, i))], len(evals)
        passed, failed = passed + total - len(failures), failed + len(failures)
        print(f"{path.stem:26} {total - len(failures):4} of {total:4}", flush=True)
        for text in failures:
            print(f"    {text}")
    print(f"{'all':26} {passed:4} of {passed + failed:4}")
    return int(failed > 0)


def _failure(sources: Sources, path: Path, i: int) -> str:
    """What is wrong with one case, "" if nothing."""
    command = commands(path)[i]
    assert isinstance(command, Eval)
    try:
        run(sources.before(path, i), command)
    except Mismatch as mismatch:
        return f"{path.name}:{command.line} {command.query}\n        {mismatch}"
    except Exception as error:  # a crash of the engine is a failure of this case alone
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return f"{path.name}:{command.line} {command.query}\n        {type(error).__name__} at {where}: {error}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

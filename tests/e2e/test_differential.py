"""Random queries, asked of Debian's Prometheus 2.42 and of Treering over the same data: every answer is equal, or the
difference is one of `known_differences`, each of which a change between Prometheus 2.42 and 3 explains."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.peers import PROMETHEUS, Program, installed, prometheus, treering
from remote.wire.client import post_write
from tests.e2e.answers import ask, difference
from tests.e2e.known_differences import KNOWN, KnownDifference, explained
from tests.e2e.random_data import bodies
from tests.e2e.random_queries import INSTANT_S, RANGE_S, SMOOTHING, Question, questions
from tests.treering.server import call

pytestmark = pytest.mark.skipif(not installed(PROMETHEUS), reason="prometheus is not installed")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one question asked of both: the two answers, and in words how they differ, if they do."""

    path: str
    text: str
    own: dict[str, Any]
    peer: dict[str, Any]
    different: str

    def kind(self) -> str:
        if self.own["status"] == "error":
            return f"error {self.own['errorType']}"
        return "answers with data" if self.own["data"]["result"] else "empty answers"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Program]]:
    """(Treering, Prometheus) over the same data."""
    folder = tmp_path_factory.mktemp("differential")
    flags = ("--enable-feature", "promql-experimental-functions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREERING_SELF_SCRAPE_S", "0")
        with treering(folder / "own", *flags) as own, prometheus(folder / "peer") as peer:
            for body in bodies():
                for program in (own, peer):
                    answer = post_write(program.url + "/api/v1/write", body)
                    assert answer.status == 204, answer
            yield own, peer


@pytest.mark.parametrize("count", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_random_queries(servers: tuple[Program, Program], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfrom memory: {_compare(servers, questions(count))}")


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.example)
def test_known_differences_are_there(servers: tuple[Program, Program], known: KnownDifference) -> None:
    found = [verdict.different for verdict in judge(*servers, Question(known.example, 60)) if verdict.different]
    assert found and all(explained(known.example, different) == known.reason for different in found), found


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_queries_over_blocks(servers: tuple[Program, Program], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(servers[0].url, "POST", "/ingester/flush").status == 204
    with capsys.disabled():
        print(f"\nfrom blocks: {_compare(servers, questions(count, first_seed=1_000_000))}")


def _compare(servers: tuple[Program, Program], asked: list[Question]) -> str:
    """Counts, in words. AssertionError with the first differences that nothing explains."""
    with ThreadPoolExecutor(4) as pool:
        verdicts = [one for found in pool.map(lambda question: judge(*servers, question), asked) for one in found]
    kinds = Counter(verdict.kind() for verdict in verdicts)
    reasons = [(verdict, explained(verdict.text, verdict.different)) for verdict in verdicts if verdict.different]
    open_ = [f"{verdict.path} {verdict.text}\n    {verdict.different}" for verdict, reason in reasons if not reason]
    assert not open_, f"{len(open_)} of {len(verdicts)} differ:\n" + "\n".join(open_[:50])
    assert kinds["answers with data"] > len(verdicts) / 2
    known = Counter(reason for _, reason in reasons if reason)
    return f"{len(asked)} random queries, {len(verdicts)} answers compared: {dict(kinds)}; differences explained: {dict(known)}"


def judge(own: Program, peer: Program, question: Question) -> list[Verdict]:
    """Both servers' answers to a question, instant and range."""
    text = question.text
    asked: list[tuple[str, dict[str, object]]] = [("query", {"query": text, "time": INSTANT_S})]
    if not question.instant_only:
        asked.append(("query_range", {"query": text, "start": RANGE_S[0], "end": RANGE_S[1], "step": question.step_s}))
    verdicts = []
    for path, params in asked:
        ours = _rounded(ask(own.url, path, **params))
        theirs = _rounded(ask(peer.url, path, **params | {"query": text.replace(SMOOTHING, "holt_winters")}))
        verdicts.append(Verdict(path, text, ours, theirs, difference(ours, theirs) or _further(text, ours, theirs)))
    return verdicts


def _rounded(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with numbers in the label of count_values cut to 9 digits, times pi so that none is halfway: their last
    digits are the rounding of a sine or of a mean. The sign of 0 goes too: it depends on which of equal values sorts first."""
    if answer["status"] == "success" and answer["data"]["resultType"] in ("vector", "matrix"):
        for row in answer["data"]["result"]:
            for name in {"v", "job"} & row["metric"].keys():
                if re.fullmatch(r"-?\d+(\.\d+)?(e.*)?", row["metric"][name]):
                    row["metric"][name] = f"{float(row['metric'][name]) * math.pi + 0.0:.9g}"
    return answer


def _further(text: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What `difference` does not look at: the kind of an error, and the order of what is sorted."""
    if ours["status"] == "error":
        kinds = ours["errorType"], theirs["errorType"]
        return "" if kinds[0] == kinds[1] else f"errors {kinds[0]} ({ours['error']}) and {kinds[1]} ({theirs['error']})"
    if text.startswith("sort"):
        mine, other = ([float(row["value"][1]) for row in answer["data"]["result"]] for answer in (ours, theirs))
        return (
            ""
            if all(a == b or a != a or abs(a - b) <= 1e-9 * abs(b) for a, b in zip(mine, other, strict=True))
            else "order of values"
        )
    return ""

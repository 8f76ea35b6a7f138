"""Chains of thousands of operators: parsed, printed, planned, evaluated, explained, and refused with a number where they end."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from promql.answer import QueryOptions
from promql.engine import query_instant, query_range
from promql.explain import analyze, explain
from promql.matrix import Matrix, Scalar, Steps
from promql.plan import make_plan
from promql.syntax.ast import Binary, chain
from promql.syntax.errors import ParseError
from promql.syntax.lexer import MAX_NESTING, MAX_TOKENS
from promql.syntax.parser import parse
from promql.syntax.printer import format_expr, pretty, to_json
from promql.syntax.typecheck import ALL_FEATURES
from tests.tsdb.batches import grid_batch
from tsdb.model.errors import LimitExceeded
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection

AT_MS = 600_000
STEPS = Steps(60_000, AT_MS, 60_000)
OPTIONS = QueryOptions(features=ALL_FEATURES)
BATCH = grid_batch(3, 60, step_ms=15_000)


class Held:
    """A `Source` of one batch."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        yield BATCH.clip(selection.start_ms, selection.end_ms)

    def series(self, selection: Selection) -> SeriesTable:
        return BATCH.series


def ask(query: str) -> float:
    value = query_instant(Held(), query, AT_MS, OPTIONS).value
    assert isinstance(value, Matrix | Scalar)
    return float(value.values.ravel()[0])


def test_a_chain_is_evaluated_link_by_link() -> None:
    one = ask("sum(m)")
    assert ask("sum(m)" + " + sum(m)" * 900) == pytest.approx(901 * one)
    assert ask("sum(m)" + " - 1" * 2400) == pytest.approx(one - 2400)
    assert ask("sum(m" + " * 1 + 1" * 1000 + ")") == pytest.approx(one + 3 * 1000)
    assert ask("count(m" + " or m" * 700 + ")") == 3
    assert ask("time()" + " + 1" * 2400) == AT_MS / 1000 + 2400
    assert ask("1" + " - 1" * 2400) == -2399
    chained = "sum(m" + " + 1" * 500 + ")"
    assert ask(f"abs({chained}) + abs({chained})") == pytest.approx(2 * (one + 1500)), "equal chains in two places"


def test_a_chain_has_the_same_values_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    query = "m + m * 2 - on(instance) m / 3 > bool 1 == bool 1"
    before = query_range(Held(), query, STEPS, OPTIONS)
    monkeypatch.setattr("promql.evaluate.MAX_LINKS", 1)
    after = query_range(Held(), query, STEPS, OPTIONS)
    assert isinstance(before.value, Matrix) and isinstance(after.value, Matrix)
    np.testing.assert_array_equal(before.value.values, after.value.values)
    assert before.value.series.rows() == after.value.series.rows() and len(before.value) == 3


def test_a_chain_is_printed_and_parsed_again() -> None:
    text = "a" + " + b" * 700
    tree = parse(text)
    assert isinstance(tree, Binary) and len(chain(tree)) == 700
    assert format_expr(tree) == text and parse(format_expr(tree)) == tree and hash(parse(text + " ")) == hash(tree)
    assert parse(pretty(tree)) == tree and parse("a" + " + b" * 699 + " - b") != tree
    assert make_plan(tree, STEPS).expr == tree
    deep = json.loads(json.dumps(to_json(parse("a" + " + b" * 150))))
    assert deep["lhs"]["rhs"]["name"] == "b"


def test_a_chain_is_explained() -> None:
    query = "sum(m)" + " + sum(m)" * 300
    assert "sum" in str(explain(Held(), query, STEPS, OPTIONS))
    assert "sum" in str(analyze(Held(), query, STEPS, OPTIONS, clock=lambda: 0.0))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("1" + "+1" * MAX_TOKENS, f"over the limit of {MAX_TOKENS} tokens"),
        ("2" + "^1" * MAX_NESTING, f"nesting is over the limit of {MAX_NESTING} levels"),
        ("-" * (MAX_NESTING + 1) + "m", f"nesting is over the limit of {MAX_NESTING} levels"),
        ("abs(" * MAX_NESTING + "m" + ")" * MAX_NESTING, f"nesting is over the limit of {MAX_NESTING} levels"),
    ],
)
def test_what_is_too_much_names_its_limit(query: str, words: str) -> None:
    with pytest.raises(ParseError, match=words):
        parse(query)


def links_inside(levels: int, links: int) -> str:
    return "(" * levels + "sum(m)" + (" + 1" * links + ")") * levels


@pytest.mark.parametrize("links", [1, 20, 31, 33, 60])
@pytest.mark.parametrize("query", ["{}", "sum({})", "({})[5m:1m]", "sum_over_time(({})[5m:1m])", "-({})", "{} > bool 1"])
def test_no_nesting_of_chains_breaks_the_stack(links: int, query: str) -> None:
    """Refused or answered: nothing else."""
    levels = min(MAX_NESTING // 2 - 5, (MAX_TOKENS - 20) // (2 * links + 2) - 2)
    text = query.format(links_inside(levels, links))
    try:
        tree = parse(text)
        assert "".join(pretty(tree).split()) == "".join(format_expr(tree).split())
        query_instant(Held(), text, AT_MS, OPTIONS)
        str(explain(Held(), text, AT_MS, OPTIONS))
    except (LimitExceeded, ParseError) as error:
        assert "nest" in str(error)

"""The script runner itself: it must tell right from wrong, or all scripts prove nothing."""

from pathlib import Path

import pytest

from tests.promql.histogram_literal import HistogramLiteral, from_histograms, parse_histogram, same_histogram, to_histograms
from tests.promql.script import Eval, Load, parse_points, parse_script, parse_series
from tests.promql.script_run import Mismatch, run
from tests.promql.script_store import Store, loaded
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_NAN

DATA = """
load 1m
  up{job="a"} 1 2 3
  up{job="b"} 4 5 6
  lone {{schema:1 sum:3 count:6 buckets:[1 2 3]}}x2
"""


def check(directory: Path, block: str) -> None:
    """Runs one eval over DATA."""
    commands = parse_script(DATA + "\n" + block)
    evals = [command for command in commands if isinstance(command, Eval)]
    assert len(evals) == 1
    store = Store(directory)
    try:
        run(store.load(commands), evals[0])
    finally:
        store.close()


RIGHT = [
    "eval instant at 1m up\n  up{job='b'} 5\n  up{job='a'} 2.000001",
    "eval instant at 1m sort_desc(up)\n  expect ordered\n  up{job='b'} 5\n  up{job='a'} 2",
    "eval range from 0 to 2m step 1m up{job='a'}\n  up{job='a'} 1+1x2",
    "eval instant at 1m 1 + 1\n  2",
    'eval instant at 1m "x"\n  expect string "x"',
    "eval instant at 1m up[2m]\n  expect range vector from 0 to 1m step 1m\n  up{job='a'} 1 2\n  up{job='b'} 4 5",
    "eval instant at 1m lone\n  lone {{schema:1 sum:3 count:6 buckets:[1 2 3]}}",
    "eval instant at 1m rate(up)\n  expect fail regex: expected type range vector",
    'eval instant at 1m rate(up{job="a"}[2m])\n  expect info\n  expect no_warn\n  {job="a"} 0.016666666666666666',
    "eval_fail instant at 1m label_replace(up, 'job', '', '', '')",
    "eval instant at 1m nothing",
]
WRONG = [
    ("eval instant at 1m up\n  up{job='a'} 2", "unexpected series"),
    ("eval instant at 1m up\n  up{job='a'} 2\n  up{job='b'} 5\n  up{job='c'} 1", "missing series"),
    ("eval instant at 1m up\n  up{job='a'} 2.00001\n  up{job='b'} 5", "expected 2.00001"),
    ("eval instant at 1m sort_desc(up)\n  expect ordered\n  up{job='a'} 2\n  up{job='b'} 5", "order"),
    ("eval range from 0 to 2m step 1m up{job='a'}\n  up{job='a'} 1 2 4", "expected"),
    ("eval range from 0 to 2m step 1m up{job='a'}\n  up{job='a'} 1 2", "expected"),
    ("eval range from 0 to 2m step 1m up{job='a'}\n  up{job='a'} 1 2 _", "expected"),
    ("eval instant at 1m 1 + 1\n  3", "expected 3"),
    ("eval instant at 1m up\n  2", "expected the scalar"),
    ("eval instant at 1m 2\n  {} 2", "expected series"),
    ('eval instant at 1m "x"\n  expect string "y"', "expected 'y'"),
    ("eval instant at 1m up[2m]\n  expect range vector from 0 to 1m step 1m\n  up{job='a'} 1 2", "unexpected series"),
    ("eval instant at 1m lone\n  lone {{schema:1 sum:3 count:6 buckets:[1 2 4]}}", "expected {{"),
    ("eval instant at 1m lone\n  lone {{schema:1 sum:3 count:6 counter_reset_hint:gauge buckets:[1 2 3]}}", "expected {{"),
    ("eval instant at 1m lone\n  lone 6", "expected 6"),
    ("eval instant at 1m up\n  expect fail", "expected a failure"),
    ("eval instant at 1m rate(up)\n  expect fail msg: something else", "failed with"),
    ("eval instant at 1m rate(up)", "failed: 1:6: parse error"),
    ('eval instant at 1m rate(up{job="a"}[2m])\n  expect no_info\n  {job="a"} 0.016666666666666666', "unexpected info"),
    ('eval instant at 1m rate(up{job="a"}[2m])\n  expect warn\n  {job="a"} 0.016666666666666666', "no warn matches"),
    ('eval instant at 1m rate(up{job="a"}[2m])\n  expect info msg: x\n  {job="a"} 0.016666666666666666', "no info matches"),
]


@pytest.mark.parametrize("block", RIGHT)
def test_right_expectations_hold(tmp_path: Path, block: str) -> None:
    check(tmp_path, block)


@pytest.mark.parametrize(("block", "message"), WRONG)
def test_wrong_expectations_are_told(tmp_path: Path, block: str, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        check(tmp_path, block)
    assert message in str(caught.value)


def test_sequences() -> None:
    assert parse_points("1 -2.5x1 3+1x2 1e3-5x1 _ _x2 +Inf") == (1, -2.5, -2.5, 3, 4, 5, 1000, 995, None, None, None, float("inf"))
    assert parse_points("stale")[0] is STALE_NAN
    grown = parse_points("{{sum:1 count:2 buckets:[1]}}+{{schema:1 sum:2 count:1 buckets:[1] offset:2}}x1")
    assert grown == (
        HistogramLiteral(sum=1, count=2, positive={0: 1}),
        HistogramLiteral(sum=3, count=3, positive={0: 1, 1: 1}),
    )
    with pytest.raises(ValueError, match="invalid series value"):
        parse_points("1x")


def test_series_names() -> None:
    assert parse_series("{'a.b', \"c d\"='e'} 1")[0] == Labels.of({"__name__": "a.b", "c d": "e"})
    assert parse_series('a{b="}"} {{count:1}}') == (Labels.of({"__name__": "a", "b": "}"}), " {{count:1}}")


def test_loads_add_up_until_cleared() -> None:
    commands = parse_script("load 1m\n a 1 2\n\nload 1m\n b _ 3\n\nclear\n\nload 30s\n a@st -10s _\n a 5 6\n")
    assert [len(points) for points in loaded(commands[:2]).values()] == [2, 1]
    after = loaded(commands)[Labels.of({"__name__": "a"})]
    assert [(s.t_ms, s.value, s.start_ms) for s in after] == [(0, 5, -10_000), (30_000, 6, 0)]


def test_classic_histograms_convert_to_custom_buckets() -> None:
    commands = parse_script("load_with_nhcb 1m\n x_bucket{le='1'} 2\n x_bucket{le='+Inf'} 5\n x_sum 7\n")
    assert isinstance(commands[0], Load)
    native = loaded(commands)[Labels.of({"__name__": "x"})][0].value
    assert native == HistogramLiteral(schema=-53, count=5, sum=7, positive={0: 2, 1: 3}, bounds=(1.0,))


def test_histogram_literals_go_through_columns() -> None:
    buckets = "buckets:[1 0 2] offset:-3 n_buckets:[4] n_offset:2"
    literal = parse_histogram(f"schema:2 count:9 sum:4.5 z_bucket:1 z_bucket_w:0.01 {buckets} counter_reset_hint:gauge")
    both = to_histograms([HistogramLiteral(), literal])
    assert same_histogram(literal, from_histograms(both, 1))
    assert not same_histogram(literal, from_histograms(both, 0))
    with pytest.raises(ValueError, match="unknown or repeated"):
        parse_histogram("sums:1")

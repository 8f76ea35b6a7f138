"""What is said of regular expressions that are none: Go's words, so that a query's error reads as Prometheus's does."""

import pytest

from tsdb.model.errors import BadData
from tsdb.model.matcher import Matcher


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "missing closing ): `(`"),
        ("((a)", "missing closing ): `((a)`"),
        ("a)", "unexpected ): `a)`"),
        ("a))", "unexpected ): `a))`"),
        ("a)(b", "unexpected ): `a)(b`"),
        ("((a)[)]", "missing closing ): `((a)[)]`"),
        ("(a)|(\\)", "missing closing ): `(a)|(\\)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("\\k", "invalid escape sequence: `\\k`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
    ],
)
def test_a_bad_pattern_is_told_in_gos_words(pattern: str, words: str) -> None:
    with pytest.raises(BadData) as caught:
        Matcher("job", "=~", pattern)
    assert str(caught.value) == f"error parsing regexp: {words}"


def test_a_pattern_does_not_lean_on_the_parentheses_around_it() -> None:
    with pytest.raises(BadData, match="unexpected \\)"):
        Matcher("job", "=~", "a)(b")
    assert Matcher("job", "=~", "(a)|b").matches("b") and Matcher("job", "=~", "a\\)").matches("a)")

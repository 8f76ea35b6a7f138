"""The tokens of a query, made lazily in the three modes of PromQL: plain, inside `{}`, inside `[]`.

Tokens are lark's, with the terminal names of promql.lark, so that the parser takes them as they are; `value` is the text as
written and positions are characters. Bounds: bytes of the query, tokens, characters of a token, open parentheses.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from lark import Token
from lark.lexer import Lexer, LexerState

from promql.syntax.errors import SyntaxProblem
from promql.syntax.gotext import quote, quote_char
from promql.syntax.signatures import AGGREGATORS

MAX_QUERY_BYTES = 1 << 20
"""Longer than any dashboard writes; short enough to be refused before it costs anything."""
MAX_TOKENS = 5_000
"""Parsed in about 30 ms; the longest generated alert rules have some hundreds."""
MAX_TOKEN_CHARS = 1 << 16
"""A regular expression is bounded to 4 KiB later; label_replace texts and UTF-8 names fit easily."""
MAX_NESTING = 200
"""Levels of the syntax tree: what recursion over it can stand. A chain of operators such as a + b + c is one level."""

KEYWORDS = {
    **dict.fromkeys(AGGREGATORS, "AGGREGATE"),
    "and": "AND", "unless": "AND", "or": "OR", "atan2": "ATAN2", "bool": "BOOL", "by": "BY", "without": "BY",
    "on": "ON", "ignoring": "ON", "group_left": "GROUP", "group_right": "GROUP",
    "fill": "FILL", "fill_left": "FILL", "fill_right": "FILL", "offset": "OFFSET", "anchored": "ANCHORED", "smoothed": "ANCHORED",
    "start": "EDGE", "end": "EDGE", "step": "EXTENT", "range": "EXTENT", "min_of": "EXTREME", "max_of": "EXTREME",
    "inf": "NUMBER", "nan": "NUMBER",
}  # fmt: skip
_SYMBOLS = {
    "(": "LPAR", ")": "RPAR", "{": "LBRACE", "}": "RBRACE", "[": "LBRACKET", "]": "RBRACKET",
    ",": "COMMA", ":": "COLON", "=": "EQL",
    **dict.fromkeys("+-", "SIGN"), **dict.fromkeys("*/%", "MUL"), "^": "POW", "@": "AT",
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "</", ">/"), "COMPARE"),
}  # fmt: skip
_OPERATORS = frozenset({"OR", "AND", "ATAN2", "COMPARE", "SIGN", "MUL", "POW", "AT"})
_NAMED = {"IDENTIFIER": "identifier", "METRIC": "metric identifier", "STRING": "string", "NUMBER": "number", "DURATION": "duration"}
_WORDY = frozenset({"BY", "BOOL", "ON", "GROUP", "FILL", "OFFSET", "ANCHORED"})

_BLANK = r"(?:[ \t\r\n]+|\#[^\r\n]*)"
_NUMBER = r"(?P<NUMBER>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"
_TIME = r"(?P<DURATION>[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdw]))*(?![\w.]))"
_ESCAPE = r"\\(?:[abfnrtv\\{quote}]|[0-7]{{3}}|x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|U[0-9a-fA-F]{{8}})"
_QUOTED = r"{quote}[^{quote}\\\n]*+(?:" + _ESCAPE + r"[^{quote}\\\n]*+)*+{quote}"
_STRING = "(?P<STRING>" + _QUOTED.format(quote='"') + "|" + _QUOTED.format(quote="'") + "|`[^`]*+`)"
_PLAIN = re.compile(
    rf"{_BLANK}|(?P<WORD>[A-Za-z_:][\w:]*)|{_NUMBER}|{_TIME}|{_STRING}|(?P<SYMBOL>[=!<>]=|</|>/|[-+*/%^@,()\[\]{{<>]|=(?!~))",
    re.ASCII,
)
_BRACES = re.compile(rf"{_BLANK}|(?P<WORD>[A-Za-z_]\w*)|{_STRING}|(?P<MATCH>=~|!~|!=|=)|(?P<SYMBOL>[,}}])", re.ASCII)
_BRACKETS = re.compile(rf"[ \t\r\n]+|{_NUMBER}|{_TIME}|(?P<WORD>[A-Za-z_]\w*)|(?P<SYMBOL>[-+*/%^,():\]])", re.ASCII)
_OPEN_PAREN = re.compile(r"[ \t\r\n]*\(")
_DURATION_WORDS = frozenset({"step", "range", "min_of", "max_of"})


@dataclass(slots=True)
class _Open:
    """What is open at the current place."""

    parens: int = 0
    brackets: bool = False
    after_number: bool = False
    """Inside brackets: a number was read since the bracket opened (the messages change then)."""
    colon: bool = False


class QueryLexer(Lexer):
    """`tokens`, as lark wants to be given it."""

    __future_interface__ = 2

    def __init__(self, _conf: object) -> None:
        pass

    def lex(self, lexer_state: LexerState, _parser_state: object) -> Iterator[Token]:
        return tokens(str(lexer_state.text.text))


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a query, without blanks and comments. Raises SyntaxProblem at the first that is none."""
    open_ = _Open()
    matcher, at, count = _PLAIN, 0, 0
    while at < len(text):
        found = matcher.match(text, at)
        kind = found.lastgroup if found else None
        if found is None:
            end, kind = _rare(text, at, matcher, open_)
        else:
            end = found.end()
            if kind is None:
                at = end
                continue
        if end - at > MAX_TOKEN_CHARS:
            raise SyntaxProblem(f"a token of {end - at} characters is over the limit of {MAX_TOKEN_CHARS}", (at, end))
        value = text[at:end]
        name = _name(kind or "", value, text, at, matcher, open_)
        count += 1
        if count > MAX_TOKENS:
            raise SyntaxProblem(f"the query has over the limit of {MAX_TOKENS} tokens", (at, end))
        if kind == "SYMBOL":
            matcher = _follow(value, end, matcher, open_)
        yield Token(name, value, start_pos=at, end_pos=end)
        at = end
    _end(text, matcher, open_)


def describe(token: Token) -> str:
    """The token as Prometheus names it in `unexpected …`."""
    kind, value = token.type, str(token)
    if kind == "$END":
        return "end of input"
    if kind in _OPERATORS or (kind == "MATCH" and value != "="):
        return f"<op:{value}>"
    if kind == "AGGREGATE":
        return f"<aggr:{value}>"
    if kind in _WORDY:
        return f"<{value}>"
    short = f"{quote(value[:10])}..." if len(value) > 10 and kind not in ("IDENTIFIER", "METRIC") else quote(value)
    return f"{_NAMED[kind]} {short}" if kind in _NAMED else short


def _name(kind: str, value: str, text: str, at: int, matcher: "re.Pattern[str]", open_: _Open) -> str:
    """The terminal of a token."""
    if kind == "SYMBOL":
        return _SYMBOLS[value]
    if kind != "WORD":
        open_.after_number = True
        return kind
    if matcher is _BRACES:
        return "IDENTIFIER"
    word = value.lower()
    if matcher is _BRACKETS and word not in _DURATION_WORDS:
        _bad_in_brackets(text, at, open_)
    keyword = KEYWORDS.get(word)
    if keyword == "FILL" and not _OPEN_PAREN.match(text, at + len(value)):
        return "IDENTIFIER"  # so that metrics named fill go on working
    return keyword or ("METRIC" if ":" in value else "IDENTIFIER")


def _follow(symbol: str, at: int, matcher: "re.Pattern[str]", open_: _Open) -> "re.Pattern[str]":
    """The mode after a symbol that ends at `at`, with parentheses and brackets counted."""
    if symbol == "{":
        return _BRACES
    if symbol == "}":
        return _BRACKETS if open_.brackets else _PLAIN
    if symbol == "(":
        open_.parens += 1
        if open_.parens > MAX_NESTING:
            raise SyntaxProblem(f"nesting is over the limit of {MAX_NESTING} levels", (at - 1, at))
    elif symbol == ")":
        open_.parens -= 1
        if open_.parens < 0:
            raise SyntaxProblem("unexpected right parenthesis ')'", (at, at))
    elif symbol == "[":
        open_.brackets, open_.after_number, open_.colon = True, False, False
        return _BRACKETS
    elif symbol == "]":
        if not open_.brackets:
            raise SyntaxProblem("unexpected right bracket ']'", (at - 1, at))
        open_.brackets = False
        return _PLAIN
    elif symbol == ":":
        if open_.colon:
            raise SyntaxProblem("unexpected colon ':'", (at - 1, at))
        open_.colon = True
    return matcher


def _end(text: str, matcher: "re.Pattern[str]", open_: _Open) -> None:
    """Refuses an end of input inside something."""
    place = (len(text), len(text))
    if matcher is _BRACES:
        raise SyntaxProblem("unexpected end of input inside braces", place)
    if matcher is _BRACKETS and not open_.after_number:
        raise SyntaxProblem("unexpected end of input in duration expression", place)
    if open_.parens:
        raise SyntaxProblem("unclosed left parenthesis", place)
    if open_.brackets:
        raise SyntaxProblem("unclosed left bracket", place)


def _rare(text: str, at: int, matcher: "re.Pattern[str]", open_: _Open) -> tuple[int, str]:
    """(end, kind) of a token that the patterns leave out (0x1f, 1_000), or the lexer's message on what is there."""
    char = text[at]
    if char in "\"'`" and matcher is not _BRACKETS:
        _bad_string(text, at)
    if matcher is _BRACES:
        _bad_in_braces(text, at)
    following = text[at + 1 : at + 2]
    if _digit(char) or (char == "." and _digit(following)):
        end, good = _scan_number(text, at)
        if good:
            return end, "NUMBER"
        end, good = _scan_duration(text, end)
        if good:
            return end, "DURATION"
        raise SyntaxProblem(f"bad number or duration syntax: {quote(text[at:end])}", (at, len(text)))
    if matcher is _BRACKETS:
        _bad_in_brackets(text, at, open_)
    if char == "!" or (char == "=" and following == "~"):
        shown = quote_char(following) if following else "'�'"
        raise SyntaxProblem(f"unexpected character after '{char}': {shown}", (at, len(text)))
    raise SyntaxProblem(f"unexpected character: {quote_char(char)}", (at, len(text)))


def _bad_in_braces(text: str, at: int) -> NoReturn:
    char = text[at]
    if char == "{":
        raise SyntaxProblem("unexpected left brace '{'", (at, len(text)))
    if char == "!":
        following = text[at + 1 : at + 2] or "\ufffd"
        raise SyntaxProblem(f"unexpected character after '!' inside braces: {quote_char(following)}", (at, len(text)))
    raise SyntaxProblem(f"unexpected character inside braces: {quote_char(char)}", (at, len(text)))


def _bad_in_brackets(text: str, at: int, open_: _Open) -> NoReturn:
    char = text[at]
    if char == "[":
        message = "unexpected left bracket '['"
    elif not open_.after_number:
        message = f"unexpected character in duration expression: {quote_char(char)}"
    elif char.isascii() and (char.isalpha() or char == "_"):
        message = f"unexpected character: {quote_char(char)}, expected ':'"
    else:
        message = f"unexpected character: {quote_char(char)}"
    raise SyntaxProblem(message, (at, len(text)))


def _bad_string(text: str, at: int) -> NoReturn:
    """Says what ails the string literal that starts at `at`."""
    opening, i, place = text[at], at + 1, (at, len(text))
    if len(text) - at > MAX_TOKEN_CHARS:
        raise SyntaxProblem(f"a string that does not end within the limit of {MAX_TOKEN_CHARS} characters", place)
    if opening == "`":
        raise SyntaxProblem("unterminated raw string", place)
    while i < len(text) and text[i] not in ("\n", opening):
        if text[i] == "\\":
            _check_escape(text, i + 1, opening, place)
            i += 1
        i += 1
    raise SyntaxProblem("unterminated quoted string", place)


def _check_escape(text: str, i: int, opening: str, place: tuple[int, int]) -> None:
    sizes = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
    if i >= len(text):
        raise SyntaxProblem("escape sequence not terminated", place)
    char = text[i]
    if char in "abfnrtv\\" or char == opening:
        return
    if char not in sizes and char not in "01234567":
        raise SyntaxProblem(f"unknown escape sequence {_unicode(char)}", place)
    size, radix = sizes.get(char, (3, 8))
    first = i + 1 if char in sizes else i
    for at in range(first, first + size):
        if at >= len(text):
            raise SyntaxProblem("escape sequence not terminated", place)
        if text[at] not in "0123456789abcdefABCDEF"[: 8 if radix == 8 else None]:
            raise SyntaxProblem(f"illegal character {_unicode(text[at])} in escape sequence", place)


def _unicode(char: str) -> str:
    """Go's %#U."""
    return f"U+{ord(char):04X}" + (f" '{char}'" if char.isprintable() else "")


def _digit(char: str) -> bool:
    return "0" <= char <= "9"


def _alphanumeric(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


def _scan_number(text: str, at: int) -> tuple[int, bool]:
    """(end, whether it is a number): Prometheus's scanNumber, step by step, for its messages show how far it came."""
    digits, start = "0123456789", at
    if text[at : at + 2] in ("0x", "0X"):
        digits, at = "0123456789abcdefABCDEF", at + 2
        at += text[at : at + 1] == "_"
    at += text[at : at + 1] == "."
    dot = exponent = False
    while (char := text[at : at + 1]) and char in digits + "._eE":
        at += 1
        follower = text[at : at + 1]
        if char == ".":
            if dot or (follower and follower in "_."):
                return at + (not dot), False
            dot = True
            if len(digits) > 10:
                return at, False
        elif char in "eE" and char not in digits:
            if exponent:
                return at, False
            exponent = True
            at += bool(follower) and follower in "+-"
            follower = text[at : at + 1]
            if not follower or follower in "._eE":
                return at + bool(follower), False
        elif char == "_" and (not follower or follower in "._eE"):
            return at + bool(follower), False
    following = text[at : at + 1]
    return at, at > start and not (following and _alphanumeric(following))


def _scan_duration(text: str, at: int) -> tuple[int, bool]:
    """(end, whether it is a duration) of what follows the first digits of one."""
    if text[at : at + 1] not in tuple("smhdwy"):
        return at, False
    at += 1
    at += text[at : at + 1] == "s"
    while _digit(text[at : at + 1] or "x"):
        while _digit(text[at : at + 1] or "x"):
            at += 1
        if text[at : at + 1] not in tuple("smhdw"):
            return at, False
        at += 1
        at += text[at : at + 1] == "s"
    following = text[at : at + 1]
    if following and _alphanumeric(following):
        return at + 1, False
    return at, True

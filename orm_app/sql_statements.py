"""A SQL script → its statements, for the dialect that will run it. Pure.

It knows strings, quoted names, comments (PostgreSQL's nest), dollar quotes, the bodies of triggers and routines, and
mysql's DELIMITER lines: a semicolon in any of them ends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

POSTGRESQL, MYSQL, SQLITE = "postgresql", "mysql", "sqlite"
DIALECTS = (POSTGRESQL, MYSQL, SQLITE)

_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_WORD = re.compile(r"[^\W\d][\w$]*")
_DELIMITER = re.compile(r"^[ \t]*DELIMITER[ \t]+(\S+)[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_BODY = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:DEFINER\s*=\s*\S+\s+)?(?:TEMP(?:ORARY)?\s+|AGGREGATE\s+|CONSTRAINT\s+)?"
    r"(?:TRIGGER|FUNCTION|PROCEDURE|EVENT)\b",
    re.IGNORECASE,
)
_CLOSED_BY_TWO_WORDS = {"IF", "LOOP", "REPEAT", "WHILE", "FOR"}  # END IF: its IF opened nothing we count


class BadScript(ValueError):
    """The script cannot be run statement by statement. The message names the line."""


@dataclass(frozen=True, slots=True)
class Token:
    """kind: "word", "text" (a string), "name" (quoted), "comment", "space" or "sign" (one character)."""

    kind: str
    value: str
    start: int


def split(script: str, dialect: str) -> list[str]:
    """The statements without their semicolons; comments stay with the statement they precede. Raises BadScript."""
    if dialect == MYSQL and _DELIMITER.search(script):
        return _split_by_delimiters(script)
    return [script[start:end].strip() for start, end in _bounds(script, dialect) if start < end]


def without_comments(statement: str, dialect: str) -> str:
    """The statement as one line without comments and with its strings and names whole."""
    parts = (
        " " if token.kind in ("comment", "space") else token.value for token in tokens(statement, dialect)
    )
    return re.sub(r" {2,}", " ", "".join(parts)).strip()


def tokens(script: str, dialect: str) -> Iterator[Token]:
    """Raises BadScript for a string or comment that never ends."""
    place = 0
    while place < len(script):
        kind, end = _next(script, place, dialect)
        yield Token(kind, script[place:end], place)
        place = end


def _next(script: str, place: int, dialect: str) -> tuple[str, int]:
    sign, two = script[place], script[place : place + 2]
    if sign.isspace():
        return "space", _while_space(script, place)
    if _opens_line_comment(script, place, dialect):
        return "comment", _line_end(script, place)
    if two == "/*":
        if dialect == MYSQL and script.startswith(("/*!", "/*M!"), place):  # it runs: dumps are full of them
            return "text", _comment_end(script, place, nests=False)
        return "comment", _comment_end(script, place, nests=dialect == POSTGRESQL)
    if sign == "'" or (sign == '"' and dialect == MYSQL):
        return "text", _quoted_end(script, place, escapes=dialect == MYSQL)
    if two in ("E'", "e'") and dialect == POSTGRESQL:
        return "text", _quoted_end(script, place + 1, escapes=True)
    if sign == '"' or (sign == "`" and dialect != POSTGRESQL):
        return "name", _quoted_end(script, place, escapes=False)
    if sign == "[" and dialect == SQLITE and (end := script.find("]", place)) > 0:
        return "name", end + 1
    if sign == "$" and dialect == POSTGRESQL and (mark := _DOLLAR.match(script, place)):
        return "text", _dollar_end(script, place, mark.group())
    if word := _WORD.match(script, place):
        return "word", word.end()
    return "sign", place + 1


def _opens_line_comment(script: str, place: int, dialect: str) -> bool:
    if dialect == MYSQL:  # 5--1 is a sum there: the two dashes need a space
        return script[place] == "#" or bool(re.compile(r"--(?:\s|$)").match(script, place))
    return script.startswith("--", place)


def _bounds(script: str, dialect: str) -> Iterator[tuple[int, int]]:
    start: int | None = None  # of the statement: its first comment counts
    is_empty, depth, has_body, ended = True, 0, False, ""
    end = 0
    for token in tokens(script, dialect):
        if token.kind == "space":
            continue
        start = token.start if start is None else start
        end = token.start + len(token.value)
        if token.kind == "comment":
            continue
        if is_empty:
            _refuse_client_command(token, script)
            has_body = bool(_BODY.match(script, token.start))
        if token.value == ";" and depth <= 0:
            if not is_empty:
                yield start, token.start
            start, is_empty, depth, ended = None, True, 0, ""
            continue
        is_empty = False
        if has_body:
            depth, ended = _depth(depth, ended, token)
    if not is_empty and start is not None:
        yield start, end


def _depth(depth: int, ended: str, token: Token) -> tuple[int, str]:
    """How many BEGIN and CASE are open. ended: "END" right after one, because END IF closes no BEGIN."""
    word = token.value.upper() if token.kind == "word" else ""
    if ended:
        if word in _CLOSED_BY_TWO_WORDS:
            return depth + 1, ""
        if word == "CASE":
            return depth, ""
    if word in ("BEGIN", "CASE"):
        return depth + 1, ""
    if word == "END":
        return depth - 1, "END"
    return depth, ""


def _refuse_client_command(token: Token, script: str) -> None:
    if token.value == "\\":
        line = script.count("\n", 0, token.start) + 1
        text = script[token.start :].partition("\n")[0]
        raise BadScript(f"line {line}: {text!r} is a command of psql, not SQL")


def _split_by_delimiters(script: str) -> list[str]:
    """As the mysql client does: the text between its marks, whatever semicolons are in it."""
    found, place, mark = [], 0, ";"
    for line in [*_DELIMITER.finditer(script), None]:
        block = script[place : line.start() if line else len(script)]
        if mark == ";":
            found += split(block, MYSQL)
        else:
            found += [part.strip() for part in _at_marks(block, mark) if without_comments(part, MYSQL)]
        if line:
            place, mark = line.end(), line.group(1)
    return found


def _at_marks(block: str, mark: str) -> Iterator[str]:
    """A mark inside a string or a comment ends nothing: 'http://x' where the mark is //."""
    start = place = 0
    while place < len(block):
        if block.startswith(mark, place):
            yield block[start:place]
            start = place = place + len(mark)
            continue
        kind, end = _next(block, place, MYSQL)
        inside = block.find(mark, place + 1, end) if kind == "word" else -1  # END$$ is a word
        place = end if inside < 0 else inside
    yield block[start:]


def _while_space(script: str, place: int) -> int:
    while place < len(script) and script[place].isspace():
        place += 1
    return place


def _line_end(script: str, place: int) -> int:
    end = script.find("\n", place)
    return len(script) if end < 0 else end


def _comment_end(script: str, place: int, *, nests: bool) -> int:
    depth, start = 0, place
    while place < len(script):
        if script.startswith("/*", place) and (nests or depth == 0):
            depth, place = depth + 1, place + 2
        elif script.startswith("*/", place):
            depth, place = depth - 1, place + 2
            if depth == 0:
                return place
        else:
            place += 1
    raise _endless("comment", script, start)


def _quoted_end(script: str, place: int, *, escapes: bool) -> int:
    quote, start = script[place], place
    place += 1
    while place < len(script):
        if escapes and script[place] == "\\":
            place += 2
        elif script[place] != quote:
            place += 1
        elif script.startswith(quote, place + 1):  # doubled: one of them, inside
            place += 2
        else:
            return place + 1
    raise _endless("quote", script, start)


def _dollar_end(script: str, place: int, mark: str) -> int:
    end = script.find(mark, place + len(mark))
    if end < 0:
        raise _endless("dollar quote", script, place)
    return end + len(mark)


def _endless(what: str, script: str, place: int) -> BadScript:
    return BadScript(f"the {what} that opens in line {script.count(chr(10), 0, place) + 1} is never closed")

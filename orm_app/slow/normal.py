"""SQL → its shape: no value, no comment, one form for lists of any length. Pure.

A value that cannot be told from a name is the one danger here, so what is cut off or never closed counts as a value.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

POSTGRESQL, MYSQL, SQLITE = "postgresql", "mysql", "sqlite"
_MOST_READ = 20_000  # characters of a statement; what is behind them is left out
_LONGEST = 4_000

_QUOTED = r"'[^']*(?:''[^']*)*(?:'|\Z)"
_ESCAPED = r"'[^'\\]*(?:(?:''|\\(?:.|\Z))[^'\\]*)*(?:'|\Z)"
_NUMBER = (
    r"0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+"
    r"|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?"
)
_COMMON = rf"""
  | (?P<space>   \s+ )
  | (?P<number>  {_NUMBER} )
  | (?P<word>    [^\W\d][\w$]* )
  | (?P<sign>    ::|<>|<=|>=|!=|==|\|\||%%|. )
"""
_PATTERNS = {
    POSTGRESQL: rf"""
    (?P<comment> --[^\n]* )
  | (?P<nested>  /\* )
  | (?P<text>    [eE]{_ESCAPED} | (?:[xXbBnN]|[uU]&)?{_QUOTED} | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z) )
  | (?P<name>    "[^"]*(?:""[^"]*)*(?:"|\Z) )
  | (?P<mark>    %s | %\(\w+\)s | \$\d+ )
  {_COMMON}""",
    MYSQL: rf"""
    (?P<comment> \#[^\n]* | --(?:[\s][^\n]*|\Z) | /\*M?!\d* | \*/(?!\*) | /\*.*?(?:\*/|\Z) )
  | (?P<text>    [xXbBnN]?{_ESCAPED} | {_ESCAPED.replace("'", '"')} )
  | (?P<name>    `[^`]*(?:``[^`]*)*(?:`|\Z) )
  | (?P<mark>    %s | %\(\w+\)s | \? )
  {_COMMON}""",
    SQLITE: rf"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<text>    [xX]?{_QUOTED} )
  | (?P<name>    "[^"]*(?:""[^"]*)*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
  | (?P<mark>    %s | %\(\w+\)s | \?\d* | [:@$][^\W\d]\w* )
  {_COMMON}""",
}
_TOKENS = {name: re.compile(text, re.VERBOSE | re.DOTALL) for name, text in _PATTERNS.items()}
_VALUES = {"text", "number", "mark"}
_COMPARISONS = {"=", "==", "<>", "!=", "<", ">", "<=", ">=", "LIKE", "GLOB", "IS"}
# A sign behind one of these belongs to the number.
_BEFORE_SIGN = _COMPARISONS | {
    "(",
    ",",
    "SELECT",
    "THEN",
    "ELSE",
    "WHEN",
    "BETWEEN",
    "AND",
    "OR",
    "LIMIT",
    "OFFSET",
}
# What stands behind VALUES or IN, up to another of these, is a value in SQLite, quoted like a name or not.
_CLAUSES = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "SET",
        "ON",
        "AS",
        "AND",
        "OR",
        "BY",
        "HAVING",
        "JOIN",
        "INTO",
        "RETURNING",
        "VALUES",
        "IN",
    ]
)
_COMMENT_MARK = re.compile(r"/\*|\*/")


def normalise(sql: str, dialect: str) -> str:
    """One line, at most some thousand characters. dialect: Django's vendor; an unknown one is read as PostgreSQL's."""
    return _normalised(sql[:_MOST_READ], dialect if dialect in _TOKENS else POSTGRESQL)


@lru_cache(maxsize=256)  # of what was cut: an INSERT of some megabytes must not stay here
def _normalised(sql: str, dialect: str) -> str:
    pieces = _pieces(sql, dialect)
    text = "".join(_collapsed(pieces)).strip().removesuffix(";").rstrip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _pieces(sql: str, dialect: str) -> list[str]:
    """Tokens; one that stood behind a space begins with one. What MySQL runs of a comment, /*! … */, is no comment."""
    found: list[str] = []
    gap, place, pattern, clause = "", 0, _TOKENS[dialect], ""
    while match := pattern.match(sql, place):
        kind, text, place = match.lastgroup, match[0], match.end()
        if kind == "tag":
            kind = "text"
        if kind == "nested":
            place = _comment_end(sql, match.start())
        if kind in ("space", "comment", "nested"):
            gap = " " if found else ""
            continue
        if kind in _VALUES:
            text = "?"
            gap = _without_sign(found) or gap if kind == "number" else gap
        elif kind == "word" and text.upper() in _CLAUSES:
            clause = text.upper()
        elif kind == "name" and dialect == SQLITE and _is_quoted_value(found, clause, sql, place):
            text = "?"
        found.append(gap + text)
        gap = ""
    return found


def _without_sign(found: list[str]) -> str:
    """Takes the sign of a number away; returns the space that stood before it."""
    if len(found) >= 2 and found[-1].strip() in ("-", "+") and found[-2].strip().upper() in _BEFORE_SIGN:
        return " " if found.pop().startswith(" ") else ""
    return ""


def _is_quoted_value(found: list[str], clause: str, sql: str, end: int) -> bool:
    """SQLite takes "abc" for text where there is no such column: `name = "abc"`, `IN ("abc")`."""
    before = found[-1].strip().upper() if found else ""
    is_listed = clause in ("VALUES", "IN") and before in ("(", ",")
    return (is_listed or before in _COMPARISONS) and not sql.startswith(".", end)


def _comment_end(sql: str, start: int) -> int:
    """PostgreSQL's comments nest."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def _collapsed(pieces: list[str]) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(pieces):
        piece = pieces[place]
        word = piece.strip().upper()
        found.append(piece)
        place += 1
        if word == "IN" and _is(pieces, place, "("):
            place = _list(pieces, place, found)
        elif word == "VALUES" and _is(pieces, place, "("):
            place = _rows(pieces, place, found)
        elif place < len(pieces) and _names_savepoint(pieces, place):
            found.append(" ?")
            place += 1
    return found


def _names_savepoint(pieces: list[str], place: int) -> bool:
    """SAVEPOINT x, RELEASE SAVEPOINT x, ROLLBACK TO SAVEPOINT x, ROLLBACK TO x."""
    before = [piece.strip().upper() for piece in pieces[max(0, place - 2) : place]]
    if before[-1] == "SAVEPOINT":
        return True
    return before == ["ROLLBACK", "TO"] and not _is(pieces, place, "SAVEPOINT")


def _list(pieces: list[str], place: int, found: list[str]) -> int:
    """IN (?, ?, ?) → IN (?), of pairs the first one."""
    end = _closing(pieces, place)
    inside = pieces[place + 1 : end]
    if any(piece.strip() not in ("?", ",", "(", ")") for piece in inside):
        return place  # a subquery, or names
    first = pieces[place + 1 : _closing(pieces, place + 1) + 1] if _is(pieces, place + 1, "(") else ["?"]
    found += [pieces[place], *first, ")"]
    return end + 1


def _rows(pieces: list[str], place: int, found: list[str]) -> int:
    """VALUES (?, ?), (?, ?) → VALUES (?, ?)."""
    end = _closing(pieces, place)
    found += pieces[place : end + 1]
    while _is(pieces, end + 1, ",") and _is(pieces, end + 2, "("):
        end = _closing(pieces, end + 2)
    return (
        end + 2 if end + 2 == len(pieces) and _is(pieces, end + 1, ",") else end + 1
    )  # cut off between two rows


def _closing(pieces: list[str], place: int) -> int:
    """Where the parenthesis at `place` is closed; the last piece when it never is."""
    depth = 0
    for number in range(place, len(pieces)):
        sign = pieces[number].strip()
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return number
    return len(pieces) - 1


def _is(pieces: list[str], place: int, text: str) -> bool:
    return place < len(pieces) and pieces[place].strip().upper() == text


# --- plans -----------------------------------------------------------------------------------------------------------

# What is numbers about the plan and no values of the statement's.
_COSTS = re.compile(
    r"\s+\(cost=[\d.]+ rows=\d+ width=\d+\)(?:\s+\((?:actual time=[\d.]+ rows=[\d.]+ loops=\d+|never executed)\))?$"
)
_FIGURES = re.compile(
    r"\s*(?:Rows Removed|Buffers:|Planning|Execution|Sort Method|Workers|Buckets|Heap (?:Blocks|Fetches)"
    r"|Peak Memory|Hits:|Cache Mode|Batches|I/O Timings|WAL:|Worker \d|Pre-sorted|Full-sort|Disabled|Settings)"
)


def masked_plan(plan: str, dialect: str) -> str:
    """The plan without the statement's values. Costs and counts of rows stay; MySQL and SQLite write no numbers else."""
    texts = _without_texts(plan, dialect if dialect in _TOKENS else POSTGRESQL)
    if dialect in (MYSQL, SQLITE):
        return texts
    return "\n".join(_masked_line(line, dialect) for line in texts.splitlines())


def _without_texts(plan: str, dialect: str) -> str:
    """Of the whole, as a text may hold a line that looks like one of the plan."""
    tokens = _TOKENS[dialect].finditer(plan)
    return "".join("?" if token.lastgroup in ("text", "tag") else token[0] for token in tokens)


def _masked_line(line: str, dialect: str) -> str:
    if _FIGURES.match(line):
        return line
    costs = _COSTS.search(line)
    left, right = (line[: costs.start()], line[costs.start() :]) if costs else (line, "")
    indent = left[: len(left) - len(left.lstrip())]
    return indent + normalise(left, dialect) + right

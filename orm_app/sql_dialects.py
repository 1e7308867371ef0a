"""One SQL text for three dialects: the few spellings of PostgreSQL that SQLite and MySQL write otherwise. Pure.

Only column types in CREATE TABLE and ALTER TABLE; whoever needs more writes the text for each dialect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .sql_statements import DIALECTS, MYSQL, POSTGRESQL, SQLITE, Token, split, tokens

MARIADB = "mariadb"  # a text of its own where it differs from MySQL's

_TABLE = re.compile(r"\s*(?:CREATE\s+(?:TEMP(?:ORARY)?\s+)?TABLE|ALTER\s+TABLE)\b", re.IGNORECASE)
_TYPES = {
    MYSQL: {
        "SERIAL": "INTEGER NOT NULL AUTO_INCREMENT", "SERIAL4": "INTEGER NOT NULL AUTO_INCREMENT",
        "BIGSERIAL": "BIGINT NOT NULL AUTO_INCREMENT", "SERIAL8": "BIGINT NOT NULL AUTO_INCREMENT",
        "SMALLSERIAL": "SMALLINT NOT NULL AUTO_INCREMENT",
        "JSONB": "JSON", "BYTEA": "LONGBLOB", "TIMESTAMPTZ": "DATETIME(6)",
    },
    SQLITE: {
        # Only a column of the type INTEGER is the row's id, and so counts by itself.
        "SERIAL": "INTEGER", "SERIAL4": "INTEGER", "BIGSERIAL": "INTEGER", "SERIAL8": "INTEGER",
        "SMALLSERIAL": "INTEGER", "JSONB": "TEXT", "BYTEA": "BLOB", "TIMESTAMPTZ": "DATETIME",
    },
}  # fmt: skip

Texts = str | Mapping[str, str]


def statements(texts: Texts, dialect: str, *, is_mariadb: bool = False) -> list[str]:
    """What to run there, statement by statement. Raises KeyError when `texts` has nothing for the dialect, BadScript."""
    text, is_general = choose(texts, dialect, is_mariadb=is_mariadb)
    found = split(text, dialect)
    return [portable(statement, dialect) for statement in found] if is_general else found


def choose(texts: Texts, dialect: str, *, is_mariadb: bool = False) -> tuple[str, bool]:
    """The text for the dialect, and whether it is the one for all of them ("" in a mapping)."""
    if isinstance(texts, str):
        return texts, True
    for key in ([MARIADB] if is_mariadb else []) + [dialect]:
        if key in texts:
            return texts[key], False
    if "" in texts:
        return texts[""], True
    raise KeyError(f"no SQL for {dialect}: there is {', '.join(sorted(texts)) or 'none'}")


def unknown(texts: Texts) -> list[str]:
    """The keys of `texts` that name no dialect."""
    return [] if isinstance(texts, str) else sorted(set(texts) - {*DIALECTS, MARIADB, ""})


def portable(statement: str, dialect: str) -> str:
    """`id SERIAL PRIMARY KEY` as this dialect writes it; words in strings, names and comments stay."""
    known = _TYPES.get(dialect)
    parts = list(tokens(statement, dialect))
    code = "".join(part.value for part in parts if part.kind != "comment")
    if dialect == POSTGRESQL or known is None or not _TABLE.match(code):
        return statement
    return "".join(_translated(parts, place, known) for place in range(len(parts)))


def _translated(parts: list[Token], place: int, known: Mapping[str, str]) -> str:
    token = parts[place]
    if token.kind != "word" or token.value.upper() not in known or not _is_type(parts, place):
        return token.value
    return known[token.value.upper()]


def _is_type(parts: list[Token], place: int) -> bool:
    """Whether a column's name stands before it: a column may be called `serial`."""
    before = [part for part in parts[:place] if part.kind not in ("space", "comment")]
    if not before or before[-1].kind not in ("word", "name"):
        return False
    return before[-1].value.upper() not in {"COLUMN", "TABLE", "ADD", "EXISTS", "TO", "RENAME", "DROP"}

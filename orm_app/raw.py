"""SQL as text, with every value a bound parameter: `db.raw` reads, `db.execute` writes.

Text that was put together from values is refused where it shows: by a quoted literal, a comment, a second statement, a
`%` that is no placeholder, or another number of parameters than placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import NotSupportedError, connections, models, router

from . import columns
from .awaiting import dual

Params = Sequence[Any] | Mapping[str, Any]

_READS = {"select", "with", "values", "table", "show", "explain", "describe", "desc"}
_TOKENS = re.compile(
    r"""
    (?P<literal> '(?:[^'\\]|''|\\.)*'? | \$[A-Za-z_0-9]*\$ )
  | (?P<double>  "(?:[^"]|"")*" )
  | (?P<name>    `[^`]*` )
  | (?P<comment> -- | /\* )
  | (?P<hash>    \# )
  | (?P<named>   %\((?P<key>\w+)\)s )
  | (?P<mark>    %s )
  | (?P<percent> %% )
  | (?P<stray>   % )
  | (?P<end>     ; )
  | (?P<word>    [A-Za-z_][A-Za-z_0-9]* )
    """,
    re.VERBOSE | re.DOTALL,
)


class UnsafeSQL(ValueError):
    """The text may have been put together from values. The message says which part, and how to write it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """marks: number of `%s`; keys: of `%(name)s`. writes: the word that changes something, if one does."""

    marks: int
    keys: frozenset[str]
    first_word: str
    writes: str | None


def raw(
    sql: str,
    params: Params | None = None,
    *,
    using: str | None = None,
    model: type[models.Model] | None = None,
    allow_literals: bool = False,
) -> Any:
    """list of dicts, or of `model`'s instances. One reading statement; `%s` or `%(name)s` for every value.

    allow_literals: the text holds quoted constants of its author's. Raises UnsafeSQL, TypeError.
    """
    alias = using or (router.db_for_read(model) if model is not None else "default")
    statement = _checked(sql, params, alias, allow_literals=allow_literals)
    if statement.first_word not in _READS or statement.writes:
        word = (statement.writes or statement.first_word).upper()
        raise UnsafeSQL(f"db.raw only reads, and this says {word}: use db.execute for what writes")
    given = _given(params)
    if model is not None:
        rows = model._default_manager.using(alias).raw(sql, given)
        return dual(lambda: list(rows), "db.raw")
    return dual(lambda: _rows(sql, given, alias), "db.raw")


def execute(
    sql: str, params: Params | None = None, *, using: str = "default", allow_literals: bool = False
) -> Any:
    """How many rows it changed (-1 where the engine does not say). Any one statement. Raises UnsafeSQL, TypeError."""
    _checked(sql, params, using, allow_literals=allow_literals)
    given = _given(params)
    return dual(lambda: _changed(sql, given, using), "db.execute")


def _checked(sql: object, params: object, alias: str, *, allow_literals: bool) -> Statement:
    if not isinstance(sql, str):
        raise TypeError(f"SQL is text, not {type(sql).__name__}")
    if isinstance(params, str | bytes) or not isinstance(params, Sequence | Mapping | None):
        raise TypeError(f"params is a list or a dict, not {type(params).__name__}: write [value]")
    if connections[alias].vendor == "mongodb":
        raise NotSupportedError(
            f"{alias!r} is MongoDB, which speaks no SQL: use db.query, or raw_aggregate of a MongoManager"
        )
    statement = inspect(sql, connections[alias].vendor == "mysql", allow_literals)
    _check_params(statement, params)
    return statement


def _check_params(statement: Statement, params: Any) -> None:
    if statement.keys:
        missing = sorted(statement.keys - set(params if isinstance(params, Mapping) else ()))
        if missing:
            raise TypeError(f"no parameter for %({missing[0]})s: give params as a dict")
        extra = sorted(set(params) - statement.keys)
        if extra:
            raise TypeError(f"parameter {extra[0]!r} is not in the text")
        return
    count = len(params) if params is not None else 0
    if isinstance(params, Mapping) and params:
        raise TypeError("params is a dict, but the text has no %(name)s")
    if count != statement.marks:
        raise TypeError(f"{statement.marks} placeholders, {count} parameters")


@lru_cache(maxsize=512)
def inspect(sql: str, is_mysql: bool, allow_literals: bool = False) -> Statement:
    """is_mysql: "double quotes" hold text there, and # begins a comment. Raises UnsafeSQL."""
    marks, keys, words = 0, set(), []
    for token in _TOKENS.finditer(sql.rstrip().removesuffix(";")):
        kind = token.lastgroup
        if kind == "mark":
            marks += 1
        elif kind == "named":
            keys.add(token["key"])
        elif kind == "word":
            words.append(token[0].lower())
        else:
            _refuse(kind, token[0], is_mysql=is_mysql, allow_literals=allow_literals)
    if marks and keys:
        raise UnsafeSQL("%s and %(name)s in one statement: choose one")
    if not words:
        raise UnsafeSQL("the text is no SQL statement")
    return Statement(marks, frozenset(keys), words[0], _write(words))


def _refuse(kind: str | None, text: str, *, is_mysql: bool, allow_literals: bool) -> None:
    if (kind == "literal" or (kind == "double" and is_mysql)) and not allow_literals:
        raise UnsafeSQL(
            f"a quoted value in the text, {_short(text)}: write %s and pass it in params "
            "(allow_literals=True when it is a constant of yours)"
        )
    if kind == "comment" or (kind == "hash" and is_mysql):
        raise UnsafeSQL(f"a comment in the text, {text}: leave it out")
    if kind == "end":
        raise UnsafeSQL("more than one statement: make a call of each, in one db.transaction()")
    if kind == "stray":
        raise UnsafeSQL("a % that is no placeholder: write %% for a percent sign, %s for a value")


def _write(words: list[str]) -> str | None:
    """What changes something inside a statement that begins as a reading one: in a WITH, after EXPLAIN, SELECT INTO."""
    pairs = set(zip(words, words[1:], strict=False))
    for verb, preposition in (("insert", "into"), ("delete", "from"), ("merge", "into")):
        if (verb, preposition) in pairs:
            return verb
    if "into" in words:
        return "into"
    is_locking = ("for", "update") in pairs or ("key", "update") in pairs
    return "update" if {"update", "set"} <= set(words) and not is_locking else None


def _rows(sql: str, params: Any, alias: str) -> list[dict[str, Any]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _changed(sql: str, params: Any, alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def _given(params: Params | None) -> Any:
    """Never None: Django would then leave `%%` as it is."""
    if params is None:
        return []
    values: Iterable[Any] = params.values() if isinstance(params, Mapping) else params
    if any(columns.is_expression(value) for value in values):
        raise TypeError("a parameter is a value, not an expression")
    return dict(params) if isinstance(params, Mapping) else list(params)


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}…'"

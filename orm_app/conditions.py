"""Conditions as a person writes them → Django's Q: `("age", ">=", 18)`, keywords, Q and expressions; SQL's LIKE."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import CharField, Field, Q, TextField, lookups
from django.db.models.fields.json import KeyTransform, KeyTransformTextLookupMixin
from django.db.models.query import QuerySet

from . import columns

_OPERATORS = {
    "=": "exact",
    "==": "exact",
    "<": "lt",
    "<=": "lte",
    ">": "gt",
    ">=": "gte",
    "in": "in",
    "between": "range",
    "like": "brain_like",
    "ilike": "brain_ilike",
}
_NEGATED = {"!=": "=", "<>": "=", "not in": "in", "not like": "like", "not ilike": "ilike"}


_PLAIN = {bool, int, str, float, list, tuple, type(None)}
Child = Any  # what a Q has for children: (path, value), a Q, or an expression


def condition(queryset: QuerySet, given: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Child, ...]:
    """All of what one `where` was given. Raises UnknownField, TypeError."""
    found = [(columns.check(queryset, name), plain(value)) for name, value in keywords.items()]
    if len(given) in (2, 3) and isinstance(given[0], str):
        return (compared(queryset, *given), *found)
    for one in given:
        if isinstance(one, str) or not (isinstance(one, Q) or columns.is_expression(one)):
            raise TypeError(
                f"where takes a Q, an expression, keywords, or (field, operator, value): not {one!r}. "
                "SQL text goes through db.raw, with parameters"
            )
        check_q(queryset, one)
        found.append(one)
    return tuple(found)


def compared(queryset: QuerySet, name: str, operator: Any, *value: Any) -> Q:
    """`(field, value)`, or `(field, operator, value)`."""
    if not value:
        return Q((columns.check(queryset, name), plain(operator)))
    word = " ".join(str(operator).lower().split())
    positive = _NEGATED.get(word, word)
    if positive not in _OPERATORS:
        raise TypeError(f"unknown operator {operator!r}: {columns.near_text(word, [*_OPERATORS, *_NEGATED])}")
    path = columns.check(queryset, name)
    suffix = "" if positive in ("=", "==") else f"__{_OPERATORS[positive]}"
    found = Q((f"{path}{suffix}", plain(value[0])))
    return found if word not in _NEGATED else ~found


def check_q(queryset: QuerySet, given: Any) -> None:
    for child in getattr(given, "children", ()) if isinstance(given, Q) else ():
        if isinstance(child, tuple):
            columns.check(queryset, child[0])
        else:
            check_q(queryset, child)


def plain(value: Any) -> Any:
    """A query of ours as a value is its QuerySet: a subquery."""
    if type(value) in _PLAIN:
        return value
    return getattr(value, "queryset", value)


class _Like:
    """SQL's LIKE, the same on each engine: `%` any text, `_` one character, a backslash takes either as it is.

    Case counts unless it is `ilike`: the engines' own LIKE disagree about it (SQLite folds ASCII, MySQL follows the
    collation).
    """

    folds_case = False
    lhs: Any
    rhs: Any
    process_lhs: Any

    def get_prep_lookup(self) -> Any:
        if not isinstance(self.rhs, str):
            raise TypeError(f"a LIKE pattern is text, not {type(self.rhs).__name__}")
        return self.rhs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, before = self.process_lhs(compiler, connection)
        if connection.vendor == "postgresql" and not isinstance(self.lhs.output_field, CharField | TextField):
            kind = self.lhs.output_field.get_internal_type()
            column = connection.ops.lookup_cast("contains", kind) % column  # the others do it by themselves
        return f"{column} {self._operator(connection.vendor)}", [*before, self._pattern(connection.vendor)]

    def _operator(self, vendor: str) -> str:
        if vendor == "postgresql":
            return "ILIKE %s" if self.folds_case else "LIKE %s"
        if vendor == "sqlite":
            return "LIKE %s ESCAPE '\\'" if self.folds_case else "GLOB %s"
        # Not LIKE BINARY, whose `_` is one byte.
        return "LIKE %s" if self.folds_case else "LIKE CONVERT(%s USING utf8mb4) COLLATE utf8mb4_bin"

    def _pattern(self, vendor: str) -> str:
        text: str = self.rhs
        return glob(text) if vendor == "sqlite" and not self.folds_case else text

    def as_mql(self, compiler: Any, connection: Any, **kwargs: Any) -> Any:
        kind = lookups.IRegex if self.folds_case else lookups.Regex
        return kind(self.lhs, regex(self.rhs)).as_mql(compiler, connection, **kwargs)


@Field.register_lookup
class Like(_Like, lookups.BuiltinLookup):
    lookup_name = "brain_like"  # not "like": a JSON document may have a key of that name
    prepare_rhs = False


@Field.register_lookup
class ILike(_Like, lookups.BuiltinLookup):
    lookup_name = "brain_ilike"
    prepare_rhs = False
    folds_case = True


@KeyTransform.register_lookup
class JSONLike(KeyTransformTextLookupMixin, Like):
    """Of a value in a JSON document, without the quotes that it has there."""


@KeyTransform.register_lookup
class JSONILike(KeyTransformTextLookupMixin, ILike):
    def _operator(self, vendor: str) -> str:
        # MySQL compares what comes from a document byte by byte.
        is_mysql = vendor == "mysql"
        return (
            "LIKE CONVERT(%s USING utf8mb4) COLLATE utf8mb4_general_ci"
            if is_mysql
            else super()._operator(vendor)
        )


_PARTS = re.compile(r"\\(.)|([%_])|(.)", re.DOTALL)


def glob(pattern: str) -> str:
    """A LIKE pattern as SQLite's GLOB, whose comparison is case-sensitive and can use an index."""
    return _PARTS.sub(lambda m: {"%": "*", "_": "?"}.get(m[2]) or _glob_literal(m[1] or m[3]), pattern)


def _glob_literal(character: str) -> str:
    return f"[{character}]" if character in "*?[" else character


def regex(pattern: str) -> str:
    """A LIKE pattern as a regular expression over the whole text."""
    body = _PARTS.sub(
        lambda m: {"%": "[\\s\\S]*", "_": "[\\s\\S]"}.get(m[2]) or re.escape(m[1] or m[3]), pattern
    )
    return f"^{body}$"

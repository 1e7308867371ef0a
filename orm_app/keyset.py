"""Keyset pages: "the rows after this one" as a condition on the ordered columns, so that page 10,000 costs what page 1 does.

An order → terms (with the primary key as the last, so that there are no ties) → a condition on the last row's values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core import signing
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models import F, Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Expression, OrderBy
from django.db.models.query import QuerySet
from django.db.models.sql.where import AND

T = TypeVar("T")

_SALT = "orm_app.keyset"
_COMPARES_ROWS = ("postgresql", "sqlite", "mysql")
_FIELD_VALUES = (bool, int, str, type(None))  # as JSON has them


class BadCursor(ValueError):
    """This cursor cannot be used here: it was changed, or is of a query with another order."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the order. nulls_first: where NULLs really are, in this direction and on this database."""

    name: str
    is_descending: bool
    nulls_first: bool
    can_be_null: bool
    field: models.Field
    is_explicit: bool = False  # NULLS FIRST or LAST was asked for


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """rows of this page; cursor of the next one, None after the last."""

    rows: list[T]
    cursor: str | None

    @property
    def has_more(self) -> bool:
        return self.cursor is not None

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def terms(queryset: QuerySet) -> tuple[Term, ...]:
    """The order of the query, made total. Raises ValueError for an order that has no column to compare."""
    connection: Any = connections[queryset.db]
    # MongoDB's backend does not say it, and sorts NULL below everything.
    low_nulls = connection.features.order_by_nulls_first or connection.vendor == "mongodb"
    _refuse_combined(queryset)
    _refuse_repeats(queryset)
    found = [_term(queryset, part, low_nulls=low_nulls) for part in _order(queryset)]
    primary: Any = queryset.model._meta.pk
    if getattr(primary, "column", None) is None:  # none, or a composite one
        raise ValueError(f"{queryset.model.__name__} has no primary key of one column to page by")
    places = [
        place for place, term in enumerate(found) if term.field is primary or _is_unique(queryset, term)
    ]
    if places:
        return tuple(found[: places[0] + 1])  # what follows a unique column orders nothing
    # In the direction of the rest, so that one index in one direction serves all of it.
    is_descending = bool(found) and found[-1].is_descending
    return (*found, Term(primary.attname, is_descending, False, False, primary))


def ordered(queryset: QuerySet, parts: Sequence[Term]) -> QuerySet:
    found = queryset.order_by(*(_order_by(term) for term in parts))
    found.query.standard_ordering = True  # the terms are what reverse() made of them
    return found


def following(queryset: QuerySet, parts: Sequence[Term], values: Sequence[Any]) -> QuerySet:
    """The rows of an ordered query that come after the row with these values."""
    if connections[queryset.db].vendor not in _COMPARES_ROWS or not _is_plain(parts):
        return queryset.filter(after(parts, values))
    found = queryset.all()
    # What filter() comes to for a condition of columns of its own, in half the time.
    found.query.where.add(_RowAfter(parts, values).resolve_expression(found.query), AND)
    return found


def after(parts: Sequence[Term], values: Sequence[Any]) -> Q:
    """The condition of the rows that follow the row with these values, for any order and any engine."""
    found = Q(pk__in=[])
    for place in range(len(parts)):
        same = [_same(term, value) for term, value in zip(parts[:place], values, strict=False)]
        beyond = _beyond(parts[place], values[place])
        if beyond is not None:
            found |= Q(*same) & beyond
    # Says nothing new, but it is what an index on the first column can begin with.
    first = _beyond(parts[0], values[0])
    return found if first is None or len(parts) == 1 else (first | _same(parts[0], values[0])) & found


def values_of(row: Any, parts: Sequence[Term]) -> list[Any]:
    if isinstance(row, dict):
        missing = [term.name for term in parts if term.name not in row]
        if missing:
            raise ValueError(f"a page of values needs {missing[0]!r} among them: the order is by it")
        return [row[term.name] for term in parts]
    return [_attribute(row, term.name) for term in parts]


def refuse_standstill(rows: Sequence[Any], parts: Sequence[Term], position: Sequence[Any]) -> None:
    """Raises ValueError when the last row came again: SQLite keeps more digits of a decimal than it tells."""
    decimals = any(isinstance(term.field, models.DecimalField) for term in parts)
    if decimals and any(values_of(row, parts) == list(position) for row in rows):
        raise ValueError("cannot page by decimals that were stored with more digits than their column has")


def encode(parts: Sequence[Term], values: Sequence[Any]) -> str:
    """Opaque and signed: a client can only hand it back, not ask about rows that it was not shown."""
    plain = [_plain(term, value) for term, value in zip(parts, values, strict=True)]
    return signing.dumps([_signature(parts), *plain], salt=_SALT)


def decode(parts: Sequence[Term], cursor: str) -> list[Any]:
    """Raises BadCursor."""
    try:
        signature, *plain = signing.loads(cursor, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        raise BadCursor("this is no cursor of ours, or it was changed") from None
    if signature != _signature(parts):
        raise BadCursor("this cursor belongs to a query with another order")
    try:
        return [
            None if value is None else term.field.to_python(value)
            for term, value in zip(parts, plain, strict=True)
        ]
    except (ValidationError, ValueError, TypeError):
        raise BadCursor("this cursor belongs to a query of another model") from None


def _order(queryset: QuerySet) -> Sequence[Any]:
    query = queryset.query
    if query.extra_order_by or query.distinct_fields:
        raise ValueError("this query cannot be paged: its order is no list of columns")
    if query.order_by:
        return query.order_by
    return (queryset.model._meta.ordering or ()) if query.default_ordering else ()


def _refuse_combined(queryset: QuerySet) -> None:
    """No condition reaches into a union: each page would be the first one, for ever."""
    if queryset.query.combinator:
        raise ValueError(
            f"this query cannot be paged: it is a {queryset.query.combinator}. Write one query with Q(…) | Q(…)"
        )
    if queryset.query.is_sliced:
        raise ValueError("this query cannot be paged: it is a slice already. Use limit and offset")


def _refuse_repeats(queryset: QuerySet) -> None:
    """Rows that come once for each of many related rows have no "after": the rest of them would be left out."""
    query = queryset.query
    if query.distinct or query.group_by is not None:
        return
    for alias, join in query.alias_map.items():
        field = getattr(join, "join_field", None)
        if field is not None and query.alias_refcount[alias] and (field.one_to_many or field.many_to_many):
            raise ValueError(
                f"this query cannot be paged: a row comes once for each of its {join.table_name}. Add distinct()"
            )


def _term(queryset: QuerySet, part: Any, *, low_nulls: bool) -> Term:
    if isinstance(part, str):
        part = F(part[1:]).desc() if part.startswith("-") else F(part.removeprefix("+")).asc()
    elif isinstance(part, F):
        part = part.asc()
    if not isinstance(part, OrderBy) or not isinstance(part.expression, F) or part.expression.name == "?":
        raise ValueError(
            f"this query cannot be paged: {part} is no column. Annotate it, and order by its name"
        )
    if not queryset.query.standard_ordering:  # reverse()
        part = part.copy()
        part.reverse_ordering()
    name: str = part.expression.name
    if name == "pk":
        name = queryset.model._meta.pk.attname
    field, can_be_null = _column(queryset, name)
    nulls_first = low_nulls != part.descending
    is_explicit = bool(part.nulls_first or part.nulls_last)
    if is_explicit:
        nulls_first = bool(part.nulls_first)
    return Term(name, part.descending, nulls_first, can_be_null, field, is_explicit)


def _column(queryset: QuerySet, name: str) -> tuple[models.Field, bool]:
    annotation = queryset.query.annotations.get(name)
    if annotation is not None:
        return annotation.output_field, True
    path, field, _, rest = queryset.query.names_to_path(name.split(LOOKUP_SEP), queryset.model._meta)
    if field is queryset.model._meta.pk and name == field.attname:
        return field, False
    if rest or any(step.m2m for step in path) or field.is_relation and not field.concrete:
        raise ValueError(f"this query cannot be paged: {name!r} is no column of one row")
    last = name.rsplit(LOOKUP_SEP, 1)[-1]
    if field.is_relation:
        if field.many_to_many or last != getattr(field, "attname", last):
            raise ValueError(f"order by {name}_id or by a column of {name} to page")
        target = field.target_field
        return target, field.null
    return field, LOOKUP_SEP in name or field.null


def _is_unique(queryset: QuerySet, term: Term) -> bool:
    return (
        term.field.unique and not term.can_be_null and LOOKUP_SEP not in term.name and _owns(queryset, term)
    )


def _owns(queryset: QuerySet, term: Term) -> bool:
    """Not the target of a foreign key: `author_id` has the field of the author, and is not unique here."""
    return term.field.model is queryset.model and term.field.attname == term.name


def _is_plain(parts: Sequence[Term]) -> bool:
    one_way = len({term.is_descending for term in parts}) == 1
    return one_way and not any(term.can_be_null for term in parts)


def _order_by(term: Term) -> OrderBy:
    if not term.is_explicit:
        return OrderBy(F(term.name), descending=term.is_descending)
    first = True if term.nulls_first else None
    return OrderBy(
        F(term.name), descending=term.is_descending, nulls_first=first, nulls_last=None if first else True
    )


def _same(term: Term, value: Any) -> Q:
    return Q((f"{term.name}__isnull", True)) if value is None else Q((term.name, value))


def _beyond(term: Term, value: Any) -> Q | None:
    """What comes after the value in this column alone; None: nothing does."""
    if value is None:
        return Q((f"{term.name}__isnull", False)) if term.nulls_first else None
    found = Q((f"{term.name}__{'lt' if term.is_descending else 'gt'}", value))
    if term.can_be_null and not term.nulls_first:
        found |= Q((f"{term.name}__isnull", True))
    return found


class _RowAfter(Expression):
    """`(a, b) > (%s, %s)`: PostgreSQL and SQLite find it in an index on (a, b) at once; MySQL wants it spelled out.

    The values stay as they are instead of being expressions: a page is mostly what it takes to build its query.
    """

    output_field = models.BooleanField()
    conditional = True

    def __init__(self, parts: Sequence[Term], values: Sequence[Any]) -> None:
        super().__init__()
        self._columns: list[Any] = [F(term.name) for term in parts]
        self._given = [(term.field, value) for term, value in zip(parts, values, strict=True)]
        self._operator = "<" if parts[0].is_descending else ">"

    def get_source_expressions(self) -> list[Any]:
        return self._columns

    def set_source_expressions(self, expressions: Sequence[Any]) -> None:
        self._columns = list(expressions)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        texts, params = [], []
        for column in self._columns:
            text, of_it = compiler.compile(column)
            texts.append(text)
            params += of_it
        params += [field.get_db_prep_value(value, connection) for field, value in self._given]
        marks = ", ".join(["%s"] * len(self._given))
        return f"({', '.join(texts)}) {self._operator} ({marks})", params

    def as_mysql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """`a >= %s AND (a > %s OR (a = %s AND b > %s))`, of which its optimizer makes two ranges of the index."""
        found, params = "", list[Any]()
        compiled = [compiler.compile(column) for column in self._columns]
        values = [field.get_db_prep_value(value, connection) for field, value in self._given]
        for (column, before), value in reversed(list(zip(compiled, values, strict=True))):
            beyond = f"{column} {self._operator} %s"
            found = f"({beyond} OR ({column} = %s AND {found}))" if found else beyond
            params = [*before, value, *((*before, value) if params else ()), *params]
        first, before = compiled[0]
        return f"({first} {self._operator}= %s AND {found})", [*before, values[0], *params]


def _attribute(row: Any, name: str) -> Any:
    for part in name.split(LOOKUP_SEP):
        row = None if row is None else getattr(row, part)
    return row


def _plain(term: Term, value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, _FIELD_VALUES) else str(_text(value))


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _signature(parts: Sequence[Term]) -> str:
    text = "|".join(f"{t.name}:{t.is_descending:d}{t.nulls_first:d}" for t in parts)
    return hashlib.blake2s(text.encode(), digest_size=6).hexdigest()

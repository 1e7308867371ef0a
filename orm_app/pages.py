"""Keyset pages of a query: one for a caller that comes back with a cursor, one after the other for a stream."""

from __future__ import annotations

from typing import Any

from django.db.models.query import QuerySet

from . import keyset
from .streams import Fetch, Position


def page(queryset: QuerySet, cursor: str | None, size: int) -> keyset.Page[Any]:
    """Raises keyset.BadCursor, and ValueError for an order that cannot be paged."""
    parts = keyset.terms(queryset)
    values = None if cursor is None else keyset.decode(parts, cursor)
    rows = _rows(queryset, parts, values, size + 1)  # one more tells whether there is a next page
    if len(rows) <= size:
        return keyset.Page(rows, None)
    rows.pop()
    return keyset.Page(rows, keyset.encode(parts, keyset.values_of(rows[-1], parts)))


def parts_of(queryset: QuerySet, size: int, limit: int | None, offset: int) -> Fetch[Any]:
    """What a stream asks for the rows after a position, `size` at a time."""

    def fetch(position: Position | None) -> tuple[list[Any], Position | None]:
        left = limit if position is None else position.left
        wanted = size if left is None else min(size, left)
        if wanted == 0:
            return [], None
        parts = keyset.terms(queryset)
        skip, values = (offset, None) if position is None else (0, position.values)
        rows = _rows(queryset, parts, values, wanted, skip)
        if len(rows) < wanted:
            return rows, None
        return rows, Position(keyset.values_of(rows[-1], parts), None if left is None else left - len(rows))

    return fetch


def _rows(
    queryset: QuerySet, parts: tuple[keyset.Term, ...], values: list[Any] | None, count: int, skip: int = 0
) -> list[Any]:
    found = keyset.ordered(queryset, parts)
    if values is not None:
        found = keyset.following(found, parts, values)
    rows = list(found[skip : skip + count])
    if values is not None:
        keyset.refuse_standstill(rows, parts, values)
    return rows

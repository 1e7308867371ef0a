"""What to do about a repeated statement: which relation to load with the rows, as far as the statement says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import models

_NAME = r"[`\"]?([\w$]+)[`\"]?"
_FROM = re.compile(rf"\bFROM\s+{_NAME}", re.IGNORECASE)
_JOIN = re.compile(rf"\bJOIN\s+{_NAME}", re.IGNORECASE)
_EQUAL = re.compile(rf"\bWHERE\s.*?\(?{_NAME}\.{_NAME}\s*(?:=\s*\(?\?|IN\s*\(\?\))", re.IGNORECASE)
_MOST_NAMED = 3
_GENERAL = "load them with one statement before the loop: where_in(...) or filter(...__in=...)"


def of(shape: str, tables: set[str]) -> str:
    """shape: normalised SQL. tables: that the unit has read, which tell one foreign key from another."""
    word = shape[:6].upper()
    if word in ("INSERT", "REPLAC"):
        return "write them together: bulk_insert or bulk_create"
    if word == "UPDATE":
        return "write them together: bulk_update, or one update() over all"
    if word == "DELETE":
        return "delete them together: where_in(...).delete()"
    if re.match(r"SELECT\s+COUNT\(", shape, re.IGNORECASE):
        return "count them with the rows: annotate(Count(...))"
    return _relation(shape, tables) or _GENERAL


def tables_of(statements: Iterable[str]) -> set[str]:
    return {table for sql in statements if isinstance(sql, str) for table in _FROM.findall(sql[:2_000])}


def _relation(shape: str, tables: set[str]) -> str:
    source, condition = _FROM.search(shape), _EQUAL.search(shape)
    if source is None or condition is None:
        return ""
    table, column = condition.groups()
    if source[1] == table:
        ways = [*_forward(table, column, tables), *_backward(table, column)]
    else:
        ways = list(_through(table, column)) if table in _JOIN.findall(shape) else []
    if not ways:
        return ""
    return " or ".join(list(dict.fromkeys(ways))[:_MOST_NAMED])


def _forward(table: str, column: str, tables: set[str]) -> Iterator[str]:
    """One row by its key: a row that this unit has read points to it."""
    models_there = _models().get(table, [])
    pointing = [
        (relation.related_model, relation.field)
        for model in models_there
        for relation in model._meta.related_objects
        if isinstance(relation.field, models.ForeignKey) and relation.field.target_field.column == column
    ]
    for model, field in pointing:
        if model._meta.db_table in tables - {table}:
            yield f'{model.__name__}: select_related("{field.name}") or with_related("{field.name}")'


def _backward(table: str, column: str) -> Iterator[str]:
    """Many rows by their foreign key: those of one row that was read before."""
    for model in _models().get(table, []):
        for field in model._meta.concrete_fields:
            if (
                isinstance(field, models.ForeignKey)
                and field.column == column
                and not field.remote_field.hidden
            ):
                accessor = field.remote_field.get_accessor_name()
                owner = field.related_model.__name__
                yield f'{owner}: prefetch_related("{accessor}") or with_related("{accessor}")'


def _through(table: str, column: str) -> Iterator[str]:
    """Over the table of a many-to-many relation."""
    for model in _models().get(table, []):
        for field in model._meta.concrete_fields:
            if not (isinstance(field, models.ForeignKey) and field.column == column):
                continue
            for name in _many_to_many(field.related_model, model):
                yield f'{field.related_model.__name__}: prefetch_related("{name}") or with_related("{name}")'


def _many_to_many(owner: Any, through: type[models.Model]) -> Iterator[str]:
    for field in owner._meta.many_to_many:
        if field.remote_field.through is through:
            yield field.name
    for relation in owner._meta.related_objects:
        if relation.many_to_many and relation.through is through and relation.get_accessor_name():
            yield str(relation.get_accessor_name())


def _models() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for model in apps.get_models(include_auto_created=True):
        found.setdefault(model._meta.db_table, []).append(model)
    return found

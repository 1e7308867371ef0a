"""What makes SQLite copy a table while nobody else can write to the file. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from . import changes as c
from .changes import WARNING, Change, Subject
from .rules_any import Said

_REMAKES = {
    c.ALTER_TYPE, c.SET_NOT_NULL, c.DROP_NOT_NULL, c.ADD_FOREIGN_KEY, c.ADD_UNIQUE, c.ADD_CHECK, c.DROP_CONSTRAINT,
    c.SET_DEFAULT,
}  # fmt: skip


def said(change: Change, subject: Subject) -> Iterator[Said]:
    if subject.is_new(change.table):
        return
    where = f"{change.table}.{change.name}" if change.name else change.table
    if change.is_django and (change.kind in _REMAKES or _needs_remake(change)):
        yield (
            "table-remake", WARNING, f"{where}: Django copies the whole table {change.table}, and the file has one writer.",
            "Put all changes of this table into one migration; run it when writers can wait. A nullable column without "
            "a default is added in place.",
        )  # fmt: skip
    if not change.is_django and change.kind in _REMAKES - {c.ADD_UNIQUE}:
        yield (
            "sqlite-cannot-alter", WARNING, f"{change.describes}: SQLite has no such ALTER TABLE.",
            "Write a text for sqlite (name.sqlite.up.sql) that makes a new table, copies the rows and renames it.",
        )  # fmt: skip
    if change.kind == c.ADD_INDEX:
        yield (
            "add-index-blocking", WARNING, f"builds an index on {change.table}: nobody can write to the file meanwhile.",
            "Run it when writers can wait.",
        )  # fmt: skip


def _needs_remake(change: Change) -> bool:
    if change.kind != c.ADD_COLUMN:
        return False
    return change.has_fill or change.is_unique or not change.is_null or change.is_volatile

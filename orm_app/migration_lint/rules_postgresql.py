"""What PostgreSQL locks for long, or rewrites. Pure. Lock levels: its manual, chapter Explicit Locking."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import changes as c
from .changes import ERROR, WARNING, Change, Subject
from .rules_any import Said
from .types import is_widening

_NAME_BYTES = 63


def said(change: Change, subject: Subject) -> Iterator[Said]:
    yield from _in_transaction(change, subject)
    yield from _too_long(change)
    if subject.is_new(change.table):
        return
    where = f"{change.table}.{change.name}" if change.name else change.table
    match change.kind:
        case c.ADD_INDEX if not change.is_concurrent:
            yield (
                "add-index-blocking", ERROR, f"builds an index on {where or change.table}: nobody can write to the table meanwhile.",
                f"from django.contrib.postgres.operations import AddIndexConcurrently, with atomic = False; or CREATE {'UNIQUE ' if change.is_unique else ''}INDEX CONCURRENTLY.",
            )  # fmt: skip
        case c.DROP_INDEX if not change.is_concurrent:
            yield (
                "drop-index-blocking", WARNING, f"drops the index {change.name}: waits for every reader, and all others wait behind it.",
                "RemoveIndexConcurrently with atomic = False; or DROP INDEX CONCURRENTLY.",
            )  # fmt: skip
        case c.REINDEX if not change.is_concurrent:
            yield (
                "reindex-blocking",
                ERROR,
                f"{change.describes}: blocks writes.",
                "REINDEX … CONCURRENTLY with atomic = False.",
            )
        case c.ADD_FOREIGN_KEY if not change.is_concurrent:
            yield (
                "add-foreign-key-validating", ERROR, f"adds a foreign key to {where}: blocks writes to both tables while every row is checked.",
                "ALTER TABLE … ADD CONSTRAINT … FOREIGN KEY … NOT VALID; in the next migration VALIDATE CONSTRAINT. "
                "With Django: the field with db_constraint=False, then this RunSQL.",
            )  # fmt: skip
        case c.ADD_CHECK if not change.is_concurrent:
            yield (
                "add-check-validating", ERROR, f"adds a check to {where}: blocks reads and writes while every row is checked.",
                "django.contrib.postgres.operations.AddConstraintNotValid, and ValidateConstraint in the next migration.",
            )  # fmt: skip
        case c.ADD_UNIQUE | c.ADD_PRIMARY_KEY if not change.is_concurrent:
            yield (
                "add-unique-blocking", ERROR, f"adds a unique constraint to {where}: blocks reads and writes while its index is built.",
                "CREATE UNIQUE INDEX CONCURRENTLY i …; then ALTER TABLE … ADD CONSTRAINT c UNIQUE USING INDEX i, with "
                "state_operations=[AddConstraint(…)].",
            )  # fmt: skip
        case c.ADD_EXCLUSION:
            yield (
                "add-exclusion", ERROR, f"adds an exclusion constraint to {where}: blocks reads and writes, and has no NOT VALID.",
                "Make it with the table, or in a maintenance window.",
            )  # fmt: skip
        case c.ALTER_TYPE if not change.is_widening and not is_widening(
            change.was, change.type, "postgresql"
        ):
            yield (
                "alter-type", ERROR, f"changes the type of {where}: rewrites the table, nobody can read or write it meanwhile.",
                "Add a new column, write both, copy the rows in batches, switch the reads, drop the old one.",
            )  # fmt: skip
        case c.ADD_COLUMN:
            yield from _column(change, where)
        case c.SET_NOT_NULL if not change.is_django:
            yield (
                "set-not-null-scan", WARNING, f"{where} SET NOT NULL reads the whole table while nobody else may use it.",
                f"ADD CONSTRAINT c CHECK ({change.name} IS NOT NULL) NOT VALID; VALIDATE CONSTRAINT c; SET NOT NULL; DROP CONSTRAINT c.",
            )  # fmt: skip


def _column(change: Change, where: str) -> Iterator[Said]:
    if change.is_volatile:
        yield (
            "volatile-default", ERROR, f"{where} has another default for each row: rewrites the table under a lock.",
            "Add the column without it, then set the default, then fill the rows in batches.",
        )  # fmt: skip
    if change.is_generated:
        yield (
            "stored-generated", ERROR, f"{where} is computed and stored: rewrites the table under a lock.",
            "Add a plain column that a trigger or the code fills, and fill the rows in batches.",
        )  # fmt: skip
    if change.is_unique:
        yield (
            "add-unique-blocking", ERROR, f"{where} is unique: its index is built while nobody can use the table.",
            "Add the column, then CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT … USING INDEX.",
        )  # fmt: skip
    if re.match(r"json\b", change.type, re.IGNORECASE):
        yield "json-type", WARNING, f"{where} is json: SELECT DISTINCT and GROUP BY fail on it.", "Use jsonb."


def _in_transaction(change: Change, subject: Subject) -> Iterator[Said]:
    if subject.is_atomic and change.is_concurrent and change.kind in (c.ADD_INDEX, c.DROP_INDEX, c.REINDEX):
        yield (
            "concurrently-in-transaction", ERROR, f"{change.describes}: CONCURRENTLY is refused in a transaction.",
            "Set atomic = False on the migration (`-- atomic: false` in a SQL file).",
        )  # fmt: skip


def _too_long(change: Change) -> Iterator[Said]:
    for name in (change.name, change.to, change.table):
        if len(name.rpartition(".")[2].encode()) > _NAME_BYTES:
            yield (
                "identifier-too-long", ERROR, f"{name} has more than {_NAME_BYTES} bytes: PostgreSQL cuts it silently.",
                "Choose a shorter name.",
            )  # fmt: skip

"""The rules of every dialect: what breaks the code that still runs, and what cannot be taken back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from . import changes as c
from .changes import ERROR, WARNING, Change, Subject

Said = tuple[str, str, str, str]  # rule, level, message, rewrite

_TWO_RELEASES = (
    "Release 1: remove it from the code, with migrations.SeparateDatabaseAndState(state_operations=[{}]). "
    "Release 2, when no old process runs: the same with database_operations."
)


def said(change: Change, subject: Subject) -> Iterator[Said]:
    yield from _of_any_table(change, subject)
    if not subject.is_new(change.table):
        yield from _of_a_live_table(change)


def said_of_all(subject: Subject) -> Iterator[Said]:
    """What shows in the changes together."""
    kinds = [change.kind for change in subject.changes]
    touched = [
        change for change in subject.changes if change.kind in c.SCHEMA and not subject.is_new(change.table)
    ]
    if touched and (c.WRITE_ROWS in kinds or c.PYTHON in kinds):
        yield (
            "schema-and-data", WARNING, "changes the schema and rows in one migration: the locks of the first are held while the second runs.",
            "Three migrations: the schema; the rows, in batches, with atomic = False; the constraint.",
        )  # fmt: skip
    alone = [
        change
        for change in subject.changes
        if change.is_concurrent and change.kind in (c.ADD_INDEX, c.DROP_INDEX)
    ]
    if alone and not subject.is_atomic and len(subject.changes) > len(alone):
        yield (
            "mixed-without-transaction", WARNING, "has other operations beside CONCURRENTLY, and no transaction holds them together.",
            "Put the concurrent operations into a migration of their own with atomic = False.",
        )  # fmt: skip


def _of_any_table(change: Change, subject: Subject) -> Iterator[Said]:
    if change.kind == c.NO_TEXT:
        yield (
            "no-sql-for-dialect", ERROR, f"{change.describes}: there is no SQL for {subject.dialect}.",
            "Add a text for it, or one for all dialects.",
        )  # fmt: skip
    if change.kind == c.PYTHON and not change.is_reversible:
        yield (
            "run-python-irreversible", WARNING, f"{change.describes} cannot be rolled back.",
            "Give reverse_code; migrations.RunPython.noop when there is nothing to undo.",
        )  # fmt: skip
    if change.kind == c.PYTHON and change.imports_models:
        yield (
            "run-python-imports-models", ERROR, f"{change.describes} uses the models of today: a later column breaks it.",
            'Use the state\'s: Thing = apps.get_model("app", "Thing").',
        )  # fmt: skip
    if not change.is_django and not change.is_reversible:
        yield (
            "run-sql-irreversible", WARNING, f"raw SQL without a way back: {change.describes}",
            "Give reverse_sql (down_sql, or a .down.sql file); migrations.RunSQL.noop when there is nothing to undo.",
        )  # fmt: skip
    if change.kind == c.TRANSACTION and subject.is_atomic:
        yield (
            "transaction-nesting", ERROR, f"{change.describes}: the migration runs in a transaction already.",
            "Remove BEGIN and COMMIT, or set atomic = False.",
        )  # fmt: skip
    if change.kind == c.TRUNCATE or (change.kind == c.DROP_OTHER and change.cascades):
        yield (
            "truncate-or-cascade", ERROR if change.cascades else WARNING,
            f"{change.describes}: takes rows or objects with it that it does not name.",
            "Name what goes, one statement each, and take a backup first: manage.py database backup.",
        )  # fmt: skip


def _of_a_live_table(change: Change) -> Iterator[Said]:
    where = f"{change.table}.{change.name}" if change.name else change.table
    match change.kind:
        case c.DROP_COLUMN:
            yield (
                "drop-column",
                ERROR,
                f"drops {where}: processes of the old release still select it.",
                _TWO_RELEASES.format("RemoveField(…)"),
            )
        case c.DROP_TABLE:
            yield (
                "drop-table",
                ERROR,
                f"drops {where}: processes of the old release still use it.",
                _TWO_RELEASES.format("DeleteModel(…)"),
            )
        case c.RENAME_COLUMN:
            yield (
                "rename-column", ERROR, f"renames {where} to {change.to}: old and new code cannot run side by side.",
                "Rename the attribute alone: new_name = models.…(db_column='old_name'). Or: add the new column, write both, "
                "copy the rows in batches, read the new one, drop the old one.",
            )  # fmt: skip
        case c.RENAME_TABLE:
            yield (
                "rename-table", ERROR, f"renames {where} to {change.to}: old and new code cannot run side by side.",
                "Rename the model alone: class Meta: db_table = 'old_name'. Or leave a view of the old name behind.",
            )  # fmt: skip
        case c.ADD_COLUMN if (
            not change.is_null and not change.has_database_default and not change.is_generated
        ):
            yield from _not_null_column(change, where)
        case c.ADD_COLUMN if (
            change.is_unique and (change.has_fill or change.has_database_default) and not change.is_volatile
        ):
            yield (
                "add-unique-column", ERROR, f"{where} is unique, and all existing rows get one and the same value.",
                "Add it with null=True, fill the rows in batches, then add the constraint.",
            )  # fmt: skip
        case c.SET_NOT_NULL:
            yield (
                "set-not-null", ERROR, f"{where} becomes NOT NULL: fails on one NULL, and old code may still write it.",
                "Release code that always writes it (or db_default=…), fill the rows in batches, then this."
                + (" " if change.is_django else "")
                + ("On PostgreSQL first a CHECK (… IS NOT NULL) NOT VALID, then VALIDATE CONSTRAINT." if change.is_django else ""),
            )  # fmt: skip
        case c.LOCK_TABLE:
            yield (
                "lock-table",
                WARNING,
                f"locks {where} until the migration ends.",
                "Let the statements take their own locks.",
            )


def _not_null_column(change: Change, where: str) -> Iterator[Said]:
    if change.has_fill:
        text = f"{where} is NOT NULL and its default is Python's alone: processes of the old release insert without it and fail."
        fix = (
            "Give db_default=… beside default=…: the database fills it for old code, and for rows that exist."
        )
    else:
        text, fix = (
            f"{where} is NOT NULL without a default: fails on a table with rows.",
            ("Give db_default=…, or add it with null=True, fill the rows in batches, then null=False."),
        )
    yield "add-not-null", ERROR, text, fix

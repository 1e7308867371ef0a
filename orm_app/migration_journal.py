"""How far a migration came that no transaction holds together: MySQL commits every DDL statement, atomic=False too.

    before a statement: "on its way" → the statement → "done", in one transaction where the database can do that
    next run: skips what is done, goes on behind it

The row is removed when the migration is recorded as applied; it stays when the migration breaks or is killed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, transaction
from django.db.migrations import Migration

from . import migration_records as records
from .migration_records import Key

_ALONE = re.compile(
    r"CONCURRENTLY|^\s*(?:VACUUM|REINDEX|CLUSTER|ALTER\s+SYSTEM|ALTER\s+TYPE\s.*\bADD\s+VALUE|(?:CREATE|DROP)\s+"
    r"(?:DATABASE|TABLESPACE)|BEGIN|START\s|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET\s|PRAGMA)",
    re.IGNORECASE | re.DOTALL,
)
_ROWS_ONLY = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|WITH)\b", re.IGNORECASE)
# The statement was on its way when we were killed, and is done: the name is taken, or gone.
_DONE_MYSQL = {1050, 1051, 1060, 1061, 1091, 1826, 1022}
# After a rename the old name is gone: no such column, table or index. Elsewhere that says nothing.
_RENAMES = re.compile(r"\s*(?:ALTER\s+TABLE\s.*\s(?:CHANGE|RENAME)\s|RENAME\s)", re.IGNORECASE | re.DOTALL)
_RENAMED_MYSQL = {1054, 1146, 1176}
_DONE_SQLSTATE = {"42P07", "42701", "42710", "42704", "42703", "42P01"}
_INDEX_NAME = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>\"[^\"]+\"|\w+)",
    re.IGNORECASE,
)

Execute = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Broken:
    """A migration that stands half way. done, statements: what is committed; error: "" after a kill."""

    key: Key
    is_backwards: bool
    done: list[str]
    statements: list[str]
    error: str


def unfinished(connection: Any) -> list[Broken]:
    model = records.progress_model()
    if not records.exists(connection, model):
        return []
    return [
        Broken(
            (row.app, row.name), row.is_backwards, json.loads(row.done), json.loads(row.statements), row.error
        )
        for row in records.rows(connection, model).order_by("pk")
    ]


def forget(connection: Any, key: Key) -> bool:
    """Begin that migration at its first operation next time: somebody has undone what was committed."""
    model = records.progress_model()
    if not records.exists(connection, model):
        return False
    gone, _ = records.rows(connection, model).filter(app=key[0], name=key[1]).delete()
    return bool(gone)


def signature(operation: Any) -> str:
    """By which a committed operation is known again; its SQL may not be replaced by another one."""
    return f"{type(operation).__name__}: {operation.describe()}"


class Journal:
    """Of one migration, in one direction, on one connection."""

    def __init__(self, connection: Any, migration: Migration, *, is_backwards: bool) -> None:
        self._connection, self._migration = connection, migration
        records.ensure(connection, records.progress_model())
        self._row, self.is_new = records.rows(connection, records.progress_model()).get_or_create(
            app=migration.app_label, name=migration.name, defaults={"is_backwards": is_backwards}
        )
        self.done: list[str] = json.loads(self._row.done)
        self.statements: list[str] = json.loads(self._row.statements)
        self.deferred: list[str] = json.loads(self._row.deferred)
        self.is_backwards: bool = self._row.is_backwards
        self.error: str = self._row.error
        self._skip = Counter(self.statements)  # a statement may stand there twice
        self._maybe: str = self._row.attempted

    @property
    def has_committed(self) -> bool:
        return bool(self.done or self.statements)

    def begin(self, *, is_backwards: bool) -> None:
        self._save(error="", is_backwards=is_backwards)

    def execute(
        self, sql: Any, params: Any, run: Execute, retry: Callable[[Callable[[], None]], None]
    ) -> None:
        """run: the editor's own. retry: calls again what failed for a lock. Skips a statement that is committed."""
        text = _readable(sql, params)
        if self._skip[text]:
            self._skip[text] -= 1
        elif self._connection.in_atomic_block:
            run(sql, params)  # committed with the operation, or not at all
        elif self._is_transactional(text):
            retry(lambda: self._run_with_record(text, sql, params, run))
            self.statements.append(text)
        else:
            self._save(attempted=text)
            retry(lambda: self._run_alone(text, sql, params, run))
            self.statements.append(text)
            self._save(statements=self.statements, attempted="")

    def operation_done(self, operation: Any, editor: Any) -> None:
        # The deferred SQL as text: a later rename does not reach it when this run breaks before its end.
        self.done.append(signature(operation))
        self.statements, self._skip, self._maybe = [], Counter(), ""
        self.deferred = [str(statement) for statement in editor.deferred_sql]
        self._save(done=self.done, statements=[], attempted="", deferred=self.deferred)

    def broke(self, error: BaseException) -> None:
        with suppress(DatabaseError):  # the connection may be what broke
            if self.has_committed:
                self._save(error=str(error)[:2000] or type(error).__name__)
            else:
                self.close()

    def close(self) -> None:
        self._row.delete()

    def _run_alone(self, text: str, sql: Any, params: Any, run: Execute) -> None:
        may_be_done, self._maybe = text == self._maybe, ""
        self._drop_invalid_index(text)
        try:
            run(sql, params)
        except DatabaseError as error:
            if not may_be_done or not _says_done(error, text):
                raise

    def _drop_invalid_index(self, text: str) -> None:
        """A CREATE INDEX CONCURRENTLY that failed or was killed leaves an index that is maintained and never used."""
        match = _INDEX_NAME.search(text) if self._connection.vendor == "postgresql" else None
        if match is None:
            return
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid",
                [match["name"]],
            )
            if cursor.fetchone():
                cursor.execute(f"DROP INDEX CONCURRENTLY {match['name']}")

    def _is_transactional(self, text: str) -> bool:
        if self._connection.vendor == "mysql":
            return bool(_ROWS_ONLY.match(text))
        return not _ALONE.search(text)

    def _run_with_record(self, text: str, sql: Any, params: Any, run: Execute) -> None:
        with transaction.atomic(self._connection.alias):
            if self._connection.features.can_rollback_ddl:
                run(sql, params)
            else:  # rows only, but the editor refuses every statement in a transaction there
                with self._connection.cursor() as cursor:
                    cursor.execute(str(sql), params)
            self._save(statements=[*self.statements, text], attempted="")

    def _save(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self._row, name, json.dumps(value) if isinstance(value, list) else value)
        self._row.save(update_fields=list(values))


def _readable(sql: Any, params: Any) -> str:
    return f"{sql} {list(params)!r}" if params else str(sql)


def _says_done(error: DatabaseError, text: str) -> bool:
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) in _DONE_SQLSTATE:
        return True
    known = _DONE_MYSQL | _RENAMED_MYSQL if _RENAMES.match(text) else _DONE_MYSQL
    return bool(cause.args) and cause.args[0] in known

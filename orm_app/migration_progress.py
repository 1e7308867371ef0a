"""What a person sees while a migration runs: a bar on a terminal, Django's own lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.migrations import Migration
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from .migration_executor import Run
from .migration_records import checksum_model, progress_model

_ROWS = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_ESTIMATES = {
    "postgresql": "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(quote_ident(%s))",
    "mysql": "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
}


class Watch:
    """The callback Django's command hands to its executor, and what the Run tells. django: the command's own callback.

    It counts the rows that statements change by wrapping the connection's cursors: nobody else sees RunPython's.
    """

    def __init__(
        self, run: Run, connection: Any, django: Callable[..., None], *, screen: Console | None
    ) -> None:
        self.run, self._connection, self._django = run, connection, django
        self._screen = screen
        self._bar: Progress | None = None
        self._task: Any = None
        self._rows = 0
        self._changes_before: int | None = None  # SQLite's, before a statement that is not counted yet
        self._began = 0.0
        run.on_operation = self.on_operation

    @property
    def is_live(self) -> bool:
        return self._bar is not None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self._connection.execute_wrapper(self._count):
            if self._screen is None:
                yield
                return
            columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
            try:
                with Progress(
                    *columns, TimeElapsedColumn(), console=self._screen, transient=True
                ) as self._bar:
                    yield
            finally:
                self._bar = None

    def __call__(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:
        if action in ("apply_start", "unapply_start"):
            self._rows, self._began = 0, time.monotonic()
        if self._bar is None or migration is None:
            if self._bar is None:
                self._django(action, migration, fake)
            return
        if action.endswith("_start"):
            self._task = self._bar.add_task(f"{migration}", total=len(migration.operations))
        else:
            self._bar.remove_task(self._task)
            self._bar.console.print(
                f"  {_past(action)} {migration} {self.figures(migration)}", highlight=False
            )

    def on_operation(self, migration: Migration, place: int, operation: Any, state: Any) -> None:
        if self._bar is None:
            return
        rows = self._estimate(migration, operation, state)
        about = f" (about {rows:,} rows)" if rows and rows > 0 else ""
        self._bar.update(
            self._task, completed=place, description=f"{migration}: {operation.describe()}{about}"
        )

    def tell(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)

    def figures(self, migration: Migration) -> str:
        """`(3 operations, 12,000 rows, 1.2 s)`"""
        self._settle()
        count = len(migration.operations)
        parts = [f"{count} operation{'' if count == 1 else 's'}"]
        parts += [f"{self._rows:,} rows"] if self._rows else []
        parts.append(f"{time.monotonic() - self._began:.1f} s")
        return f"({', '.join(parts)})"

    def _count(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self._settle()
        is_ours = any(model()._meta.db_table in sql for model in (checksum_model, progress_model))
        counts = bool(_ROWS.match(sql)) and not is_ours and "django_migrations" not in sql
        if counts and self._connection.vendor == "sqlite":
            self._changes_before = self._connection.connection.total_changes
        result = execute(sql, params, many, context)
        if counts and self._connection.vendor != "sqlite":
            self._rows += max(0, context["cursor"].rowcount)
        return result

    def _settle(self) -> None:
        """SQLite counts the rows of INSERT … RETURNING when they are fetched: asked when the next statement comes."""
        if self._changes_before is not None and self._connection.connection is not None:
            self._rows += self._connection.connection.total_changes - self._changes_before
        self._changes_before = None

    def _estimate(self, migration: Migration, operation: Any, state: Any) -> int | None:
        """Rows of the operation's table, as the server's statistics have them: counting would take as long as the work."""
        name = getattr(operation, "model_name", None)
        model = state.models.get((migration.app_label, str(name).lower())) if name else None
        sql = _ESTIMATES.get(self._connection.vendor)
        if model is None or sql is None:
            return None
        table = model.options.get("db_table") or f"{migration.app_label}_{model.name_lower}"
        with self._connection.cursor() as cursor:
            cursor.execute(sql, [table])
            row = cursor.fetchone()
        return int(row[0]) if row and row[0] is not None else None


def _past(action: str) -> str:
    return "Unapplied" if action.startswith("unapply") else "Applied"

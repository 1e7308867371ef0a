"""RunSQL whose text may differ by dialect, and the same from files beside the migration. Django sees a RunSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import router
from django.db.migrations.operations import RunSQL

from . import sql_dialects, sql_files
from .sql_dialects import Texts


class SQL(RunSQL):
    """sql, reverse_sql: a text for every dialect, or a mapping of postgresql, mysql, mariadb, sqlite and "" (all others).

    Without reverse_sql the operation cannot be rolled back. hints go to the database router.
    """

    def __init__(
        self,
        sql: Texts,
        reverse_sql: Texts | None = None,
        state_operations: Any = None,
        hints: Mapping[str, Any] | None = None,
        elidable: bool = False,
    ) -> None:
        for texts in (sql, reverse_sql):
            if texts is not None and (wrong := sql_dialects.unknown(texts)):
                raise ValueError(
                    f"unknown dialect {wrong[0]!r}: use postgresql, mysql, mariadb, sqlite or ''"
                )
        super().__init__(sql, reverse_sql, state_operations, dict(hints or {}), elidable)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._run_there(app_label, schema_editor, self.sql)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if self.reverse_sql is None:
            raise NotImplementedError("this SQL has no way back")
        self._run_there(app_label, schema_editor, self.reverse_sql)

    def statements(self, connection: Any, *, backwards: bool = False) -> list[str]:
        return _statements(self.reverse_sql if backwards else self.sql, connection)

    def checksum(self, connection: Any) -> str:
        """Of what this database would run, up and down; line endings and outer space do not count."""
        parts = []
        for texts in (self.sql, self.reverse_sql):
            text = "" if texts is None else _text(texts, connection)
            parts.append("\n".join(line.rstrip() for line in text.strip().splitlines()))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def source(self) -> str:
        """What to edit or restore, for messages."""
        return "its SQL"

    def _run_there(self, app_label: str, schema_editor: Any, texts: Any) -> None:
        if router.allow_migrate(schema_editor.connection.alias, app_label, **self.hints):
            for statement in _statements(texts, schema_editor.connection):
                schema_editor.execute(statement, params=None)


class SQLFiles(SQL):
    """`001_name.up.sql`, `001_name.down.sql`, and `001_name.mysql.up.sql` … of one stem in `folder`."""

    def __init__(
        self,
        folder: str | Path,
        stem: str,
        state_operations: Any = None,
        hints: Any = None,
        elidable: bool = False,
    ) -> None:
        self.folder, self.stem = Path(folder), stem
        texts = sql_files.read(self.folder, stem)
        super().__init__(texts.up, texts.down or None, state_operations, hints, elidable)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        kwargs = {"state_operations": self.state_operations, "hints": self.hints, "elidable": self.elidable}
        return type(self).__qualname__, [self.folder, self.stem], {k: v for k, v in kwargs.items() if v}

    def describe(self) -> str:
        return f"SQL of {self.stem}"

    @property
    def source(self) -> str:
        return f"{self.folder.name}/{self.stem}.*.sql"


def _statements(texts: Texts, connection: Any) -> list[str]:
    return sql_dialects.statements(texts, connection.vendor, is_mariadb=_is_mariadb(connection))


def _text(texts: Texts, connection: Any) -> str:
    return sql_dialects.choose(texts, connection.vendor, is_mariadb=_is_mariadb(connection))[0]


def _is_mariadb(connection: Any) -> bool:
    return connection.vendor == "mysql" and bool(connection.mysql_is_mariadb)

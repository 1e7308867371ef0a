"""What SQL was applied: an applied file that was edited since is refused, because no other database will ever match."""

from __future__ import annotations

import hashlib
from typing import Any

from django.db import connections
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader

from . import migration_records as records
from .migration_records import Key
from .sql_operations import SQL


def of(migration: Migration, connection: Any) -> str | None:
    """None for a migration without SQL of ours. Raises KeyError when it has none for this dialect."""
    found = [
        operation.checksum(connection) for operation in migration.operations if isinstance(operation, SQL)
    ]
    return hashlib.sha256("".join(found).encode()).hexdigest() if found else None


def edited(using: str, loader: MigrationLoader | None = None) -> list[tuple[Key, str]]:
    """The applied migrations whose SQL is another one now, with what to restore."""
    connection = connections[using]
    loader = loader or MigrationLoader(connection)
    stored = known(connection)
    return [
        (key, _source(migration))
        for key, migration in _applied(loader)
        if key in stored and of(migration, connection) not in (None, stored[key])
    ]


def known(connection: Any) -> dict[Key, str]:
    model = records.checksum_model()
    if not records.exists(connection, model):
        return {}
    rows = records.rows(connection, model).values_list("app", "name", "checksum")
    return {(app, name): checksum for app, name, checksum in rows}


def adopt(connection: Any, loader: MigrationLoader) -> list[Key]:
    """Take the SQL of today for what was applied without us (by --fake, or before). Returns the adopted."""
    stored = known(connection)
    found = [key for key, migration in _applied(loader) if key not in stored and of(migration, connection)]
    for key in found:
        store(connection, loader.disk_migrations[key])
    return found


def prepare(connection: Any, migration: Migration) -> None:
    """Make the table, before the transaction of the migration, in which SQLite's cannot be made."""
    if any(isinstance(operation, SQL) for operation in migration.operations):
        records.ensure(connection, records.checksum_model())


def store(connection: Any, migration: Migration) -> None:
    """Does nothing for a migration without SQL of ours."""
    checksum = of(migration, connection)
    if checksum:
        if not connection.in_atomic_block:
            prepare(connection, migration)
        records.rows(connection, records.checksum_model()).update_or_create(
            app=migration.app_label, name=migration.name, defaults={"checksum": checksum}
        )


def drop(connection: Any, migration: Migration) -> None:
    if any(isinstance(operation, SQL) for operation in migration.operations):
        model = records.checksum_model()
        if records.exists(connection, model):
            records.rows(connection, model).filter(app=migration.app_label, name=migration.name).delete()


def _applied(loader: MigrationLoader) -> list[tuple[Key, Migration]]:
    return [
        (key, loader.disk_migrations[key])
        for key in sorted(loader.applied_migrations)
        if key in loader.disk_migrations
        and any(isinstance(operation, SQL) for operation in loader.disk_migrations[key].operations)
    ]


def _source(migration: Migration) -> str:
    return ", ".join(operation.source for operation in migration.operations if isinstance(operation, SQL))

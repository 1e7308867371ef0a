"""Restoring: what would be replaced is said first; then all of it comes or the old stays, and it is compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import DatabaseError
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from orm_app import migration_lock
from orm_app.conf import conf
from orm_app.slow.capture import ignored

from . import engines, files, history
from .files import Progress
from .manifest import BackupFailed, Manifest, differences, refuse
from .verifying import _quiet


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore does. replaced: the tables that are there now, with their rows."""

    path: Path
    alias: str
    database: str
    known: Manifest
    age: timedelta
    replaced: tuple[tuple[str, int], ...]

    @property
    def is_elsewhere(self) -> bool:
        return (self.alias, self.database) != (self.known.alias, self.known.database)


@dataclass(frozen=True, slots=True)
class Restored:
    """pending: migrations that the code has and the restored database has not, "app.name"."""

    alias: str
    tables: int
    rows: int
    took_s: float
    is_verified: bool
    pending: tuple[str, ...]
    notes: tuple[str, ...]


@ignored()
def plan(path: Path, *, alias: str | None = None, progress: Progress | None = None) -> Plan:
    """Raises BackupFailed for a damaged file, another engine, or a server older than the backup's."""
    path = path.absolute()
    known = files.intact(path, progress)
    connection = engines.connection(alias or known.alias)
    engine = engines.of(connection)
    if connection.vendor != known.engine:
        raise BackupFailed(
            f"{path.name} is of {known.engine}, and {connection.alias} is {connection.vendor}",
            "Restore into a database of that engine: --database.",
        )
    try:
        version = engine.version(connection)
        replaced = tuple(engine.present(connection))
    except DatabaseError as error:
        raise BackupFailed(f"database: {str(error).strip().splitlines()[0]}") from error
    if engine.major(known.server_version) > engine.major(version):
        raise BackupFailed(
            f"{path.name} is of server version {known.server_version}, newer than {version} of {connection.alias}",
            "Restore into a server of that version or newer.",
        )
    age = timezone.now() - datetime.fromisoformat(known.taken_at)
    return Plan(path, connection.alias, str(connection.settings_dict["NAME"]), known, age, replaced)


@ignored()
def restore(
    path: Path,
    *,
    alias: str | None = None,
    actor: Any,
    source: str,
    keep_owners: bool | None = None,
    progress: Progress | None = None,
) -> Restored:
    """keep_owners: PostgreSQL's owners and grants; None: when the account is the one that dumped. Raises BackupFailed."""
    chosen, began = plan(path, alias=alias, progress=progress), time.monotonic()
    connection = engines.connection(chosen.alias)
    engine, told = engines.of(connection), progress or _quiet
    if connection.in_atomic_block:
        raise BackupFailed("a restore cannot run inside a transaction")
    try:
        with migration_lock.held(
            connection, wait_s=conf().MIGRATE_WAIT_S, tell=lambda text: told(text, 0, None)
        ):
            if keep_owners is None:
                keep_owners = engine.account(connection) == chosen.known.account
            made = engine.replace(connection, chosen.path, chosen.known, told, keep_owners=keep_owners)
    except migration_lock.LockNotFree as error:
        raise BackupFailed(str(error), "Wait for the migrate to end.") from error
    except DatabaseError as error:
        raise BackupFailed(f"database: {str(error).strip().splitlines()[0]}") from error
    connection.close()
    if chosen.known.contents is not None:
        refuse(differences(chosen.known.contents, made.contents), "what was restored")
    result = Restored(
        alias=chosen.alias,
        tables=len(made.contents.tables),
        rows=made.contents.rows,
        took_s=round(time.monotonic() - began, 3),
        is_verified=chosen.known.contents is not None,
        pending=_pending(connection),
        notes=made.notes,
    )
    _record(chosen, result, actor=actor, source=source)
    return result


def _pending(connection: Any) -> tuple[str, ...]:
    executor = MigrationExecutor(connection)
    planned = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return tuple(f"{one.app_label}.{one.name}" for one, _ in planned)


def _record(chosen: Plan, result: Restored, *, actor: Any, source: str) -> None:
    after = {
        "file": str(chosen.path), "sha256": chosen.known.sha256, "taken_at": chosen.known.taken_at,
        "from": f"{chosen.known.alias} ({chosen.known.database})", "rows": result.rows,
        "replaced_tables": len(chosen.replaced), "replaced_rows": sum(rows for _, rows in chosen.replaced),
    }  # fmt: skip
    history.record("database.restore", chosen.alias, actor=actor, source=source, after=after)

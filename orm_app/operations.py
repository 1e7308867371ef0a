"""What people do to a database, each with its audit entry: the admin, the API and the commands call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.db import Error, connections, transaction

from foundation import audit

from . import asking, backup_checks, backups, explain, slow, sql_statements
from .backups import Backup, BackupFailed, files
from .explain import CannotExplain, Plan
from .slow import normal, stored
from .sql_statements import BadScript

_EXPLAIN_S, _ANALYZE_S = 3.0, 10.0
_READS = {"SELECT", "WITH", "VALUES", "TABLE"}


class NoSuchBackup(LookupError):
    """BACKUP_DIR has none of this name."""


def clear_slow(alias: str | None, **by: Any) -> int:
    """alias: None for all. Returns how many were dropped."""
    with transaction.atomic(stored.USING):
        dropped = slow.clear(alias)
        audit.record(
            action="database.slow_clear", target=f"database:{alias or '*'}", after={"rows": dropped}, **by
        )
    return dropped


def explained(alias: str, sql: str, *, analyze: bool, **by: Any) -> asking.Answer[Plan]:
    """Of a statement that reads. It runs with analyze only, in a read-only transaction that is rolled back, some seconds
    at most. The audit entry has its shape, without values. Raises CannotExplain."""
    vendor = connections[alias].vendor
    shape = normal.normalise(sql, vendor)
    if shape.lstrip("( ").partition(" ")[0].upper() not in _READS:
        raise CannotExplain(f"only a statement that reads is explained here: {', '.join(sorted(_READS))}")
    _refuse_into(sql, vendor)
    audit.record(
        action="database.explain", target=f"database:{alias}", after={"sql": shape, "analyze": analyze}, **by
    )
    limit_s = _ANALYZE_S if analyze else _EXPLAIN_S

    def ask() -> Plan:
        with _read_only(alias):
            return explain.of(alias, sql, analyze=analyze, timeout_s=limit_s)

    return asking.of(alias, f"explain-{uuid4()}", ask, limit_s + 1.0)


def begin_backup(alias: str, **by: Any) -> int:
    """In a process of its own; its pid. Raises BackupFailed."""
    pid = backups.start(alias, by=str(by["actor"]))
    audit.record(action="database.backup_begin", target=f"database:{alias}", after={"pid": pid}, **by)
    return pid


def begin_check(name: str, **by: Any) -> int:
    """Restores a backup beside its database, in a process of its own; its pid. Raises NoSuchBackup, BackupFailed."""
    found = backup(name)
    pid = backup_checks.start(found.path)
    audit.record(
        action="database.backup_verify", target=f"database:{found.alias}", after={"file": name}, **by
    )
    return pid


def delete_backup(name: str, **by: Any) -> None:
    """Raises NoSuchBackup, and BackupFailed for one that is being made or verified."""
    found = backup(name)
    if found.state == "running" or backup_checks.is_running(found.path):
        raise BackupFailed(f"{name} is in use: wait until it is made or verified")
    if found.state == "failed" and found.alias:
        files.forget_failed(found.path.parent, found.alias)
    files.remove(found.path)
    backup_checks.forget(found.path)
    audit.record(
        action="database.backup_delete", target=f"database:{found.alias}",
        before={"file": name, "size_bytes": found.size_bytes, "taken_at": found.taken_at}, **by,
    )  # fmt: skip


def backup(name: str) -> Backup:
    """By its name, as the list has it: a path leads nowhere. Raises NoSuchBackup."""
    found = next((one for one in backups.every() if one.name == name), None)
    if found is None:
        raise NoSuchBackup(f"there is no backup {Path(name).name!r}")
    return found


def _refuse_into(sql: str, vendor: str) -> None:
    """A file of the server's, which no transaction that only reads keeps MariaDB's ANALYZE from writing."""
    try:
        for token in sql_statements.tokens(sql, vendor):
            if token.kind == "word" and token.value.upper() == "INTO":
                raise CannotExplain("SELECT … INTO stores what it has found: leave INTO out")
            if token.kind == "text" and token.value.startswith("/*"):
                raise CannotExplain("/*! … */ runs on MySQL: leave it out")
    except BadScript as error:
        raise CannotExplain(str(error)) from error


@contextmanager
def _read_only(alias: str) -> Iterator[None]:
    """A transaction in which the server itself refuses writes, rolled back. SQLite only plans, and runs nothing."""
    vendor = connections[alias].vendor
    if vendor not in ("postgresql", "mysql"):
        yield
        return
    if vendor == "mysql":  # of the transaction that follows
        _execute(alias, "SET TRANSACTION READ ONLY")
    try:
        with transaction.atomic(alias):
            if vendor == "postgresql":
                _execute(alias, "SET TRANSACTION READ ONLY")
            yield
            transaction.set_rollback(True, alias)
    finally:
        if (
            vendor == "postgresql"
        ):  # no rollback gives a session's advisory locks back, and the pool lends it again
            with suppress(Error):
                _execute(alias, "SELECT pg_advisory_unlock_all()")


def _execute(alias: str, sql: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)

"""migrate and rollback as the site does them: one at a time, within limits, checked before and audited after."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import DeleteModel, RemoveField, RunPython, RunSQL
from django.db.migrations.recorder import MigrationRecorder

from foundation import audit
from foundation.models import AuditEntry

from . import (
    checksums,
    migration_gate,
    migration_journal,
    migration_limits,
    migration_lock,
    migration_plan,
    mongo,
)
from .conf import conf
from .migration_executor import Run
from .migration_limits import Limits
from .migration_plan import Plan
from .migration_records import Key
from .slow.capture import ignored
from .sql_statements import DIALECTS
from .topology import topology

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds. lint: "off", "warn" or "refuse". accept_checksum, start_over: "app.name" of migrations.

    way: "forwards" or "backwards" when nothing may go the other way; "": as the target says, as in Django's migrate.
    """

    wait_s: float
    limits: Limits
    lint: str
    may_resume: bool = False
    accept_checksum: tuple[str, ...] = ()
    start_over: tuple[str, ...] = ()
    way: str = ""


def options(given: Mapping[str, Any]) -> Options:
    """Of a command line, with the settings for what it does not say."""
    limits = Limits(
        _or(given.get("lock_timeout"), conf().MIGRATE_LOCK_TIMEOUT_S),
        _or(given.get("statement_timeout"), conf().MIGRATE_STATEMENT_TIMEOUT_S),
        _or(given.get("lock_retries"), conf().MIGRATE_LOCK_RETRIES),
    )
    return Options(
        wait_s=_or(given.get("wait"), conf().MIGRATE_WAIT_S),
        limits=limits,
        lint=given.get("lint") or migration_gate.mode(),
        may_resume=bool(given.get("resume")),
        accept_checksum=tuple(given.get("accept_checksum") or ()),
        start_over=tuple(given.get("start_over") or ()),
        way=given.get("way") or "",
    )


@contextmanager
def guarded(using: str, chosen: Options, *, actor: Any, source: str, tell: Tell) -> Iterator[Run]:
    """Locked and within limits while the block runs; the Run is for the executor. Raises CommandError."""
    refuse_replica(using)
    connection = connections[using]
    run = Run(limits=chosen.limits, may_resume=chosen.may_resume, tell=tell)
    try:
        with (
            ignored(),  # it says by itself what takes long
            mongo.errors_as_djangos_on(using),
            migration_lock.held(connection, wait_s=chosen.wait_s, tell=tell) as run.lock,
            migration_limits.applied(connection, chosen.limits),
        ):
            _start_over(using, chosen.start_over, actor=actor, source=source)
            _accept(using, chosen.accept_checksum, actor=actor, source=source)
            run.before = lambda executor, plan: _check(executor, plan, chosen, tell)
            yield run
    except OperationalError as error:
        if not mongo.is_on(using):
            raise
        raise CommandError(f"{using}: {error}") from error
    except migration_lock.LockNotFree as error:
        raise CommandError(f"{error}. Wait longer with --wait SECONDS.") from error
    except (migration_lock.LockLost, migration_lock.CannotLock) as error:
        raise CommandError(str(error)) from error


def refuse_replica(using: str) -> None:
    """Raises CommandError."""
    primary = topology().primaries.get(using)
    if primary is not None:
        raise CommandError(
            f"{using} is a replica of {primary}, whose changes come to it by themselves: write --database {primary}"
        )


def to(app: str | None = None, name: str | None = None, *, using: str = "default", **given: Any) -> list[Key]:
    """`manage.py migrate app name`; returns what was applied or unapplied, in that order."""
    ran: list[Key] = []
    arguments = [part for part in (app, name) if part is not None]
    call_command(
        "migrate", *arguments, database=using, ran=ran, **{"verbosity": 0, "interactive": False} | given
    )
    return ran


def operator() -> str:
    """Who runs the command, for the audit log. A container may give its user no name, and must still migrate."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def rollback(app: str, target: str, *, using: str = "default", **given: Any) -> list[Key]:
    """target: how many applied migrations to take back, or the name of the last that stays ("zero": none).

    Returns what was unapplied, the latest first. Raises NoSuchMigration, CommandError.
    """
    app, name = rollback_target(app, target, using=using)
    return to(app, name, using=using, **{"way": "backwards"} | given)


def rollback_target(app: str, target: str, *, using: str) -> tuple[str, str]:
    executor = MigrationExecutor(connections[using])
    if target.isdigit() and len(target) < 4:  # 0012 is the beginning of a name
        _, name = migration_plan.steps_back(executor, app, int(target))
        return app, name or migration_plan.ZERO
    if target == migration_plan.ZERO:
        return app, target
    return migration_plan.found(executor, app, target)


def rollback_plan(app: str, target: str, *, using: str) -> Plan:
    """Raises NoSuchMigration when it is not behind us."""
    executor = MigrationExecutor(connections[using])
    app, name = rollback_target(app, target, using=using)
    plan = executor.migration_plan(migration_plan.targets(executor, app, name))
    if any(not is_backwards for _, is_backwards in plan):
        raise migration_plan.NoSuchMigration(f"{app}.{name} is not applied: there is nothing to go back to")
    return plan


def losses(using: str, plan: Plan) -> list[str]:
    """What taking these back destroys: each table and column with the rows that are in it now."""
    connection = connections[using]
    executor = MigrationExecutor(connection)
    found: list[str] = []
    for migration, _ in plan:
        state = executor.loader.project_state((migration.app_label, migration.name))
        for operation in reversed(migration.operations):
            found += _loss(connection, migration, operation, state)
    return found


def applied(using: str) -> set[Key]:
    return set(MigrationRecorder(connections[using]).applied_migrations())


def record(ran: list[Key], using: str, *, action: str, actor: Any, source: str, **more: Any) -> None:
    """Into the audit log, where it exists: the first migrate makes it."""
    if AuditEntry._meta.db_table in connections["default"].introspection.table_names():
        after = {"migrations": [".".join(key) for key in ran], **more}
        audit.record(actor=actor, action=action, target=f"database:{using}", after=after, source=source)


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _check(executor: MigrationExecutor, plan: Plan, chosen: Options, tell: Tell) -> None:
    using = executor.connection.alias
    _refuse_other_way(plan, chosen.way)
    if executor.connection.vendor not in DIALECTS:
        return
    _refuse_edited(using, executor)
    checksums.adopt(executor.connection, executor.loader)
    _tell_unfinished(executor.connection, plan, tell)
    migration_gate.check(executor, plan, chosen.lint, tell)


def _refuse_other_way(plan: Plan, way: str) -> None:
    """Asked under the lock: while we waited for it, somebody may have gone past the target."""
    wrong = [one for one, is_backwards in plan if way and is_backwards != (way == "backwards")]
    if not wrong:
        return
    names = ", ".join(f"{one.app_label}.{one.name}" for one in wrong)
    if way == "backwards":
        raise CommandError(f"{names} is not applied: there is nothing to go back to.")
    raise CommandError(
        f"this would take {names} back, and what is in their tables: that is said with rollback."
    )


def _refuse_edited(using: str, executor: MigrationExecutor) -> None:
    edited = checksums.edited(using, executor.loader)
    if not edited:
        return
    lines = [f"{app}.{name} was edited after it was applied: {source}." for (app, name), source in edited]
    names = " ".join(f"--accept-checksum {app}.{name}" for (app, name), _ in edited)
    raise CommandError(
        "\n".join(lines)
        + "\nRestore what was applied (from version control) and put the change into a new migration."
        f"\nIf every database has the change already: `manage.py migrate {names}`."
    )


def _tell_unfinished(connection: Any, plan: Plan, tell: Tell) -> None:
    planned = {(one.app_label, one.name) for one, _ in plan}
    for broken in migration_journal.unfinished(connection):
        if broken.key not in planned:
            way = "rollback" if broken.is_backwards else "migration"
            tell(f"{'.'.join(broken.key)}: an earlier {way} stands half way; finish it with --resume.")


def _start_over(using: str, names: tuple[str, ...], *, actor: Any, source: str) -> None:
    for name in names:
        app, _, rest = name.partition(".")
        if not migration_journal.forget(connections[using], (app, rest)):
            raise CommandError(f"{name} does not stand half way: there is nothing to start over")
        record([(app, rest)], using, action="database.start_over", actor=actor, source=source)


def _accept(using: str, names: tuple[str, ...], *, actor: Any, source: str) -> None:
    if not names:
        return
    connection = connections[using]
    executor = MigrationExecutor(connection)
    edited = dict(checksums.edited(using, executor.loader))
    before = checksums.known(connection)
    for name in names:
        app, _, rest = name.partition(".")
        if (app, rest) not in edited:
            raise CommandError(f"{name} is not an edited migration: there is nothing to accept")
        checksums.store(connection, executor.loader.disk_migrations[app, rest])
        record(
            [(app, rest)], using, action="database.accept_checksum", actor=actor, source=source,
            was=before[app, rest], now=checksums.known(connection)[app, rest],
        )  # fmt: skip


def _loss(connection: Any, migration: Migration, operation: Any, state: Any) -> list[str]:
    """state: after the migration, as the database is now."""
    if isinstance(operation, RunSQL | RunPython):
        return [f"{migration}: what its own {operation.describe()!r} takes back is known to its author only"]
    model_name = getattr(
        operation, "name_lower" if not hasattr(operation, "model_name") else "model_name_lower", ""
    )
    kind = type(operation).__name__
    model = state.models.get((migration.app_label, model_name))
    if model is None or kind not in ("CreateModel", "AddField"):
        if isinstance(operation, DeleteModel | RemoveField):
            return [f"{migration}: {operation.describe()!r} is undone, but its rows do not come back"]
        return []
    table = model.options.get("db_table") or f"{migration.app_label}_{model.name_lower}"
    rows = _count(connection, table)
    if kind == "CreateModel":
        return [f"table {table}{rows}"]
    return [f"column {operation.name} of {table}{rows}"]


def _count(connection: Any, table: str) -> str:
    if mongo.is_on(connection.alias):
        count = connection.get_collection(table).estimated_document_count()
        return f" with {count:,} document{'' if count == 1 else 's'}"
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return ""
        cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608  (quoted)
        count = cursor.fetchone()[0]
    return f" with {count:,} row{'' if count == 1 else 's'}"

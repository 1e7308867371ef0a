"""What migrate or rollback would do, operation by operation, with the SQL of this database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import DatabaseError, connections
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError, NodeNotFoundError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import AmbiguityError

from .migration_executor import steps

ZERO = "zero"


class NoSuchMigration(LookupError):
    """The app or the migration is not there, or the name fits several. The message says which."""


@dataclass(frozen=True, slots=True)
class PlannedOperation:
    """sql: () when it cannot be known beforehand; `note` says why."""

    describes: str
    sql: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class PlannedMigration:
    app: str
    name: str
    is_backwards: bool
    is_atomic: bool  # in one transaction on this database
    operations: tuple[PlannedOperation, ...]


Plan = list[tuple[Migration, bool]]


def of(using: str, app: str | None = None, name: str | None = None) -> list[PlannedMigration]:
    """What `migrate app name` would do. Raises NoSuchMigration."""
    executor = MigrationExecutor(connections[using])
    return described(executor, executor.migration_plan(targets(executor, app, name)))


def targets(executor: MigrationExecutor, app: str | None, name: str | None) -> list[Any]:
    if app is None:
        return list(executor.loader.graph.leaf_nodes())
    if app not in executor.loader.migrated_apps:
        raise NoSuchMigration(f"no app {app!r} with migrations")
    if name is None:
        return list(executor.loader.graph.leaf_nodes(app))
    return [(app, None)] if name == ZERO else [found(executor, app, name)]


def found(executor: MigrationExecutor, app: str, name: str) -> tuple[str, str]:
    """The one migration whose name begins so."""
    try:
        return app, executor.loader.get_migration_by_prefix(app, name).name
    except AmbiguityError:
        raise NoSuchMigration(f"more than one migration of {app} begins with {name!r}") from None
    except KeyError:
        raise NoSuchMigration(f"{app} has no migration {name!r}") from None


def steps_back(executor: MigrationExecutor, app: str, count: int) -> tuple[str, str | None]:
    """The target that takes back the last `count` applied migrations of the app. Raises NoSuchMigration."""
    if app not in executor.loader.migrated_apps:
        raise NoSuchMigration(f"no app {app!r} with migrations")
    mine = [key for key in _in_order(executor, app) if key in executor.loader.applied_migrations]
    if count < 1 or count > len(mine):
        raise NoSuchMigration(f"{app} has {len(mine)} applied migrations: give 1 to {len(mine)}, or a name")
    return (app, None) if count == len(mine) else mine[-count - 1]


def _in_order(executor: MigrationExecutor, app: str) -> list[tuple[str, str]]:
    full = executor.migration_plan(executor.loader.graph.leaf_nodes(app), clean_start=True)
    return [(one.app_label, one.name) for one, _ in full if one.app_label == app]


def described(executor: MigrationExecutor, plan: Plan) -> list[PlannedMigration]:
    return list(_described(executor, plan))


def _described(executor: MigrationExecutor, plan: Plan) -> Iterable[PlannedMigration]:
    connection = executor.connection
    for migration, is_backwards in plan:
        key = (migration.app_label, migration.name)
        try:
            state = executor.loader.project_state(key, at_end=False)
        except NodeNotFoundError:  # a squashed one that is partly applied
            continue
        operations = _collect(connection, migration, state, is_backwards)
        is_atomic = bool(connection.features.can_rollback_ddl and migration.atomic)
        yield PlannedMigration(*key, is_backwards, is_atomic, tuple(operations))


def _collect(connection: Any, migration: Migration, state: Any, is_backwards: bool) -> list[PlannedOperation]:
    editor = connection.schema_editor(collect_sql=True, atomic=False)
    editor.deferred_sql = []
    collected = []
    try:
        for operation, before, after in steps(migration, state, is_backwards):
            collected.append(_operation(editor, migration, operation, before, after, is_backwards))
    except IrreversibleError as error:
        return [PlannedOperation(one.describe(), (), str(error)) for one in migration.operations]
    if editor.deferred_sql:
        late = tuple(f"{str(sql).rstrip(';')};" for sql in editor.deferred_sql)
        collected.append(PlannedOperation("At the end", late, ""))
    return collected


def _operation(
    editor: Any, migration: Migration, operation: Any, before: Any, after: Any, is_backwards: bool
) -> PlannedOperation:
    if not operation.reduces_to_sql:
        return PlannedOperation(operation.describe(), (), "Python code: its SQL is known when it runs")
    start = len(editor.collected_sql)
    run = operation.database_backwards if is_backwards else operation.database_forwards
    try:
        run(migration.app_label, editor, before, after)
    except (DatabaseError, ValueError, FieldDoesNotExist) as error:
        # Django asks the database for the names of constraints, which an earlier migration of this plan will make.
        note = f"known when the migrations before it are applied ({str(error).strip().splitlines()[0]})"
        return PlannedOperation(operation.describe(), (), note)
    sql = tuple(str(text) for text in editor.collected_sql[start:])
    return PlannedOperation(operation.describe(), sql, "" if sql else "changes nothing in the database")

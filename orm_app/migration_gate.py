"""The lint over the site's migrations, and in front of migrate."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from . import sql_files
from .conf import conf
from .migration_lint import linting, operations
from .migration_lint.changes import ERROR, Finding, Subject
from .migration_lint.changes import made as tables_made
from .migration_records import Key
from .sql_operations import SQL
from .sql_statements import DIALECTS

OFF, WARN, REFUSE = "off", "warn", "refuse"
Tell = Callable[[str], None]


def mode() -> str:
    """The setting; unset: refuse in production, warn elsewhere."""
    return conf().MIGRATE_LINT or (REFUSE if getattr(settings, "PRODUCTION", False) else WARN)


def check(executor: MigrationExecutor, plan: Sequence[tuple[Migration, bool]], lint: str, tell: Tell) -> None:
    """Tell of the unsafe operations in the plan; raises CommandError for errors when it shall refuse them."""
    forward = {(one.app_label, one.name) for one, is_backwards in plan if not is_backwards}
    chosen = {key for key in forward if is_of_the_project(key[0])}
    vendor = executor.connection.vendor
    # A database without a migration has no rows, and nobody uses it.
    if lint == OFF or not chosen or vendor not in DIALECTS or not executor.loader.applied_migrations:
        return
    found = [one for one in findings(executor.loader, chosen, [vendor], run_together=True) if not one.allowed]
    for finding in found:
        tell(shown(finding))
    refused = [one for one in found if one.level == ERROR and one.app not in conf().MIGRATE_LINT_WARN_ONLY]
    if lint == REFUSE and refused:
        raise CommandError(
            f"{len(refused)} unsafe operation{'' if len(refused) == 1 else 's'}: nothing was migrated.\n"
            + "\n".join(shown(one) for one in refused)
            + "\nRewrite the migration, or write why it is safe into it: `# lint: allow RULE because REASON`. "
            "Once and for all of them: --lint warn."
        )


def findings(
    loader: MigrationLoader, chosen: Collection[Key], dialects: Sequence[str], *, run_together: bool = False
) -> list[Finding]:
    """run_together: the chosen ones run in one go, so that a table of an earlier one is still empty in a later one."""
    found: list[Finding] = []
    for dialect in dialects:
        found += _of_dialect(loader, chosen, dialect, run_together=run_together)
    return linting.together(found)


def is_of_the_project(app: str) -> bool:
    """Whether somebody here can edit its migrations: not what is installed into the interpreter."""
    path = Path(apps.get_app_config(app).path).resolve()
    return not any(part in ("site-packages", "dist-packages") for part in path.parts)


def project_apps(loader: MigrationLoader, *, with_platform: bool) -> set[str]:
    """The apps with migrations whose author reads the lint. The platform's own are looked at before its releases: two
    hundred findings in them would only hide the one that matters."""
    platform = () if with_platform else conf().MIGRATE_LINT_WARN_ONLY
    return {app for app in loader.migrated_apps if app not in platform and is_of_the_project(app)}


def allowed(migration: Migration) -> dict[str, str]:
    """Rule → reason: of its attribute `lint_allow`, its comments and its SQL files."""
    found: dict[str, str] = {}
    module = sys.modules.get(type(migration).__module__)
    if (
        module is not None
        and getattr(module, "Migration", None) is type(migration)
        and getattr(module, "__file__", None)
    ):
        found |= sql_files.allowances([inspect.getsource(module)])
    for operation in migration.operations:
        if isinstance(operation, SQL):
            texts = operation.sql
            found |= sql_files.allowances([texts] if isinstance(texts, str) else texts.values())
    return found | dict(getattr(migration, "lint_allow", {}))


def shown(finding: Finding) -> str:
    where = f"{finding.app}.{finding.migration} ({finding.dialect})"
    why = f"\n    allowed: {finding.allowed}" if finding.allowed else ""
    return f"{finding.level}: {where}: {finding.message} [{finding.rule}]\n    safe: {finding.rewrite}{why}"


def _of_dialect(
    loader: MigrationLoader, chosen: Collection[Key], dialect: str, *, run_together: bool
) -> list[Finding]:
    state = ProjectState(real_apps=loader.unmigrated_apps)
    made: set[str] = set()
    found: list[Finding] = []
    for key in _in_order(loader):
        migration = loader.graph.nodes[key]
        if key not in chosen:
            state = migration.mutate_state(state, preserve=False)
            continue
        found += _of_migration(migration, state, dialect, frozenset(made if run_together else ()), made)
    return found


def _of_migration(
    migration: Migration, state: ProjectState, dialect: str, empty: frozenset[str], made: set[str]
) -> list[Finding]:
    changes = operations.read(migration, state, dialect)
    made |= tables_made(changes, made)
    is_atomic = migration.atomic and dialect != "mysql"
    key = (migration.app_label, migration.name)
    return linting.judge(Subject(*key, dialect, is_atomic, tuple(changes), empty), allowed(migration))


def _in_order(loader: MigrationLoader) -> list[Key]:
    order: list[Key] = []
    seen: set[Any] = set()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for key in loader.graph.forwards_plan(leaf):
            if key not in seen:
                seen.add(key)
                order.append(key)
    return order

"""Where each app's migrations stand on a database: what is applied since when, what is pending, what broke half way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from . import asking, checksums, migration_gate, migration_journal, migration_plan
from .conf import conf
from .migration_journal import Broken
from .migration_lint.changes import ERROR, Finding
from .migration_plan import PlannedMigration
from .sql_statements import DIALECTS

_PATIENCE_S = 20.0  # of a plan: it is our own reckoning that takes so long, not the server

APPLIED, PENDING, EDITED, GONE = "applied", "pending", "edited", "gone"


@dataclass(frozen=True, slots=True)
class Row:
    """state: "applied", "pending", "edited" (its SQL is another one than was applied), "gone" (it has no file)."""

    app: str
    name: str
    state: str
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """rows: by app, in the order in which they are applied. findings: the lint's, of what is planned, on this dialect."""

    alias: str
    rows: tuple[Row, ...]
    planned: tuple[PlannedMigration, ...]
    findings: tuple[Finding, ...]
    unfinished: tuple[Broken, ...]

    @property
    def pending(self) -> int:
        return sum(row.state == PENDING for row in self.rows)

    @property
    def refused(self) -> int:
        """How many findings would stop `migrate` as this site is set."""
        if migration_gate.mode() != migration_gate.REFUSE:
            return 0
        spared = conf().MIGRATE_LINT_WARN_ONLY
        return sum(one.level == ERROR and not one.allowed and one.app not in spared for one in self.findings)


def asked(alias: str) -> asking.Answer[Standing]:
    """`of`, for a page."""
    return asking.once_up(alias, "migrations", lambda: of(alias), _PATIENCE_S)


def of(alias: str) -> Standing:
    """A fixed number of statements. Raises django.db.Error."""
    executor = MigrationExecutor(connections[alias])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return Standing(
        alias,
        tuple(_rows(executor)),
        tuple(migration_plan.described(executor, plan)),
        tuple(_findings(executor, {(one.app_label, one.name) for one, _ in plan})),
        tuple(migration_journal.unfinished(connections[alias])),
    )


def _rows(executor: MigrationExecutor) -> list[Row]:
    loader = executor.loader
    applied: Any = loader.applied_migrations
    edited = {key for key, _ in checksums.edited(executor.connection.alias, loader)}
    order = _in_order(executor)
    known = set(order)
    squashed = {old for one in loader.replacements.values() for old in one.replaces}
    gone = [key for key in applied if key not in known and key not in squashed]
    rows = [_row(key, applied, EDITED if key in edited else "") for key in order]
    rows += [_row(key, applied, GONE) for key in sorted(gone)]
    return sorted(rows, key=lambda row: row.app)  # a stable sort: within an app the order stays


def before(standing: Standing, key: tuple[str, str]) -> str:
    """The name of the app's migration before this one; "zero" for its first."""
    names = [row.name for row in standing.rows if row.app == key[0]]
    place = names.index(key[1]) if key[1] in names else 0
    return names[place - 1] if place else migration_plan.ZERO


def _row(key: tuple[str, str], applied: Any, state: str) -> Row:
    record = applied.get(key)
    at = getattr(record, "applied", None)
    return Row(*key, state or (PENDING if record is None else APPLIED), at)


def _in_order(executor: MigrationExecutor) -> list[tuple[str, str]]:
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True)
    return [(one.app_label, one.name) for one, _ in plan]


def _findings(executor: MigrationExecutor, chosen: set[tuple[str, str]]) -> list[Finding]:
    """As the gate in front of migrate sees them."""
    mine = {key for key in chosen if migration_gate.is_of_the_project(key[0])}
    vendor = executor.connection.vendor
    if not mine or vendor not in DIALECTS or not executor.loader.applied_migrations:
        return []
    return migration_gate.findings(executor.loader, mine, [vendor], run_together=True)

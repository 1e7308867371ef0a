"""`manage.py database plan|migrate|rollback|lint|make-sql`."""

from __future__ import annotations

import io
import time
from collections.abc import Sized
from dataclasses import asdict
from typing import Any

from django.apps import apps
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.loader import MigrationLoader

from foundation.commands import DEGRADED, FAILED, OK, BrainCommand, Failed
from orm_app import migrate, migration_gate, migration_plan, sql_modules
from orm_app.management.commands.migrate import add_options
from orm_app.migration_lint import linting
from orm_app.migration_lint.changes import ERROR, Finding
from orm_app.migration_plan import NoSuchMigration, PlannedMigration
from orm_app.sql_files import BadFiles
from orm_app.sql_statements import DIALECTS

_STYLES = {"error": "red", "warning": "yellow"}
_OURS = (
    "wait",
    "lock_timeout",
    "statement_timeout",
    "lock_retries",
    "resume",
    "start_over",
    "accept_checksum",
    "lint",
)


def define(command: BrainCommand) -> None:
    verbs = _Verbs(command)
    plan = command.verb("plan", verbs.plan, "What migrate would do, with the SQL of this database.")
    _add_target(plan)
    run = command.verb(
        "migrate", verbs.migrate, "`manage.py migrate`: one at a time, linted, resumed where it broke."
    )
    _add_target(run)
    add_options(run)
    back = command.verb(
        "rollback", verbs.rollback, "Take applied migrations back, after saying what is lost."
    )
    back.add_argument("app")
    back.add_argument("to", help="How many to take back; or the name of the last that stays, or zero.")
    back.add_argument(
        "--yes", action="store_true", help="Do it. Without this it is only said what would be lost."
    )
    _add_database(back)
    add_options(back)
    lint = command.verb(
        "lint", verbs.lint, "Unsafe operations with the safe rewrite. Exits 1 on errors, 3 on warnings."
    )
    lint.add_argument("app", nargs="?", help="Without it: the project's own apps.")
    lint.add_argument("name", nargs="?", help="The beginning of a migration's name.")
    lint.add_argument(
        "--dialect", action="append", choices=DIALECTS, help="Several may be given; without it all three."
    )
    lint.add_argument("--pending", action="store_true", help="Only what is not applied on --database.")
    lint.add_argument("--all", action="store_true", help="The platform's apps too (MIGRATE_LINT_WARN_ONLY).")
    lint.add_argument(
        "--show-allowed", action="store_true", help="Also what its author allowed, with the reason."
    )
    _add_database(lint)
    make = command.verb(
        "make-sql", verbs.make_sql, "Write migration modules for the files in an app's sql folder."
    )
    make.add_argument("app")
    make.add_argument("--check", action="store_true", help="Write nothing; exit 1 if something is missing.")


def _add_target(parser: Any) -> None:
    parser.add_argument("app", nargs="?")
    parser.add_argument("name", nargs="?", help="The beginning of a migration's name, or zero.")
    _add_database(parser)


def _add_database(parser: Any) -> None:
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="The alias.")


class _Verbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def plan(self, app: str | None, name: str | None, database: str, **options: Any) -> int:
        try:
            planned = migration_plan.of(database, app, name)
        except NoSuchMigration as error:
            raise Failed(str(error)) from error
        self._command.document({"database": database, "migrations": [asdict(one) for one in planned]})
        if not planned:
            self._command.line("Nothing to migrate.")
        for one in planned:
            self._show(one)
        return OK

    def migrate(self, app: str | None, name: str | None, database: str, **options: Any) -> int:
        return self._run(
            lambda **given: migrate.to(app, name, using=database, **given),
            database,
            "database.migrate",
            options,
        )

    def rollback(self, app: str, to: str, database: str, yes: bool, **options: Any) -> int:
        try:
            plan = migrate.rollback_plan(app, to, using=database)
        except NoSuchMigration as error:
            raise Failed(str(error)) from error
        names = [f"{one.app_label}.{one.name}" for one, _ in plan]
        lost = migrate.losses(database, plan)
        self._command.line(f"Takes back {', '.join(names) or 'nothing'} on {database}.")
        for line in lost:
            self._command.line(f"  lost: {line}", style="red")
        if not yes and names:
            self._command.document({"database": database, "would_unapply": names, "losses": lost})
            self._command.line(
                "Nothing was done. Take a backup, then run it again with --yes.", style="yellow"
            )
            return DEGRADED
        return self._run(
            lambda **given: migrate.rollback(app, to, using=database, **given), database, "database.rollback", options,
            losses=lost,
        )  # fmt: skip

    def lint(self, app: str | None, name: str | None, database: str, **options: Any) -> int:
        loader = MigrationLoader(connections[database] if options["pending"] else None)
        chosen = self._chosen(loader, app, name, is_pending=options["pending"], with_platform=options["all"])
        found = migration_gate.findings(loader, chosen, options["dialect"] or DIALECTS)
        if not options["show_allowed"]:
            found = [one for one in found if not one.allowed]
        worst = linting.worst(found)
        self._command.document({"migrations": len(chosen), "findings": [asdict(one) for one in found]})
        for finding in found:
            self._command.line(migration_gate.shown(finding), style=_style(finding))
        self._command.line(f"{_number(chosen, 'migration')}, {_number(found, 'finding')}.")
        return FAILED if worst == ERROR else DEGRADED if worst else OK

    def make_sql(self, app: str, check: bool, **options: Any) -> int:
        if app not in apps.app_configs:
            raise Failed(f"no app {app!r} is installed")
        try:
            modules = sql_modules.missing(app)
        except (sql_modules.CannotWrite, BadFiles) as error:
            raise Failed(str(error)) from error
        self._command.document(
            {"app": app, "migrations": [one.name for one in modules], "written": not check}
        )
        if not check:
            sql_modules.write(modules)
        for module in modules:
            self._command.line(f"{'missing' if check else 'wrote'} {module.path}")
        if not modules:
            self._command.line(f"Every file of {app} has its migration.")
        return FAILED if check and modules else OK

    def _run(self, work: Any, database: str, action: str, options: dict[str, Any], **more: Any) -> int:
        given = {name: options[name] for name in _OURS if options.get(name) is not None}
        began = time.monotonic()
        out: Any = (
            io.StringIO() if self._command.is_json else self._command.stdout._out
        )  # each wrapper ends what it gets with a line
        try:
            ran = work(verbosity=1, stdout=out, stderr=self._command.stderr, **given)
        except IrreversibleError as error:
            raise Failed(str(error), "Give the operation a reverse, or go back by hand.") from error
        except CommandError as error:
            raise Failed(str(error)) from error
        if ran:
            migrate.record(ran, database, action=action, actor=migrate.operator(), source="cli", **more)
        took_s = round(time.monotonic() - began, 3)
        self._command.document(
            {"database": database, "migrations": [".".join(key) for key in ran], "took_s": took_s}
        )
        return OK

    def _chosen(
        self,
        loader: MigrationLoader,
        app: str | None,
        name: str | None,
        *,
        is_pending: bool,
        with_platform: bool,
    ) -> set[Any]:
        if app is not None and app not in loader.migrated_apps:
            raise Failed(f"no app {app!r} with migrations")
        wanted = {app} if app else migration_gate.project_apps(loader, with_platform=with_platform)
        keys = {
            key
            for key in loader.graph.nodes
            if key[0] in wanted and (name is None or key[1].startswith(name))
        }
        if name is not None and not keys:
            raise Failed(f"{app} has no migration {name!r}")
        return keys - set(loader.applied_migrations) if is_pending else keys

    def _show(self, one: PlannedMigration) -> None:
        how = "one transaction" if one.is_atomic else "statement by statement: it can break half way"
        way = "take back" if one.is_backwards else "apply"
        self._command.line(f"{way} {one.app}.{one.name} ({how})", style="bold")
        for number, operation in enumerate(one.operations, 1):
            self._command.line(f"  {number}. {operation.describes}")
            for statement in operation.sql:
                self._command.line(f"       {statement}")
            if operation.note:
                self._command.line(f"       -- {operation.note}")


def _style(finding: Finding) -> str:
    return "dim" if finding.allowed else _STYLES[finding.level]


def _number(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"

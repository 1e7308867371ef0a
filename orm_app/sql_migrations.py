"""Up and down SQL as ordinary Django migrations.

    Migration(version="001", name="create_users_table", up_sql=…, down_sql=…) → registers itself with migration_manager
    → a django.db.migrations.Migration of the app label "sql" → migrate, showmigrations, sqlmigrate, routers

Declare them in an app's `sql_migrations.py`, which every command imports; "orm_app.sql_app" must be installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.migrations import Migration as DjangoMigration

from .awaiting import dual
from .sql_dialects import Texts

APP_LABEL = "sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of the schema. It runs after all declared ones of a lower version, and `depends_on` ((app, name), …).

    up_sql, down_sql: one text, in which SERIAL, JSONB, TIMESTAMPTZ and BYTEA are written as the database wants them,
    or a mapping of dialects (see sql_operations.SQL). Without down_sql it cannot be rolled back. atomic=False for
    what refuses a transaction, such as CREATE INDEX CONCURRENTLY. lint_allow: rule → reason. It runs in the database of
    the app whose module declares it; hints={"app": "billing"} says another, and all hints go to the routers.
    Raises ValueError for a version that exists with another content.
    """

    version: str
    name: str
    up_sql: Texts
    down_sql: Texts | None = None
    atomic: bool = True
    depends_on: tuple[tuple[str, str], ...] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)
    lint_allow: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d[\w.-]*", self.version):
            raise ValueError(
                f"a version begins with a digit, and holds letters, digits, . and -: {self.version!r}"
            )
        if not re.fullmatch(r"\w+", self.name):
            raise ValueError(f"a name holds letters, digits and _: {self.name!r}")
        migration_manager.register(
            self, module=sys._getframe(2).f_globals.get("__name__", "")
        )  # past __init__

    @property
    def key(self) -> str:
        """Its name among Django's: 001_create_users_table."""
        return f"{re.sub(r'[.-]', '_', self.version)}_{self.name}"

    @property
    def order(self) -> tuple[int, ...]:
        """1.9 comes before 1.10, and 2 before 010."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version))


@dataclass(frozen=True, slots=True)
class State:
    version: str
    name: str
    is_applied: bool
    is_edited: bool  # its SQL is not the one that was applied


class MigrationManager:
    """The declared migrations of this process. Each method works in sync code, and is awaited in a running loop."""

    def __init__(self) -> None:
        self._declared: dict[str, Migration] = {}
        self._modules: dict[str, str] = {}  # version → where it was declared first

    def register(self, migration: Migration, *, module: str = "") -> None:
        """`Migration(…)` does it. The same one twice is one. Raises ValueError."""
        known = self._declared.setdefault(migration.version, migration)
        if known != migration:
            raise ValueError(
                f"version {migration.version} is declared already, as {known.key} with other content"
            )
        self._modules.setdefault(migration.version, module)
        _forget_modules()

    def withdraw(self, version: str) -> None:
        self._declared.pop(version, None)
        self._modules.pop(version, None)
        _forget_modules()

    def declared(self) -> list[Migration]:
        return sorted(self._declared.values(), key=lambda migration: (migration.order, migration.version))

    def as_django(self, key: str) -> type[DjangoMigration] | None:
        """The Django migration of that name; None when nobody declared it."""
        before: list[tuple[str, str]] = []
        for migration in self.declared():
            if migration.key == key:
                return _as_django(migration, before, self._hints(migration))
            before = [(APP_LABEL, migration.key)]
        return None

    def _hints(self, migration: Migration) -> dict[str, Any]:
        """The router asks for the label "sql", which is mapped nowhere: the hint names the app."""
        app = apps.get_containing_app_config(self._modules.get(migration.version, ""))
        return ({"app": app.label} if app else {}) | dict(migration.hints)

    def apply_migrations(
        self, target: str | None = None, *, using: str = DEFAULT_DB_ALIAS, **options: Any
    ) -> Any:
        """Apply what is pending, up to the version `target`. Returns the names of the applied; never takes one back.

        options: those of `manage.py migrate` (resume, lock_timeout …). Raises what it raises: a CommandError that
        names the way out, or the database's own error.
        """
        return dual(lambda: self._apply(target, using, options), "migration_manager.apply_migrations")

    def rollback(self, steps: int = 1, *, to: str | None = None, using: str = DEFAULT_DB_ALIAS) -> Any:
        """Take back the last `steps` applied ones, or all after the version `to`. Returns their names, latest first."""
        return dual(lambda: self._rollback(steps, to, using), "migration_manager.rollback")

    def status(self, *, using: str = DEFAULT_DB_ALIAS) -> Any:
        """A State for each declared one."""
        return dual(lambda: self._status(using), "migration_manager.status")

    def _apply(self, target: str | None, using: str, options: dict[str, Any]) -> list[str]:
        from . import migrate

        _require_app()
        key = self._key(target)
        if (APP_LABEL, key) in migrate.applied(using):
            return []  # Django's migrate would take the later ones back
        return [name for _, name in migrate.to(APP_LABEL, key, using=using, **{"way": "forwards"} | options)]

    def _rollback(self, steps: int, to: str | None, using: str) -> list[str]:
        from . import migrate

        _require_app()
        target = (self._key(to) if to else None) or str(steps)
        return [name for _, name in migrate.rollback(APP_LABEL, target, using=using)]

    def _status(self, using: str) -> list[State]:
        from . import checksums, migrate

        applied = migrate.applied(using)
        edited = {key for key, _ in checksums.edited(using)}
        return [
            State(one.version, one.name, (APP_LABEL, one.key) in applied, (APP_LABEL, one.key) in edited)
            for one in self.declared()
        ]

    def _key(self, version: str | None) -> str | None:
        if version is None:
            return None
        if version not in self._declared:
            raise ValueError(f"no migration with version {version!r} is declared")
        return self._declared[version].key


def _as_django(
    migration: Migration, before: list[tuple[str, str]], hints: dict[str, Any]
) -> type[DjangoMigration]:
    from .sql_operations import SQL

    body = {
        "__module__": __name__,
        "__doc__": f"{migration.key}, declared as SQL.",
        "dependencies": before + list(migration.depends_on),
        "operations": [SQL(migration.up_sql, migration.down_sql, hints=hints)],
        "atomic": migration.atomic,
        "lint_allow": dict(migration.lint_allow),
    }
    return type("Migration", (DjangoMigration,), body)


def _forget_modules() -> None:
    from .sql_app import finder

    finder.forget()


def _require_app() -> None:
    if not apps.is_installed("orm_app.sql_app"):
        raise ImproperlyConfigured(
            "Add 'orm_app.sql_app' to INSTALLED_APPS: it is the app of declared migrations."
        )


migration_manager = MigrationManager()

"""`manage.py database`: the state of every configured database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from foundation.commands import DEGRADED, FAILED, OK, BrainCommand
from orm_app import status
from orm_app.management import (
    database_backups,
    database_bench,
    database_health,
    database_locks,
    database_migrations,
    database_shell,
    database_slow,
)

_EXIT_CODES = {"ok": OK, "degraded": DEGRADED, "down": FAILED}
_STYLES = {"ok": "green", "degraded": "yellow", "down": "red"}


class Command(BrainCommand):
    help = "Show the databases: state, server, version, pool and pending migrations. Exits 1 if down, 3 if degraded."
    is_brief = True
    requires_system_checks = ()  # its reader looks for what is wrong: a failing check must not hide it

    def define(self, parser: CommandParser) -> None:
        database_migrations.define(self)
        database_health.define(self)
        database_slow.define(self)
        database_locks.define(self)
        database_backups.define(self)
        database_shell.define(self)
        database_bench.define(self)

    def bare(self, **options: Any) -> int:
        with self.progress("asking the databases"):
            found = status.every()
        self.document({"databases": [asdict(one) for one in found]})
        columns = ["alias", "engine", "name", "server", "version", "pool", "pending", "took_ms", "state"]
        self.table(columns, [_row(one) for one in found])
        for one in found:
            if one.state != "ok":
                self.line(f"{one.alias}: {one.detail}", style=_STYLES[one.state])
        states = {one.state for one in found}
        return _EXIT_CODES[next((state for state in ("down", "degraded") if state in states), "ok")]


def _row(one: status.Status) -> list[Any]:
    pool = f"{one.pool['size']}/{one.pool['max']}" if one.pool else None
    return [
        one.alias,
        one.engine,
        one.name,
        one.server or None,
        one.version,
        pool,
        one.pending_migrations,
        one.took_ms,
        one.state,
    ]

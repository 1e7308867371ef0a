"""`manage.py database`: the state of every configured database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.db import connections

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
_PATIENCE_S = 3.0  # as the probe's of `health`
_STYLES = {"ok": "green", "degraded": "yellow", "down": "red"}


class Command(BrainCommand):
    help = "Show the databases: state, server, version, pool and pending migrations. Exits 1 if down, 3 if degraded."
    requires_system_checks = ()  # its reader looks for what is wrong: a failing check must not hide it

    def define(self, parser: CommandParser) -> None:
        database_migrations.define(self)
        database_health.define(self)
        database_slow.define(self)
        database_locks.define(self)
        database_backups.define(self)
        database_shell.define(self)
        database_bench.define(self)

    def handle(self, *args: Any, **options: Any) -> None:
        with _impatient():
            super().handle(*args, **options)

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


@contextmanager
def _impatient() -> Iterator[None]:
    """Nobody else uses a command's pools: who waits for a connection waits for a server that is away, and is told so by
    the command itself. MySQL's pool raises at once in that case."""
    log = logging.getLogger("psycopg.pool")
    level, patient = log.level, []
    for alias in connections:
        settings = connections.settings[alias]
        pool = settings.get("OPTIONS", {}).get("pool")
        if pool and settings["ENGINE"].endswith("postgresql"):
            given = {} if pool is True else pool
            patient.append((settings["OPTIONS"], pool))
            settings["OPTIONS"]["pool"] = given | {
                "timeout": min(given.get("timeout", _PATIENCE_S), _PATIENCE_S)
            }
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for options, pool in patient:
            options["pool"] = pool


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

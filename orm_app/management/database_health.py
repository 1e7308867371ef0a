"""`manage.py database health|pools`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db import connections

from foundation import figures
from foundation.commands import DEGRADED, FAILED, OK, BrainCommand
from orm_app import checkup_findings, checkups, pools
from orm_app.checkups import Checkup, Table

_EXIT_CODES = {checkup_findings.OK: OK, checkup_findings.WARN: DEGRADED, checkup_findings.BAD: FAILED}
_STYLES = {checkup_findings.OK: "green", checkup_findings.WARN: "yellow", checkup_findings.BAD: "red"}
_COLUMNS = ("alias", "in_use", "size", "max_size", "waiting", "requests_num", "queued_num", "errors_num", "wait_ms", "lost_num")  # fmt: skip


def define(command: BrainCommand) -> None:
    verbs = _Verbs(command)
    health = command.verb(
        "health",
        verbs.health,
        "What a DBA looks at first, with what to do. Exits 1 if bad, 3 if something is off.",
    )
    health.add_argument("--database", choices=tuple(connections), help="Only this alias.")
    health.add_argument(
        "--integrity", action="store_true", help="SQLite: read the whole file and see whether it is sound."
    )
    command.verb("pools", verbs.pools, "The connection pools of this process. Exits 3 while callers wait.")


class _Verbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def health(self, database: str | None, integrity: bool, **_: Any) -> int:
        with self._command.progress("looking at the databases"):
            aliases = [database] if database else list(connections)
            found = [checkups.of(alias, integrity=integrity) for alias in aliases]
        self._command.document({"databases": [asdict(one) for one in found]})
        for one in found:
            self._show(one)
        codes = {_EXIT_CODES[one.state] for one in found}
        return FAILED if FAILED in codes else DEGRADED if DEGRADED in codes else OK

    def _show(self, one: Checkup) -> None:
        size = f", {figures.size(one.size_bytes)}" if one.size_bytes is not None else ""
        self._command.line(f"{one.alias}: {one.engine} {one.version or ''}{size}".rstrip(), style="bold")
        for found in one.findings:
            self._command.line(f"  {found.level:<4}  {found.name}: {found.text}", style=_STYLES[found.level])
            if found.hint:
                self._command.line(f"        {found.hint}", style="dim")
        if one.tables:
            self._command.table(["table", "rows", "size"], [_row(table) for table in one.tables])

    def pools(self, **_: Any) -> int:
        found = pools.stats()
        self._command.document({"pools": [asdict(one) | {"in_use": one.in_use} for one in found]})
        if not found:
            self._command.line("No database of this site has a pool.")
            return OK
        self._command.table(list(_COLUMNS), [[getattr(one, name) for name in _COLUMNS] for one in found])
        self._command.line("Those of this command; a web process shows its own at /metrics.", style="dim")
        return DEGRADED if any(one.waiting for one in found) else OK


def _row(table: Table) -> list[Any]:
    rows = None if table.rows is None else f"{table.rows:,}"
    size = None if table.size_bytes is None else figures.size(table.size_bytes)
    return [table.name, rows, size]

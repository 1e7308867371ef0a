"""`manage.py database locks`, `locks cancel ID` and `locks end ID --yes`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from foundation import figures
from foundation.commands import DEGRADED, OK, BrainCommand, Failed
from orm_app import locks, migrate
from orm_app.locks import Locks, Session

_COLUMNS = [
    "id",
    "state",
    "waits",
    "blocked_by",
    "in_transaction",
    "user",
    "application",
    "waits_for",
    "statement",
]


def define(command: BrainCommand) -> None:
    verbs = _Verbs(command)
    parser = command.verb(
        "locks",
        verbs.show,
        "Who waits for whom, and who is long in a transaction. Exits 3 when somebody waits for long.",
    )
    _add_database(parser)
    parser.add_argument(
        "--wait", type=float, default=5.0, metavar="S", help="From how many seconds a wait is long (5)."
    )
    parser.add_argument("--watch", type=float, metavar="S", help="Again every S seconds, until Ctrl-C.")
    group = parser.add_subparsers(title="subcommands", metavar="")
    cancel = command.action(group, "cancel", verbs.cancel, "End a session's statement.")
    end = command.action(group, "end", verbs.end, "Close a session; its transaction is rolled back.")
    end.add_argument("--yes", action="store_true", help="Do it. Without this it is only shown.")
    for one in (cancel, end):
        one.add_argument("id", type=int, help="As `database locks` shows it.")
        _add_database(one)


def _add_database(parser: Any) -> None:
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="The alias.")


class _Verbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def show(self, database: str, wait: float, watch: float | None, **_: Any) -> int:
        while True:
            found = locks.every(database)
            if watch is not None:
                self._command.line(f"\n{time.strftime('%H:%M:%S')}", style="bold")
            self._show(found)
            if watch is None or self._command.is_json:
                return DEGRADED if found.longest_wait_s >= wait else OK
            time.sleep(max(0.2, watch))

    def cancel(self, id: int, database: str, **_: Any) -> int:
        return self._done(locks.cancel, database, id, "statement")

    def end(self, id: int, database: str, yes: bool, **_: Any) -> int:
        if yes:
            return self._done(locks.end, database, id, "session")
        found = next((one for one in locks.every(database).sessions if one.id == id), None)
        self._command.document({"would_end": asdict(found) if found else id})
        what = (
            f"{found.user} {found.application}, {found.state}: {found.sql}"
            if found
            else "not among those that wait"
        )
        self._command.line(
            f"Session {id} ({what}) would be closed. Nothing was done: run it again with --yes.",
            style="yellow",
        )
        return DEGRADED

    def _done(self, action: Any, database: str, id: int, what: str) -> int:
        try:
            found = action(database, id, actor=migrate.operator(), source="cli")
        except locks.NoSuchSession as error:
            raise Failed(str(error), "`manage.py database locks` lists them.") from error
        self._command.document({"ended": what, "session": asdict(found)})
        self._command.line(f"The {what} of {id} was ended ({found.user} {found.application}).")
        return OK

    def _show(self, found: Locks) -> None:
        document = asdict(found) | {"waiting": found.waiting, "longest_wait_s": found.longest_wait_s}
        self._command.document(document)
        if found.sessions:
            self._command.table(_COLUMNS, [_row(one) for one in found.sessions])
        elif not found.facts and not found.notes:
            self._command.line("Nobody waits, and no transaction is long.")
        for name, value in found.facts.items():
            self._command.line(f"{name.replace('_', ' ')}: {_said(value)}")
        for note in found.notes:
            self._command.line(note, style="yellow")


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{name} {one}" for name, one in value.items() if one)
    return (", ".join(map(_said, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _row(one: Session) -> list[Any]:
    return [
        one.id,
        one.state,
        None if one.waiting_s is None else figures.duration(one.waiting_s),
        ", ".join(map(str, one.blocked_by)) or None,
        None if one.transaction_s is None else figures.duration(one.transaction_s),
        one.user,
        one.application or one.client or None,
        one.waits_for or None,
        one.sql[:80] or None,
    ]

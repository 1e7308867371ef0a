"""`manage.py database backup|backups|verify|restore`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from foundation import figures
from foundation.commands import DEGRADED, FAILED, OK, BrainCommand, Failed
from orm_app import backups, migrate
from orm_app.backups import Backup, BackupFailed, Plan, Progress

_STYLES = {"ok": "green", "running": "yellow", "failed": "red"}
_TABLES_SHOWN = 20


def define(command: BrainCommand) -> None:
    verbs = _Verbs(command)
    take = command.verb(
        "backup", verbs.backup, "Back a database up, and restore the copy beside it to be sure of it."
    )
    _add_database(take, default=DEFAULT_DB_ALIAS)
    take.add_argument("--output", type=Path, help="The file; without it a new one in BACKUP_DIR.")
    take.add_argument("--keep", type=int, help="Remove older ones of this database beyond so many (0: none).")
    take.add_argument(
        "--no-verify", action="store_true", help="Do not restore the copy into a scratch database."
    )
    take.add_argument("--by", default="", help="Whom the audit log names; the admin's backups are told so.")
    command.verb("backups", verbs.backups, "The backups that there are, are being made, or failed.")
    check = command.verb("verify", verbs.verify, "Restore a backup into a scratch database and compare.")
    check.add_argument("file", type=Path, help="A path, or a name in BACKUP_DIR.")
    _add_database(check)
    back = command.verb(
        "restore", verbs.restore, "Replace a database's contents by a backup, after saying what goes."
    )
    back.add_argument("file", type=Path, help="A path, or a name in BACKUP_DIR.")
    _add_database(back)
    back.add_argument("--yes", action="store_true", help="Do it. Without this it is only said what would go.")
    back.add_argument(
        "--no-owner", action="store_true", help="PostgreSQL: everything belongs to the account used."
    )


def _add_database(parser: Any, default: str | None = None) -> None:
    text = "The alias." if default else "The alias; without it the one that the backup is of."
    parser.add_argument("--database", default=default, choices=tuple(connections), help=text)


class _Verbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def backup(
        self, database: str, output: Path | None, keep: int | None, no_verify: bool, by: str, **_: Any
    ) -> int:
        with _failures(), _stoppable(), self._steps() as progress:
            made = backups.take(
                database, output=output, keep=keep, is_verified=not no_verify, progress=progress,
                actor=by or migrate.operator(), source="admin" if by else "cli",
            )  # fmt: skip
        self._command.document(made.as_dict())
        self._command.line(f"{made.path}")
        self._command.line(
            f"{figures.size(made.size_bytes)}, {_rows(made)}, {made.took_s:.1f} s; {_verified(made)}."
        )
        self._notes(made.detail)
        return OK

    def backups(self, **_: Any) -> int:
        with _failures():
            found = backups.every()
        self._command.document({"backups": [one.as_dict() for one in found]})
        columns = ["name", "database", "taken_at", "size", "rows", "verified", "state"]
        if found:
            self._command.table(columns, [_row(one) for one in found])
        else:
            self._command.line("There are no backups. Make one: `manage.py database backup`.")
        for one in found:
            if one.state != "ok":
                self._command.line(f"{one.name}: {one.detail}", style=_STYLES[one.state])
        return DEGRADED if any(one.state == "failed" for one in found) else OK

    def verify(self, file: Path, database: str | None, **_: Any) -> int:
        with _failures(), _stoppable(), self._steps() as progress:
            found = backups.verify(_found(file), alias=database, progress=progress)
        self._command.document(found.as_dict())
        self._command.line(f"{found.name}: {_rows(found)}; {_verified(found)}.")
        self._notes(found.detail)
        return OK if found.verified == "restored" else DEGRADED

    def restore(self, file: Path, database: str | None, yes: bool, no_owner: bool, **_: Any) -> int:
        with _failures(), _stoppable(), self._steps() as progress:
            plan = backups.plan(_found(file), alias=database, progress=progress)
        self._show(plan)
        if not yes:
            self._command.document(_as_document(plan))
            self._command.line("Nothing was done. Run it again with --yes.", style="yellow")
            return DEGRADED
        with _failures(), _stoppable(), self._steps() as progress:
            made = backups.restore(
                plan.path, alias=plan.alias, keep_owners=False if no_owner else None, progress=progress,
                actor=migrate.operator(), source="cli",
            )  # fmt: skip
        self._command.document(asdict(made))
        compared = (
            "compared with the manifest" if made.is_verified else "not compared: the manifest has no contents"
        )
        self._command.line(
            f"Restored {made.tables} tables with {made.rows:,} rows into {made.alias} in {made.took_s:.1f} s; {compared}."
        )
        self._notes("; ".join(made.notes))
        if made.pending:
            self._command.line(
                f"{len(made.pending)} migrations are pending now: {', '.join(made.pending[:5])}"
                f"{' …' if len(made.pending) > 5 else ''}. Run `manage.py migrate`.", style="yellow",
            )  # fmt: skip
        return OK

    def _show(self, plan: Plan) -> None:
        known = plan.known
        rows = (
            f", {known.contents.rows:,} rows in {len(known.contents.tables)} tables" if known.contents else ""
        )
        self._command.line(
            f"The backup: {known.alias} ({known.database}) on {known.engine} {known.server_version}, "
            f"{_age(plan.age)} old{rows}; {_how(known.verified)}."
        )
        if plan.is_elsewhere:
            self._command.line(
                f"It is of another database than {plan.alias} ({plan.database}).", style="yellow"
            )
        if not plan.replaced:
            self._command.line(f"{plan.alias} ({plan.database}) has no tables: nothing is replaced.")
            return
        total = sum(count for _, count in plan.replaced)
        self._command.line(
            f"Replaces {len(plan.replaced)} tables with {total:,} rows of {plan.alias} ({plan.database}):",
            style="red",
        )
        most = sorted((table for table in plan.replaced if table[1]), key=lambda table: -table[1])
        for name, count in most[:_TABLES_SHOWN]:
            self._command.line(f"  {name}: {count:,} rows", style="red")
        if len(most) > _TABLES_SHOWN:
            self._command.line(f"  and {len(most) - _TABLES_SHOWN} more", style="red")

    def _notes(self, text: str) -> None:
        if text:
            self._command.line(f"Note: {text}.", style="yellow")

    @contextmanager
    def _steps(self) -> Iterator[Progress]:
        """A bar for each step of the work."""
        with ExitStack() as stack:
            current: dict[str, Any] = {"step": None, "done": 0, "advance": None}

            def progress(step: str, done: int, total: int | None) -> None:
                if step != current["step"]:
                    stack.close()
                    advance = stack.enter_context(self._command.progress(step, total))
                    current.update(step=step, done=0, advance=advance)
                if done > current["done"]:
                    current["advance"](done - current["done"])
                    current["done"] = done

            yield progress


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BackupFailed as error:
        raise Failed(str(error), error.hint, FAILED) from error


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: the programs that were started end too, and nothing half done stays."""

    def stop(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    try:
        was = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, was)


def _found(file: Path) -> Path:
    """A bare name is one of BACKUP_DIR, unless it is here."""
    if file.exists() or len(file.parts) > 1:
        return file
    return backups.directory() / file


def _as_document(plan: Plan) -> dict[str, Any]:
    return {
        "file": str(plan.path), "database": plan.alias, "from": plan.known.alias, "taken_at": plan.known.taken_at,
        "age_s": int(plan.age.total_seconds()), "would_replace": dict(plan.replaced),
    }  # fmt: skip


def _row(one: Backup) -> list[Any]:
    size = None if one.size_bytes is None else figures.size(one.size_bytes)
    return [one.name, one.alias, one.taken_at, size, one.rows, one.verified, one.state]


def _rows(made: Backup) -> str:
    return "rows not counted" if made.rows is None else f"{made.rows:,} rows in {made.tables} tables"


def _verified(made: Backup) -> str:
    return _how(made.verified)


def _how(verified: str) -> str:
    return {"restored": "restored and compared", "archive": "only its archive was read"}.get(
        verified, "not verified"
    )


def _age(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} seconds"

"""`manage.py database slow|explain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db import DEFAULT_DB_ALIAS, OperationalError, ProgrammingError, connections
from django.forms.models import model_to_dict

from foundation import figures
from foundation.commands import DEGRADED, OK, BrainCommand, Failed
from orm_app import explain, migrate, operations, slow
from orm_app.explain import Plan
from orm_app.models import SlowQuery
from orm_app.slow import server, stored

_COLUMNS = [
    "fingerprint",
    "kind",
    "alias",
    "count",
    "total",
    "mean",
    "max",
    "last_seen",
    "call_site",
    "statement",
]
_SERVER_COLUMNS = ["count", "total", "mean", "max", "rows", "statement"]


def define(command: BrainCommand) -> None:
    verbs = _Verbs(command)
    parser = command.verb(
        "slow", verbs.slow, "Statements that were slow or repeated (N+1), of all processes."
    )
    parser.add_argument("--database", choices=tuple(connections), help="Only of this alias.")
    parser.add_argument(
        "--kind", choices=[SlowQuery.Kind.SLOW, SlowQuery.Kind.N_PLUS_ONE], help="Only these."
    )
    parser.add_argument(
        "--order", choices=tuple(stored.ORDERS), default="total", help="The most first (total)."
    )
    parser.add_argument("--limit", type=_limit, default=20, metavar="N", help="How many (20).")
    parser.add_argument(
        "--server", action="store_true", help="The server's own statistics instead, of all its clients."
    )
    parser.add_argument("--clear", action="store_true", help="Drop what is stored; with --yes.")
    parser.add_argument("--yes", action="store_true", help="Do it.")
    plan = command.verb("explain", verbs.explain, "How the engine runs a statement, with warnings.")
    plan.add_argument("sql", nargs="?", help="One statement, in quotes.")
    plan.add_argument("--slow", metavar="FINGERPRINT", help="The plan that a slow statement had.")
    plan.add_argument(
        "--analyze", action="store_true", help="Run it too, in a transaction that is rolled back."
    )
    plan.add_argument("--format", choices=["text", "json"], default="text", help="json: as with --json.")
    plan.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="Give up after S seconds (10)."
    )
    plan.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="The alias.")


class _Verbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def slow(self, database: str | None, kind: str | None, order: str, limit: int, **options: Any) -> int:
        if options["clear"]:
            return self._clear(database, yes=options["yes"])
        if options["server"]:
            return self._server(database or DEFAULT_DB_ALIAS, limit)
        found = slow.every(database, kind, order, limit=limit)
        self._command.document({"statements": [_document(row) for row in found]})
        if not found:
            self._command.line("Nothing was slow or repeated.")
            return OK
        self._command.table(_COLUMNS, [_row(row) for row in found])
        hints = {row.fingerprint: row.hint for row in found if row.hint}
        for fingerprint, hint in hints.items():
            self._command.line(f"{fingerprint}: {hint}", style="yellow")
        return OK

    def explain(self, sql: str | None, database: str, analyze: bool, timeout: float, **options: Any) -> int:
        if bool(sql) == bool(options["slow"]):
            raise Failed("one of the two: a statement, or --slow FINGERPRINT", code=2)
        if options["format"] == "json":
            self._command.is_json = True
        try:
            if options["slow"]:
                plan = explain.of_slow(options["slow"])
            else:
                plan = explain.of(database, sql, analyze=analyze, timeout_s=timeout)
        except explain.CannotExplain as error:
            raise Failed(str(error)) from error
        except (ProgrammingError, OperationalError) as error:
            if not connections[database].is_usable():
                raise  # the base says what to look at
            raise Failed(f"{database} does not take the statement: {error}") from error
        self._show(plan)
        return OK

    def _show(self, plan: Plan) -> None:
        self._command.document(asdict(plan))
        self._command.line(plan.text)
        for warning in plan.warnings:
            self._command.line(f"! {warning}", style="yellow")

    def _clear(self, database: str | None, *, yes: bool) -> int:
        if not yes:
            number = len(slow.every(database))
            self._command.document({"would_clear": number})
            self._command.line(
                f"{number} rows would go. Nothing was done: run it again with --yes.", style="yellow"
            )
            return DEGRADED
        number = operations.clear_slow(database, actor=migrate.operator(), source="cli")
        self._command.document({"cleared": number})
        self._command.line(f"{number} rows are gone.")
        return OK

    def _server(self, database: str, limit: int) -> int:
        try:
            found = server.top(database, limit)
        except server.NotEnabled as error:
            raise Failed(str(error)) from error
        self._command.document({"statements": [asdict(one) for one in found]})
        rows = [
            [one.count, _ms(one.total_ms), _ms(one.mean_ms), _ms(one.max_ms), one.rows, one.sql[:120]]
            for one in found
        ]
        self._command.table(_SERVER_COLUMNS, rows)
        return OK


def _row(row: SlowQuery) -> list[Any]:
    return [
        row.fingerprint,
        row.get_kind_display(),
        row.alias,
        row.count,
        _ms(row.total_ms),
        _ms(row.mean_ms),
        _ms(row.max_ms),
        f"{row.last_seen:%Y-%m-%d %H:%M:%S}",
        row.call_site or None,
        row.sql[:80],
    ]


def _document(row: SlowQuery) -> dict[str, Any]:
    return model_to_dict(row, exclude=["id"]) | {"mean_ms": round(row.mean_ms, 3)}


def _ms(value: float | None) -> str | None:
    return None if value is None else figures.duration(value / 1000)


def _limit(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value

"""`manage.py database bench`: what this database does for this process, measured in a table that goes afterwards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

from foundation.commands import DEGRADED, OK, USAGE, BrainCommand, Failed
from orm_app import bench


def define(command: BrainCommand) -> None:
    parser = command.verb("bench", _Bench(command).run, "A short benchmark in a scratch table of its own.")
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="The alias.")
    parser.add_argument("--seconds", type=float, default=10.0, help="Together, 0.5 to 300 (default 10).")
    parser.add_argument("--yes", action="store_true", help="In production it is not run without this.")


class _Bench:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def run(self, database: str, seconds: float, yes: bool, **_: Any) -> int:
        if not 0.5 <= seconds <= 300:
            raise Failed("--seconds takes 0.5 to 300", code=USAGE)
        if getattr(settings, "PRODUCTION", False) and not yes:
            self._command.document({"database": database, "ran": False})
            self._command.line(
                f"This is production: for {seconds:.0f} s it writes and reads on {database} as fast as it can. "
                "Nothing was done; run it again with --yes.", style="yellow",
            )  # fmt: skip
            return DEGRADED
        with self._command.progress("measuring", bench.STEPS) as advance:
            try:
                found = bench.run(database, seconds=seconds, advance=advance)
            except bench.NotPossible as error:
                raise Failed(str(error)) from error
        self._command.document(
            {"database": database, "ran": True, "measures": [asdict(one) for one in found]}
        )
        columns = ["what", "rate", "p50_ms", "p99_ms", "samples"]
        self._command.table(
            columns,
            [
                [one.what, f"{one.rate:,.0f} {one.unit}/s", one.p50_ms, one.p99_ms, one.samples]
                for one in found
            ],
        )
        return OK

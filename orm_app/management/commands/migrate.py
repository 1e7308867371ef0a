"""`manage.py migrate`: Django's, one at a time on a database, within limits, linted before and resumed where it broke."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands import migrate as django_migrate
from django.db import connections
from rich.console import Console

from orm_app import migrate
from orm_app.migration_executor import BrainExecutor
from orm_app.migration_progress import Watch

# Django's handle() finds its executor by this name and no other way; ours does the same and more.
django_migrate.MigrationExecutor = BrainExecutor


class Command(django_migrate.Command):
    stealth_options = ("ran", "way")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, **options)
            return
        using, ran = options["database"], options.pop("ran", None)
        who = {"actor": migrate.operator(), "source": "cli"}
        is_quiet = options["verbosity"] == 0
        watch: Watch | None = None

        def tell(text: str) -> None:
            if watch is not None and watch.is_live:
                watch.tell(text)
            elif not is_quiet:
                self.stderr.write(text, lambda line: line)

        with migrate.guarded(using, migrate.options(options), tell=tell, **who) as run:
            screen = None if is_quiet else _terminal(self.stderr)
            watch = Watch(run, connections[using], super().migration_progress_callback, screen=screen)
            self.migration_progress_callback = watch
            try:
                with watch.watching():
                    super().handle(*args, **options)
            finally:
                if ran is not None:
                    ran.extend(run.ran)
                if run.ran and self._called_from_command_line:
                    migrate.record(run.ran, using, action="database.migrate", **who)


def add_options(parser: Any) -> None:
    """What ours takes beyond Django's; `database migrate` and `database rollback` take the same."""
    group = parser.add_argument_group("safety")
    seconds = {"type": _seconds, "metavar": "SECONDS"}
    group.add_argument("--wait", **seconds, help="How long to wait for another migrate that is running.")
    group.add_argument(
        "--lock-timeout", **seconds, help="How long a statement may wait for a table's lock; 0: the server's."
    )
    group.add_argument(
        "--statement-timeout", **seconds, help="How long a statement may run; 0: the server's."
    )
    group.add_argument(
        "--lock-retries", type=int, metavar="N", help="Tries after a lock timeout or a deadlock."
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="Go on with a migration that broke half way: skip what is committed.",
    )
    group.add_argument(
        "--start-over", action="append", metavar="APP.NAME",
        help="Run a migration that broke half way from its first operation: you have undone what was committed.",
    )  # fmt: skip
    group.add_argument(
        "--accept-checksum", action="append", metavar="APP.NAME",
        help="Take the SQL of today as what was applied.",
    )  # fmt: skip
    group.add_argument(
        "--lint",
        choices=("off", "warn", "refuse"),
        help="What an unsafe operation does; see `manage.py database lint`.",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError(text)
    return value


def _terminal(stream: Any) -> Console | None:
    return Console(file=sys.stderr) if stream.isatty() else None

"""`manage.py queue stats`: what the queues did, by queue and task."""

from __future__ import annotations

from typing import Any

from foundation.commands import USAGE, BrainCommand, Failed
from queue_app import clock, spans, stats
from queue_app.histograms import COUNTS, Tally, quantiles

from .selecting import given


class StatsVerb:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        parser = self._command.verb(
            "stats",
            self.stats,
            "Runs, failures, waits and durations. Example: manage.py queue stats --since 24h",
        )
        parser.add_argument("--queue", dest="only", type=given, help="of this queue")
        parser.add_argument("--task", type=given, help="of this task")
        parser.add_argument("--tenant", type=given, help="of this tenant")
        parser.add_argument("--since", default="1h", metavar="SPAN", help="30m, 24h, 30d (default: 1h)")

    def stats(self, *, only: str, task: str, tenant: str, since: str, **options: Any) -> None:
        asked = {"queue": only or "", "name": task or "", "tenant": tenant or "", "since": since}
        try:
            found = stats.summary(spans.question(asked, clock.now()))
        except spans.BadQuestion as error:
            raise Failed(str(error), "see: manage.py queue stats --help", USAGE) from error
        columns = ["queue", "task", *COUNTS, "failure_share"]
        columns += [f"{what}_{share}_s" for what in ("wait", "run") for share in ("p50", "p95", "p99")]
        self._command.table(columns, [[*key, *_row(tally)] for key, tally in found.items()])


def _row(tally: Tally) -> list[Any]:
    counts = [getattr(tally, name) for name in COUNTS]
    times = [*quantiles(tally.wait).values(), *quantiles(tally.run).values()]
    return [*counts, *(None if value is None else round(value, 4) for value in (tally.failure_share, *times))]

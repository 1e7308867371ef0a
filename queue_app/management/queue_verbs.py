"""`manage.py queue pause|resume|purge`: whole queues; `bulk`: what was asked of many jobs."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from foundation import findings
from foundation.commands import OK, BrainCommand, Failed
from queue_app import bulk, doctor, queues
from queue_app.management.job_verbs import JobVerbs
from queue_app.management.tracing import trace
from queue_app.models import BulkAction
from queue_app.states import Bulk

_SHOWN = 50
_COLUMNS = [
    "id",
    "action",
    "selection",
    "wanted",
    "seen",
    "done",
    "passed_over",
    "rate",
    "actor",
    "created_at",
    "finished_at",
]


class QueueVerbs:
    """The part of `manage.py queue` that speaks of queues as wholes. jobs: by whose verb a purge is a cancel."""

    def __init__(self, command: BrainCommand, jobs: JobVerbs) -> None:
        self._command, self._jobs = command, jobs

    def define(self) -> None:
        for verb, is_paused, help in (
            (
                "pause",
                True,
                "Have workers take no jobs of these queues, until they are resumed; also after restarts.",
            ),
            ("resume", False, "Have workers take their jobs again."),
        ):
            parser = self._command.verb(verb, partial(self.pause, is_paused=is_paused), help)
            parser.add_argument("names", nargs="+", metavar="QUEUE")
        purge = self._command.verb("purge", self.purge, "Cancel all that waits or runs in a queue.")
        purge.add_argument("name", metavar="QUEUE")
        purge.add_argument("--force", action="store_true", help="end what runs")
        purge.add_argument("--dry-run", action="store_true", help="say how many, and change nothing")
        purge.add_argument("--yes", action="store_true", help="do not ask")
        self._command.verb(
            "doctor",
            self.doctor,
            "What is wrong with the queues, and what to do. Exits 1 for errors, 3 for warnings.",
        )
        many = self._command.verb(
            "bulk", self.bulk, "What was asked of many jobs, newest first, with its progress."
        )
        many.add_argument("--stop", type=UUID, metavar="ID", help="let this one go no further")

    def pause(self, *, names: list[str], is_paused: bool, **options: Any) -> None:
        found = [self._found(name) for name in names]  # all of them or none
        for name in found:
            queues.pause(name, is_paused=is_paused, **trace())
        self._command.document({"paused" if is_paused else "resumed": found})
        self._command.line(f"{', '.join(found)}: {'paused' if is_paused else 'resumed'}")

    def purge(self, *, name: str, **options: Any) -> int:
        queue = {"of_queue": self._found(name), "all": True, "rate": None}
        return self._jobs.act(Bulk.CANCEL, None, "cancelled", ids=[], **{**options, **queue})  # type: ignore[arg-type]

    def doctor(self, **options: Any) -> int:
        found = doctor.examine()
        self._command.table(["level", "about", "told", "hint"], [list(finding) for finding in found])
        return findings.exit_code(found)

    def bulk(self, *, stop: UUID | None, **options: Any) -> int:
        if stop is not None:
            try:
                bulk.stop(stop, **trace())
            except bulk.Ended as error:
                raise Failed(str(error), "see: manage.py queue bulk") from error
            except BulkAction.DoesNotExist as error:
                raise Failed(f"there is no bulk action {stop}", "see: manage.py queue bulk") from error
        rows = BulkAction.objects.all()[:_SHOWN]
        self._command.table(_COLUMNS, [[getattr(row, column) for column in _COLUMNS] for row in rows])
        return OK

    def _found(self, name: str) -> str:
        try:
            return queues.find(name).name
        except queues.UnknownQueue as error:
            raise Failed(str(error), "see: manage.py queue status") from error

"""`manage.py queue schedules …`: list, show, create, change, pause, resume, run, backfill, delete."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from foundation.commands import USAGE, BrainCommand, Failed
from queue_app import clock, schedules
from queue_app.models import Schedule
from queue_app.recurrence import Missed, Overlap

_SHOWN_FIRINGS = 10
_HELP = {
    "create": "create",
    "backfill": "backfill",
    "backfillable": "backfill",
}  # of the function that refused


class ScheduleVerbs:
    """The part of `manage.py queue` that speaks of schedules. trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, str]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        parser = self._command.verb(
            "schedules",
            self.list,
            "List the schedules, or act on one. "
            'Example: manage.py queue schedules create nightly --task reports.build --cron "0 2 * * *"',
        )
        actions = parser.add_subparsers(title="actions", metavar="", dest="action")
        self._add(actions, "list", self.list, "All of them, with the next run in words.", named=False)
        self._add(actions, "show", self.show, "One of them: its next runs, and what the last ones came to.")
        create = self._add(actions, "create", self.create, "A new one.")
        self._fields(create)
        create.add_argument("--paused", action="store_true")
        self._fields(self._add(actions, "change", self.change, "Change some of its fields."))
        self._add(actions, "pause", self.pause, "Let it fire no more.")
        self._add(actions, "resume", self.resume, "Let it fire again, from now on.")
        self._add(actions, "run", self.run_now, "Enqueue its job at once.")
        backfill = self._add(actions, "backfill", self.backfill, "A job for each past moment without one.")
        for end in ("start", "end"):
            backfill.add_argument(f"--{end}", required=True, type=_moment, metavar="TIME")
        backfill.add_argument("--dry-run", action="store_true", help="only list the moments")
        delete = self._add(actions, "delete", self.delete, "Delete it; its jobs stay.")
        delete.add_argument("--yes", action="store_true", help="Do it; without this nothing is deleted.")

    def list(self, **options: Any) -> None:
        now = clock.now()
        columns = ["name", "task", "when", "next", "last_at", "paused"]
        rows = [_row(schedule, now) for schedule in Schedule.objects.all()]
        self._command.table(columns, rows)

    def show(self, *, name: str, **options: Any) -> None:
        schedule, now = _found(name), clock.now()
        fields = {field: getattr(schedule, field) for field in ("name", "paused", *schedules.EDITABLE)}
        runs = schedules.next_runs(schedule)
        columns = ["due_at", "outcome", "cause", "job", "note"]
        firings = schedule.firings.values(*columns)[:_SHOWN_FIRINGS]
        told = fields | {"when": schedules.words(schedule), "next_runs": runs, "firings": [*firings]}
        self._command.document(told)
        self._command.table(["field", "value"], list(fields.items()))
        self._command.line(f"\n{schedules.words(schedule)}")
        for run in runs:
            self._command.line(f"  {schedules.next_words(schedule, run, now)}")
        rows = [[firing[column] for column in columns] for firing in firings]
        self._command.table(columns, rows, title="\nlast")

    def create(self, *, name: str, paused: bool, **options: Any) -> None:
        made = _acted(schedules.create, name, paused=paused, **_given(options), **self._trace())
        self._tell(made, "created")

    def change(self, *, name: str, **options: Any) -> None:
        self._tell(_acted(schedules.change, _found(name), **_given(options), **self._trace()), "changed")

    def pause(self, *, name: str, **options: Any) -> None:
        self._tell(_acted(schedules.pause, _found(name), **self._trace()), "paused")

    def resume(self, *, name: str, **options: Any) -> None:
        self._tell(_acted(schedules.resume, _found(name), **self._trace()), "resumed")

    def run_now(self, *, name: str, **options: Any) -> None:
        job = _acted(schedules.run_now, _found(name), **self._trace())
        self._command.document({"job": str(job.id)})
        self._command.line(f"{name}: job {job.id}")

    def backfill(self, *, name: str, start: datetime, end: datetime, dry_run: bool, **options: Any) -> None:
        schedule = _found(name)
        if dry_run:
            moments = _acted(schedules.backfillable, schedule, start, end)
            self._command.document({"moments": moments})
            for moment in moments:
                self._command.line(moment.isoformat())
            self._command.line(f"{len(moments)} moments; nothing was changed")
            return
        jobs = _acted(schedules.backfill, schedule, start, end, **self._trace())
        self._command.document({"jobs": [str(job.id) for job in jobs]})
        self._command.line(f"{name}: {len(jobs)} jobs")

    def delete(self, *, name: str, yes: bool, **options: Any) -> None:
        schedule = _found(name)
        if not yes:
            raise Failed("nothing was deleted", f"Say --yes to delete the schedule {name!r}.", code=USAGE)
        _acted(schedules.delete, schedule, **self._trace())
        self._command.document({"deleted": name})
        self._command.line(f"{name}: deleted")

    def _add(self, actions: Any, action: str, run: Any, help: str, *, named: bool = True) -> Any:
        parser = self._command.action(actions, action, run, help)
        if named:
            parser.add_argument("name", metavar="NAME")
        return parser

    def _fields(self, parser: Any) -> None:
        parser.add_argument("--task", help="its name, or a queue's that has one task")
        parser.add_argument("--payload", type=_payload, metavar="JSON")
        parser.add_argument("--queue", dest="only", help="another than the task's")
        parser.add_argument("--priority", type=int)
        parser.add_argument("--tenant")
        when = parser.add_mutually_exclusive_group()
        when.add_argument("--cron", help='"minute hour day month weekday"')
        when.add_argument("--every", type=int, dest="interval_s", metavar="SECONDS")
        parser.add_argument("--time-zone", help="of the cron expression; default: UTC")
        parser.add_argument("--missed", choices=[*map(str, Missed)], help="runs that nobody fired in time")
        parser.add_argument("--window", type=int, dest="window_s", metavar="SECONDS", help="of --missed all")
        parser.add_argument("--overlap", choices=[*map(str, Overlap)])

    def _tell(self, schedule: Schedule, done: str) -> None:
        columns = ["name", "task", "when", "next", "last_at", "paused"]
        row = _row(schedule, clock.now())
        self._command.document(dict(zip(columns, row, strict=True)))
        self._command.line(f"{schedule.name}: {done}; {row[2]}; next {row[3]}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that the command line names. A cron expression takes the interval's place, and the other way round."""
    fields = {key: options[key] for key in schedules.EDITABLE if options.get(key) is not None}
    fields.pop("queue", None)
    if options["only"] is not None:
        fields["queue"] = options["only"]
    if "cron" in fields:
        fields["interval_s"] = None
    elif "interval_s" in fields:
        fields["cron"] = ""
    return fields


def _acted(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return act(*args, **kwargs)
    except schedules.BadSchedule as error:
        hint = (
            f"nothing was changed; see: manage.py queue schedules {_HELP.get(act.__name__, 'change')} --help"
        )
        raise Failed(str(error), hint, USAGE) from error
    except schedules.Refused as error:
        raise Failed(str(error), "nothing was changed") from error


def _found(name: str) -> Schedule:
    schedule = Schedule.objects.filter(name=name).first()
    if schedule is None:
        raise Failed(f"there is no schedule {name!r}", "see: manage.py queue schedules")
    return schedule


def _row(schedule: Schedule, now: datetime) -> list[Any]:
    is_coming = not schedule.paused and schedule.next_at is not None
    following = schedules.next_words(schedule, schedule.next_at, now) if is_coming else "-"
    when = schedules.words(schedule)
    return [schedule.name, schedule.task, when, following, schedule.last_at, schedule.paused]


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not JSON: {error}") from error


def _moment(text: str) -> datetime:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-25T09:00:00Z")
    return found if timezone.is_aware(found) else timezone.make_aware(found)

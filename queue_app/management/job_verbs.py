"""`manage.py queue list|enqueue|edit`, and `retry|replay|discard|cancel` of some jobs or of all of a selection."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from foundation.commands import FAILED, OK, USAGE, BrainCommand, Failed
from queue_app import bulk, by_hand, cancelling, deadletter, finding, promoting
from queue_app.management import selecting, workflow_verbs
from queue_app.management.tracing import trace
from queue_app.models import BulkAction, Job
from queue_app.offload import PayloadLost
from queue_app.registry import UnknownTask
from queue_app.states import Bulk

_ACTIONS = (
    # verb, action, one job, what is said then, help
    ("retry", Bulk.RUN, promoting.run_now, "due now", "Run jobs now that wait for their retry or their time."),
    ("replay", Bulk.REPLAY, deadletter.replay, "replayed", "Run dead letters again, with new attempts."),
    ("discard", Bulk.DISCARD, deadletter.discard, "discarded", "Give dead letters up."),
    ("cancel", Bulk.CANCEL, cancelling.cancel, "cancelled", "Cancel jobs that wait or run. Exits 1 for those that are over."),
)  # fmt: skip
_MOST = 1_000_000
_COLUMNS = [
    "id",
    "task",
    "queue",
    "tenant",
    "state",
    "attempts",
    "priority",
    "run_after",
    "created_at",
    "finished_at",
]


class JobVerbs:
    """The part of `manage.py queue` that speaks of jobs."""

    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        listing = self._command.verb(
            "list",
            self.show,
            "List jobs, newest first. Example: manage.py queue list --state FAILED --since 1h",
        )
        selecting.add(listing)
        listing.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (50)")
        self._define_enqueue()
        editing = self._command.verb(
            "edit", self.edit, "Give a dead job another payload, checked as at enqueue."
        )
        editing.add_argument("id", type=UUID, metavar="ID")
        editing.add_argument("--payload", required=True, help="JSON, @FILE, or - for standard input")
        for verb, action, one, done, help in _ACTIONS:
            parser = self._command.verb(verb, partial(self.act, action, one, done), help)
            parser.add_argument("ids", nargs="*", type=UUID, metavar="ID")
            parser.add_argument(
                "--all", action="store_true", help="all that it can be done to, or those of the options"
            )
            selecting.add(parser)
            parser.add_argument(
                "--rate",
                type=float,
                metavar="N",
                help="with --all: N jobs per second, by the workers, in the background",
            )
            parser.add_argument("--dry-run", action="store_true", help="say how many, and change nothing")
            parser.add_argument("--yes", action="store_true", help="do not ask")
            if action == Bulk.CANCEL:
                parser.add_argument(
                    "--force",
                    action="store_true",
                    help="do not wait for a running job to notice: end its run",
                )
                workflow_verbs.tree_option(parser)

    def _define_enqueue(self) -> None:
        parser = self._command.verb(
            "enqueue",
            self.enqueue,
            'Enqueue a job. Example: manage.py queue enqueue send_email --payload \'{"to": "a@b.c"}\'',
        )
        parser.add_argument("task", help="its name, or the name of a queue with one task")
        parser.add_argument("--payload", default="{}", help="JSON, @FILE, or - for standard input")
        parser.add_argument(
            "--queue", dest="on_queue", type=selecting.given, help="another queue than the task's"
        )
        parser.add_argument("--priority", type=int, help="0 to 9")
        parser.add_argument("--delay", type=float, metavar="S", help="not before so many seconds from now")
        parser.add_argument("--expires", type=float, metavar="S", help="not started later than this")
        parser.add_argument("--unique", metavar="KEY", help="none while a job with this key is not over")
        parser.add_argument("--tenant")
        parser.add_argument("--tag", dest="tags", action="append", help="to be found by; more than once")
        parser.add_argument("--max-retries", type=int)

    # --- look --------------------------------------------------------------------------------------------------------
    def show(self, *, limit: int, **options: Any) -> None:
        found = finding.jobs(selecting.read(options)).order_by("-id").defer("payload", "result", "last_error")
        self._command.table(_COLUMNS, [_row(job) for job in found[:limit]])

    # --- act ---------------------------------------------------------------------------------------------------------
    def enqueue(self, *, task: str, payload: str, on_queue: str | None, **options: Any) -> None:
        names = ("priority", "delay", "expires", "unique", "tenant", "tags", "max_retries")
        given = {name: options[name] for name in names if options[name] is not None}
        given |= {} if on_queue is None else {"queue": on_queue}
        try:
            job = by_hand.enqueue(task, read_payload(payload), trace=trace(), **given)
        except ValueError as error:
            raise Failed(str(error), code=USAGE) from error
        self._command.document({"id": str(job.id), "is_duplicate": job.is_duplicate})
        self._command.line(f"job {job.id}{' was there already' if job.is_duplicate else ''}")

    def edit(self, *, id: UUID, payload: str, **options: Any) -> None:
        job = Job.objects.filter(id=id).first()
        if job is None:
            raise Failed(f"there is no job {id}")
        try:
            changes = deadletter.edit(job, read_payload(payload), **trace())
        except (deadletter.Refused, UnknownTask, PayloadLost, ValueError) as error:
            raise Failed(str(error), "nothing was changed") from error
        self._command.document({"id": str(id), "changes": changes})
        for path, change in changes.items():
            self._command.line(
                f"{path}: {json.dumps(change.get('before'))} -> {json.dumps(change.get('after'))}"
            )
        self._command.line(f"{len(changes)} changed" if changes else "nothing changed")

    def act(
        self, action: Bulk, one: Callable[..., Any], done: str, *, ids: list[UUID], **options: Any
    ) -> int:
        wanted = selecting.read(options)
        if options["all"] == bool(ids) or (not wanted.is_empty and not options["all"]):
            raise Failed(
                "name the jobs, or give --all (with --queue NAME for one queue)",
                "see: manage.py queue list",
                USAGE,
            )
        force = {"force": True} if options.get("force") else {}
        if options["all"]:
            if options.get("tree"):
                raise Failed("--tree goes with ids", code=USAGE)
            return self._act_on_all(action, wanted, done, **force, **options)
        if options["rate"] is not None:
            raise Failed("--rate goes with --all", f"see: manage.py queue {action} --help", USAGE)
        if options["dry_run"]:
            return self._would_each(action, ids, is_tree=bool(options.get("tree")))
        if options.get("tree"):
            problems = [workflow_verbs.cut(id, force=bool(force), trace=trace()) for id in ids]
        else:
            problems = [_refusal(partial(one, **force), job_id) for job_id in ids]
        return self._report(done, problems.count(""), problems)

    def _act_on_all(
        self,
        action: Bulk,
        wanted: Any,
        done: str,
        *,
        rate: float | None,
        yes: bool,
        dry_run: bool,
        **options: Any,
    ) -> int:
        try:
            bulk.check_rate(rate)
        except ValueError as error:
            raise Failed(str(error), code=USAGE) from error
        count = bulk.count(action, wanted)
        # Of a million payloads nobody waits for the count.
        told = " at most, those with other arguments among them" if wanted.arguments else ""
        if dry_run:
            return self._would(count, told)
        self.sure(f"{count} jobs{told} to {action}", yes)
        try:
            row = bulk.start(action, wanted, rate=rate, force=bool(options.get("force")), **trace())
        except bulk.NothingToDo as error:
            if rate is None:
                return self._report(done, 0, [])
            raise Failed(str(error), "see: manage.py queue list") from error
        if rate is not None:
            self._command.document({"bulk_action": str(row.id), "wanted": row.wanted, "rate": row.rate})
            self._command.line(f"{row.wanted} to {action} at {rate:g}/s; see: manage.py queue bulk")
            return OK
        self._drive(row)
        return self._report(done, row.done, [], passed_over=row.passed_over)

    def _drive(self, row: BulkAction) -> None:
        """Here and now; what the workers' leader does of it meanwhile is done as well."""
        with self._command.progress(row.action, row.wanted) as advance:
            while row.finished_at is None:
                before = row.seen
                bulk.work_off_one(row.id)
                row.refresh_from_db()
                advance(row.seen - before)
                if row.seen == before and row.finished_at is None:
                    time.sleep(0.2)  # the leader holds it

    def _would(self, count: int, told: str = "") -> int:
        self._command.document({"would": count})
        self._command.line(f"{count} jobs{told}; nothing was changed")
        return OK

    def _would_each(self, action: Bulk, ids: list[UUID], *, is_tree: bool) -> int:
        """Exits as it would if it were done."""
        states = dict(Job.objects.filter(id__in=ids).values_list("id", "state"))
        doable = {*states} if is_tree else bulk.doable(action, ids)
        refused = [_cannot(id, states) for id in ids if id not in doable]
        self._command.document({"would": len(doable), "refused": refused})
        self._command.line(f"{len(doable)} jobs; nothing was changed")
        for problem in refused:
            self._command.line(problem, style="red")
        return FAILED if refused else OK

    def sure(self, told: str, is_sure: bool) -> None:
        """On a terminal only: a script has said what it wants. Raises Failed."""
        if is_sure or self._command.is_json or not sys.stdin.isatty():
            return
        try:
            answer = input(f"{told}. Go on? [y/N] ")
        except EOFError:  # Ctrl-D
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise Failed("nothing was changed")

    def _report(self, done: str, count: int, problems: list[str], *, passed_over: int = 0) -> int:
        refused = [problem for problem in problems if problem]
        more = {"passed_over": passed_over} if passed_over else {}
        self._command.document({done.replace(" ", "_"): count, "refused": refused, **more})
        self._command.line(f"{count} {done}")
        if passed_over:
            why = "moved by somebody else meanwhile, or their arguments were not recorded"
            self._command.line(f"{passed_over} passed over: {why}", style="yellow")
        for problem in refused:
            self._command.line(problem, style="red")
        return FAILED if refused else OK


def read_payload(given: str) -> dict[str, Any]:
    """Raises Failed."""
    try:
        text = (
            sys.stdin.read()
            if given == "-"
            else Path(given[1:]).read_text()
            if given.startswith("@")
            else given
        )
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise Failed(
            f"--payload cannot be read: {error}", "it is a JSON object, @FILE, or - for standard input", USAGE
        ) from error
    if not isinstance(found, dict):
        raise Failed(f"--payload is not a JSON object but {type(found).__name__}", code=USAGE)
    return found


def positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of up to {_MOST:,}")
    return value


def _row(job: Job) -> list[Any]:
    state = "PENDING (waits for others)" if job.is_held else job.state
    run_after = None if job.is_held else job.run_after
    attempts = f"{job.attempt} of {job.max_attempts}"
    return [
        job.id,
        job.name,
        job.queue,
        job.tenant,
        state,
        attempts,
        job.priority,
        run_after,
        job.created_at,
        job.finished_at,
    ]


def _cannot(job_id: UUID, states: dict[UUID, str]) -> str:
    return f"job {job_id} is {states[job_id]}" if job_id in states else f"there is no job {job_id}"


def _refusal(act: Callable[..., Any], job_id: UUID) -> str:
    """Why the job was not acted on; empty when it was."""
    try:
        act(Job.objects.get(id=job_id), **trace())
    except Job.DoesNotExist:
        return f"there is no job {job_id}"
    except (deadletter.Refused, cancelling.Over, promoting.NotLater) as error:
        return str(error)
    return ""

"""`manage.py queue`: run workers; look at queues and workers; cancel jobs; dead letters; schedules; limits; workflows; alerts."""

from __future__ import annotations

import argparse
import getpass
import sys
from functools import partial
from typing import Any
from uuid import UUID

from celery import current_app
from django.core.management.base import CommandParser

from foundation.commands import DEGRADED, FAILED, OK, USAGE, BrainCommand, Failed
from queue_app import cancelling, deadletter, limits_told, replays, stats, workers
from queue_app.management import workflow_verbs
from queue_app.management.alert_verbs import AlertVerbs
from queue_app.management.autoscale_verb import AutoscaleVerb
from queue_app.management.limit_verbs import LimitVerbs
from queue_app.management.schedule_verbs import ScheduleVerbs
from queue_app.management.stats_verbs import StatsVerb
from queue_app.models import Job, Queue, Replay, Worker
from queue_app.states import Asked, State

# verb, what it asks, what is then said of the workers, help
_ASKS = (
    ("quiet", Asked.QUIET, "asked to be quiet", "Ask workers to take no new jobs."),
    ("unquiet", Asked.NOTHING, "asked to go on", "Ask quiet workers to take jobs again."),
    ("stop", Asked.STOP, "asked to stop", "Ask workers to end when what they run has ended."),
    ("recycle", Asked.RECYCLE, "asked to start anew", "Ask workers to stop and start again."),
)


class Command(BrainCommand):
    help = (
        "Run a worker (no subcommand), show the queues, cancel jobs, deal with dead letters, schedules or limits. "
        "Example: manage.py queue replay --all --queue email_queue"
    )

    def define(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-c", "--concurrency", type=_positive, help="threads of the worker (default: the cores)"
        )
        parser.add_argument("-Q", "--queues", help="comma separated; default: every queue, new ones too")
        parser.add_argument("-n", "--name", help="of the worker (default: celery@HOST); %%h is the host")
        self.verb(
            "status", self.status, "Depth, age and workers. Exits 3 when jobs wait and no worker is alive."
        )
        self.verb("workers", self.workers, "List the workers that are alive and what they run.")
        for verb, asked, said, helped in _ASKS:
            asking = self.verb(verb, partial(self.ask, asked, said), helped)
            asking.add_argument("ids", nargs="*", type=UUID, metavar="ID")
            asking.add_argument("--all", action="store_true", help="every worker that is alive")
        cancel = self.verb(
            "cancel", self.cancel, "Cancel jobs that wait or run. Exits 1 for those that are over."
        )
        cancel.add_argument("ids", nargs="+", type=UUID, metavar="ID")
        cancel.add_argument(
            "--force", action="store_true", help="do not wait for a running job to notice: end its run"
        )
        workflow_verbs.tree_option(cancel)
        listing = self.verb("dead", self.dead, "List dead letters, newest first.")
        listing.add_argument("--queue", dest="only", help="of this queue")
        listing.add_argument("--limit", type=_positive, default=50)
        failures = self.verb(
            "failures", self.failures, "Dead letters by what they failed of, the most frequent first."
        )
        self._filter(failures)
        self.verb(
            "replays", self.replays, "Replays of many that were asked for, newest first, with their progress."
        )
        replaying = self.verb("replay", self.replay, "Run dead letters again, with a new series of attempts.")
        self._choice(replaying)
        replaying.add_argument(
            "--rate", type=float, metavar="N", help="with --all: N jobs per second, by the workers"
        )
        self._choice(self.verb("discard", self.discard, "Give dead letters up."))
        ScheduleVerbs(self, _trace).define()
        workflow_verbs.WorkflowVerbs(self).define()
        StatsVerb(self).define()
        AutoscaleVerb(self).define()
        LimitVerbs(self, _trace).define()
        AlertVerbs(self, _trace).define()

    def bare(self, **options: Any) -> None:
        """A worker on threads, in this process, until it is stopped."""
        arguments = ["worker", "--pool", "threads", "--loglevel", "INFO"]
        if options["concurrency"]:
            arguments += ["--concurrency", str(options["concurrency"])]
        if options["queues"]:
            arguments += ["--queues", options["queues"]]
        if options["name"]:
            arguments += ["--hostname", options["name"]]
        current_app.worker_main(arguments)  # raises SystemExit with the worker's own code

    def status(self, **options: Any) -> int:
        depths, alive = stats.depths(), workers.alive()
        states = [state.value for state in State]
        told = {queue.name: _in_use(queue, use) for queue, use in limits_told.all_in_use()}
        rows = [
            [
                depth.queue,
                *(depth.jobs[state] for state in states),
                round(depth.oldest_due_s, 1),
                depth.paused,
                told.get(depth.queue, ""),
            ]
            for depth in depths
        ]
        self.table(["queue", *states, "oldest_due_s", "paused", "limits"], rows)
        waits = any(depth.oldest_due_s for depth in depths if not depth.paused)
        stuck = waits and not alive
        self.line(f"{alive} worker{'' if alive == 1 else 's'} alive", style="red" if stuck else "")
        found = {
            depth.queue: {
                **depth.jobs,
                "oldest_due_s": depth.oldest_due_s,
                "paused": depth.paused,
                "limits": told.get(depth.queue, ""),
            }
            for depth in depths
        }
        self.document({"queues": found, "workers": alive})
        return DEGRADED if stuck else OK

    def workers(self, **options: Any) -> None:
        columns = [
            "id", "host", "pid", "pool", "concurrency", "queues", "running", "stuck", "memory_bytes", "ended", "asked", "last_seen_at",
        ]  # fmt: skip
        rows = [[getattr(worker, column) for column in columns] for worker in workers.living()]
        self.table(columns, rows)

    def ask(self, asked: Asked, said: str, *, ids: list[UUID], **options: Any) -> int:
        if options["all"] == bool(ids):
            raise Failed("name the workers, or give --all", "see: manage.py queue workers", 2)
        wanted = ids or list(workers.living().values_list("id", flat=True))
        problems = [_unheard(asked, worker_id) for worker_id in wanted]
        return self._report(said, problems.count(""), problems)

    def cancel(self, *, ids: list[UUID], force: bool, **options: Any) -> int:
        if options["tree"]:
            problems = [workflow_verbs.cut(id, force=force, trace=_trace()) for id in ids]
        else:
            problems = [_refusal(partial(cancelling.cancel, force=force), id, _trace()) for id in ids]
        return self._report("cancelled", problems.count(""), problems)

    def dead(self, *, only: str | None, limit: int, **options: Any) -> None:
        jobs = list(deadletter.dead(only).defer("payload", "result")[:limit])
        columns = ["id", "task", "queue", "attempts", "error", "finished_at"]
        self.table(columns, [_row(job) for job in jobs])

    def failures(self, **options: Any) -> None:
        columns = ["fingerprint", "jobs", "task", "type", "message", "latest"]
        rows = [
            [getattr(group, column) for column in columns] for group in deadletter.groups(_chosen(options))
        ]
        self.table(columns, [[*row[:4], row[4][:80], row[5]] for row in rows])

    def replays(self, **options: Any) -> None:
        columns = ["id", "wanted", "replayed", "passed_over", "rate", "actor", "created_at", "finished_at"]
        self.table(
            columns, [[getattr(row, column) for column in columns] for row in Replay.objects.all()[:50]]
        )

    def replay(self, **options: Any) -> int:
        if options["rate"] is not None:
            return self._replay_at_rate(**options)
        return self._act(deadletter.replay, deadletter.replay_many, "replayed", **options)

    def discard(self, **options: Any) -> int:
        return self._act(deadletter.discard, deadletter.discard_many, "discarded", **options)

    def _replay_at_rate(self, *, ids: list[UUID], rate: float, **options: Any) -> int:
        if ids or not options["all"]:
            raise Failed("--rate goes with --all", "see: manage.py queue replay --help", USAGE)
        try:
            replays.check_rate(rate)
        except ValueError as error:
            raise Failed(str(error), code=USAGE) from error
        chosen = _chosen(options)
        if options["dry_run"]:
            return self._would(deadletter.chosen(chosen).count())
        self._ask(deadletter.chosen(chosen).count(), options["yes"])
        try:
            row = replays.start(chosen, rate=rate, **_trace())
        except replays.NothingDead as error:
            raise Failed(str(error), "see: manage.py queue failures") from error
        self.document({"replay": str(row.id), "wanted": row.wanted, "rate": row.rate})
        self.line(f"{row.wanted} to replay at {rate:g}/s; see: manage.py queue replays")
        return OK

    def _would(self, count: int) -> int:
        self.document({"would": count})
        self.line(f"{count} dead letters; nothing was changed")
        return OK

    def _ask(self, count: int, is_sure: bool) -> None:
        """On a terminal only: a script has said what it wants."""
        if is_sure or self.is_json or not sys.stdin.isatty():
            return
        if input(f"{count} dead letters. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Failed("nothing was changed")

    def _filter(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--queue", dest="only", help="of this queue")
        parser.add_argument("--task", help="of this task")
        parser.add_argument("--fingerprint", help="of this failure; see: manage.py queue failures")

    def _choice(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("ids", nargs="*", type=UUID, metavar="ID")
        parser.add_argument("--all", action="store_true", help="every dead letter, or those of the filters")
        self._filter(parser)
        parser.add_argument("--dry-run", action="store_true", help="say how many, and change nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def _act(
        self, one: Any, many: Any, done: str, *, ids: list[UUID], only: str | None, **options: Any
    ) -> int:
        everything = options["all"]
        chosen = _chosen({"only": only, **options})
        if everything == bool(ids) or (any(chosen) and not everything):
            raise Failed(
                "name the jobs, or give --all (with --queue NAME for one queue)",
                "see: manage.py queue dead",
                2,
            )
        jobs = deadletter.chosen(chosen) if everything else deadletter.dead().filter(id__in=ids)
        if options["dry_run"]:
            return self._would(jobs.count())
        if everything:
            self._ask(jobs.count(), options["yes"])
            return self._report(done, many(jobs, **_trace()), [])
        problems = [_refusal(one, job_id, _trace()) for job_id in ids]
        return self._report(done, problems.count(""), problems)

    def _report(self, done: str, count: int, problems: list[str]) -> int:
        refused = [problem for problem in problems if problem]
        self.document({done: count, "refused": refused})
        self.line(f"{count} {done}")
        for problem in refused:
            self.line(problem, style="red")
        return FAILED if refused else OK


def _in_use(queue: Queue, use: limits_told.Use) -> str:
    return f"{limits_told.of_queue(queue)} ({use.held} in use, {use.waiting} wait)"


def _chosen(options: dict[str, Any]) -> deadletter.Choice:
    return deadletter.Choice(options["only"] or "", options["task"] or "", options["fingerprint"] or "")


def _trace() -> dict[str, str]:
    return {"actor": getpass.getuser(), "source": "cli"}


def _refusal(act: Any, job_id: UUID, trace: dict[str, str]) -> str:
    """Why the job was not acted on; empty when it was."""
    try:
        act(Job.objects.get(id=job_id), **trace)
    except Job.DoesNotExist:
        return f"there is no job {job_id}"
    except (deadletter.Refused, cancelling.Over) as error:
        return str(error)
    return ""


def _unheard(asked: Asked, worker_id: UUID) -> str:
    """Why the worker was not asked; empty when it was."""
    try:
        workers.ask(Worker.objects.get(id=worker_id), asked, **_trace())
    except Worker.DoesNotExist:
        return f"there is no worker {worker_id}"
    except workers.Refused as error:
        return str(error)
    return ""


def _row(job: Job) -> list[Any]:
    error = job.last_error or {}
    told = f"{error.get('type', '')}: {error.get('message', '')}"[:80]
    return [str(job.id), job.name, job.queue, f"{job.attempt} of {job.max_attempts}", told, job.finished_at]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value

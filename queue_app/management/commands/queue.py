"""`manage.py queue`: run workers; look at queues and workers; cancel jobs; dead letters; schedules; limits; workflows; alerts."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from celery import current_app
from django.core.management.base import CommandParser

from foundation.commands import DEGRADED, FAILED, OK, BrainCommand, Failed
from queue_app import deadletter, limits_told, stats, workers
from queue_app.management import selecting, workflow_verbs
from queue_app.management.alert_verbs import AlertVerbs
from queue_app.management.autoscale_verb import AutoscaleVerb
from queue_app.management.job_verbs import JobVerbs, positive
from queue_app.management.limit_verbs import LimitVerbs
from queue_app.management.policy_verb import PolicyVerb
from queue_app.management.queue_verbs import QueueVerbs
from queue_app.management.schedule_verbs import ScheduleVerbs
from queue_app.management.stats_verbs import StatsVerb
from queue_app.management.tracing import trace
from queue_app.models import Job, Queue, Worker
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
            "-c", "--concurrency", type=positive, help="threads of the worker (default: the cores)"
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
        listing = self.verb("dead", self.dead, "List dead letters, newest first.")
        selecting.add(listing, but=("state",))
        listing.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (50)")
        failures = self.verb(
            "failures", self.failures, "Dead letters by what they failed of, the most frequent first."
        )
        selecting.add(failures, but=("state",))
        failures.add_argument("--limit", type=positive, default=100)
        jobs = JobVerbs(self)
        jobs.define()
        QueueVerbs(self, jobs).define()
        PolicyVerb(self).define()
        ScheduleVerbs(self, trace).define()
        workflow_verbs.WorkflowVerbs(self).define()
        StatsVerb(self).define()
        AutoscaleVerb(self).define()
        LimitVerbs(self, trace).define()
        AlertVerbs(self, trace).define()

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
            "id", "host", "pid", "version", "pool", "concurrency", "queues", "running", "stuck", "memory_bytes", "ended", "asked", "last_seen_at",
        ]  # fmt: skip
        rows = [[getattr(worker, column) for column in columns] for worker in workers.living()]
        self.table(columns, rows)

    def ask(self, asked: Asked, said: str, *, ids: list[UUID], **options: Any) -> int:
        if options["all"] == bool(ids):
            raise Failed("name the workers, or give --all", "see: manage.py queue workers", 2)
        wanted = ids or list(workers.living().values_list("id", flat=True))
        problems = [_unheard(asked, worker_id) for worker_id in wanted]
        refused = [problem for problem in problems if problem]
        self.document({said: len(problems) - len(refused), "refused": refused})
        self.line(f"{len(problems) - len(refused)} {said}")
        for problem in refused:
            self.line(problem, style="red")
        return FAILED if refused else OK

    def dead(self, *, limit: int, **options: Any) -> None:
        jobs = list(deadletter.dead(selecting.read(options)).defer("payload", "result")[:limit])
        columns = ["id", "task", "queue", "attempts", "error", "finished_at"]
        self.table(columns, [_row(job) for job in jobs])

    def failures(self, *, limit: int, **options: Any) -> None:
        columns = ["fingerprint", "jobs", "task", "type", "message", "latest"]
        groups = deadletter.groups(selecting.read(options), most=limit + 1)
        rows = [[getattr(group, column) for column in columns] for group in groups[:limit]]
        self.table(columns, [[*row[:4], row[4][:80], row[5]] for row in rows])
        if len(groups) > limit:
            self.line(f"the {limit} most frequent ones; --limit shows more")


def _in_use(queue: Queue, use: limits_told.Use) -> str:
    return f"{limits_told.of_queue(queue)} ({use.held} in use, {use.waiting} wait)"


def _unheard(asked: Asked, worker_id: UUID) -> str:
    """Why the worker was not asked; empty when it was."""
    try:
        workers.ask(Worker.objects.get(id=worker_id), asked, **trace())
    except Worker.DoesNotExist:
        return f"there is no worker {worker_id}"
    except workers.Refused as error:
        return str(error)
    return ""


def _row(job: Job) -> list[Any]:
    error = job.last_error or {}
    told = f"{error.get('type', '')}: {error.get('message', '')}"[:80]
    return [str(job.id), job.name, job.queue, f"{job.attempt} of {job.max_attempts}", told, job.finished_at]

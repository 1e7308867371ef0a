"""drain and perform: jobs run in the test's own process and transaction, by the functions of a real worker.

due rows, the most urgent first → InlineWorker → … → nothing is due any more, children, callbacks and all
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Unpack
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from queue_app import conditions, intake, policies, publication, queues, reconciler, wakeup
from queue_app.clock import Clock
from queue_app.governor import adopt, let_go_of_unlimited
from queue_app.inline import InlineWorker, Ran
from queue_app.intake import Options
from queue_app.models import Job
from queue_app.retry import Retry
from queue_app.states import NEVER, WAITING, State, Turn


class EndlessDrain(RuntimeError):
    """There was still something to run after `limit` runs; the message names the tasks."""


@dataclass(frozen=True)
class Drained:
    """What came of the runs of a drain: a job that failed once and then completed counts in both.

    waiting: jobs that wait all the same, for their time, a turn or another job, or in a paused queue. It plays no part when two are compared.
    """

    completed: int = 0
    failed: int = 0  # and to be retried
    dead: int = 0
    cancelled: int = 0  # discarded, cancelled or expired
    given_back: int = 0  # nobody here knows the task
    refused: int = 0  # ends that a fence did not let pass
    crashed: int = 0  # the worker died in them
    waiting: int = field(default=0, compare=False)

    @property
    def runs(self) -> int:
        counts = (
            self.completed,
            self.failed,
            self.dead,
            self.cancelled,
            self.given_back,
            self.refused,
            self.crashed,
        )
        return sum(counts)


_COUNTS = {
    State.COMPLETED: "completed", State.FAILED: "failed", State.DEAD_LETTER: "dead", State.CANCELLED: "cancelled",
    State.PENDING: "given_back", None: "refused",
}  # fmt: skip


def drain(
    queue: str | None = None,
    *,
    with_scheduled: bool = False,
    with_retries: bool | None = None,
    limit: int = 10_000,
    raise_errors: bool = False,
) -> Drained:
    """Run what is due, also what the jobs enqueue and set free, until nothing is due any more.

    queue: only its jobs. with_scheduled: what is delayed as well, in the order of its time, as if that had come.
    with_retries: what has failed is run again without its wait; by default as with_scheduled. Without it, a job that fails in
    this drain waits, however short that is. limit: runs, then EndlessDrain. raise_errors: the first exception that a
    handler raises is raised here, once it is recorded; a Retry apart, as long as it is granted.

    Nothing is published meanwhile. Raises UnknownQueue.
    """
    if queue is not None:
        queues.find(queue)
    retries = with_scheduled if with_retries is None else with_retries
    with wakeup.taken_by(_dropped), InlineWorker("drain") as worker:
        return _Drain(worker, queue, with_scheduled, retries, limit, raise_errors).to_the_end()


adrain = sync_to_async(drain)


def perform(
    target: Any, payload: Any, *, attempt: int = 1, raise_errors: bool = False, **options: Unpack[Options]
) -> Job:
    """Enqueue one job and run it once, now, whatever else waits, and whatever its delay or its queue's limits: the job as it
    stands then, with its result or last_error.

    payload, options: as of `enqueue`, and refused as there. attempt: which of its runs this is to be. A job that its `unique`
    key gave back is run when it waits. What the handler enqueues waits.
    """
    if isinstance(attempt, bool) or not isinstance(attempt, int) or attempt < 1:
        raise ValueError(f"attempt = {attempt!r} is not the number of a run, from 1")
    with ExitStack() as stack:
        stack.enter_context(wakeup.taken_by(_dropped))
        job = intake.enqueue(target, payload, **options)
        if job.delivery != "ledger":
            raise ValueError(f"queue {job.queue!r} has broker delivery: there is no row to be run")
        worker = stack.enter_context(InlineWorker("perform"))
        turn = Turn.HAS if job.queue in policies.governed() else Turn.NONE
        Job.objects.filter(id=job.id, state__in=WAITING).update(attempt=attempt - 1, turn=turn)
        make_due(job.id)
        ran = worker.run(job.id)
    if ran is not None and raise_errors:
        raise_error(ran)
    job.refresh_from_db()
    return job


def make_due(job_id: UUID) -> None:
    """As if its time had come. One that waits for other jobs goes on waiting."""
    waits = Job.objects.filter(id=job_id, state__in=WAITING).exclude(run_after=NEVER)
    waits.filter(run_after__isnull=False).update(run_after=Clock())


def raise_error(ran: Ran) -> None:
    """What the handler raised, when that is a failure."""
    is_asked_for = isinstance(ran.error, Retry) and ran.state == State.FAILED
    if ran.error is not None and not is_asked_for and ran.state != State.CANCELLED:
        raise ran.error


class _Drain:
    def __init__(
        self,
        worker: InlineWorker,
        queue: str | None,
        with_scheduled: bool,
        with_retries: bool,
        limit: int,
        raise_errors: bool,
    ) -> None:
        self._worker, self._queue, self._limit, self._raise_errors = worker, queue, limit, raise_errors
        self._with_scheduled, self._with_retries = with_scheduled, with_retries
        self._counts: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._failed, self._passed_over = set[UUID](), set[UUID]()  # in this drain

    def to_the_end(self) -> Drained:
        while (job_id := self._next()) is not None:
            if self._tasks.total() >= self._limit:
                raise EndlessDrain(self._endless())
            ran = self._worker.run(job_id)
            if ran is None:
                self._passed_over.add(job_id)  # somebody else's, or not to be claimed for a reason of its row
            else:
                self._note(ran)
        waiting = self._of_queue(conditions.backlog()).count()
        return Drained(**self._counts, waiting=waiting)

    def _note(self, ran: Ran) -> None:
        self._counts["crashed" if ran.died else _COUNTS[ran.state]] += 1
        self._tasks[ran.job.name] += 1
        if ran.state == State.FAILED:
            self._failed.add(ran.job.id)
        elif ran.state == State.PENDING:
            self._passed_over.add(ran.job.id)
        if self._raise_errors:
            raise_error(ran)

    def _next(self) -> UUID | None:
        return self._due() or self._after(self._look_after_all) or self._after(self._bring_on)

    def _after(self, act: Callable[[], bool]) -> UUID | None:
        return self._due() if act() else None

    def _due(self) -> UUID | None:
        """Without the turns that the database does not see: a claim is what decides."""
        governed = policies.governed()
        waits = self._open().filter(conditions.is_due(), turn__in=(Turn.NONE, Turn.HAS))
        if governed:
            waits = waits.exclude(queue__in=governed, turn=Turn.NONE)
        return waits.order_by("-priority", "id").values_list("id", flat=True).first()

    def _look_after_all(self) -> bool:
        """What a leader does for the workers: take back what was lost, and hand out turns. Whether it may have helped."""
        reconciler.release_lost()
        let_go_of_unlimited()
        governed = policies.governed()
        later = conditions.waiting().filter(conditions.is_due(), turn=Turn.LATER)
        later.exclude(queue__in=governed).update(turn=Turn.NONE)
        mine = [name for name in sorted(governed) if self._queue in (None, name)]
        for name in mine:
            adopt(name)
            later.filter(queue=name).update(**publication.IN_LINE)
            self._worker.hand_out(name)
        return True

    def _bring_on(self) -> bool:
        """Make the next one due that only waits for its time."""
        states = [State.PENDING] * self._with_scheduled + [State.FAILED] * self._with_retries
        if not states:
            return False
        later = self._open().filter(state__in=states, run_after__gt=Clock()).exclude(run_after=NEVER)
        first = later.order_by("run_after", "id").values_list("id", flat=True).first()
        if first is None:
            return False
        make_due(first)
        return self._look_after_all()

    def _open(self) -> QuerySet[Job]:
        """What this drain may run at all."""
        paused = [name for name, policy in policies.by_name().items() if policy.paused]
        waits = (
            self._of_queue(conditions.waiting()).exclude(queue__in=paused).exclude(id__in=self._passed_over)
        )
        return waits if self._with_retries else waits.exclude(state=State.FAILED, id__in=self._failed)

    def _of_queue(self, jobs: QuerySet[Job]) -> QuerySet[Job]:
        return jobs if self._queue is None else jobs.filter(queue=self._queue)

    def _endless(self) -> str:
        most = ", ".join(f"{name} ({count:,})" for name, count in self._tasks.most_common(3))
        return f"there is still something to run after {self._limit:,} runs, most of them of {most}"


def _dropped(wakeups: Any) -> bool:
    """Nobody needs to be told: who drains looks for himself."""
    return True

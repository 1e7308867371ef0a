"""The ledger: every statement that moves a job, each conditional on where the job stood and on its fence.

A step changes the row and writes its JobEvent in one transaction, or finds that somebody else was there first and
changes nothing. Leases are compared by the database's clock, so that the clocks of the hosts play no part.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from . import states
from .models import Job, JobEvent, Worker
from .states import State

BATCH = 500  # rows a look of the reconciler takes at most, so that no transaction gets long
CLAIMABLE = states.sources(State.PROCESSING)


class Wakeup(NamedTuple):
    """What the broker has to know about a job."""

    id: UUID
    queue: str
    priority: int


class Clock(Now):
    """The database's clock in UTC."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> tuple[str, Any]:
        # Django's Now() is CURRENT_TIMESTAMP there, in the time zone of the server, while columns are in UTC.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


def insert(job: Job) -> None:
    """Store a new job in the caller's transaction."""
    with transaction.atomic():
        job.save(force_insert=True)
        JobEvent.objects.create(job_id=job.id, to_state=State(job.state))


def claim(job_id: UUID, worker_id: UUID) -> Job | None:
    """The job, now PROCESSING and fenced for this worker; None when it is taken, over, not due, or the lease has ended."""
    job = Job.objects.filter(id=job_id, state__in=CLAIMABLE).first()
    if job is None:  # the usual end of a message that came twice: no write lock is taken for it
        return None
    holds_lease = Exists(Worker.objects.filter(id=worker_id, lease_until__gt=Clock()))
    claimed = _move(
        job,
        State.PROCESSING,
        where=is_due() & Q(holds_lease),
        worker=worker_id,
        owner=worker_id,
        fence=job.fence + 1,
        started_at=Clock(),
    )
    return job if claimed else None


def complete(job: Job, result: Any) -> bool:
    """False when the fence refuses: the job was given to somebody else meanwhile, and this result does not count."""
    attempt = job.attempt + 1
    return _move(job, State.COMPLETED, worker=job.owner, attempt=attempt, result=result, finished_at=Clock())


def retry(job: Job, error: dict[str, str], delay_s: float) -> bool:
    """FAILED, to run again after `delay_s`. False when the fence refuses."""
    return _move(
        job,
        State.FAILED,
        worker=job.owner,
        detail={"error": error["type"], "retry_in_s": round(delay_s, 3)},
        attempt=job.attempt + 1,
        last_error=error,
        run_after=Clock() + timedelta(seconds=delay_s),
        published_at=None,
    )


def bury(job: Job, error: dict[str, str]) -> bool:
    """DEAD_LETTER after its last run. False when the fence refuses."""
    return _move(
        job,
        State.DEAD_LETTER,
        worker=job.owner,
        detail={"error": error["type"]},
        attempt=job.attempt + 1,
        last_error=error,
        finished_at=Clock(),
    )


def replay(job: Job, *, actor: str) -> bool:
    """A dead job waits again, with a whole new series of attempts; its history keeps the old one."""
    detail = {"action": "replayed", "actor": actor, "attempts": job.attempt, "crashes": job.crash_count}
    return _move(
        job,
        State.PENDING,
        detail=detail,
        attempt=0,
        crash_count=0,
        run_after=None,
        published_at=Clock(),
        finished_at=None,
    )


def discard(job: Job, *, actor: str) -> bool:
    """A dead job that nobody wants any more."""
    return _move(job, State.CANCELLED, detail={"action": "discarded", "actor": actor})


# --- what the reconciler asks ----------------------------------------------------------------------------------------
def release_lost(*, max_crashes: int) -> list[Job]:
    """Take the jobs of workers whose lease has ended back: PENDING, or DEAD_LETTER after `max_crashes` such ends."""
    leaderless = ~Exists(Worker.objects.filter(id=OuterRef("owner"), lease_until__gt=Clock()))
    lost = Job.objects.filter(leaderless, state=State.PROCESSING).order_by("id")[:BATCH]
    return [job for job in lost if _release(job, Q(leaderless), max_crashes)]


def held_by(worker_id: UUID) -> list[Job]:
    """The jobs that this worker should be running now."""
    return list(Job.objects.filter(owner=worker_id, state=State.PROCESSING))


def release_dropped(held: Collection[Job], running: Collection[UUID], *, max_crashes: int) -> list[Job]:
    """Take back what a live worker holds but does not run: its pool's child died, or the end could not be written.

    `running` must have been looked up after `held`; otherwise a job claimed in between looks dropped.
    """
    return [job for job in held if job.id not in running and _release(job, Q(), max_crashes)]


def due() -> list[Wakeup]:
    """Jobs whose time has come and that the broker has not been told about; from now on they count as published."""
    return _mark_published(Job.objects.filter(is_due(), state__in=CLAIMABLE, published_at=None))


def stale_queues(older_than_s: float) -> list[str]:
    """Queues with jobs that were published this long ago and still wait: busy queues, or ones that lost messages."""
    return list(_stale(older_than_s).order_by("queue").values_list("queue", flat=True).distinct())


def stale(queue: str, older_than_s: float) -> list[Wakeup]:
    """The waiting jobs of a queue whose messages were lost; from now on they count as published again."""
    return _mark_published(_stale(older_than_s).filter(queue=queue))


def unpublish(ids: Collection[UUID]) -> None:
    """The broker could not be told after all: the reconciler does it when it can."""
    Job.objects.filter(id__in=ids, state__in=CLAIMABLE).update(published_at=None)


# --- the one way to move a job ---------------------------------------------------------------------------------------
def _move(
    job: Job,
    to: State,
    *,
    where: Q = Q(),  # noqa: B008  (immutable)
    worker: UUID | None = None,
    detail: dict[str, Any] | None = None,
    **changes: Any,
) -> bool:
    before = State(job.state)
    states.check(before, to)
    with transaction.atomic():
        here = Job.objects.filter(where, id=job.id, state=before, fence=job.fence)
        if not here.update(state=to, **changes):
            return False
        JobEvent.objects.create(
            job_id=job.id, from_state=before, to_state=to, worker=worker, detail=detail or {}
        )
    for name, value in {"state": to.value, **changes}.items():
        if not hasattr(value, "resolve_expression"):  # what the database computed is not known here
            setattr(job, name, value)
    return True


def _release(job: Job, where: Q, max_crashes: int) -> bool:
    crashes = job.crash_count + 1
    # The end of a process says nothing about the job, so it costs no attempt; a job that ends processes is stopped.
    gone = {
        "type": "WorkerLost",
        "message": f"its worker ended during the run, {crashes} times",
        "traceback": "",
    }
    if crashes < max_crashes:
        again = {"run_after": None, "published_at": None}
        return _move(
            job, State.PENDING, where=where, worker=job.owner, detail=gone, crash_count=crashes, **again
        )
    over = {"last_error": gone, "finished_at": Clock()}
    return _move(
        job, State.DEAD_LETTER, where=where, worker=job.owner, detail=gone, crash_count=crashes, **over
    )


def is_due() -> Q:
    """Its time has come."""
    return Q(run_after=None) | Q(run_after__lte=Clock())


def _stale(older_than_s: float) -> QuerySet[Job]:
    before = Clock() - timedelta(seconds=older_than_s)
    return Job.objects.filter(is_due(), state__in=CLAIMABLE, published_at__lt=before)


def _mark_published(jobs: QuerySet[Job]) -> list[Wakeup]:
    if (
        not jobs.exists()
    ):  # SQLite's transactions are IMMEDIATE: an idle reconciler must not take the write lock
        return []
    with transaction.atomic():
        skip = connection.features.has_select_for_update_skip_locked  # several reconcilers share the work
        first = jobs.select_for_update(skip_locked=skip).order_by("-priority", "id")[:BATCH]
        found = [Wakeup(*row) for row in first.values_list("id", "queue", "priority")]
        Job.objects.filter(id__in=[wakeup.id for wakeup in found]).update(published_at=Clock())
    return found

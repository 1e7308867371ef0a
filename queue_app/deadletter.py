"""Dead letters: replay or discard, one or many, each audited and conditional on the job still being dead."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from foundation import audit

from . import ledger, wakeup
from .ledger import Wakeup
from .models import Job
from .states import State


class Refused(ValueError):
    """The job cannot be replayed or discarded; the message says why."""


class NotDead(Refused):
    """The job is not in DEAD_LETTER (any more)."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}, not {State.DEAD_LETTER}")


class NotKept(Refused):
    """The job came through the broker, and its arguments were too large or of a kind that is not recorded."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} cannot be replayed: its arguments were not recorded")


def replay(job: Job, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None) -> Job:
    """Run a dead job again under its own id, with a whole new series of attempts. Raises NotDead or NotKept."""
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        before = _standing(job)
        if "not_kept" in (job.payload or {}):
            raise NotKept(job)
        if job.state != State.DEAD_LETTER or not ledger.replay(job, actor=_name(actor)):
            raise NotDead(_fresh(job))
        audit.record(
            actor=actor, action="job.replay", target=job, before=before, after=_standing(job), **trace
        )
        message = Wakeup(job.id, job.queue, job.priority)
        transaction.on_commit(lambda: wakeup.publish([message]), robust=True)
    return job


def discard(
    job: Job, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None
) -> Job:
    """Give a dead job up: CANCELLED. Raises NotDead."""
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        before = _standing(job)
        if job.state != State.DEAD_LETTER or not ledger.discard(job, actor=_name(actor)):
            raise NotDead(_fresh(job))
        audit.record(
            actor=actor, action="job.discard", target=job, before=before, after=_standing(job), **trace
        )
    return job


def replay_many(jobs: QuerySet[Job], *, actor: Any, source: str, **trace: Any) -> int:
    """Replay all dead jobs among `jobs`, each in a transaction of its own. Returns how many."""
    return sum(_done(replay, job_id, actor=actor, source=source, **trace) for job_id in _dead(jobs))


def discard_many(jobs: QuerySet[Job], *, actor: Any, source: str, **trace: Any) -> int:
    """Discard all dead jobs among `jobs`, each in a transaction of its own. Returns how many."""
    return sum(_done(discard, job_id, actor=actor, source=source, **trace) for job_id in _dead(jobs))


def dead(queue: str | None = None) -> QuerySet[Job]:
    """The dead letters, newest first; of one queue or of all."""
    jobs = Job.objects.filter(state=State.DEAD_LETTER).order_by("-id")
    return jobs if queue is None else jobs.filter(queue=queue)


def _dead(jobs: QuerySet[Job]) -> list[UUID]:
    # Ids first: the states change under the loop, and payloads of thousands of jobs need not be in memory at once.
    return list(jobs.filter(state=State.DEAD_LETTER).order_by("id").values_list("id", flat=True))


def _done(act: Any, job_id: UUID, **who: Any) -> bool:
    try:
        act(Job.objects.get(id=job_id), **who)
    except (Refused, Job.DoesNotExist):  # somebody else was faster
        return False
    return True


def _standing(job: Job) -> dict[str, Any]:
    return {"state": str(job.state), "attempt": job.attempt, "crash_count": job.crash_count}


def _fresh(job: Job) -> Job:
    job.refresh_from_db()
    return job


def _name(actor: Any) -> str:
    return "system" if actor is None else str(actor)

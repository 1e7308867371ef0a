"""Jobs come back from workers that do not run them (any more): what they held waits again, or is a dead letter."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from . import releasing
from .clock import Clock
from .conditions import RUNS, locked
from .fingerprints import fingerprint
from .models import Job, JobEvent, Worker
from .publication import NO_TURN
from .states import State, Turn


def lost_workers() -> list[Worker]:
    """Workers whose lease has ended and that still hold jobs."""
    holds = Exists(Job.objects.filter(RUNS, owner=OuterRef("id")))
    return list(Worker.objects.filter(holds, lease_until__lte=Clock()))


def ownerless() -> list[UUID]:
    """Owners of running jobs without a row: deleted by hand."""
    known = Exists(Worker.objects.filter(id=OuterRef("owner")))
    return list(Job.objects.filter(RUNS, ~known).values_list("owner", flat=True).distinct())


def held_by(worker_id: UUID) -> set[UUID]:
    """The jobs that this worker should be running or about to run."""
    return set(Job.objects.filter(RUNS, owner=worker_id).values_list("id", flat=True))


def release(owner: UUID, running: Collection[UUID], *, max_crashes: int, reason: str) -> list[Job]:
    """Take back what a worker held whose lease has ended; the jobs as they stand now.

    A job that provably ran (in `running`, its last word, or marked) is charged a crash, and is a dead letter after
    `max_crashes`; the others go back free. All are suspects from now on.
    """
    with transaction.atomic():
        if Worker.objects.filter(id=owner, lease_until__gt=Clock()).exists():
            return []  # it came back to life meanwhile
        held = _held_of(Job.objects.filter(RUNS, owner=owner))
        return _set_free(held, running, max_crashes=max_crashes, reason=reason)


def take_back(
    owner: UUID, ids: Collection[UUID], *, ran: Collection[UUID], max_crashes: int, reason: str
) -> list[Job]:
    """Take back jobs that a live worker has on record but does not run (any more); those in `ran` are charged a crash."""
    with transaction.atomic():
        held = _held_of(Job.objects.filter(RUNS, owner=owner, id__in=ids))
        return _set_free(held, ran, max_crashes=max_crashes, reason=reason)


def _held_of(jobs: QuerySet[Job]) -> list[Job]:
    """With their rows locked, and before them those of their workflows: in the order that everybody keeps."""
    flows = set(jobs.filter(workflow__isnull=False).values_list("workflow", flat=True))
    if flows:
        releasing.lock(id for id in flows if id is not None)
    return list(locked(jobs.order_by("id")))


def _set_free(held: list[Job], ran: Collection[UUID], *, max_crashes: int, reason: str) -> list[Job]:
    """held: locked rows in PROCESSING. Three updates and one insert, however many jobs."""
    charged = {job.id for job in held if job.is_marked or job.id in ran}
    for job in held:
        job.crash_count += job.id in charged
        job.state = (
            State.DEAD_LETTER if job.id in charged and job.crash_count >= max_crashes else State.PENDING
        )
    again = {"suspect": True, "is_marked": False, "published_at": None, "run_after": Clock(), "turn": NO_TURN}
    for state, is_charged in ((State.PENDING, False), (State.PENDING, True), (State.DEAD_LETTER, True)):
        ids = [job.id for job in held if job.state == state and (job.id in charged) == is_charged]
        if not ids:
            continue
        changes: dict[str, Any] = dict(again, crash_count=F("crash_count") + int(is_charged))
        if state == State.DEAD_LETTER:
            changes = {
                "crash_count": F("crash_count") + 1,
                "finished_at": Clock(),
                "last_error": _lost(reason),
                "fingerprint": fingerprint(_lost(reason)),
            }
            changes |= {"unique_key": None, "is_marked": False, "turn": int(Turn.NONE)}
        Job.objects.filter(id__in=ids).update(state=state, **changes)
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=job.state, worker=job.owner, detail=_told(job, charged, reason))
        for job in held
    )
    releasing.note_steps(
        (job.id, job.workflow, State(job.state)) for job in held if job.state == State.DEAD_LETTER
    )
    return held


def _lost(reason: str) -> dict[str, str]:
    return {"type": "WorkerLost", "message": f"{reason}, again and again", "traceback": ""}


def _told(job: Job, charged: Collection[UUID], reason: str) -> dict[str, Any]:
    return {"reason": reason, "charged": job.id in charged, "crashes": job.crash_count}

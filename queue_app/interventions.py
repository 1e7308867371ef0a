"""What people do to jobs: replay, run now, discard, cancel. Each step changes the row where it still stands as they saw it,
writes its event and tells the job's workflow, in one transaction. Whoever calls these has it audited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, When

from . import releasing, states
from .clock import Clock
from .conditions import DEAD, RUNS, locked, waiting
from .models import Delivery, Job, JobEvent
from .publication import IN_LINE, TOLD, Wakeup
from .states import State, Turn

_AFRESH = {  # of a job that is replayed
    "delivery": str(Delivery.LEDGER),  # also where the broker's message is long gone
    "attempt": 0,
    "crash_count": 0,
    "suspect": False,
    "cancel_requested": False,
    "cancel_forced": False,
    # One that is past would cancel it at its claim: whoever replays it wants it to run.
    "expires_at": Case(When(expires_at__gt=Clock(), then=F("expires_at"))),
}


class Done(NamedTuple):
    """What was done to a part of many jobs. wakeups: to publish after the commit; of jobs that wait for a turn there is none."""

    jobs: int
    wakeups: Sequence[Wakeup] = ()


def replay(job: Job, *, actor: str, is_governed: bool = False) -> bool:
    """A dead job waits again, with a whole new series of attempts; its history keeps the old one.

    is_governed: its queue has limits, so it waits for its turn, and is not to be published.
    """
    return _move(
        job, State.PENDING, detail=_replayed(job, actor), run_after=Clock(), finished_at=None,
        **_AFRESH, **(IN_LINE if is_governed else TOLD),
    )  # fmt: skip


def replay_many(ids: Collection[UUID], *, actor: str, governed: Collection[str] = ()) -> Done:
    """As `replay`, of the dead ones among them whose arguments are on record; governed: queues with limits.

    Inside the caller's transaction. Rows that somebody else holds are left to him.
    """
    found = locked(Job.objects.filter(DEAD, id__in=ids)).order_by("id")
    columns = ("id", "queue", "priority", "payload", "delivery", "attempt", "crash_count", "workflow")
    kept = [job for job in found.only(*columns) if "not_kept" not in (job.payload or {})]
    again: dict[str, Any] = {"state": State.PENDING, "run_after": Clock(), "finished_at": None, **_AFRESH}
    wakeups = _let_go(kept, governed, **again)
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=State.PENDING, detail=_replayed(job, actor)) for job in kept
    )
    releasing.note_steps((job.id, job.workflow, State.PENDING) for job in kept)
    return Done(len(kept), wakeups)


def run_many(ids: Collection[UUID], *, actor: str, governed: Collection[str] = ()) -> Done:
    """Those that wait for their time, or to be tried again, are due now. As `replay_many`.

    Not those that wait for other jobs of their workflows, nor the broker's, whose messages say when.
    """
    found = locked(waiting().filter(id__in=ids, run_after__gt=Clock(), run_after__lt=states.NEVER))
    later = list(found.order_by("id").only("id", "queue", "priority", "state"))
    wakeups = _let_go(later, governed, run_after=Clock())
    detail = {"action": "run now", "actor": actor}
    JobEvent.objects.bulk_create(JobEvent(job_id=job.id, state=job.state, detail=detail) for job in later)
    return Done(len(later), wakeups)


def discard(job: Job, *, actor: str) -> bool:
    """A dead job that nobody wants any more."""
    return _move(job, State.CANCELLED, detail={"action": "discarded", "actor": actor})


def discard_many(ids: Collection[UUID], *, actor: str) -> Done:
    """As `discard`. As `replay_many`."""
    found = list(locked(Job.objects.filter(DEAD, id__in=ids)).order_by("id").only("id", "workflow"))
    Job.objects.filter(id__in=[job.id for job in found]).update(state=State.CANCELLED)
    detail = {"action": "discarded", "actor": actor}
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=State.CANCELLED, detail=detail) for job in found
    )
    releasing.note_steps((job.id, job.workflow, State.CANCELLED) for job in found)
    return Done(len(found))


def cancel(job: Job, *, actor: str, force: bool = False) -> bool:
    """A waiting job is over. A running one is asked to stop, or with `force` made to. False when neither was there."""
    detail = {"action": "cancelled", "actor": actor}
    if job.state in states.WAITING:
        over: dict[str, Any] = {"finished_at": Clock(), "unique_key": None, "turn": int(Turn.NONE)}
        return _move(job, State.CANCELLED, detail=detail, **over)
    asked = {"action": "cancel requested", "actor": actor, "force": force}
    changes = {"cancel_requested": True} | ({"cancel_forced": True} if force else {})
    with transaction.atomic():
        if not Job.objects.filter(RUNS, id=job.id).update(**changes):
            return False
        JobEvent.objects.create(job_id=job.id, state=State.PROCESSING, worker=job.owner, detail=asked)
    return True


def cancel_many(ids: Collection[UUID], *, actor: str, force: bool = False) -> tuple[int, int]:
    """As `cancel`, of those of the ledger's jobs that are not over: (how many were cancelled, how many asked to stop).

    Inside the caller's transaction, who has locked the workflows that they are in.
    """
    open_ = Job.objects.select_for_update().filter(id__in=ids, delivery=Delivery.LEDGER).order_by("id")
    rows = list(open_.exclude(state__in=states.OVER).only("id", "state", "owner", "workflow"))
    waiting = [job for job in rows if job.state in states.WAITING]
    running = [job for job in rows if job.state == State.PROCESSING]
    Job.objects.filter(id__in=[job.id for job in waiting]).update(
        state=State.CANCELLED, finished_at=Clock(), unique_key=None, turn=int(Turn.NONE)
    )
    changes = {"cancel_requested": True} | ({"cancel_forced": True} if force else {})
    Job.objects.filter(id__in=[job.id for job in running]).update(**changes)
    detail = {"action": "cancelled", "actor": actor}
    asked = {"action": "cancel requested", "actor": actor, "force": force}
    JobEvent.objects.bulk_create(
        [JobEvent(job_id=job.id, state=State.CANCELLED, detail=detail) for job in waiting]
        + [JobEvent(job_id=job.id, state=State.PROCESSING, worker=job.owner, detail=asked) for job in running]
    )
    releasing.note_steps((job.id, job.workflow, State.CANCELLED) for job in waiting)
    return len(waiting), len(running)


def _move(job: Job, to: State, *, detail: dict[str, Any], **changes: Any) -> bool:
    before = State(job.state)
    states.check(before, to)
    with transaction.atomic():
        if job.workflow is not None:
            releasing.lock([job.workflow])
        here = Job.objects.filter(id=job.id, state=before, fence=job.fence)
        if not here.update(state=to, **changes):
            return False
        JobEvent.objects.create(job_id=job.id, state=to, detail=detail)
        releasing.note_steps([(job.id, job.workflow, to)])
    for name, value in {"state": to.value, **changes}.items():
        if not hasattr(value, "resolve_expression"):  # what the database computed is not known here
            setattr(job, name, value)
    return True


def _let_go(jobs: Sequence[Job], governed: Collection[str], **changes: Any) -> list[Wakeup]:
    """Locked jobs are due: those of queues with limits stand in line, the others are to be published."""
    told = [job for job in jobs if job.queue not in governed]
    in_line = [job.id for job in jobs if job.queue in governed]
    Job.objects.filter(id__in=[job.id for job in told]).update(**changes, **TOLD)
    if in_line:
        Job.objects.filter(id__in=in_line).update(**changes, **IN_LINE)
    return [Wakeup(job.id, job.queue, job.priority) for job in told]


def _replayed(job: Job, actor: str) -> dict[str, Any]:
    return {"action": "replayed", "actor": actor, "attempts": job.attempt, "crashes": job.crash_count}

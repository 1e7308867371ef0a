"""Cancel a job: at once while it waits, at its next look while it runs, or by force; audited."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.db import transaction

from foundation import audit

from . import interventions, states
from .models import Delivery, Job
from .states import State

_TRIES = 5  # the job may be claimed or given back under our hands


class Over(ValueError):
    """The job is over already."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}: there is nothing to cancel")


def cancel(
    job: Job,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
    force: bool = False,
) -> Job:
    """Have the job end as CANCELLED. Raises Over.

    A waiting job ends here. A running one is asked to stop: the row says so, its worker learns it within
    RECONCILE_S, and `job.check()` or `job.progress()` ends the run. With force the worker does not wait for that: a pool's
    child is killed, a thread's result is refused. A worker that dies meanwhile changes nothing: the row still says it.

    A job of the broker's is revoked, as Celery does it: the workers that live now hear of it, and their events end the
    row. With force a prefork child is killed; threads let it run.
    """
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        before = _standing(job)
        if job.delivery == Delivery.BROKER:
            revoke(job, force=force)
        else:
            _stop(job, actor="system" if actor is None else str(actor), force=force)
        job.refresh_from_db()
        audit.record(
            actor=actor, action="job.cancel", target=job, before=before, after=_standing(job), **trace
        )
    return job


def _stop(job: Job, *, actor: str, force: bool) -> None:
    for _ in range(_TRIES):
        if job.state in states.OVER:
            break
        if interventions.cancel(job, actor=actor, force=force):
            return
        job.refresh_from_db()
    raise Over(job)


def revoke(job: Job, *, force: bool) -> None:
    """A job of the broker's, in the caller's transaction. Raises Over."""
    changes = {"cancel_requested": True} | ({"cancel_forced": True} if force else {})
    if not Job.objects.filter(id=job.id).exclude(state__in=states.OVER).update(**changes):
        job.refresh_from_db()
        raise Over(job)
    control = current_app.control
    transaction.on_commit(lambda: control.revoke(str(job.id), terminate=force, signal="SIGKILL"), robust=True)


def _standing(job: Job) -> dict[str, Any]:
    return {"state": str(State(job.state)), "requested": job.cancel_requested, "forced": job.cancel_forced}

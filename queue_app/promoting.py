"""Run a job now that waits for its time or for its retry; audited."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from foundation import audit

from . import interventions, policies, wakeup
from .models import Job


class NotLater(ValueError):
    """The job does not wait for a time."""

    def __init__(self, job: Job) -> None:
        held = ", and waits for other jobs of its workflow" if job.is_held else ""
        super().__init__(f"job {job.id} is {job.state}{held}: there is no time that it waits for")


def run_now(
    job: Job, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None
) -> Job:
    """Its delay, or the wait before its retry, is over. Raises NotLater; also for the broker's, whose message says when."""
    with transaction.atomic():
        before = _time(job)
        name = "system" if actor is None else str(actor)
        done = interventions.run_many([job.id], actor=name, governed=policies.governed_now())
        job.refresh_from_db()
        if not done.jobs:
            raise NotLater(job)
        audit.record(
            actor=actor, action="job.run_now", target=job, before=before, after=_time(job),
            source=source, request_id=request_id, ip=ip,
        )  # fmt: skip
        messages = done.wakeups or [wakeup.look(job.queue)]
        transaction.on_commit(lambda: wakeup.publish(messages), robust=True)
    return job


def _time(job: Job) -> dict[str, str | None]:
    return {"run_after": job.run_after.isoformat() if job.run_after else None}

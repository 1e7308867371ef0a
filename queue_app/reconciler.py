"""What every worker does besides running jobs: publish what is due, take back what was lost. Safe with many at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import UUID

import structlog

from . import ledger, wakeup
from .conf import conf
from .models import Job
from .states import State

log = structlog.get_logger(__name__)


def reconcile(worker_id: UUID, running: Callable[[], Collection[UUID]]) -> None:
    """One look. running: gives the ids of the jobs that the pool of this worker holds at the moment of the call."""
    max_crashes = conf().MAX_CRASHES
    _report(ledger.release_lost(max_crashes=max_crashes), "worker_lost")
    held = ledger.held_by(worker_id)
    if held:
        dropped = ledger.release_dropped(held, running(), max_crashes=max_crashes)
        _report(dropped, "run_lost")
    publish_due()


def publish_due() -> None:
    """Tell the broker about jobs whose time has come, and again about those whose messages it has lost."""
    wakeups = ledger.due()
    if wakeups and not wakeup.publish(wakeups):
        return  # it is down: asking it for the depth of a queue would only wait
    older_than_s = conf().REPUBLISH_S
    for queue in ledger.stale_queues(older_than_s):
        if wakeup.depth(queue) == 0:
            lost = ledger.stale(queue, older_than_s)
            log.info("wakeups_republished", queue=queue, jobs=len(lost))
            wakeup.publish(lost)


def _report(released: list[Job], reason: str) -> None:
    for job in released:
        names = {"job_id": str(job.id), "task": job.name, "queue": job.queue, "request_id": job.request_id}
        if job.state == State.DEAD_LETTER:
            log.error("job_dead_lettered", reason=reason, crashes=job.crash_count, **names)
        else:
            log.warning("job_released", reason=reason, crashes=job.crash_count, **names)

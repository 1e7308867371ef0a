"""What workers do besides running jobs: publish what is due, take back what was lost.

One of them leads by a lease, so that a hundred idle workers do not ask the database the same. It stays safe with many at
once: a leader who does not know yet that another took over does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from . import leases, ledger, queues, releasing, replays, rollups, wakeup
from .conf import conf
from .models import Job
from .states import State
from .worker.engine import Engine

log = structlog.get_logger(__name__)

NAME = "reconciler"
_PRUNE_S = 30.0  # between two looks for jobs past their retention, and for what a workflow has missed


class Reconciler:
    """One worker's looks; it remembers what it saw last time where once is not enough to act."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unheld: set[UUID] = set()
        self._pruned_at = time.monotonic()
        self._counter = rollups.Counter()
        self._leadership = leases.Leadership(NAME, lambda: engine.worker_id, lease_s=lambda: conf().LEASE_S)

    def look(self) -> float:
        """Seconds until the next look."""
        self._take_back_unheld()
        if not self._leadership.holds():
            return self._leadership.rest_s
        self._look_after_all()
        return conf().RECONCILE_S

    def stop(self) -> None:
        """Let another lead."""
        self._leadership.give_up()

    def _look_after_all(self) -> None:
        release_lost()
        publish_due()
        replays.work_off(look_s=conf().RECONCILE_S)
        _publish(ledger.age(conf().AGE_S))
        is_counted = self._counter.look()
        if time.monotonic() - self._pruned_at > _PRUNE_S:
            self._pruned_at = time.monotonic()
            tell_workflows()
            if is_counted:  # what is deleted with its history cannot be counted any more
                prune(at_least_s=rollups.SETTLE_S)
            rollups.compact()

    def _take_back_unheld(self) -> None:
        """Jobs that the ledger gives this worker and the engine does not know, at two looks in a row: a claim whose answer
        was lost with the connection.
        """
        engine = self._engine
        unheld = ledger.held_by(engine.worker_id) - engine.held
        lost, self._unheld = unheld & self._unheld, unheld
        if lost:
            free = ledger.take_back(
                engine.worker_id, lost, ran=(), max_crashes=conf().MAX_CRASHES, reason="claim lost"
            )
            _report(free, "claim_lost")


def release_lost() -> None:
    """Take back the jobs of workers whose leases have ended."""
    max_crashes = conf().MAX_CRASHES
    for worker in ledger.lost_workers():
        running = {UUID(id) for id in worker.running}
        _report(
            ledger.release(worker.id, running, max_crashes=max_crashes, reason="worker lost"), "worker_lost"
        )
    for owner in ledger.ownerless():
        _report(ledger.release(owner, (), max_crashes=max_crashes, reason="worker unknown"), "worker_unknown")


def publish_due() -> None:
    """Tell the broker about jobs whose time has come, and again about those whose messages it has lost."""
    if not _publish(ledger.due()):
        return  # it is down: asking it for the depth of a queue would only wait
    older_than_s = conf().REPUBLISH_S
    for queue in ledger.stale_queues(older_than_s):
        empty = wakeup.depth(queue) == 0
        lost = ledger.stale(queue, older_than_s) if empty else ledger.overtaken(queue, older_than_s)
        if lost:
            log.info("wakeups_republished", queue=queue, jobs=len(lost), overtaken=not empty)
            _publish(lost)


def tell_workflows() -> None:
    """Of jobs that are over and that their workflows count as open: those ended under code that knew of no workflow."""
    missed = releasing.find_missed()
    if missed:
        log.warning("workflow_steps_missed", jobs=missed)


def prune(*, at_least_s: float = 0.0) -> None:
    """Delete jobs that ended longer ago than their queue keeps them, which is `at_least_s` in any case."""
    for name, policy in queues.policies().items():
        keep_s = conf().RETENTION_S if policy.retention_s is None else policy.retention_s
        keep_s = max(keep_s, at_least_s)
        gone = ledger.prune(name, State.COMPLETED, keep_s) + ledger.prune(name, State.CANCELLED, keep_s)
        dead_s = policy.dead_retention_s
        dead_s = max(keep_s, conf().DEAD_RETENTION_S) if dead_s is None else max(dead_s, at_least_s)
        gone += ledger.prune(name, State.DEAD_LETTER, dead_s)
        if gone:
            log.info("jobs_pruned", queue=name, jobs=gone)
    releasing.prune(conf().RETENTION_S)


def _publish(wakeups: Sequence[ledger.Wakeup]) -> bool:
    return not wakeups or wakeup.publish(wakeups)


def _report(released: list[Job], reason: str) -> None:
    for job in released:
        names = {"job_id": str(job.id), "task": job.name, "queue": job.queue, "request_id": job.request_id}
        if job.state == State.DEAD_LETTER:
            log.error("job_dead_lettered", reason=reason, crashes=job.crash_count, **names)
        else:
            log.warning("job_released", reason=reason, crashes=job.crash_count, **names)

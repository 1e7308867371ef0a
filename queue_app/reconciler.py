"""What workers do besides running jobs: publish what is due, take back what was lost.

One of them leads by a lease, so that a hundred idle workers do not ask the database the same. It stays safe with many at
once: a leader who does not know yet that another took over does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from . import bulk, census, governor, leases, ledger, queues, releasing, rollups, tenants, wakeup
from .conf import conf
from .governor import Governor
from .models import Job
from .states import State
from .worker.engine import Engine

log = structlog.get_logger(__name__)

NAME = "reconciler"
_ADOPT_S = 15.0  # three times the longest QUEUE_REFRESH_S
_BATCHES = 10  # of due jobs in one look
_PRUNE_S = 30.0  # between two looks for jobs past their retention, and for what a workflow has missed


class Reconciler:
    """One worker's looks; it remembers what it saw last time where once is not enough to act."""

    def __init__(self, engine: Engine, handing_out: Governor | None = None) -> None:
        self._engine = engine
        self._governor = handing_out or Governor()
        self._limited: dict[
            str, float
        ] = {}  # queues with limits, and until when their old jobs are looked for
        self._unheld: set[UUID] = set()
        self._pruned_at = time.monotonic()
        self._counter = rollups.Counter()
        self._census = census.Keeper()
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
        bulk.work_off(look_s=conf().RECONCILE_S)
        _publish(ledger.age(conf().AGE_S))
        self._look_after_turns()
        self._census.look()
        is_counted = self._counter.look()
        if time.monotonic() - self._pruned_at > _PRUNE_S:
            self._pruned_at = time.monotonic()
            tell_workflows()
            if is_counted:  # what is deleted with its history cannot be counted any more
                prune(at_least_s=rollups.SETTLE_S)
                rollups.compact()  # no sooner: steps of spans that are summed up already cost more to count

    def _look_after_turns(self) -> None:
        """A queue that has just got limits has jobs without turns, and other processes store some until they know."""
        now, governed = time.monotonic(), queues.governed()
        self._limited = {name: self._limited.get(name, now + _ADOPT_S) for name in governed}
        for name, until in self._limited.items():
            if now <= until:
                governor.adopt(name)
        governor.let_go_of_unlimited()
        if governed:
            self._governor.ask(governed)

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
    governed = queues.governed()
    for _ in range(_BATCHES):  # a queue whose limits were lifted may have a long backlog
        found = ledger.due(governed)
        if not _publish(found):
            return  # it is down: asking it for the depth of a queue would only wait
        if len(found) < ledger.BATCH:
            break
    older_than_s = conf().REPUBLISH_S
    stale = ledger.stale_queues(older_than_s)
    for queue, depth in (wakeup.depths(stale) if stale else {}).items():
        empty = depth == 0
        find = ledger.stale if empty else ledger.overtaken
        lost = find(queue, older_than_s, governed)
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
    bulk.prune(conf().BULK_RETENTION_S)
    tenants.prune()


def _publish(wakeups: Sequence[ledger.Wakeup]) -> bool:
    return not wakeups or wakeup.publish(wakeups)


def _report(released: list[Job], reason: str) -> None:
    for job in released:
        names = {"job_id": str(job.id), "task": job.name, "queue": job.queue, "request_id": job.request_id}
        if job.state == State.DEAD_LETTER:
            log.error("job_dead_lettered", reason=reason, crashes=job.crash_count, **names)
        else:
            log.warning("job_released", reason=reason, crashes=job.crash_count, **names)

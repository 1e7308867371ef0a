"""What workers do besides running jobs: publish what is due, take back what was lost.

One of them leads by a lease, so that a hundred idle workers do not ask the database the same. It stays safe with many at
once: a leader who does not know yet that another took over does no harm.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from . import (
    bulk,
    census,
    clock,
    finding,
    governor,
    leases,
    policies,
    publication,
    recovery,
    releasing,
    retention,
    rollups,
    tenants,
    wakeup,
)
from .conf import conf
from .governor import Governor
from .models import Job, Queue
from .publication import Wakeup
from .states import State
from .worker.engine import Engine

log = structlog.get_logger(__name__)

NAME = "reconciler"
_ADOPT_S = 15.0  # three times the longest QUEUE_REFRESH_S
_BATCHES = 10  # of due jobs in one look
_PRUNE_S = 30.0  # between two looks for jobs past their retention, and for what a workflow has missed
_PRUNE_LOOK_S = 0.5  # of deleting at one look; more is left to the next one, a moment later
# Ids tell when a job was made (uuid7), but for those of other programs' Celery tasks, and of callers whose clock was ahead: looking
# for these reads every job that is over.
_THOROUGH_S = 3600.0


class Reconciler:
    """One worker's looks; it remembers what it saw last time where once is not enough to act."""

    def __init__(self, engine: Engine, handing_out: Governor | None = None) -> None:
        self._engine = engine
        self._governor = handing_out or Governor()
        self._limited: dict[
            str, float
        ] = {}  # queues with limits, and until when their old jobs are looked for
        self._unheld: set[UUID] = set()
        self._pruned_at = self._told_at = time.monotonic()
        self._thorough_at = float("-inf")
        self._pruning: Pruning | None = None
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
        _publish(publication.age(conf().AGE_S))
        self._look_after_turns()
        self._census.look()
        is_counted = self._counter.look()
        now = time.monotonic()
        if now - self._told_at > _PRUNE_S:
            self._told_at = now
            tell_workflows()
        if now - self._pruned_at > _PRUNE_S:
            # What is deleted with its history cannot be counted any more.
            if not is_counted or self._prune():
                self._pruned_at = time.monotonic()  # else the next look goes on
            if is_counted:
                rollups.compact()  # no sooner: steps of spans that are summed up already cost more to count

    def _prune(self) -> bool:
        """Whether all is gone that may go."""
        if self._pruning is None:
            is_thorough = time.monotonic() - self._thorough_at > _THOROUGH_S
            self._thorough_at = time.monotonic() if is_thorough else self._thorough_at
            self._pruning = Pruning(rollups.SETTLE_S, is_thorough=is_thorough)
        if not self._pruning.go_on():
            return False
        self._pruning = None
        return True

    def _look_after_turns(self) -> None:
        """A queue that has just got limits has jobs without turns, and other processes store some until they know."""
        now, governed = time.monotonic(), policies.governed()
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
        unheld = recovery.held_by(engine.worker_id) - engine.held
        lost, self._unheld = unheld & self._unheld, unheld
        if lost:
            free = recovery.take_back(
                engine.worker_id, lost, ran=(), max_crashes=conf().MAX_CRASHES, reason="claim lost"
            )
            _report(free, "claim_lost")


def release_lost() -> None:
    """Take back the jobs of workers whose leases have ended."""
    max_crashes = conf().MAX_CRASHES
    for worker in recovery.lost_workers():
        running = {UUID(id) for id in worker.running}
        _report(
            recovery.release(worker.id, running, max_crashes=max_crashes, reason="worker lost"), "worker_lost"
        )
    for owner in recovery.ownerless():
        _report(
            recovery.release(owner, (), max_crashes=max_crashes, reason="worker unknown"), "worker_unknown"
        )


def publish_due() -> None:
    """Tell the broker about jobs whose time has come, and again about those whose messages it has lost."""
    governed = policies.governed()
    for _ in range(_BATCHES):  # a queue whose limits were lifted may have a long backlog
        found = publication.due(governed)
        if not _publish(found):
            return  # it is down: asking it for the depth of a queue would only wait
        if len(found) < publication.BATCH:
            break
    older_than_s = conf().REPUBLISH_S
    stale = publication.stale_queues(older_than_s)
    for queue, depth in (wakeup.depths(stale) if stale else {}).items():
        empty = depth == 0
        find = publication.stale if empty else publication.overtaken
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
    pruning = Pruning(at_least_s, is_thorough=True)
    while not pruning.go_on():
        pass


class Pruning:
    """A round of deleting what is past its retention: batches of each queue and state in turns, so that none waits for a large one.

    is_thorough: also jobs whose ids say that they are younger.
    """

    def __init__(self, at_least_s: float, *, is_thorough: bool) -> None:
        self._left = deque(
            (name, state, keep_s, None if is_thorough else _newest_old(keep_s))
            for name, policy in policies.by_name().items()
            for state, keep_s in _kept_s(policy, at_least_s).items()
        )
        self._gone = Counter[str]()

    def go_on(self) -> bool:
        """Delete for a bounded time. Whether all is gone that may go."""
        began = time.monotonic()
        while self._left and time.monotonic() - began < _PRUNE_LOOK_S:
            name, state, keep_s, upto = self._left.popleft()
            gone = retention.prune_jobs(name, state, keep_s, upto=upto)
            self._gone[name] += gone
            if gone == retention.BATCH:
                self._left.append((name, state, keep_s, upto))
        if self._left or retention.prune_workflows(conf().RETENTION_S) == retention.BATCH:
            return False
        bulk.prune(conf().BULK_RETENTION_S)
        tenants.prune()
        for name, jobs in self._gone.items():
            if jobs:
                log.info("jobs_pruned", queue=name, jobs=jobs)
        return True


def _newest_old(keep_s: float) -> UUID:
    """The largest id of a job that may be past its retention, if its id tells when it was made."""
    now = clock.now()
    return finding.newest_until(now - timedelta(seconds=min(keep_s, now.timestamp())))


def _kept_s(policy: Queue, at_least_s: float) -> dict[State, float]:
    keep_s = conf().RETENTION_S if policy.retention_s is None else policy.retention_s
    keep_s, dead_s = max(keep_s, at_least_s), policy.dead_retention_s
    dead_s = max(keep_s, conf().DEAD_RETENTION_S) if dead_s is None else max(dead_s, at_least_s)
    return {State.COMPLETED: keep_s, State.CANCELLED: keep_s, State.DEAD_LETTER: dead_s}


def _publish(wakeups: Sequence[Wakeup]) -> bool:
    return not wakeups or wakeup.publish(wakeups)


def _report(released: list[Job], reason: str) -> None:
    for job in released:
        names = {"job_id": str(job.id), "task": job.name, "queue": job.queue, "request_id": job.request_id}
        if job.state == State.DEAD_LETTER:
            log.error("job_dead_lettered", reason=reason, crashes=job.crash_count, **names)
        else:
            log.warning("job_released", reason=reason, crashes=job.crash_count, **names)

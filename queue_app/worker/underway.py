"""A run that has started: how long it may take, and the ends that others give it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from celery.exceptions import TimeLimitExceeded

from queue_app import limits, policies, registry
from queue_app.conf import conf
from queue_app.limits import Limits
from queue_app.models import Queue
from queue_app.performing import failed
from queue_app.runs import Run
from queue_app.statements import End
from queue_app.states import State

from .engine import Engine, given_back


class Underway:
    """A run, and when it must have ended: the watchdog rings at that time."""

    __slots__ = (
        "_on_overdue",
        "at",
        "began",
        "given_up_at",
        "key",
        "limit_s",
        "pid",
        "run",
        "thread",
        "verdict",
    )

    def __init__(self, run: Run, limit_s: float, on_overdue: Callable[[Underway], None]) -> None:
        self.run, self.limit_s = run, limit_s
        self.key = (
            run.id,
            run.fence,
        )  # another run of the same job may be underway before this one has come back
        self.began = time.monotonic()
        self.at = self.began + limit_s
        self.thread = threading.get_ident()  # when it runs on one of ours
        self.given_up_at = 0.0
        self.pid: int | None = None  # of the pool's child that has it
        self.verdict: End | None = None  # how it ends when its child is killed for it
        self._on_overdue = on_overdue

    def ring(self) -> None:
        self._on_overdue(self)

    def starts_now(self) -> None:
        self.began = time.monotonic()
        self.at = self.began + self.limit_s

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.began


Key = tuple[UUID, int]

_found: tuple[dict[str, Queue], dict[tuple[str, str], Limits]] = ({}, {})


def limits_of(run: Run) -> Limits:
    """The run's limits. Never asks the database: it is called on Celery's loop too."""
    global _found
    known = policies.known()
    if _found[0] is not known:
        _found = known, {}
    found = _found[1].get((run.name, run.queue))
    if found is None:
        found = _found[1][run.name, run.queue] = _resolved(run, known.get(run.queue))
    return found


def _resolved(run: Run, queue: Queue | None) -> Limits:
    try:
        task = registry.find(run.name)
    except registry.UnknownTask:  # it will be parked
        task = None
    return limits.resolve(task, queue, soft_s=conf().SOFT_TIME_LIMIT_S, hard_s=conf().TIME_LIMIT_S)


# --- ends that are not the handler's ---------------------------------------------------------------------------------
def early_end(engine: Engine, run: Run) -> End | None:
    """How a run ends that must not start: its job is not ours any more, or somebody cancelled it."""
    if not engine.may_start(run):
        return given_back(run)
    return cancelled(run, "before it started", ran=0) if run.cancel_requested else None


def cancelled(run: Run, how: str, *, ran: int = 1) -> End:
    detail = json.dumps({"reason": "cancelled", "how": how})
    return End(run.id, run.fence, State.CANCELLED, ran, detail=detail)


def overdue(run: Run, limit_s: float) -> End:
    """It has passed its hard limit: a failed attempt like any other."""
    with structlog.contextvars.bound_contextvars(job_id=str(run.id), task=run.name, queue=run.queue):
        return failed(run, TimeLimitExceeded(limit_s))


def stopped(run: Run) -> End:
    """Its worker had to end before it did: it waits again, and is charged with nothing."""
    return End(run.id, run.fence, State.PENDING, 0, detail='{"reason": "worker stopped"}')

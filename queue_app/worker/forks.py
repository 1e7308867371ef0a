"""Runs in the children of Celery's prefork pool: the parent keeps the ledger, a child gets the run and answers with its end.

    submit → queue → Celery's loop → a free child → answer → engine.finished

A child never has more than the run that it works on, so what waits can still be given back, cancelled or found stale. A
run past its hard limit is killed with its child, and ends when the child is gone.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery.exceptions import TimeLimitExceeded

from queue_app import watchdog
from queue_app.broker import descriptions
from queue_app.performing import perform
from queue_app.runs import Run
from queue_app.statements import End

from . import thread_connections
from .engine import Engine, given_back
from .underway import Key, Underway, cancelled, early_end, limits_of, overdue, stopped

log = structlog.get_logger(__name__)

LOST_CHILD_S = 1.0  # billiard tells about a dead child's job this long after

Answer = tuple[End, bool, float]  # the end, whether job.atomic() has recorded it already, and seconds taken


class ForkRunner:
    """`pool` is Celery's TaskPool. Everything that touches it happens on Celery's loop, through `call_soon`."""

    def __init__(
        self, engine: Engine, pool: Any, call_soon: Callable[..., Any], scale: Callable[[], None]
    ) -> None:
        self._engine, self._pool, self._call_soon, self._scale = engine, pool, call_soon, scale
        self._watchdog = watchdog.of_this_process()
        self._queue: deque[Run] = deque()
        self._applied: dict[Key, Underway] = {}  # with a child, or on the way to one
        self._is_called = self._is_closed = self._is_ending = False
        self.moved_at = time.monotonic()  # a run has gone to a child, or begun to wait with none before it

    # --- for the engine and the duties ---
    def submit(self, run: Run) -> None:
        if self._is_closed:
            self._engine.finished(run, given_back(run), None)
            return
        if not self._queue:
            self.moved_at = time.monotonic()
        self._queue.append(run)
        if not self._is_called:
            self._is_called = True
            self._call_soon(self._feed)

    def running(self) -> list[UUID]:
        return [underway.run.id for underway in self.underway()]

    def underway(self) -> list[Underway]:
        return [underway for underway in list(self._applied.values()) if underway.pid is not None]

    def stuck(self) -> list[Underway]:
        """Nothing that is stuck outlives its child."""
        return []

    def cancel(self, ids: Collection[UUID], *, by_force: Collection[UUID]) -> None:
        """Have these jobs stop by themselves: a child looks at its row in `job.check()`; or with their child."""
        for run in list(self._queue):
            run.cancel_requested |= run.id in ids
        for underway in list(self._applied.values()):
            if underway.run.id in by_force:
                self._call_soon(self._kill, underway, cancelled(underway.run, "by force"))

    def close(self) -> None:
        """What waits for a child goes back. Nothing starts any more, as the engine is closed."""
        self._is_closed = True
        while self._queue:
            run = self._queue.popleft()
            self._engine.finished(run, given_back(run), None)

    def give_back(self) -> int:
        """What waits for a child, but for a suspect, whose start is on record. Returns how many."""
        waiting = [run for run in list(self._queue) if not run.suspect]
        if waiting:
            self._call_soon(self._give_back, waiting)
        return len(waiting)

    def expect_kill(self) -> None:
        """The worker kills its children to end: that is no fault of their jobs, which go back."""
        self._is_ending = True

    def abandon(self) -> None:
        """The pool is gone: what it has said nothing about goes back."""
        for underway in list(self._applied.values()):
            if self._forget(underway):
                self._engine.finished(underway.run, stopped(underway.run), None)

    # --- on Celery's loop ---
    def _feed(self) -> None:
        self._is_called = False
        if len(self._queue) + len(self._applied) > self._pool.num_processes:
            self._scale()
        while self._queue and len(self._applied) < self._pool.num_processes:
            run = self._queue.popleft()
            early = early_end(self._engine, run)
            if early is None:
                self._apply(run)
            else:
                self._engine.finished(run, early, None)

    def _give_back(self, runs: Collection[Run]) -> None:
        for run in runs:
            with contextlib.suppress(ValueError):  # it is with a child by now, or has gone back
                self._queue.remove(run)
                self._engine.finished(run, given_back(run), None)

    def _apply(self, run: Run) -> None:
        limits = limits_of(run)
        run.soft_limit_s = limits.soft_s
        underway = Underway(run, limits.hard_s, self._on_overdue)
        taken = self._pool.apply_async(
            perform_in_child,
            (run,),
            callback=partial(self._answered, underway),
            error_callback=partial(self._died, underway),
            accept_callback=partial(self._accepted, underway),
            lost_worker_timeout=LOST_CHILD_S,
        )
        if taken is None:  # the pool is closing
            self._engine.finished(run, given_back(run), None)
            return
        taken.discard = partial(self._discarded, underway, taken, taken.discard)
        self.moved_at = time.monotonic()
        self._applied[underway.key] = underway

    def _accepted(self, underway: Underway, pid: int, at: float) -> None:
        underway.pid = pid
        underway.starts_now()
        if underway.key in self._applied:
            self._watchdog.watch(underway)

    def _answered(self, underway: Underway, answer: Answer) -> None:
        end, underway.run.is_completed, took_s = answer
        if self._forget(underway):
            self._engine.finished(underway.run, end, took_s)
            self._feed()

    def _died(self, underway: Underway, info: Any) -> None:
        error = descriptions.raised(info)
        if isinstance(error, TimeLimitExceeded) and underway.verdict is None:  # Celery's own --time-limit
            underway.verdict = overdue(underway.run, error.args[0])
            self._call_soon(self._died, underway, info)  # it kills the child after this call, not before
            return
        if not self._forget(underway):
            return
        end = underway.verdict or (stopped(underway.run) if self._is_ending else None)
        if end is None:
            self._engine.crashed(underway.run, ran=underway.pid is not None)
        else:
            self._engine.finished(underway.run, end, underway.took_s)
        self._feed()

    def _discarded(self, underway: Underway, result: Any, discard: Callable[[], None]) -> None:
        """Celery drops what no child has accepted when it loses the broker: its broker would deliver that again.

        The ledger's runs do not depend on the connection. One that a child may have read goes on.
        """
        child = result._write_to
        if child is not None and child._is_alive():
            return
        discard()
        if self._forget(underway):
            self._engine.finished(underway.run, given_back(underway.run), None)

    def _forget(self, underway: Underway) -> bool:
        """False when it was given up already."""
        self._watchdog.forget(underway)
        return self._applied.pop(underway.key, None) is not None

    # --- a run that does not end ---
    def _on_overdue(self, underway: Underway) -> None:
        self._call_soon(self._kill, underway, overdue(underway.run, underway.limit_s))

    def _kill(self, underway: Underway, verdict: End) -> None:
        if underway.key in self._applied and underway.pid is not None:
            underway.verdict = verdict
            job = {"job_id": str(underway.run.id), "task": underway.run.name}
            log.error("child_killed", pid=underway.pid, state=str(verdict.state), **job)
            self._pool.terminate_job(underway.pid, signal.SIGKILL)


def perform_in_child(run: Run) -> Answer:
    began = time.monotonic()
    try:
        end = perform(run)
    finally:
        thread_connections.tidy()
    return end, run.is_completed, time.monotonic() - began

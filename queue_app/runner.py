"""Where runs take place: on threads of this process, or in the children of Celery's prefork pool."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any
from uuid import UUID

from django.db import connections

from .engine import Engine, given_back
from .performing import perform
from .runs import Run
from .statements import End

TURN_S = 0.05  # a slot that is shared with Celery's own tasks is passed on after this long
LOST_CHILD_S = 1.0  # billiard tells about a dead child's job this long after


class ThreadRunner:
    """Takes up to `slots` threads of an executor while there is something to run.

    A slot runs one job after another without a trip through the executor's queue, which costs more than a short job.
    """

    def __init__(self, engine: Engine, executor: Executor, slots: int) -> None:
        self._engine, self._executor, self._slots = engine, executor, slots
        self._queue: deque[Run] = deque()
        self._running: dict[UUID, Run] = {}
        self._lock = threading.Lock()
        self._busy = 0

    def submit(self, run: Run) -> None:
        self._queue.append(run)
        with self._lock:
            if self._busy >= self._slots:
                return
            self._busy += 1
        self._enter()

    def running(self) -> list[UUID]:
        return list(self._running)

    def cancel(self, ids: set[UUID]) -> None:
        for run in list(self._running.values()):
            if run.id in ids:
                run.cancel_requested = True

    def _enter(self) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError:  # the pool is shut down: whoever is queued goes back
            with self._lock:
                self._busy -= 1
            self._give_back()

    def _work(self) -> None:
        until = time.monotonic() + TURN_S
        while True:
            try:
                run = self._queue.popleft()
            except IndexError:
                with self._lock:
                    if not self._queue:
                        self._busy -= 1
                        return
                continue
            self._run(run)
            if time.monotonic() > until:
                self._enter()
                return

    def _run(self, run: Run) -> None:
        if not self._engine.may_start(run):
            self._engine.finished(run, given_back(run), None)
            return
        self._running[run.id] = run
        began = time.monotonic()
        try:
            end = perform(run)
        finally:
            _tidy_connections()
        took_s = time.monotonic() - began
        del self._running[run.id]
        self._engine.finished(run, end, took_s)

    def _give_back(self) -> None:
        while self._queue:
            run = self._queue.popleft()
            self._engine.finished(run, given_back(run), None)


class ForkRunner:
    """Celery's prefork pool: the parent keeps the ledger, a child gets the run and answers with its end."""

    def __init__(self, engine: Engine, pool: Any, call_soon: Callable[..., Any]) -> None:
        self._engine, self._pool, self._call_soon = engine, pool, call_soon
        self._started: set[UUID] = set()

    def submit(self, run: Run) -> None:
        self._call_soon(self._apply, run)  # the pool's pipes belong to Celery's loop

    def running(self) -> list[UUID]:
        return list(self._started)

    def cancel(self, ids: set[UUID]) -> None:
        """A child looks at its row itself, in `job.check()`."""

    def _apply(self, run: Run) -> None:
        if not self._engine.may_start(run):
            self._engine.finished(run, given_back(run), None)
            return
        taken = self._pool.apply_async(
            perform_in_child,
            (run,),
            callback=lambda answer: self._answered(run, *answer),
            error_callback=lambda error: self._died(run),
            accept_callback=lambda pid, at: self._accepted(run),
            lost_worker_timeout=LOST_CHILD_S,
        )
        if taken is None:  # the pool is closing
            self._engine.finished(run, given_back(run), None)

    def _accepted(self, run: Run) -> None:
        self._started.add(run.id)

    def _answered(self, run: Run, end: End, is_completed: bool, took_s: float) -> None:
        self._started.discard(run.id)
        run.is_completed = is_completed
        self._engine.finished(run, end, took_s)

    def _died(self, run: Run) -> None:
        ran = run.id in self._started
        self._started.discard(run.id)
        self._engine.crashed(run, ran=ran)


def perform_in_child(run: Run) -> tuple[End, bool, float]:
    """In a child of the pool."""
    began = time.monotonic()
    try:
        end = perform(run)
    finally:
        _tidy_connections()
    return end, run.is_completed, time.monotonic() - began


def own_threads(slots: int) -> Executor:
    """For a pool that has no threads to share."""
    return ThreadPoolExecutor(slots, thread_name_prefix="queue-run")


def _tidy_connections() -> None:
    """Close what a handler left broken or in a transaction; a good connection stays for the thread's next job."""
    for used in connections.all(initialized_only=True):
        if used.in_atomic_block or used.errors_occurred:
            used.close()
        else:
            used.close_if_unusable_or_obsolete()

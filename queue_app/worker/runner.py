"""Runs on the slots of the worker process, which Celery's own tasks share.

    submit → queue → a slot's thread → perform → engine.finished

A thread cannot be killed. A run past its hard limit is surrendered: its end is recorded, its slot gets another thread,
and whatever the old one answers later is not heard.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from uuid import UUID

import structlog

from queue_app import watchdog
from queue_app.performing import perform
from queue_app.runs import Run
from queue_app.statements import End

from . import thread_connections
from .engine import Engine, given_back
from .slots import Slots
from .underway import Key, Underway, cancelled, early_end, limits_of, overdue, stopped

log = structlog.get_logger(__name__)

TURN_S = 0.05  # a slot that is shared with Celery's own tasks is passed on after this long


class ThreadRunner:
    """Takes slots while there is something to run, all of them at most.

    A slot runs one job after another without a trip through the slots' queue, which costs more than a short job.
    """

    def __init__(self, engine: Engine, slots: Slots) -> None:
        self._engine, self.slots = engine, slots
        self._watchdog = watchdog.of_this_process()
        self._queue: deque[Run] = deque()
        self._running: dict[Key, Underway] = {}
        self._stuck: dict[Key, Underway] = {}
        self._lock = threading.Lock()
        self._busy = self._spares = 0
        self.moved_at = time.monotonic()  # a run has started, or begun to wait with none before it
        self._is_closed = False

    # --- for the engine and the duties ---
    def submit(self, run: Run) -> None:
        if self._is_closed:
            self._engine.finished(run, given_back(run), None)
            return
        if not self._queue:
            self.moved_at = time.monotonic()
        self._queue.append(run)
        with self._lock:
            if self._busy >= len(self.slots.threads):
                return
            self._busy += 1
        self._enter()

    def running(self) -> list[UUID]:
        return [underway.run.id for underway in self.underway()]

    def underway(self) -> list[Underway]:
        return list(self._running.values())

    def stuck(self) -> list[Underway]:
        """Runs that were given up and whose threads have not come back."""
        return list(self._stuck.values())

    def cancel(self, ids: Collection[UUID], *, by_force: Collection[UUID]) -> None:
        """Ask these jobs to stop; give those of them that are to stop by force up, whatever they do."""
        for run in list(self._queue):
            run.cancel_requested |= run.id in ids
        for underway in self.underway():
            underway.run.cancel_requested |= underway.run.id in ids
            if underway.run.id in by_force:
                self._give_up(underway, partial(cancelled, underway.run, "by force"))

    def close(self) -> None:
        """What waits for a slot goes back. Nothing starts any more, as the engine is closed."""
        self._is_closed = True
        while self._queue:
            run = self._queue.popleft()
            self._engine.finished(run, given_back(run), None)

    def give_back(self) -> int:
        """What waits for a slot, but for a suspect, whose start is on record. Returns how many."""
        given, suspects = 0, []
        for _ in range(len(self._queue)):
            try:
                run = self._queue.popleft()
            except IndexError:  # a slot was free after all
                break
            if run.suspect:
                suspects.append(run)
                continue
            self._engine.finished(run, given_back(run), None)
            given += 1
        for run in suspects:
            self.submit(run)
        return given

    def expect_kill(self) -> None:
        """Threads end with the process."""

    def abandon(self) -> None:
        """The process is about to end: what still runs goes back, and its thread is not heard any more."""
        for underway in self.underway():
            if self._running.pop(underway.key, None) is not None:
                underway.run.cancel_requested = True
                self._engine.finished(underway.run, stopped(underway.run), None)

    # --- on the slots ---
    def _enter(self) -> None:
        """Have a thread for a slot: one of the slots', or a spare one for each that does not come back to them."""
        with self._lock:
            is_spare = self._spares < len(self._stuck)
            self._spares += is_spare
        if is_spare:
            threading.Thread(target=self._work, args=(True,), name="queue-spare", daemon=True).start()
            return
        try:
            self.slots.submit(partial(self._work, False))
        except RuntimeError:  # they are closed: whoever is queued goes back
            with self._lock:
                self._busy -= 1
            self.close()

    def _work(self, is_spare: bool) -> None:
        until = time.monotonic() + TURN_S
        while True:
            try:
                run = self._queue.popleft()
            except IndexError:
                with self._lock:
                    if not self._queue:
                        self._busy -= 1
                        self._spares -= is_spare
                        return
                continue
            if not self._run(run):
                with self._lock:
                    self._spares -= is_spare
                return
            if time.monotonic() > until:
                with self._lock:
                    self._spares -= is_spare
                self._enter()
                return

    def _run(self, run: Run) -> bool:
        """Whether the slot is still this thread's."""
        early = early_end(self._engine, run)
        if early is not None:
            self._engine.finished(run, early, None)
            return True
        limits = limits_of(run)
        run.soft_limit_s = limits.soft_s
        underway = Underway(run, limits.hard_s, self._on_overdue)
        self.moved_at = underway.began
        self._running[underway.key] = underway
        self._watchdog.watch(underway)
        end = self._performed(run)
        self._watchdog.forget(underway)
        if self._running.pop(underway.key, None) is None:
            self._came_back(underway)
            return False
        if end is None:
            self._engine.crashed(run, ran=True)
        else:
            self._engine.finished(run, end, underway.took_s)
        return True

    def _performed(self, run: Run) -> End | None:
        try:
            return perform(run)
        except Exception:  # not the handler's: those end in `perform`
            log.exception("run_broke", job_id=str(run.id), task=run.name)
            return None
        finally:
            thread_connections.tidy()

    # --- a run that does not end ---
    def _on_overdue(self, underway: Underway) -> None:
        self._give_up(underway, partial(overdue, underway.run, underway.limit_s))

    def _give_up(self, underway: Underway, how: Callable[[], End]) -> None:
        with self._lock:
            if self._running.pop(underway.key, None) is None:
                return  # it has just ended
            underway.given_up_at = time.monotonic()
            self._stuck[underway.key] = underway
        run, end = underway.run, how()
        run.cancel_requested = True  # a coroutine stops at this, and a handler that calls `check`
        log.error("thread_given_up", job_id=str(run.id), task=run.name, state=str(end.state))
        self._engine.finished(run, end, underway.took_s)
        self._enter()

    def _came_back(self, underway: Underway) -> None:
        with self._lock:
            self._stuck.pop(underway.key, None)
        run = underway.run
        log.warning("thread_came_back", job_id=str(run.id), task=run.name, took_s=round(underway.took_s, 3))

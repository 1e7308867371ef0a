"""Renews leases while their holders work: one thread per process for all locks of threads, timers of the loop for tasks.

Both hold the lock weakly: one that was lost with its holder is not renewed. A loop that is stuck renews nothing; a
thread that is stuck is renewed until the lock's `max_hold_s`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import weakref
from typing import Protocol

import structlog

from .lock_waits import started

log = structlog.get_logger(__name__)

_numbers = itertools.count(1)
_IDLE_S = 10.0  # a thread with nothing to renew ends after this time


class Renewable(Protocol):
    def renew(self) -> float | None:
        """Extend the lease by the owner's token. Returns when to come again (monotonic), None = never."""

    async def arenew(self) -> float | None: ...


class Renewal(Protocol):
    def cancel(self) -> None: ...


class Watchdog:
    """The thread's list. Adding and removing is a dictionary's work: it wakes the thread only where that is due sooner."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Empty, and without a thread. In a forked child: what the parent holds is the parent's to renew."""
        self._due: dict[int, tuple[float, weakref.ref[Renewable]]] = {}
        self._guard = threading.RLock()  # entered itself: link.py says why
        self._changed = threading.Condition(self._guard)
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def watch(self, lock: Renewable, due: float) -> Renewal:
        number = next(_numbers)  # not the lock's id: freed and taken again, it is another entry
        with self._guard:
            self._due[number] = (due, weakref.ref(lock))
            if self._thread is None:
                self._wakes_at = due
                self._thread = started(self._run, "cache-lock-watchdog")
            elif due < self._wakes_at:
                self._changed.notify()
        return _Entry(self, number)

    def forget(self, number: int) -> None:
        with self._guard:
            self._due.pop(number, None)

    def _run(self) -> None:
        while True:
            for number, lock in self._waited():
                due = _renewed(lock)
                with self._guard:
                    if number in self._due:  # it may have been freed meanwhile
                        if due is None:
                            del self._due[number]
                        else:
                            self._due[number] = (due, weakref.ref(lock))
                del lock  # this frame must not be what keeps it alive
            if self._ended():
                return

    def _waited(self) -> list[tuple[int, Renewable]]:
        """The locks whose time has come; none when there was nothing to do for _IDLE_S."""
        with self._guard:
            now = time.monotonic()
            self._wakes_at = min((due for due, _ in self._due.values()), default=now + _IDLE_S)
            if self._wakes_at > now:
                self._changed.wait(self._wakes_at - now)
            now = time.monotonic()
            ripe = [(number, held()) for number, (due, held) in self._due.items() if due <= now]
            for number, lock in ripe:
                if lock is None:
                    del self._due[number]
            return [(number, lock) for number, lock in ripe if lock is not None]

    def _ended(self) -> bool:
        with self._guard:
            if self._due or time.monotonic() < self._wakes_at:
                return False
            self._thread = None
            return True


class _Entry:
    def __init__(self, watchdog: Watchdog, number: int) -> None:
        self._watchdog, self._number = watchdog, number

    def cancel(self) -> None:
        self._watchdog.forget(self._number)


class LoopRenewal:
    """The timer of one lock that a task of the running loop holds."""

    def __init__(self, lock: Renewable, due: float) -> None:
        self._lock = weakref.ref(lock)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._timer = self._at(due)

    def cancel(self) -> None:
        self._is_over = True
        self._timer.cancel()

    def _at(self, due: float) -> asyncio.TimerHandle:
        return self._loop.call_later(max(due - time.monotonic(), 0.0), self._start)

    def _start(self) -> None:
        if not self._is_over:
            self._task = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        lock, due = self._lock(), None
        if lock is None:
            return
        try:
            due = await lock.arenew()
        except Exception:
            log.exception("lock_renewal_failed")
        if due is not None and not self._is_over:
            self._timer = self._at(due)


watchdog = Watchdog()


def _renewed(lock: Renewable) -> float | None:
    try:
        return lock.renew()
    except Exception:  # it must not end the renewal of the others
        log.exception("lock_renewal_failed")
        return None


os.register_at_fork(after_in_child=watchdog.reset)

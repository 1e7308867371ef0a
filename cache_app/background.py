"""Loads that go on after their caller was answered: on a few daemon threads, or as tasks of the running loop.

Threads are made when there is work, and end when there was none for IDLE_S. Nothing here keeps the interpreter from
ending: what is under way then is dropped, and its lease in the store ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import structlog
from django.db import close_old_connections, connections

from .conf import conf

log = structlog.get_logger(__name__)

BACKLOG = 1000  # loads that wait for a thread; beyond it they are refused
IDLE_S = 10.0
_tasks: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks weakly


class Threads:
    """At most `limit()` at once."""

    def __init__(self, limit: Callable[[], int], idle_s: float = IDLE_S) -> None:
        self._limit, self._idle_s = limit, idle_s
        self._guard = threading.RLock()  # entered itself: link.py says why
        self._changed = threading.Condition(self._guard)
        self._waiting: deque[tuple[Context, Callable[[], object]]] = deque()
        self._alive = self._idle = 0
        self._inside = threading.local()

    def submit(self, context: Context, work: Callable[[], object]) -> bool:
        """False: there is no room for it."""
        with self._guard:
            if len(self._waiting) >= BACKLOG:
                return False
            if len(self._waiting) >= self._idle and self._alive < self._limit() and not self._started():
                return False
            self._waiting.append((context, work))
            self._changed.notify()
        return True

    def runs_here(self) -> bool:
        """Whether the caller is one of these threads, and must not wait for another of them."""
        return getattr(self._inside, "yes", False)

    def _started(self) -> bool:
        try:
            threading.Thread(target=self._run, name="cache-loads", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, or the system has no thread left
            return self._alive > 0
        self._alive += 1
        return True

    def _run(self) -> None:
        self._inside.yes = True
        try:
            while (found := self._next()) is not None:
                _perform(*found)
        finally:
            connections.close_all()

    def _next(self) -> tuple[Context, Callable[[], object]] | None:
        with self._guard:
            while not self._waiting:
                self._idle += 1
                was_told = self._changed.wait(self._idle_s)
                self._idle -= 1
                if not was_told and not self._waiting:
                    self._alive -= 1
                    return None
            return self._waiting.popleft()


def _perform(context: Context, work: Callable[[], object]) -> None:
    """As a request does: without database connections that have died or are too old, before and after."""
    try:
        close_old_connections()
        context.run(work)
        close_old_connections()
    except (
        BaseException
    ) as error:  # nobody waits for it, it may be the SystemExit of a loader; the thread goes on
        log.error("cache_background_failed", error=type(error).__name__, exc_info=error)


def _new() -> Threads:
    return Threads(lambda: conf().REFRESH_THREADS)


threads = _new()


def start(context: Context, work: Coroutine[Any, Any, Any]) -> None:
    """As a task of the running loop, which is held until it is done. It is cancelled with the loop's end."""
    task = asyncio.get_running_loop().create_task(work, name="cache-load", context=context)
    _tasks.add(task)
    task.add_done_callback(_done)


def _done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        log.error("cache_background_failed", error=type(error).__name__, exc_info=error)


def _forked() -> None:
    """In a child: threads do not come along, nor does the parent's loop."""
    global threads
    threads = _new()
    _tasks.clear()


os.register_at_fork(after_in_child=_forked)

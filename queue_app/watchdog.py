"""The watchdog of a process: one thread that rings when a time has come, and the soft time limit built on it.

    call(handler, …, limit_s) → alarm watched → it rings: an exception in the handler's thread → silenced, cleaned up

A soft limit must hit the handler and nothing else: neither what the engine does after the handler has returned, nor the
thread's next run. So an alarm is silenced under the lock it rings under, and what was raised too late is taken back.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from celery.exceptions import SoftTimeLimitExceeded

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 3600.0


class Watched(Protocol):
    """at: by time.monotonic(). `ring` is called once, on the watchdog's thread, unless it was forgotten before."""

    at: float

    def ring(self) -> None: ...


class Watchdog:
    """Watches as many things as run at once. What comes and goes in time costs no wake-up of the thread."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._planned = math.inf  # when the thread looks next; a later time need not wake it
        # Not an Event: the exception that the watchdog raises in a handler's thread may come within `watch`, and in an
        # Event's Python code it would leave the Event locked, and the watchdog deaf. This is one call into C.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, item: Watched) -> None:
        if self._thread is None:
            self._start()  # before anything of this thread's can ring: an exception would meet it half started
        self._watched.add(item)
        if item.at < self._planned:
            self._wake.put(None)

    def forget(self, item: Watched) -> None:
        self._watched.discard(item)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="queue-watchdog", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            while not self._wake.empty():
                self._wake.get()
            self._planned = math.inf  # whoever comes while we look finds this, and wakes us again
            now = time.monotonic()
            for item in [item for item in list(self._watched) if item.at <= now]:
                self._watched.discard(item)
                _ring(item)
            self._planned = min((item.at for item in list(self._watched)), default=math.inf)
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=min(max(self._planned - time.monotonic(), 0), _LONGEST_WAIT_S))


def _ring(item: Watched) -> None:
    try:
        item.ring()
    except Exception:  # the others are still watched
        log.exception("watchdog_failed")


# --- the soft limit --------------------------------------------------------------------------------------------------
def call(function: Callable[..., Any], *arguments: Any, limit_s: float | None) -> Any:
    """function(*arguments), in which SoftTimeLimitExceeded is raised after limit_s seconds; None: never.

    Once the function has returned, its result stands: the exception is not raised any more. On a thread it comes with
    the next Python instruction, so a call that blocks in C delays it; in a pool's child it interrupts such calls too.
    """
    if limit_s is None:
        return function(*arguments)
    results: list[Any] = []
    alarm = _alarm(time.monotonic() + limit_s)
    try:
        try:
            of_this_process().watch(alarm)
            # In C from the function's return into the list: there is no instruction in between at which an exception
            # could lose the result.
            results.extend(itertools.starmap(function, (arguments,)))
        finally:
            alarm.silence()  # which the exception may interrupt as well; it comes once only
            of_this_process().forget(alarm)
    except SoftTimeLimitExceeded:
        if not results:
            raise
    if not results:
        raise RuntimeError("the function raised StopIteration")  # which ended the starmap
    return results[0]


class _Alarm:
    """On a thread: CPython raises the exception there, at its next instruction."""

    def __init__(self, at: float) -> None:
        self.at = at
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._is_over = self._has_rung = False

    def ring(self) -> None:
        with self._lock:
            if not self._is_over:
                self._has_rung = True
                self._raise()

    def silence(self) -> None:
        with self._lock:
            self._is_over = True
            if self._has_rung:
                self._take_back()

    def _raise(self) -> None:
        _set_async_exception(self._thread, SoftTimeLimitExceeded)

    def _take_back(self) -> None:
        _set_async_exception(self._thread, None)


class _MainAlarm(_Alarm):
    """On a main thread, a pool child's: a signal, which also interrupts a blocking call."""

    current: _MainAlarm | None = None
    on_their_way = 0  # signals of ours that were not handled yet

    def __init__(self, at: float) -> None:
        super().__init__(at)
        _install_handler()
        _MainAlarm.current = self

    def _raise(self) -> None:
        _MainAlarm.on_their_way += 1
        signal.pthread_kill(self._thread, signal.SIGUSR1)

    def _take_back(self) -> None:
        """The handler finds that it is over."""

    @classmethod
    def handle(cls, signum: int, frame: Any) -> None:
        # No lock: this interrupts the main thread anywhere, also where it holds the lock.
        if not cls.on_their_way:
            if callable(_stock_handler):  # the pool's own, for a Celery task's soft limit
                _stock_handler(signum, frame)
            return
        cls.on_their_way -= 1
        alarm = cls.current
        if alarm is not None and alarm._has_rung and not alarm._is_over:
            raise SoftTimeLimitExceeded()


_stock_handler: Any = None
_owner: tuple[int, Watchdog] | None = None


def of_this_process() -> Watchdog:
    """This process's: a thread does not survive a fork."""
    global _owner
    if _owner is None or _owner[0] != os.getpid():
        _owner = os.getpid(), Watchdog()
    return _owner[1]


def _alarm(at: float) -> _Alarm:
    return _MainAlarm(at) if threading.current_thread() is threading.main_thread() else _Alarm(at)


def _install_handler() -> None:
    global _stock_handler
    current = signal.getsignal(signal.SIGUSR1)
    if current != _MainAlarm.handle:
        _stock_handler = current
        signal.signal(signal.SIGUSR1, _MainAlarm.handle)


def _set_async_exception(thread: int, exception: type[BaseException] | None) -> None:
    raised = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)

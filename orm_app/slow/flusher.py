"""The thread that stores what this process found, each SLOW_FLUSH_S, from its first finding to its end.

It has its own connections, is never a finding itself, and raises into nobody: what cannot be stored is dropped, counted
and said once a minute.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from datetime import UTC, datetime
from time import monotonic

import structlog
from django.db import Error, connections

from orm_app.conf import conf

from . import capture, finding, planning, stored

log = structlog.get_logger(__name__)

_EXIT_S = 2.0  # that a process waits at its end for its last findings to be stored
_PRUNE_EVERY_S = 60.0
_SAY_EVERY_S = 60.0


class Flusher:
    def __init__(self, *, is_wanted: bool | None = None) -> None:
        self.is_wanted = is_wanted  # None: outside of tests
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pruned_at = self._said_at = -1e9

    def start(self) -> None:
        if self._thread is not None or self._stop.is_set():
            return
        is_wanted = not _is_test() if self.is_wanted is None else self.is_wanted
        if not is_wanted:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="slow-queries", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending
                    return
                self._thread = thread

    def stop(self) -> None:
        thread = self._thread
        self._stop.set()
        if thread is not None:
            thread.join(_EXIT_S)

    def flush(self) -> int:
        """Store what waits, with plans of what was slow. Returns how many findings were stored; never raises."""
        found = finding.findings.take()
        if not found:
            return 0
        with capture.ignored():
            try:
                stored.add(found)
                planning.keep(found)
                self._prune()
            except (Error, OSError) as error:
                finding.findings.drop(len(found))
                self._say("slow_queries_dropped", findings=len(found), error=type(error).__name__)
                return 0
            except Exception as error:  # noqa: BLE001  (the thread must go on)
                self._say("slow_queries_failed", findings=len(found), error=type(error).__name__)
                return 0
        return len(found)

    def _prune(self) -> None:
        if monotonic() - self._pruned_at >= _PRUNE_EVERY_S:
            self._pruned_at = monotonic()
            stored.prune(datetime.now(UTC))

    def _say(self, event: str, **fields: object) -> None:
        if monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = monotonic()
            log.warning(event, **fields)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(conf().SLOW_FLUSH_S)
            self.flush()
            connections.close_all()  # back to their pools until the next time


def _is_test() -> bool:
    """Between Django's setup_test_environment and its end. There the thread would write into the test database beside
    the test: its rows outlive the test, and in a shared database in memory it locks the test out."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def start() -> None:
    flusher.start()


def flush() -> int:
    return flusher.flush()


def _forked() -> None:
    global flusher
    flusher = Flusher(is_wanted=flusher.is_wanted)


flusher = Flusher()
atexit.register(lambda: flusher.stop())
os.register_at_fork(after_in_child=_forked)

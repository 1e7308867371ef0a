"""Something that a process does again and again beside its work, on a thread of its own with its own connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from django.db import connections

log = structlog.get_logger(__name__)

_TELL_AGAIN_S = 30.0  # of a duty that fails time and again: some look twice a second
_JOIN_S = 1.0  # for a duty to come to its end; one that hangs ends with the process


class Duty(threading.Thread):
    """Does `action` again and again until it is stopped, whatever goes wrong in between.

    Between two times it waits for as many seconds as the action answered, or `interval_s` when that was None. is_rare: it
    holds no database connection meanwhile.
    """

    def __init__(
        self, name: str, action: Callable[[], float | None], interval_s: float, *, is_rare: bool = False
    ) -> None:
        super().__init__(name=f"queue-{name}", daemon=True)
        self._action, self._interval_s, self._is_rare = action, interval_s, is_rare
        self._is_stopping, self._woken = False, threading.Event()
        self._failures, self._told_at = 0, 0.0

    def run(self) -> None:
        try:
            wait_s = self._interval_s
            while True:
                self._woken.wait(wait_s)
                self._woken.clear()
                if self._is_stopping:
                    return
                wait_s = self._do()
        finally:
            connections.close_all()

    def hurry(self) -> None:
        """Do it now, or once more when it is at it."""
        self._woken.set()

    def _do(self) -> float:
        try:
            wait_s = self._action()
        except Exception as error:  # noqa: BLE001  (a database or broker that is down comes back)
            self._tell(error)
            connections.close_all()
            wait_s = None
        else:
            if self._failures:
                log.info("duty_goes_on", duty=self.name, failures=self._failures)
                self._failures = 0
        if self._is_rare:
            connections.close_all()
        return self._interval_s if wait_s is None else wait_s

    def _tell(self, error: Exception) -> None:
        self._failures += 1
        now = time.monotonic()
        if self._failures > 1 and now < self._told_at + _TELL_AGAIN_S:
            return
        self._told_at = now
        log.warning(
            "duty_failed", duty=self.name, error=type(error).__name__, reason=str(error)[:200], failures=self._failures,
        )  # fmt: skip

    def stop(self) -> None:
        self._is_stopping = True
        self._woken.set()
        if self.is_alive():
            self.join(_JOIN_S)

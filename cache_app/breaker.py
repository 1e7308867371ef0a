"""A circuit breaker: closed → open after failures in a row → half-open, one probe → closed, or open again. Pure."""

from __future__ import annotations

import threading

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


class Breaker:
    """For one server, shared by all threads and event loops of the process. Times are monotonic seconds.

    A call that `allows` let through ends in exactly one of succeeded, failed, released. While `in_a_row` is 0 nothing
    has to be asked: the hot path looks at that number and at nothing else.
    """

    __slots__ = ("_lock", "_probe_until", "failures", "in_a_row", "open_s", "open_until", "verdict")

    def __init__(self, failures: int = 3, open_s: float = 2.0) -> None:
        """failures: in a row, then it opens. open_s: until one call may try again."""
        self.failures, self.open_s = failures, open_s
        self.reset()

    def reset(self) -> None:
        """As new; a child process after a fork: the thread that held the lock is not in it."""
        self._lock = threading.Lock()
        self.in_a_row = 0
        self.open_until = 0.0
        self._probe_until = 0.0  # by when the probe under way has a verdict, or another one may go
        self.verdict = ""

    def state(self, now: float) -> str:
        if self.in_a_row < self.failures:
            return CLOSED
        return OPEN if now < self.open_until else HALF_OPEN

    def allows(self, now: float) -> bool:
        """False: do not call. While half-open the first one to ask gets True, and is the probe."""
        if self.in_a_row < self.failures:
            return True
        if now < self.open_until or now < self._probe_until:
            return False
        with self._lock:
            if now < self._probe_until:
                return False
            self._probe_until = now + self.open_s
            return True

    def succeeded(self) -> bool:
        """Whether this one closed it."""
        with self._lock:
            was_open = self.in_a_row >= self.failures
            self.in_a_row = 0
            self._probe_until = 0.0
            return was_open

    def failed(self, now: float, verdict: str) -> bool:
        """Whether this one opened it. verdict: for the error of those who are not let through."""
        with self._lock:
            self.in_a_row += 1
            self.verdict = verdict
            if self.in_a_row < self.failures:
                return False
            was_open = self._probe_until > 0.0 or now < self.open_until
            self.open_until = now + self.open_s
            self._probe_until = 0.0
            return not was_open

    def released(self) -> None:
        """The call ended without a verdict on the server (it was cancelled): another one may be the probe."""
        with self._lock:
            self._probe_until = 0.0

    def why(self, now: float) -> str:
        """Empty while closed."""
        if self.in_a_row < self.failures:
            return ""
        left_s = max(0.0, max(self.open_until, self._probe_until) - now)
        return f"{self.in_a_row} failures in a row, the last: {self.verdict}; next attempt in {left_s:.1f} s"

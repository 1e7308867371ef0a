"""When a connection is asked whether it still works, for how long an answer may take, and what it proves. Pure.

All times are monotonic seconds. One question at a time: every ping_s, sooner answered or not at all.
"""

from __future__ import annotations


class Pulse:
    """lease_until: 2 × ping_s after the last question that was answered was sent."""

    def __init__(self, ping_s: float, now: float) -> None:
        """now: before the command was sent whose answer opened the connection."""
        self.lease_until = now + 2 * ping_s
        self._ping_s, self._asks_at = ping_s, now + ping_s
        self._asked_at: float | None = None

    def beats(self, now: float) -> bool:
        """True: ask now."""
        if self._asked_at is None and now >= self._asks_at:
            self._asked_at = now
            return True
        return False

    def answered(self) -> None:
        asked_at = self._asks_at if self._asked_at is None else self._asked_at
        self.lease_until, self._asks_at = asked_at + 2 * self._ping_s, asked_at + self._ping_s
        self._asked_at = None

    def is_silent(self, now: float) -> bool:
        return self._asked_at is not None and now > self._asked_at + 2 * self._ping_s

    def wait_s(self, now: float) -> float:
        """For something to arrive, until there is something else to do."""
        until = self._asks_at if self._asked_at is None else self._asked_at + 2 * self._ping_s
        return max(until - now, 0.001)

"""A circuit breaker: closed → open after consecutive failures → half-open, one probe at a time → closed or
open."""

from __future__ import annotations

from dataclasses import dataclass

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


@dataclass(slots=True)
class Breaker:
    """Every admitted request ends in exactly one of succeeded, failed, released, with the epoch it was
    admitted in.

    A result from before the last change of state says nothing about now and is ignored.
    """

    failures_to_open: int = 5
    cooldown_s: float = 10.0
    failures: int = 0
    opened_at: float = 0.0  # monotonic seconds
    state: str = CLOSED
    epoch: int = 0
    probing: bool = False

    def allows(self, now: float) -> bool:
        if self.state == CLOSED:
            return True
        if self.state == OPEN:
            return now - self.opened_at >= self.cooldown_s
        return not self.probing

    def admit(self, now: float) -> int:
        """Count one request in (after `allows`); returns the epoch to hand back with its result."""
        if self.state == OPEN:
            self._become(HALF_OPEN)
        self.probing = self.state == HALF_OPEN
        return self.epoch

    def succeeded(self, epoch: int) -> None:
        if epoch != self.epoch:
            return
        self.failures = 0
        if self.state == HALF_OPEN:
            self._become(CLOSED)

    def failed(self, epoch: int, now: float) -> None:
        if epoch != self.epoch:
            return
        self.failures += 1
        if self.state == HALF_OPEN or self.failures >= self.failures_to_open:
            self.opened_at = now
            self._become(OPEN)

    def released(self, epoch: int) -> None:
        """The client went away: no verdict, but a probe's place is free again."""
        if epoch == self.epoch:
            self.probing = False

    def wait_s(self, now: float) -> float:
        """Seconds until a probe is let through."""
        return max(0.0, self.cooldown_s - (now - self.opened_at)) if self.state == OPEN else 0.0

    def _become(self, state: str) -> None:
        self.state, self.probing, self.failures = state, False, 0
        self.epoch += 1

"""What active probes have found out about a target: unknown (good until proven bad) → healthy ⇄ unhealthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .policy import Policy

UNKNOWN, HEALTHY, UNHEALTHY = "unknown", "healthy", "unhealthy"
JITTER = 0.1  # of the interval, both ways: targets must not be probed in step


@dataclass(slots=True)
class Health:
    """checked_at, next_at: seconds since the epoch, to show (0.0: never). reason: of the last probe, empty
    when it was good. passes, failures: probes in a row."""

    state: str = UNKNOWN
    reason: str = ""
    checked_at: float = 0.0
    next_at: float = 0.0
    passes: int = 0
    failures: int = 0

    @property
    def usable(self) -> bool:
        return self.state != UNHEALTHY

    def observe(self, fault: str, wall: float, next_at: float, policy: Policy) -> bool:
        """Count one probe in (fault: empty for a good one); whether the state changed."""
        before = self.state
        self.reason, self.checked_at, self.next_at = fault, wall, next_at
        if fault:
            self.passes, self.failures = 0, self.failures + 1
            if self.failures >= policy.unhealthy_after:
                self.state = UNHEALTHY
        else:
            self.passes, self.failures = self.passes + 1, 0
            if before == UNKNOWN or self.passes >= policy.healthy_after:
                self.state = HEALTHY
        return self.state != before

    def why(self) -> str:
        """Empty unless unhealthy."""
        return f"health: {self.reason or 'recovering'}" if self.state == UNHEALTHY else ""


def pause_s(policy: Policy, random: Callable[[], float]) -> float:
    """Until the next probe."""
    return policy.health_interval_s * (1 - JITTER + 2 * JITTER * random())


def statuses(text: str) -> tuple[range, ...]:
    """ "200-299,304" as ranges. Raises ValueError."""
    found = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        low, high = int(first), int(last or first)
        if not 100 <= low <= high <= 599:
            raise ValueError(f"{part.strip()!r} is not a status or a range of statuses")
        found.append(range(low, high + 1))
    return tuple(found)

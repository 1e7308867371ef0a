"""A circuit breaker: closed → open when too much of the last seconds failed or was slow → half-open, a few
probes at a time → closed or open again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from .policy import Policy

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
JITTER = 0.2  # processes that opened together must not probe together
Counts = tuple[int, int, int]  # requests, failures, slow ones


class Breaker:
    """Every request ends in exactly one of succeeded, failed, released, with the epoch it began in.

    A result from before the last change of state says nothing about now and is ignored. Times are monotonic
    seconds.
    """

    __slots__ = (
        "_marks", "_open_s", "_probe_again_at", "_rolls_at", "_verdict", "calls", "changed_at", "epoch",
        "failures", "open_until", "policy", "probing", "random", "slow", "slow_s", "state", "successes",
    )  # fmt: skip

    def __init__(self, policy: Policy | None = None, random: Callable[[], float] = lambda: 0.5) -> None:
        """random: 0 <= x < 1."""
        self.random = random
        self.state = CLOSED
        self.epoch = 0
        self.changed_at = -math.inf
        self.open_until = 0.0
        self.probing = self.successes = 0  # probes under way, and how many went well
        self.calls = self.failures = self.slow = 0  # ever; a window is the difference to its mark
        self._open_s = 0.0  # the last time open, without jitter
        self._probe_again_at = 0.0
        self._verdict = ""
        self._rolls_at = 0.0  # when the current bucket ends
        self.follow(policy or Policy())

    def follow(self, policy: Policy) -> None:
        """Go by this policy from now on; state and counts stay."""
        self.policy = policy
        self.slow_s = policy.breaker_slow_s or math.inf
        # The counts as they were when each of the window's buckets began.
        self._marks: deque[Counts] = deque(getattr(self, "_marks", ((0, 0, 0),)), policy.breaker_buckets)

    def allows(self, now: float) -> bool:
        """Whether a request may go through. One that does while not closed must be `admit`ted."""
        if self.state == CLOSED:
            return True
        if self.state == OPEN:
            return now >= self.open_until
        # A probe may be a WebSocket that stays for hours: its place is not kept for ever.
        return self.probing < self.policy.breaker_probes or now >= self._probe_again_at

    def admit(self, now: float) -> None:
        """Debit the probe budget (after `allows`)."""
        if self.state == OPEN:
            self._become(HALF_OPEN, now)
        if self.state == HALF_OPEN:
            self.probing += 1
            self._probe_again_at = now + self.policy.breaker_open_s

    def counted(self, now: float) -> None:
        """A good and quick answer while closed, in its epoch: nothing to decide. The hot path."""
        if now >= self._rolls_at:
            self._roll(now)
        self.calls += 1

    def succeeded(self, epoch: int, latency_s: float, now: float) -> None:
        if epoch != self.epoch:
            return
        slow = latency_s > self.slow_s
        if self.state == HALF_OPEN:
            self._probed(not slow, now, f"a probe took {latency_s:.3g} s")
            return
        self.counted(now)
        if slow:
            self.slow += 1
            self._judge(now)

    def failed(self, epoch: int, now: float) -> None:
        if epoch != self.epoch:
            return
        if self.state == HALF_OPEN:
            self._probed(False, now, "a probe failed")
            return
        self.counted(now)
        self.failures += 1
        self._judge(now)

    def released(self, epoch: int) -> None:
        """The client went away: no verdict, but a probe's place is free again."""
        if epoch == self.epoch and self.probing:
            self.probing -= 1

    def wait_s(self, now: float) -> float:
        """Seconds until a request may be let through."""
        if self.allows(now):
            return 0.0
        return max(0.0, (self.open_until if self.state == OPEN else self._probe_again_at) - now)

    def why(self, now: float) -> str:
        """Empty while closed."""
        for_s = f"since {max(0.0, now - self.changed_at):.0f} s"
        if self.state == OPEN:
            return f"open {for_s}: {self._verdict}; next probe in {self.wait_s(now):.1f} s"
        if self.state == HALF_OPEN:
            needed = self.policy.breaker_successes
            return (
                f"half-open {for_s}: {self.successes} of {needed} probes went well, {self.probing} under way"
            )
        return ""

    def _probed(self, good: bool, now: float, verdict: str) -> None:
        if not good:
            self._open(now, verdict)
            return
        self.probing -= 1
        self.successes += 1
        if self.successes >= self.policy.breaker_successes:
            self._become(CLOSED, now)

    def _judge(self, now: float) -> None:
        calls, failures, slow = self._marks[0]
        calls, failures, slow = self.calls - calls, self.failures - failures, self.slow - slow
        policy = self.policy
        if calls < policy.breaker_volume:
            return
        if policy.breaker_error_ratio and failures >= calls * policy.breaker_error_ratio:
            self._open(now, f"{failures} of {calls} requests failed")
        elif slow and slow >= calls * policy.breaker_slow_ratio:
            self._open(now, f"{slow} of {calls} requests took longer than {policy.breaker_slow_s:g} s")

    def _open(self, now: float, verdict: str) -> None:
        """Longer each time, until it has stayed closed for a whole window."""
        policy = self.policy
        again = self.state == HALF_OPEN or now - self.changed_at < policy.breaker_window_s
        self._open_s = min(policy.breaker_open_max_s, self._open_s * 2 if again else policy.breaker_open_s)
        self._open_s = max(self._open_s, policy.breaker_open_s)
        self.open_until = now + self._open_s * (1 - JITTER + 2 * JITTER * self.random())
        self._verdict = verdict
        self._become(OPEN, now)

    def _become(self, state: str, now: float) -> None:
        self.state, self.changed_at = state, now
        self.epoch += 1
        self.probing = self.successes = 0
        self._marks.clear()
        self._marks.append((self.calls, self.failures, self.slow))
        self._rolls_at = now + self._bucket_s()

    def _roll(self, now: float) -> None:
        bucket_s = self._bucket_s()
        passed = int((now - self._rolls_at) / bucket_s) + 1
        for _ in range(min(passed, self.policy.breaker_buckets)):
            self._marks.append((self.calls, self.failures, self.slow))
        self._rolls_at += passed * bucket_s

    def _bucket_s(self) -> float:
        return self.policy.breaker_window_s / self.policy.breaker_buckets

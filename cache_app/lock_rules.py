"""Who holds a lock and who is next: the rules of lua/lock_*.lua for locks that are kept without Redis. Pure.

Times are seconds of one clock that never goes back. A told waiter has GRACE_S to come for its turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

GRACE_S = 0.5

Tell = Callable[[str], bool]  # wakes the waiter with this token; False: its process is not there any more


@dataclass(frozen=True, slots=True)
class Ask:
    """One attempt. arrival: what the answer to an earlier one said, 0 for the first. waits: it wants a place in the queue."""

    token: str
    lease_s: float
    fifo: bool
    arrival: float = 0
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """fence: of the grant; 0 = refused, and then retry_s says when it is worth looking again without having been told.

    before: how many stand before it.
    """

    fence: int
    retry_s: float = 0.0
    arrival: float = 0
    before: int = 0


@dataclass(slots=True)
class Turns:
    """The state of one name. A token is `process:number`."""

    owner: str = ""
    ends: float = 0.0
    fence: int = 0
    queue: dict[str, float] = field(default_factory=dict)  # token → arrival
    told: str = ""
    told_at: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.owner and not self.queue

    def is_held(self, now: float) -> bool:
        return bool(self.owner) and now < self.ends

    def attempt(self, ask: Ask, now: float, tell: Tell, fence: Callable[[], int]) -> Answer:
        """fence: makes the number of a new grant."""
        if self.owner == ask.token and self.is_held(now):
            self.ends = now + ask.lease_s
            return Answer(self.fence)
        if not self.is_held(now):
            self.owner = ""
            if not ask.fifo or self._is_next(ask, now, tell):
                return self._granted(ask, now, fence())
        return self._refused(ask, now)

    def free(self, token: str, now: float, tell: Tell) -> bool:
        """False: it was not this owner's any more."""
        if not self.is_held(now) or self.owner != token:
            return False
        self.owner = ""
        self.wake(now, tell)
        return True

    def leave(self, token: str, now: float, tell: Tell) -> None:
        self.queue.pop(token, None)
        if self.owner == token or not self.is_held(now):
            self.owner = ""
            self.wake(now, tell)

    def extend(self, token: str, lease_s: float, now: float) -> bool:
        if not self.is_held(now) or self.owner != token:
            return False
        self.ends = now + lease_s
        return True

    def wake(self, now: float, tell: Tell) -> str:
        """Tell the first waiter to come, and no other; "" where there is none. One that did not come loses its turn."""
        while self.queue:
            first = self._first()
            if self.told == first:
                if now - self.told_at < GRACE_S:
                    return first
            elif tell(first):
                self.told, self.told_at = first, now
                return first
            self._forget(first)
        return ""

    def _is_next(self, ask: Ask, now: float, tell: Tell) -> bool:
        first = self._first()
        if first in ("", ask.token) or 0 < ask.arrival < self.queue[first]:
            return True
        return self.wake(now, tell) in (
            "",
            ask.token,
        )  # the lease ended without a release: nobody has told it

    def _granted(self, ask: Ask, now: float, fence: int) -> Answer:
        self.queue.pop(ask.token, None)
        self.owner, self.ends, self.fence = ask.token, now + ask.lease_s, fence
        return Answer(fence)

    def _refused(self, ask: Ask, now: float) -> Answer:
        left_s = self.ends - now if self.owner else self.told_at + GRACE_S - now
        if not ask.waits:
            return Answer(0, left_s)
        arrival = ask.arrival or max(now, math.nextafter(max(self.queue.values(), default=0.0), math.inf))
        self.queue[ask.token] = arrival
        if self.told == ask.token:  # it came
            self.told = ""
        before = sum(other < arrival for other in self.queue.values())
        return Answer(0, staggered_s(left_s, before), arrival, before)

    def _first(self) -> str:
        return min(self.queue, key=self.queue.__getitem__, default="")

    def _forget(self, token: str) -> None:
        """All of its process; they come back by themselves, in their old places, if it is alive after all."""
        stem = token.partition(":")[0] + ":"
        for known in [known for known in self.queue if known.startswith(stem)]:
            del self.queue[known]


def staggered_s(left_s: float, before: int) -> float:
    """When a lease runs out unfreed, the waiters look one after the other instead of all at once."""
    return max(left_s, 0.001) + min(before, 100) * 0.002

"""How many jobs a rate lets start now, and how many may be on their way to the workers at once. Pure.

A rate is a bucket that holds `burst` jobs and fills by `count` in each period, told by one moment: until when it is used
up (GCRA). A job is let go before it starts, and workers may be away meanwhile; so what has been let go and has not
started yet takes up room in the bucket: in any t seconds no more than burst + count · t / period jobs start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_EARLY = 1e-6  # of a job; sums of floats
AHEAD_S = (
    0.05  # what workers get through in this time waits with them, so that no slot waits for the governor
)
PACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Rate:
    """count: starts in each period. burst: that may start at once; None: those of a tenth of a second, 1 at least."""

    count: int
    period_s: float
    burst: int | None = None

    @property
    def interval_s(self) -> float:
        return self.period_s / self.count

    @property
    def capacity(self) -> int:
        return max(1, math.ceil(0.1 / self.interval_s)) if self.burst is None else self.burst


def used_to(rate: Rate, before_s: float | None, now_s: float, *, unstarted: int) -> float:
    """Until when the rate is used up, seen now. before_s: as the last look left it; unstarted: what that look had let go
    and not seen start. It may have started this moment: the bucket was not fuller than its room until now.
    """
    emptied = now_s + unstarted * rate.interval_s
    if before_s is None:
        return emptied
    # Fuller than full it is when the rate was a slower one then: 10 an hour, all used, would hold 1,000 a second up for an hour.
    return max(min(before_s, now_s + rate.capacity * rate.interval_s), emptied)


def allowed(rate: Rate, used_to_s: float, now_s: float) -> int:
    """How many more may be let go now."""
    ahead_s = now_s + rate.capacity * rate.interval_s - used_to_s
    return max(0, math.floor(ahead_s / rate.interval_s + _EARLY))


def wait_s(rate: Rate, used_to_s: float, now_s: float) -> float:
    """Seconds until one may be let go."""
    return max(0.0, used_to_s + (1 - rate.capacity) * rate.interval_s - now_s)


def paced(pace: float, ended: int, elapsed_s: float) -> float:
    """Ends per second, as seen over the last PACE_S or so: `pace` before, and `ended` since then."""
    return pace * math.exp(-max(elapsed_s, 0.0) / PACE_S) + ended / PACE_S


def under_way(slots: int, *, held: int, ended: int, pace: float) -> int:
    """Jobs that may have a turn at once where nothing else limits them: those that run and a few that wait with them.

    slots: of all workers. held: turns now. ended: turns given back since the last look that gave any. Workers that got
    through all they had until this look get twice that, however slow `pace` is to follow.
    """
    ahead = pace * AHEAD_S
    if not held:
        ahead = max(ahead, 2.0 * ended - slots)
    return slots + max(1, int(ahead))

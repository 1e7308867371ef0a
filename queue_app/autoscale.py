"""How many worker processes the queues need: from backlog, rates and the latency that is wanted.

    sights → throughput, arrivals, what one process gets done → processes that keep up and clear the backlog in time

By Little's law: whoever comes now waits for the backlog, which `n` processes work off in backlog / (n × capacity) seconds.
Pure: clock and counts are the caller's.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

WINDOW_S = 30.0  # of sights that rates are read from: some heartbeats of the workers
_WEIGHT = 0.3  # of the newest measurement in the running mean of a process's capacity
_SPARE = 1.1  # processes that are exactly enough never catch up


@dataclass(frozen=True, slots=True)
class Goal:
    """latency_s: that a job waits at most. least, most: processes. hold_s: fewer only after this long without a need."""

    latency_s: float
    least: int
    most: int
    hold_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.latency_s < math.inf:
            raise ValueError(f"latency {self.latency_s:g} s is not a positive number of seconds")
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(f"from {self.least} to {self.most} is no range of processes")
        if not 0 <= self.hold_s < math.inf:
            raise ValueError(f"hold {self.hold_s:g} s is not a number of seconds")


@dataclass(frozen=True, slots=True)
class Sight:
    """at: seconds by a steady clock. backlog: jobs that wait and are due. oldest_s: how long the oldest of them has waited.

    ended: jobs that ended so far, in all `processes` together; it only grows while they are the same.
    """

    at: float
    backlog: int
    oldest_s: float
    ended: int
    processes: int


class Autoscaler:
    """Of one fleet. Up at once, by as much again at most; down to what was needed at most within `hold_s`."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._sights: deque[Sight] = deque()
        self._needs: deque[tuple[float, int]] = deque()
        self._since = math.inf  # of the first sight: what was needed before it nobody knows
        self.capacity: float | None = None  # jobs a second of one busy process

    def wanted(self, now: Sight) -> int:
        """Processes that should run."""
        self._see(now)
        need = self._bounded(self._need(now))
        self._needs.append((now.at, need))
        while self._needs[0][0] < now.at - self._goal.hold_s:
            self._needs.popleft()
        if need > now.processes:
            return min(need, self._bounded(max(1, now.processes * 2)))
        if now.at - self._since < self._goal.hold_s:
            return self._bounded(now.processes)
        return min(self._bounded(now.processes), max(need for _, need in self._needs))

    def _see(self, now: Sight) -> None:
        self._since = min(self._since, now.at)
        self._sights.append(now)
        while self._sights[0].at < now.at - WINDOW_S:
            self._sights.popleft()
        measured = self._measured()
        if measured is not None:
            old = self.capacity
            self.capacity = measured if old is None else old + _WEIGHT * (measured - old)

    def _measured(self) -> float | None:
        """What one process has got done a second, while all of them were busy throughout the window."""
        seconds = ended = 0.0
        for before, after in pairwise(self._sights):
            if min(before.backlog, after.backlog) > 0 and min(before.processes, after.processes) > 0:
                seconds += (after.at - before.at) * before.processes
                ended += max(0, after.ended - before.ended)
        return ended / seconds if seconds > 0 and ended > 0 else None

    def _need(self, now: Sight) -> int:
        if self.capacity is None:  # nothing has been measured yet: one more whenever they are late
            is_late = now.oldest_s > self._goal.latency_s / 2 or (now.backlog and not now.processes)
            return now.processes + 1 if is_late else now.processes if now.backlog else 0
        wanted_per_s = self._arrivals_per_s(now) + now.backlog / self._goal.latency_s
        need = math.ceil(wanted_per_s * _SPARE / self.capacity)
        # Late is late, whatever the measurements promise.
        return max(need, now.processes + 1) if now.oldest_s > self._goal.latency_s else need

    def _arrivals_per_s(self, now: Sight) -> float:
        first = self._sights[0]
        seconds = now.at - first.at
        if seconds <= 0:
            return 0.0
        ended = sum(max(0, after.ended - before.ended) for before, after in pairwise(self._sights))
        return max(0.0, (ended + now.backlog - first.backlog) / seconds)

    def _bounded(self, processes: int) -> int:
        return max(self._goal.least, min(self._goal.most, processes))

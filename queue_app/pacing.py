"""How many jobs a replay may let go now, so that its rate holds whoever works it off and however often it looks."""

from __future__ import annotations

from typing import NamedTuple

LARGEST = 1000  # in one transaction


class Allowance(NamedTuple):
    """used_s: how much of the time that has passed the jobs take up; the rest is carried to the next look."""

    jobs: int
    used_s: float


def allowance(rate: float | None, passed_s: float, *, look_s: float) -> Allowance:
    """rate: jobs per second; None: as fast as it goes. passed_s: since the last look that let any go.

    Time in which nobody looked, but for one look's worth, is lost and not made up for: a leader that comes back after a
    minute must not let go a minute's worth at once.
    """
    if rate is None:
        return Allowance(LARGEST, max(passed_s, 0.0))
    longest_s = max(2 * look_s, 1 / rate)
    counted_s = min(max(passed_s, 0.0), longest_s)
    jobs = min(int(rate * counted_s + 1e-6), LARGEST)
    missed_s = max(passed_s - counted_s, 0.0)
    return Allowance(jobs, jobs / rate + missed_s if jobs else 0.0)

"""How long things took, as counts in buckets that grow by a tenth each: small to keep, exact to add up.

Bucket 0 holds up to 1 ms; bucket i holds (1.1^(i-1), 1.1^i] ms. A quantile read from them is off by at most 4.8 % of its
value (ERROR), below 1 ms by at most 1 ms, however many histograms were added up first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LOWEST_S = 0.001
GROWTH = 1.1
ERROR = (GROWTH - 1) / (GROWTH + 1)
LAST = 240  # 100 days; what took longer is in it too
QUANTILES = (0.5, 0.95, 0.99)

Histogram = dict[int, int]  # bucket → how many; empty buckets are left out


def bucket(seconds: float) -> int:
    """The bucket of a duration. The statements that count say the same in SQL."""
    if seconds <= LOWEST_S:
        return 0
    return min(LAST, math.ceil(math.log(seconds / LOWEST_S) / math.log(GROWTH)))


def upper_s(number: int) -> float:
    """The longest duration that this bucket holds, in seconds."""
    return float(LOWEST_S * GROWTH**number)


def add(into: Histogram, more: Mapping[int, int]) -> None:
    for number, count in more.items():
        into[number] = into.get(number, 0) + count


def quantile(histogram: Mapping[int, int], share: float) -> float | None:
    """The duration in seconds that `share` (0 to 1) of them do not pass; None of an empty histogram."""
    total = sum(histogram.values())
    if not total:
        return None
    rank, seen = max(1, math.ceil(share * total)), 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= rank:
            return _middle_s(number)
    raise AssertionError("unreachable: the counts add up to the total")


def quantiles(histogram: Mapping[int, int]) -> dict[str, float | None]:
    """{"p50": seconds, "p95": …, "p99": …}"""
    return {f"p{share * 100:.0f}": quantile(histogram, share) for share in QUANTILES}


def to_json(histogram: Mapping[int, int]) -> dict[str, int]:
    return {str(number): histogram[number] for number in sorted(histogram)}


def from_json(stored: Mapping[str, int]) -> Histogram:
    return {int(number): count for number, count in stored.items()}


def _middle_s(number: int) -> float:
    """As far from the bucket's lower end as from its upper one, in shares of the value."""
    return LOWEST_S if number == 0 else 2 * upper_s(number) / (GROWTH + 1)


@dataclass(slots=True)
class Tally:
    """What happened in a span of time. failed: runs that will be tried again; wait_s, run_s: sums in seconds."""

    started: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    wait: Histogram = field(default_factory=dict)
    wait_s: float = 0.0
    run: Histogram = field(default_factory=dict)
    run_s: float = 0.0

    @classmethod
    def of(cls, sums: Sequence[float], wait: Histogram, run: Histogram) -> Tally:
        """sums: in the order of SUMMED."""
        started, completed, failed, dead, cancelled, wait_s, run_s = sums
        return cls(
            int(started), int(completed), int(failed), int(dead), int(cancelled), wait, wait_s, run, run_s
        )

    def add(self, more: Tally) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(more, name))
        add(self.wait, more.wait)
        add(self.run, more.run)
        self.wait_s += more.wait_s
        self.run_s += more.run_s

    def note(self, state: str, number: int | None, count: int, total_s: float) -> None:
        """Count steps to `state` that have the same bucket; None: there is nothing to measure, as of a job cancelled unrun."""
        name = _COUNT_OF[state]
        setattr(self, name, getattr(self, name) + count)
        if number is None:
            return
        number = min(max(number, 0), LAST)
        if name == "started":
            add(self.wait, {number: count})
            self.wait_s += total_s
        else:
            add(self.run, {number: count})
            self.run_s += total_s

    @property
    def failure_share(self) -> float | None:
        """0 to 1: of the runs that ended, those that failed; None when none has ended."""
        ended = self.completed + self.failed + self.dead
        return (self.failed + self.dead) / ended if ended else None


_COUNT_OF = {
    "PROCESSING": "started",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "DEAD_LETTER": "dead",
    "CANCELLED": "cancelled",
}
COUNTS = tuple(_COUNT_OF.values())
SUMMED = (*COUNTS, "wait_s", "run_s")


def total(tallies: Iterable[Tally]) -> Tally:
    found = Tally()
    for tally in tallies:
        found.add(tally)
    return found

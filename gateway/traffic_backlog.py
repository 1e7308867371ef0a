"""What a process has counted and Redis has not got yet, by minute. Bounded: Redis may be away for hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from operator import sub

from .tally import UNROUTED
from .traffic_report import ANONYMOUS, OTHER, Field

TOP_CONSUMERS = 100  # of one interval; the others are counted as one
MAX_ROWS = 20_000
MAX_MINUTES = 180

Change = tuple[str, Sequence[float], Sequence[float]]
"""A route, its counts by FINE_S before and now, which both end with a sum of seconds."""


@dataclass(slots=True)
class Minute:
    """times: route → bucket → requests."""

    counts: dict[Field, int] = field(default_factory=dict)
    times: dict[str, dict[int, int]] = field(default_factory=dict)


class Backlog:
    """dropped: requests that are lost. When there are too many rows, new consumers and the latencies of new routes are
    counted under "other"; when there are too many minutes, the oldest goes."""

    def __init__(self, *, max_rows: int = MAX_ROWS, max_minutes: int = MAX_MINUTES) -> None:
        self.minutes: dict[int, Minute] = {}
        self.rows = self.dropped = 0
        self._max_rows, self._max_minutes = max_rows, max_minutes

    def add(self, number: int, counts: Mapping[Field, int], changes: Sequence[Change]) -> None:
        """number: of the minute, since the epoch."""
        minute = self.minutes.setdefault(number, Minute())
        for key, count in _named(counts).items():
            self._count(minute, key, count)
        for route, before, now in changes:
            self._time(minute, route, [int(more) for more in map(sub, now[:-1], before)])
        if len(self.minutes) > self._max_minutes:
            oldest = self.minutes.pop(min(self.minutes))
            self.rows -= len(oldest.counts) + len(oldest.times)
            self.dropped += sum(oldest.counts.values())

    def take(self) -> list[tuple[int, Minute]]:
        """All of it, the oldest minute first."""
        found, self.minutes, self.rows = sorted(self.minutes.items()), {}, 0
        return found

    def _count(self, minute: Minute, key: Field, count: int) -> None:
        route, _, kind = key
        for row in (key, (route, OTHER, kind)):
            if row in minute.counts or self.rows < self._max_rows:
                self.rows += row not in minute.counts
                minute.counts[row] = minute.counts.get(row, 0) + count
                return
        self.dropped += count

    def _time(self, minute: Minute, route: str, more: Sequence[int]) -> None:
        if route not in minute.times:
            if self.rows >= self._max_rows:
                route = OTHER
            self.rows += route not in minute.times
        known = minute.times.setdefault(route, {})
        for bucket, count in enumerate(more):
            if count:
                known[bucket] = known.get(bucket, 0) + count


def _named(counts: Mapping[Field, int]) -> dict[Field, int]:
    """With the busiest consumers by name and the others as one; with a name for no consumer and no route."""
    by_consumer: dict[str, int] = {}
    for (_, consumer, _), count in counts.items():
        by_consumer[consumer] = by_consumer.get(consumer, 0) + count
    # By name where as many: processes then choose the same ones.
    top = set(nlargest(TOP_CONSUMERS, by_consumer, key=lambda name: (by_consumer[name], name)))
    found: dict[Field, int] = {}
    for (route, consumer, kind), count in counts.items():
        named = (consumer or ANONYMOUS) if consumer in top else OTHER
        key = (route or UNROUTED, named, kind if 1 <= kind <= 5 else 0)
        found[key] = found.get(key, 0) + count
    return found

"""Whose turn it is: weighted turns over the tenants of a queue, by start-time fair queueing.

Each tenant has a position, which every job moves on by 1 / weight; the lowest one is next. So of tenants that all have
jobs waiting each gets its weight's share, and one with a hundred thousand jobs is passed by one with ten. Who was away
comes back at most CREDIT jobs ahead of the others: a few jobs of a tenant that asks for little do not wait behind a
backlog, and nobody saves turns up.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

CREDIT = 8  # jobs


class Claimant(NamedTuple):
    """A tenant with jobs waiting. room: as many as its limits allow now."""

    name: str
    weight: int
    position: float
    room: int


def share(claimants: Sequence[Claimant], slots: int, *, position: float) -> dict[str, int]:
    """How many of `slots` jobs each tenant gets by turns. position: of the queue, see `advanced`."""
    heap = [(start(who, position), who.name, who) for who in claimants if who.room > 0]
    heapq.heapify(heap)
    jobs: dict[str, int] = {}
    while heap and slots > 0:
        at, name, who = heap[0]
        jobs[name] = jobs.get(name, 0) + 1
        slots -= 1
        if jobs[name] < who.room:
            heapq.heapreplace(heap, (at + 1 / who.weight, name, who))
        else:
            heapq.heappop(heap)
    return jobs


def start(who: Claimant, position: float) -> float:
    """Where the tenant stands before its next job."""
    return max(who.position, position - CREDIT / who.weight)


def advanced(who: Claimant, jobs: int, position: float) -> tuple[float, float]:
    """(the tenant's position, the queue's) after the tenant got so many. The queue is where the last turn began."""
    begun = start(who, position)
    last = begun + (jobs - 1) / who.weight if jobs else position
    return begun + jobs / who.weight, max(position, last)

"""Enqueue: one process, no workers; single calls and many at a time, against stock Celery's apply_async."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

from benchmarks.figures import Figure, judged, median, paired

from . import recorder
from .plan import Plan, say
from .sides import PEERS, SIDES
from .stage import Running

_WARM_UP = 50  # connections, caches, prepared statements


@dataclass(frozen=True, slots=True)
class Way:
    side: str
    do: str  # of the producer
    times: int  # as many jobs as the size says, this often: a fast way needs more to be measured


SINGLE, MANY = partial(Way, do="single", times=1), partial(Way, do="bulk", times=10)
STOCK = SINGLE("celery")
PAIRS: tuple[tuple[str, Way, float | None], ...] = (
    ("enqueue, a row and its message", SINGLE("ledger-pg"), 0.7),
    ("enqueue_many(500)", MANY("ledger-pg"), 10.0),
    ("enqueue, a row and its message", SINGLE("ledger-sqlite"), None),
    ("enqueue_many(500)", MANY("ledger-sqlite"), None),
    ("delay() of a plain task", SINGLE("broker"), None),
)


def figures(plan: Plan) -> list[Figure]:
    found = []
    for name, way, goal in PAIRS if plan.wants(STOCK.side) else ():
        if plan.goals_only and goal is None:
            continue
        if len(plan.available((way.side, STOCK.side))) == 2:
            what = f"{name}: {SIDES[way.side].title} vs apply_async"
            found += plan.attempt(what, partial(_pair, plan, way, what, goal))
    for key in plan.available([peer.key for peer in PEERS]):
        found += plan.attempt(f"enqueue: {SIDES[key].title}", partial(_alone, plan, key))
    return found + recorder.figures(plan)


def _pair(plan: Plan, way: Way, what: str, goal: float | None) -> list[Figure]:
    say(f"{what} …")
    sides = plan.up(way.side, STOCK.side, processes=0)
    rates: list[list[float]] = [[], []]
    for number in range(plan.size.pairs):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            rates[index].append(_rate(sides[index], (way, STOCK)[index], plan.size.enqueued))
    names = [f"{SIDES[each.side].title}, {each.do}" for each in (way, STOCK)]
    return [paired(what, (names[0], rates[0]), (names[1], rates[1]), "/s", goal)]


def _alone(plan: Plan, key: str) -> list[Figure]:
    (side,) = plan.up(key, processes=0)
    rates = [_rate(side, SINGLE(key), plan.size.enqueued) for _ in range(plan.size.pairs)]
    title = side.side.title
    return [judged(f"enqueue: {title}", statistics.median(rates), "/s", None, {title: median(rates, "/s")})]


def _rate(side: Running, way: Way, jobs: int) -> float:
    side.enqueue(way.do, _WARM_UP)
    count = jobs * way.times
    return count / float(side.enqueue(way.do, count)["seconds"])

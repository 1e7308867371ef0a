"""Drain: a full queue, warm workers; jobs per second and CPU per job, pair by pair in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.figures import Figure, judged, median, paired

from .plan import LABELS, Plan, Size, say
from .rates import jobs_for
from .sides import SIDES
from .stage import Drain, Running

_PROBE = 400  # jobs: they warm a side up, and tell how many keep it busy for long enough


@dataclass(frozen=True, slots=True)
class Pair:
    """goal: of the no-op jobs' ratio; with 1 ms of work eight slots bound every side alike, so there is none."""

    ours: str
    theirs: str
    goal: float | None


# In an order that lets a side stay up from pair to pair.
PAIRS = (
    Pair("ledger-sqlite", "celery", 8.0),
    Pair("ledger-stock", "celery", 0.9),
    Pair("ledger-pg", "celery", 4.0),
    Pair("broker-bare", "celery", None),
    Pair("broker", "celery", 3.5),
    Pair("broker", "broker-bare", 0.8),
    Pair("broker", "dramatiq", 1.0),
    Pair("broker", "huey", 1.0),
    Pair("broker", "taskiq", 1.0),
    Pair("broker", "bullmq", 1.0),
    Pair("broker", "rq", None),
    Pair("broker", "arq", None),
    Pair("broker", "django_q2", None),
    Pair("broker-prefork", "celery-prefork", 2.0),
    Pair("broker-amqp", "celery-amqp", 0.85),
    Pair("ledger-pg", "procrastinate", 10.0),
    Pair("ledger-pg", "django_tasks_db", None),
)


def figures(plan: Plan) -> list[Figure]:
    found = []
    for pair in PAIRS:
        if not plan.wants(pair.theirs) or (plan.goals_only and pair.goal is None):
            continue
        there = plan.available((pair.ours, pair.theirs))
        for task in plan.size.tasks if there else ():
            what = f"drain {LABELS[task]}: {' vs '.join(SIDES[key].title for key in there)}"
            found += plan.attempt(what, partial(_measured, plan, pair, there, task, what))
    return found


def _measured(plan: Plan, pair: Pair, there: Sequence[str], task: str, what: str) -> list[Figure]:
    say(f"{what} …")
    sides = plan.up(*there)
    drains = in_turns(sides, task, plan.size)
    if len(sides) == 2:
        return _compared(what, sides, drains, pair.goal if task == "noop" else None)
    rates = [drain.per_s for drain in drains[0]]  # the other one is not there
    return [judged(what, statistics.median(rates), "/s", None, {sides[0].side.title: _both(drains[0])})]


def in_turns(sides: Sequence[Running], task: str, size: Size) -> list[list[Drain]]:
    """The drains of each side, a round at a time: A B, B A, …"""
    counts = [jobs_for(side.drain(task, _PROBE).per_s, size.drain_s) for side in sides]
    drains: list[list[Drain]] = [[] for _ in sides]
    for number in range(size.pairs):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            drains[index].append(sides[index].drain(task, counts[index]))
    return drains


def _compared(
    what: str, sides: Sequence[Running], drains: Sequence[Sequence[Drain]], goal: float | None
) -> list[Figure]:
    titles = [side.side.title for side in sides]
    rates = [[drain.per_s for drain in each] for each in drains]
    costs = [[drain.worker_us + drain.server_us for drain in each] for each in drains]
    cheaper = statistics.median(theirs / mine for mine, theirs in zip(*costs, strict=True))
    split = dict(zip(titles, map(_cpu, drains), strict=True))
    return [
        paired(what, (titles[0], rates[0]), (titles[1], rates[1]), "/s", goal),
        judged(f"{what}: CPU a job, times less", cheaper, "x", None, split),
    ]


def _cpu(drains: Sequence[Drain]) -> str:
    worker = statistics.median(drain.worker_us for drain in drains)
    server = statistics.median(drain.server_us for drain in drains)
    return f"worker {worker:,.0f} + server {server:,.0f} µs"


def _both(drains: Sequence[Drain]) -> str:
    return f"{median([drain.per_s for drain in drains], '/s')}; {_cpu(drains)}"

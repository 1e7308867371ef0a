"""Latency: 50 jobs a second, from the enqueue call to the handler's first line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks.figures import Figure, judged, median

from .plan import Plan, say
from .rates import percentile
from .sides import CELERY, PEERS, SIDES
from .stage import Running

RATE = 50.0  # jobs per second
SHARES = {"p50": 0.5, "p99": 0.99}
GOALS_MS = {  # of p50 and p99
    "broker": (3.0, 8.0),
    "ledger-pg": (5.0, 16.0),
    "ledger-sqlite": (5.0, 16.0),
}


def figures(plan: Plan) -> list[Figure]:
    """Ours and stock Celery are up together and take turns; then one peer after another."""
    ours, stock = plan.available(tuple(GOALS_MS)), plan.available(("celery",))
    others = () if plan.goals_only else (*CELERY[1:], *PEERS)
    rest = plan.available([side.key for side in others])
    found = []
    for group in filter(None, [(*ours, *stock), *((key,) for key in rest)]):
        names = ", ".join(SIDES[key].title for key in group)
        found += plan.attempt(f"latency: {names}", partial(_together, plan, group, names))
    return found


def _together(plan: Plan, keys: Sequence[str], names: str) -> list[Figure]:
    say(f"latency at {RATE:.0f} jobs/s: {names} …")
    sides = plan.up(*keys)
    rounds = [
        [_round(side, plan.size.latency_jobs) for side in sides] for _ in range(plan.size.latency_rounds)
    ]
    return [
        figure
        for side, measured in zip(sides, zip(*rounds, strict=True), strict=True)
        for figure in _judged(side, measured)
    ]


def _round(side: Running, jobs: int) -> dict[str, float]:
    latencies = side.latencies_ms(jobs, RATE)
    return {name: percentile(latencies, share) for name, share in SHARES.items()}


def _judged(side: Running, rounds: Sequence[dict[str, float]]) -> list[Figure]:
    goals = GOALS_MS.get(side.side.key, (None, None))
    found = []
    for name, goal in zip(SHARES, goals, strict=True):
        values = [each[name] for each in rounds]
        text = {side.side.title: median(values, "ms")}
        what = f"latency {name}: {side.side.title}"
        found.append(judged(what, statistics.median(values), "ms", goal, text, at_most=True))
    return found

"""Rollups: what the statistics cost, by the same drain with BRAIN["QUEUE"]["ROLLUPS"] on and off, in turns.

They are counted some seconds behind, by one of the workers. So a drain lasts long enough for that to happen in it, and each
side rests until all is counted, before the other one's turn: the CPU of the rest is in its cost.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.figures import Figure, judged, median, paired

from .plan import Plan, say
from .rates import jobs_for
from .stage import Running

KEYS = ("ledger-pg", "ledger-uncounted")
_PROBE = 2_000
_MOST = 200_000  # jobs in a drain
_REST_S = 15.0  # counting is 5 to 10 s behind
_KEPT = 0.95  # goal: of the rate, and of the CPU


def figures(plan: Plan) -> list[Figure]:
    return plan.attempt("rollups", lambda: _measured(plan))


def _measured(plan: Plan) -> list[Figure]:
    say("drain with the statistics and without …")
    sides = plan.up(*KEYS)
    counts = [jobs_for(side.drain("noop", _PROBE).per_s, plan.size.rollup_s, high=_MOST) for side in sides]
    rates: list[list[float]] = [[], []]
    costs: list[list[float]] = [[], []]
    for number in range(plan.size.pairs):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            per_s, cost_us = _drained(sides[index], min(counts))
            rates[index].append(per_s)
            costs[index].append(cost_us)
    titles = [side.side.title for side in sides]
    cheaper = statistics.median(off / on for on, off in zip(*costs, strict=True))
    split = {title: median(each, "µs") for title, each in zip(titles, costs, strict=True)}
    return [
        paired("drain with statistics", (titles[0], rates[0]), (titles[1], rates[1]), "/s", _KEPT),
        judged("CPU a job with statistics, times less", cheaper, "x", _KEPT, split),
    ]


def _drained(side: Running, count: int) -> tuple[float, float]:
    """Jobs per second, and microseconds of CPU a job until all is counted; filling the queue is in neither."""
    drain = side.drain("noop", count)
    before_s = side.worker_cpu_s() + side.server_cpu_s()
    time.sleep(_REST_S)
    rest_us = (side.worker_cpu_s() + side.server_cpu_s() - before_s) / count * 1e6
    return drain.per_s, drain.worker_us + drain.server_us + rest_us

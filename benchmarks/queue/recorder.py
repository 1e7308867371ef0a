"""The recorder alone: events per second from a full stream into PostgreSQL."""

from __future__ import annotations

import statistics

from benchmarks.figures import Figure, judged, median

from .plan import Plan, say

KEY = "recorder"
_GOAL_PER_S = 30_000
_EVENTS = 2  # of a job: published, completed with its start


def figures(plan: Plan) -> list[Figure]:
    return plan.attempt("recorder", lambda: [_measured(plan)]) if plan.available((KEY,)) else []


def _measured(plan: Plan) -> Figure:
    jobs = plan.size.recorded
    say(f"recorder: {jobs * _EVENTS:,} events …")
    (side,) = plan.up(KEY, processes=0)
    rates = []
    for _ in range(plan.size.pairs):
        side.enqueue("bulk", jobs)
        rates.append(jobs * _EVENTS / side.enqueue("single", 1)["seconds"])
    middle = statistics.median(rates)
    text = {side.side.title: median(rates, "/s")}
    return judged("recorder: events into PostgreSQL", middle, "/s", _GOAL_PER_S, text)

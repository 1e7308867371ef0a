"""Fifty routes against thousands: the same requests, to fifty routes of each table."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.figures import Figure

from . import asked, rows
from .plan import Contest, Plan
from .sides import BRAIN, Settings

PART, GOAL = "routes", 1.1


def figures(plan: Plan) -> list[Figure]:
    many = f"{plan.size.many_routes:,} routes"
    few = f"{asked.ROUTES} routes"
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        contest.enter(BRAIN, key=few)
        contest.enter(BRAIN, Settings(routes=plan.size.many_routes), key=many)
        samples = contest.samples(PART, plan.requests())
    found = [rows.side(PART, key, samples[key]) for key in samples]
    if len(samples) < 2:
        return found
    what = f"{PART}: CPU a request with {many}, times that with {few}"
    return [rows.at_most(what, rows.cpu(many, samples[many]), rows.cpu(few, samples[few]), GOAL), *found]

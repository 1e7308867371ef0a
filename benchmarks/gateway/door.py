"""The DRF door: our site and the usual view under the same server, the same Django, the same interpreter."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.figures import Figure

from . import rows
from .plan import Contest, Plan
from .sides import DOORS, USUAL, Side

PART, GOAL = "door", 2.0
CONNECTIONS = 8  # as many as there are threads


def figures(plan: Plan) -> list[Figure]:
    return [
        figure
        for ours, theirs in zip(DOORS, USUAL, strict=True)
        for figure in plan.attempt(ours.title, partial(_pair, plan, ours, theirs))
    ]


def _pair(plan: Plan, ours: Side, theirs: Side) -> list[Figure]:
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        contest.enter(ours)
        contest.enter(theirs)
        samples = contest.samples(PART, plan.requests(), connections=CONNECTIONS)
    found = [rows.side(PART, contest.title(key), samples[key]) for key in samples]
    if len(samples) < 2:
        return found
    what = f"{PART}: CPU a request, times better than the {theirs.title}"
    mine, other = (rows.cpu(side.title, samples[side.key]) for side in (ours, theirs))
    return [rows.times_better(what, mine, other, GOAL), *found]

"""Tokens that are all different: each one is verified, none is found in a cache."""

from __future__ import annotations

from benchmarks.figures import Figure

from . import asked, rows
from .plan import Plan, contested
from .sides import BRAIN, SIDES

PART = "tokens"
GOALS = {"envoy": 1.5, "haproxy": None}  # times ours; HAProxy checks the signature alone


def figures(plan: Plan) -> list[Figure]:
    sides = (BRAIN, *(SIDES[key] for key in GOALS))
    samples, titles = contested(plan, PART, sides, plan.requests(asked.distinct_tokens))
    found = []
    for key, goal in GOALS.items() if BRAIN.key in samples else ():
        if key in samples:
            what = f"{PART}: CPU a request, times better than {titles[key]}"
            ours, theirs = rows.cpu(BRAIN.title, samples[BRAIN.key]), rows.cpu(titles[key], samples[key])
            found.append(rows.times_better(what, ours, theirs, goal))
    return found + [rows.side(PART, titles[key], samples[key]) for key in samples]

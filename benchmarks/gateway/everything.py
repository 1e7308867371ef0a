"""Everything on: token, role, leased limit, three targets, breaker, figures and 50 routes, against each peer at its most."""

from __future__ import annotations

from benchmarks.figures import Figure

from . import rows
from .measure import Sample
from .plan import Plan, contested
from .sides import BRAIN, PEERS, USUAL

PART = "everything"
AT_MOST = {"haproxy": 1.6, "nginx": 2.2}  # times their CPU per request
AT_LEAST = {"envoy": 2.5, "traefik": 2.5, **{side.key: 80.0 for side in USUAL}}  # times ours


def figures(plan: Plan) -> list[Figure]:
    sides = (BRAIN, *PEERS)
    samples, titles = contested(plan, PART, sides, plan.requests())
    found = [rows.side(PART, titles[key], samples[key]) for key in samples]
    return _compared(samples, titles) + found


def _compared(samples: dict[str, list[Sample]], titles: dict[str, str]) -> list[Figure]:
    if BRAIN.key not in samples:
        return []
    ours, found = rows.cpu(BRAIN.title, samples[BRAIN.key]), []
    for key, goal in AT_MOST.items():
        if key in samples:
            what = f"{PART}: CPU a request, times that of {titles[key]}"
            found.append(rows.at_most(what, ours, rows.cpu(titles[key], samples[key]), goal))
    for key, goal in AT_LEAST.items():
        if key in samples:
            what = f"{PART}: CPU a request, times better than {titles[key]}"
            found.append(rows.times_better(what, ours, rows.cpu(titles[key], samples[key]), goal))
    return found

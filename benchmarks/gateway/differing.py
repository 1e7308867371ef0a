"""Headers that differ in every request and answer, so that nothing that was read before is of use."""

from __future__ import annotations

from benchmarks.figures import Figure

from . import asked, rows
from .plan import Plan, contested
from .sides import BRAIN, SIDES

PART = "differing"
PEERS = ("haproxy", "nginx")


def figures(plan: Plan) -> list[Figure]:
    sides = (BRAIN, *(SIDES[key] for key in PEERS))
    samples, titles = contested(plan, PART, sides, plan.requests(asked.differing))
    found = []
    for key in PEERS if BRAIN.key in samples else ():
        if key in samples:
            what = f"{PART}: CPU a request, times that of {titles[key]}"
            ours, theirs = rows.cpu(BRAIN.title, samples[BRAIN.key]), rows.cpu(titles[key], samples[key])
            found.append(rows.at_most(what, ours, theirs, None))
    return found + [rows.side(PART, titles[key], samples[key]) for key in samples]

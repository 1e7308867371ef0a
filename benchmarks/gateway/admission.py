"""Over-admission: two edges whose clocks disagree, one limit, twenty times the load that it lets through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.figures import Figure, judged
from benchmarks.processes import Broken

from . import asked, configuration, credentials, measure, paced, proof, sides
from .plan import START_S, Plan, say

PART = "admission"
LIMIT_PER_S, OFFERED_PER_S = 50, 1_000.0
CONNECTIONS = 8  # to each edge
ENOUGH = 0.8  # of what the limit lets through has to be admitted: refusing everything is no merit


@dataclass(frozen=True, slots=True)
class Case:
    """burst: the bucket's size; a small one leaves nothing to lease. at_random: which edge a request goes to."""

    burst: int
    at_random: bool

    def __str__(self) -> str:
        return f"burst {self.burst}, {'at random' if self.at_random else 'in turn'}"


CASES = tuple(Case(burst, at_random) for burst in (10, 500) for at_random in (False, True))


def figures(plan: Plan) -> list[Figure]:
    found = []
    for burst in dict.fromkeys(case.burst for case in CASES):
        cases = [case for case in CASES if case.burst == burst]
        for skew_ms in plan.size.skews_ms:
            found += plan.attempt(
                f"{PART}: clocks {skew_ms} ms apart, burst {burst}",
                partial(_pair, plan, burst, skew_ms, cases),
            )
    return found


def _pair(plan: Plan, burst: int, skew_ms: int, cases: list[Case]) -> list[Figure]:
    with ExitStack() as stack:
        settings = sides.Settings(plan=configuration.per_second(LIMIT_PER_S, burst))
        site = sides.site(plan.ground, stack, settings)
        edges = [sides.edge(plan.ground, stack, site, ahead_s=ahead / 1e3) for ahead in (0, skew_ms)]
        for edge in edges:
            edge.process.wait_for(proof.serves(edge.port), START_S)
        return [_offered(plan, case, skew_ms, tuple(edge.port for edge in edges)) for case in cases]


def _offered(plan: Plan, case: Case, skew_ms: int, ports: tuple[int, ...]) -> Figure:
    folder = plan.ground.folder("requests")
    # A subject of its own: its bucket is full and nobody else's.
    token = credentials.token(subject=f"case-{folder.name}")
    requests = asked.write(folder / "requests", asked.paths(1), [token])
    pace = paced.Plan(ports, str(requests), OFFERED_PER_S, plan.size.offered_s, CONNECTIONS, case.at_random)
    served = plan.ground.upstream.settled()
    said = measure.at_rate(pace)
    return judge(
        f"{PART}: clocks {skew_ms} ms apart, {case}", case, said, plan.ground.upstream.settled() - served
    )


def judge(name: str, case: Case, said: Mapping[str, Any], served: int) -> Figure:
    """How many more were admitted than the bucket held and got, from the first request to the last answer.

    Raises Broken when the load was not what it was to be, or too little was admitted for this to say anything.
    """
    statuses = {int(status): count for status, count in said["statuses"].items()}
    admitted = statuses.get(200, 0)
    allowed = math.floor(case.burst + LIMIT_PER_S * said["seconds"])
    if not set(statuses) <= {200, 429} or served != admitted:
        raise Broken(f"{served} requests reached the upstream; the answers were {statuses}")
    if admitted < ENOUGH * allowed:
        raise Broken(f"only {admitted} of {allowed} requests that the limit allows were admitted")
    say(f"{name}: {admitted} admitted, {allowed} allowed")
    seen = {"admitted": str(admitted), "allowed": str(allowed), "offered": str(said["sent"])}
    return judged(name, max(0, admitted - allowed), "over", 0.0, seen, at_most=True)

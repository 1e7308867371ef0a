"""Latency: one connection that sends as soon as it is answered; and at half of our full load, what the gateway adds."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Figure, judged, median
from benchmarks.processes import Broken

from . import measure, paced, rows
from .plan import Contest, Plan, say
from .sides import BRAIN, PEERS, SIDES, USUAL

PART = "latency"
OVER_NGINX_US, ADDED_MS = 120.0, 2.0
DIRECT = "no gateway"


def figures(plan: Plan) -> list[Figure]:
    return [
        *plan.attempt(f"{PART} at one connection", lambda: _one_connection(plan)),
        *plan.attempt(f"{PART} at half load", lambda: _half_load(plan)),
    ]


def _one_connection(plan: Plan) -> list[Figure]:
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        for side in (BRAIN, *(peer for peer in PEERS if peer not in USUAL)):
            contest.enter(side)
        samples = contest.samples(f"{PART}, one connection", plan.requests(), connections=1)
        titles = {key: contest.title(key) for key in samples}
    p50 = {key: (titles[key], [sample.p50_us for sample in samples[key]]) for key in samples}
    found = [rows.side(f"{PART}, one connection", titles[key], samples[key]) for key in samples]
    if not {BRAIN.key, "nginx"} <= samples.keys():
        return found
    what = f"{PART}: p50 at one connection, above that of {titles['nginx']}"
    return [rows.more(what, p50[BRAIN.key], p50["nginx"], "µs", OVER_NGINX_US), *found]


def _half_load(plan: Plan) -> list[Figure]:
    """The same rate to the upstream itself, to us and to nginx, in turns."""
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        for side in (BRAIN, SIDES["nginx"]):
            contest.enter(side)
        if BRAIN.key not in contest.up:
            return []
        requests = plan.requests()
        upstream = plan.ground.upstream
        full = measure.saturated(contest.up[BRAIN.key][1], upstream, requests, plan.size.load_s)
        rate = round(full.per_s / 2)
        ports = {DIRECT: upstream.ports[0]} | {key: started.port for key, (_, started) in contest.up.items()}
        titles = {DIRECT: DIRECT} | {key: contest.title(key) for key in contest.up}
        seen = _paced(plan, ports, requests, rate)
    added = [
        rows.more(
            f"{PART}: p99 added at {rate:,}/s, half load", seen[BRAIN.key], seen[DIRECT], "ms", ADDED_MS
        )
    ]
    others = [key for key in seen if key not in (DIRECT, BRAIN.key)]
    return added + [
        judged(
            f"{PART}: p99 at {rate:,}/s, {titles[key]}",
            statistics.median(seen[key][1]),
            "ms",
            None,
            {titles[key]: median(seen[key][1], "ms")},
        )
        for key in others
    ]


def _paced(plan: Plan, ports: dict[str, int], requests: Path, rate: int) -> dict[str, rows.Named]:
    keys, found = list(ports), {key: list[float]() for key in ports}
    for turn in measure.in_turns(len(keys), plan.size.passes):
        for key in (keys[number] for number in turn):
            served = plan.ground.upstream.settled()
            pace = paced.Plan((ports[key],), str(requests), rate, plan.size.paced_s, measure.CONNECTIONS)
            said = measure.at_rate(pace)
            measure.all_arrived(said, plan.ground.upstream.settled() - served)
            if said["seconds"] > plan.size.paced_s * 1.05 + 0.2:
                raise Broken(
                    f"{rate}/s took {said['seconds']:.1f} s instead of {plan.size.paced_s:.0f}: it is no half load"
                )
            found[key].append(said["p99_us"] / 1e3)
            say(f"{PART} at {rate}/s: {key}: p99 {said['p99_us'] / 1e3:.2f} ms")
    return {key: (key, values) for key, values in found.items()}

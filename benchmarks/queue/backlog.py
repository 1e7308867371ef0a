"""Backlog: a long queue against a short one, the pauses between jobs along it, and memory over many jobs."""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.figures import Figure, judged, median

from .plan import Plan, say
from .rates import pauses_ms, percentile
from .sides import SIDES
from .stage import Running

SIDES_MEASURED = ("ledger-pg", "broker")
SHORT_RUNS = 5  # short drains for each long one: a tenth of a second says little
PARTS = 5
RAMP = 500  # the same before short and long
_NO_SLOWER, _FLAT, _NO_LARGER = 0.9, 1.25, 1.1  # goals: of the rate, of the pauses, of the memory
_MEMORY_STEPS = 10


def figures(plan: Plan) -> list[Figure]:
    found = []
    for key in plan.available(SIDES_MEASURED):
        title = SIDES[key].title
        found += plan.attempt(f"backlog: {title}", partial(_lengths, plan, key, title))
        found += plan.attempt(f"memory: {title}", partial(_memory, plan, key, title))
    return found


def _lengths(plan: Plan, key: str, title: str) -> list[Figure]:
    short, long = plan.size.backlog
    say(f"backlog of {long:,} jobs: {title} …")
    (side,) = plan.up(key)
    short_rates, long_rates, pauses = [], [], list[tuple[float, float]]()
    for _ in range(plan.size.backlog_pairs):
        short_rates.append(
            statistics.median(side.drain("noop", short, RAMP).per_s for _ in range(SHORT_RUNS))
        )
        drain = side.drain("noop", long, RAMP)
        long_rates.append(drain.per_s)
        first, last = (percentile(pauses_ms(drain.entered_ns, part, PARTS), 0.99) for part in (0, PARTS - 1))
        pauses.append((first, last))
    rates = {f"{long:,} jobs": median(long_rates, "/s"), f"{short:,} jobs": median(short_rates, "/s")}
    kept = statistics.median(many / few for many, few in zip(long_rates, short_rates, strict=True))
    grown = statistics.median(last / max(first, 0.001) for first, last in pauses)
    parts = {"last fifth": median([last for _, last in pauses], "ms")}
    parts |= {"first fifth": median([first for first, _ in pauses], "ms")}
    return [
        judged(f"backlog: {title}, {long:,} jobs vs {short:,}", kept, "x", _NO_SLOWER, rates),
        judged(f"backlog: {title}, p99 pause before a job", grown, "x", _FLAT, parts, at_most=True),
    ]


def _memory(plan: Plan, key: str, title: str) -> list[Figure]:
    jobs = plan.size.memory_jobs
    say(f"memory over {jobs:,} jobs: {title} …")
    (side,) = plan.up(key)
    side.drain("noop", jobs // _MEMORY_STEPS)
    before = _megabytes(side)
    for _ in range(_MEMORY_STEPS):
        side.drain("noop", jobs // _MEMORY_STEPS)
    after = _megabytes(side)
    text = {"after": f"{after:,.1f} MB", "before": f"{before:,.1f} MB"}
    what = f"memory of the workers: {title}, after {jobs:,} jobs"
    return [judged(what, after / before, "x", _NO_LARGER, text, at_most=True)]


def _megabytes(side: Running) -> float:
    return side.memory_bytes() / 1e6

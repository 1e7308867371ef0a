"""Idle: what eight workers without a job cost, ours and stock Celery's in the same seconds."""

from __future__ import annotations

import statistics
import time

from benchmarks.figures import Figure, judged, median

from .plan import Plan, say
from .stage import Running

WORKERS = 8  # processes of one thread
_STEADY_S = 2.0  # after the warm-up


def figures(plan: Plan) -> list[Figure]:
    keys = plan.available(("ledger-pg", "celery"))
    return plan.attempt("idle workers", lambda: _pair(plan, keys)) if len(keys) == 2 else []


def _pair(plan: Plan, keys: list[str]) -> list[Figure]:
    say(f"idle: {WORKERS} workers each …")
    sides = plan.up(*keys, processes=WORKERS, threads=1)
    time.sleep(_STEADY_S)
    windows = [_window(sides, plan.size.idle_s) for _ in range(plan.size.pairs)]
    found = []
    for what, index, goal in (("workers", 0, 1.0), ("their servers", 1, None)):
        ours, theirs = ([window[side][index] for window in windows] for side in (0, 1))
        # A tick of CPU is 10 ms: an idle side may well show none.
        value = statistics.median(ours) / max(statistics.median(theirs), 0.1)
        text = {
            side.side.title: median(each, "ms/s") for side, each in zip(sides, (ours, theirs), strict=True)
        }
        name = f"idle CPU of {WORKERS} workers: {what}, share of stock's"
        found.append(judged(name, value, "x", goal, text, at_most=True))
    return found


def _window(sides: list[Running], seconds: float) -> list[tuple[float, float]]:
    """Milliseconds of CPU per second, workers and servers, of each side."""
    before, began = _read(sides), time.monotonic()
    time.sleep(seconds)
    after, took = _read(sides), time.monotonic() - began
    return [
        ((late[0] - early[0]) / took * 1e3, (late[1] - early[1]) / took * 1e3)
        for early, late in zip(before, after, strict=True)
    ]


def _read(sides: list[Running]) -> list[tuple[float, float]]:
    return [(side.worker_cpu_s(), side.server_cpu_s()) for side in sides]
